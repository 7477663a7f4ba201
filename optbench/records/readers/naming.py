"""How files, columns and states get their names: what a user says with --pattern, --map, --failed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optbench.errors import UserError
from optbench.records.readers.names import ROLES, bare, plain
from optbench.suite.validation import shown
from optbench.task import DEFAULT_TASK, NAMES, known

#: Columns of a history, as records have them.
HISTORY = DEFAULT_TASK.history
#: What a name means by itself. Keras's ``loss`` is the mean over an epoch's batches in training mode; its
#: ``accuracy`` is so too, for which a record has no column, so that it needs a --map.
ALIASES: Mapping[str, str] = {
    "loss": "batch_loss",
    "learning_rate": "lr",
    **{
        f"{part}_{word}": f"{part}_accuracy"
        for part in ("val", "test")
        for word, metric in NAMES.items()
        if metric.name == "accuracy"
    },
}
#: What tools call the parts of the data.
_PARTS = {
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "eval": "val",
    "evaluation": "val",
    "testing": "test",
}
FACTS = ("dataset", "model", "optimizer", "seed")
#: What --map may make of a column beside a metric.
TARGETS = frozenset((*ROLES, "lr", "backend", "device", "reached", "time", "budget"))


class LogError(UserError, ValueError):
    """A log or table that cannot be read; the message names file and field, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Naming:
    """How files and columns get their names.

    Attributes
    ----------
    pattern : str, optional
        Path of a log below the folder given, with ``{dataset}``, ``{model}``, ``{optimizer}`` and ``{seed}``
        where they stand, as in ``{dataset}/{optimizer}-{seed}.csv``; ``*`` stands for anything. The name of a
        run, where a table or tool names its runs.
    given : mapping
        The same facts where the path does not say.
    names : mapping
        Metric, or fact such as ``optimizer``, by the name in the log; an empty one leaves the name out.
    first_epoch : int
        Epoch of a log's first row: 1, or 0 if it was written before the first step.
    failed : mapping of str to frozenset of str
        Words that mean a failed run, by column; all other words of that column mean success.
    point : str, optional
        Decimal point of numbers, ``.`` or ``,``; by the file if not given.
    line : str, optional
        What a line of a plain-text log looks like, as in ``step:{step} val_loss:{val_loss}``.
    kind : str, optional
        Format of all files, of :data:`optbench.records.readers.formats.FORMATS`; each file says by itself if
        not given.
    """

    pattern: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    first_epoch: int = 1
    failed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    point: str | None = None
    line: str | None = None
    kind: str | None = None
    #: Names of ``names`` that were met; one that nothing has is a slip.
    met: set[str] = field(default_factory=set, compare=False, repr=False)

    def meet(self, found: Iterable[str]) -> None:
        """Note which of the names of --map a file has."""
        self.met.update(name for name in found if name in self.names)

    def check_met(self, where: str) -> None:
        """Refuse a --map whose name nothing has: it would be ignored in silence."""
        for name in self.names:
            if name not in self.met:
                raise LogError(f"{where}: --map: found {name!r}; no column, tag or metric here is called so")

    def metric(self, name: str) -> str | None:
        """Metric that a name means, or None."""
        if name in self.names:
            self.met.add(name)
            return self.names[name] if self.names[name] not in TARGETS - {"lr"} else None
        text = bare(name)[0]
        text = re.sub(r"^epoch_(?=val_|test_|train_|loss|acc)", "", text)
        head, _, rest = text.partition("_")
        if head in _PARTS and rest:
            text = f"{_PARTS[head]}_{rest}"
        tail = text.rpartition("_")
        if tail[2] in _PARTS and tail[0] and head not in ("train", "val", "test"):
            text = f"{_PARTS[tail[2]]}_{tail[0]}"
        elif tail[2] in ("val", "test", "train") and tail[0] and head not in ("train", "val", "test"):
            text = f"{tail[2]}_{tail[0]}"
        found = ALIASES.get(text, text)
        if found in HISTORY or (found.startswith("test_") and not _is_fact(found)):
            return found
        if found.startswith("val_") and (like := known(found)) is not None and like.direction is not None:
            return found if like.unit not in ("seconds", "count") and "throughput" not in like.name else None
        return None

    def facts(
        self, path: Path, below: Path, *, run: str = "", known: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Dataset, model, optimizer and seed of a log.

        Parameters
        ----------
        path, below : Path
            The log, and the folder that was given.
        run : str
            The tool's name of the run; the pattern is matched with it, and else with the path.
        known : mapping, optional
            What the log itself says, which options complete.
        """
        found = {**self.given, **{k: v for k, v in (known or {}).items() if v not in (None, "")}}
        if self.pattern is not None:
            found |= self.matched(path, below, run=run)
        missing = [name for name in ("dataset", "optimizer", "seed") if found.get(name) in (None, "")]
        if missing:
            raise LogError(
                f"{path}: {missing[0]}: not known; give --{missing[0]}, or a --pattern that says where it "
                "stands in the path, as in '{dataset}/{optimizer}-{seed}.csv'"
            )
        return {"model": "", **found, "seed": seed_number(found["seed"], path)}

    def matched(self, path: Path, below: Path, *, run: str = "") -> dict[str, str]:
        """What the pattern finds in a run's name or a log's path."""
        relative = path.relative_to(below).as_posix() if path != below else path.name
        # The pattern of the folders alone, where the tool names the files.
        parts = relative.split("/")
        folders = ("/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
        for text in (run, relative, *folders):
            if (found := self.fits(text)) is not None:
                return found
        looked = " and ".join(repr(text) for text in (run, relative) if text)
        raise LogError(f"{path}: does not fit --pattern {self.pattern!r} (looked at {looked})")

    def fits(self, text: str) -> dict[str, str] | None:
        """What the pattern finds in a text; None where it does not fit."""
        match = self._regex.fullmatch(text) if text else None
        return None if match is None else {name: value.strip() for name, value in match.groupdict().items()}

    @property
    def _regex(self) -> re.Pattern[str]:
        parts = re.split(r"(\{\w+\}|\*)", self.pattern or "")
        known = {f"{{{name}}}": name for name in FACTS}
        text, seen = "", set()
        for part in parts:
            if part in known:
                text += f"(?P={known[part]})" if part in seen else f"(?P<{known[part]}>[^/]+?)"
                seen.add(part)
            elif re.fullmatch(r"\{\w+\}", part):
                raise LogError(f"--pattern: found {part}; allowed are {', '.join(known)}")
            else:
                text += ".*?" if part == "*" else re.escape(part)
        return re.compile(text)

    def failures(self, column: str) -> frozenset[str] | None:
        """Words that --failed gives for a column, whatever its case."""
        return next((words for name, words in self.failed.items() if plain(name) == plain(column)), None)


def _is_fact(name: str) -> bool:
    """Whether a name says how much was tested, or how fast, and not how well."""
    metric = known(name)
    if metric is not None:
        return metric.unit in ("seconds", "count") or metric.name == "throughput"
    return (
        re.search(r"_(num_examples|num_samples|samples|examples|size|runtime|step|epoch)$", name) is not None
    )


def seed_number(found: Any, path: Path) -> int:
    """Turn a seed into a whole number from 0."""
    try:
        number = float(found)
        if number.is_integer() and 0 <= number < 2**53:
            return int(number)
    except (TypeError, ValueError):
        pass
    raise LogError(f"{path}: seed: found {shown(found)}; a whole number from 0 belongs here")
