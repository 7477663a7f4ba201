"""Reports: leaderboards, tables, plots and pages from frames and statistics."""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    """Lets the package be called: ``optbench.report`` is both this package and the function of the API."""

    def __call__(self, *suites: Any, **options: Any) -> Any:
        from optbench import api

        return api.report(*suites, **options)


sys.modules[__name__].__class__ = _Callable
