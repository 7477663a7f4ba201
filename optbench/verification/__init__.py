"""Conformance of optimizers, parity of backends, and what a machine and a trial trained again show."""
