"""Simulations of the claims of docs/statistics.md, one table each."""
