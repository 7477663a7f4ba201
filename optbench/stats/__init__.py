"""Paired statistics on tidy tables; every function names its source, its exactness and its limits.

The modules are imported one by one (``from optbench.stats.paired import signed_rank``): importing this
package loads nothing. ``compare`` runs the whole decision procedure.
"""
