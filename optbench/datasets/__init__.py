"""Datasets: what they are, where their bytes come from, how they are split."""
