"""Readers of what other tools wrote: any table or log, read right or refused, every decision noted."""
