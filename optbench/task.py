"""The words of what a trial is asked and measured by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field
from pathlib import Path

#: Set as ``__pydantic_config__`` on the frozen dataclasses that a suite file can name: a misspelt key is an
#: error rather than ignored, and so is a number that is not finite.
FORBID_EXTRA = {"extra": "forbid", "allow_inf_nan": False}
#: What every trial has; a metric of one's own takes none of these names.
BUILT_IN = ("test_accuracy", "test_loss", "val_accuracy", "val_loss", "train_loss")


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric of the user's own; its name and code are part of a trial's identity, its direction is not.

    Attributes
    ----------
    name : str
        As in ``test_<name>``.
    reference : str
        ``file.py:function`` or ``package.module:function``.
    code : str
        What identifies the code: ``sha256:...`` of the file, or ``name==version`` of the package.
    minimise : bool
        Smaller is better.
    directory : Path, optional
        Where a file is looked for; the working directory otherwise.
    """

    __pydantic_config__ = FORBID_EXTRA

    name: str
    reference: str
    code: str
    minimise: bool = field(default=False, compare=False)
    directory: InitVar[Path | None] = None

    def __post_init__(self, directory: Path | None) -> None:
        object.__setattr__(self, "_directory", directory)


def maximised(metric: str, own: Iterable[Metric] = ()) -> bool:
    """Tell whether larger is better: not for a name in ``loss`` or ``error``, nor one declared so.

    Examples
    --------
    >>> maximised("test_accuracy"), maximised("val_loss"), maximised("test_calibration_error_best")
    (True, False, False)
    """
    name = re.sub(r"_(best|last)$", "", metric)
    bare = re.sub(r"^(test|val)_", "", name)
    return not name.endswith(("loss", "error")) and not any(m.minimise and m.name == bare for m in own)
