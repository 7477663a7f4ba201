"""The decision procedure: paired tests, effects, corrections and verdicts on tidy tables."""
