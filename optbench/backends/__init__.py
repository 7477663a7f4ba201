"""Engines that train: one folder a framework, behind the contract of :mod:`optbench.backends.base`."""
