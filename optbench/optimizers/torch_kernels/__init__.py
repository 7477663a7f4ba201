"""Kernels of :class:`optbench.optimizers.torch.WAME`: plain PyTorch, C++ on a CPU, Triton on a GPU."""
