"""optbench: is this optimizer better than that one, by how much, how sure are we, and at what cost?"""

__version__ = "0.1.0"
