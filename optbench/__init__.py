"""optbench: is this optimizer better than that one, by how much, how sure are we, and at what cost?

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optbench.api import compare, load_results, load_suite, make_suite, report
    from optbench.execution.running import run

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "load_results", "load_suite", "make_suite", "report", "run"]


def __getattr__(name: str) -> Any:
    if name == "run":  # without what reports need
        from optbench.execution.running import run

        return run
    if name in __all__:
        from optbench import api

        return getattr(api, name)
    raise AttributeError(f"module 'optbench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
