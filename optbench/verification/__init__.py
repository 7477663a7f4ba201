"""Parts of :mod:`optbench.verify`: problems, the optimizers of each framework, and the checks."""
