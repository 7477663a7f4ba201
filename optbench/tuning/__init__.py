"""Tuning as part of the protocol: a declared budget, the same for every optimizer, spent before evaluation.

:mod:`~optbench.suite.tuning_section` is what a suite declares, :mod:`~optbench.tuning.search` spends it,
:mod:`~optbench.tuning.journal` is what a store keeps of it.
"""
