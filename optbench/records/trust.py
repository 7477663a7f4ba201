"""Code that a record names. Reading a store never runs any; training one of its trials again would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optbench.errors import UserError
from optbench.records.store import StoredTrial
from optbench.suite.references import ImportProblem, file_digest, identify, is_file


class UntrustedError(UserError):
    """Code that a store names and that was not allowed to run, or that is not what was recorded."""


@dataclass(frozen=True, kw_only=True)
class NamedCode:
    """Code that a record names.

    Attributes
    ----------
    what : str
        ``optimizer``, ``metric <name>``, ``model`` or ``data``.
    reference : str
        ``file.py:name`` or ``package.module:name``.
    code : str or None
        What identified it when the trial ran: ``sha256:...`` of the file, or ``name==version`` of the
        package; None where the record has no such fact.
    """

    what: str
    reference: str
    code: str | None

    def words(self, folder: Path) -> str:
        """Say what would run, and whether it is what ran then, as far as that is known without importing."""
        return f"{self.what} {self.reference} ({self._state(folder)})"

    def changed(self, folder: Path) -> str | None:
        """Say how the code differs from what was recorded; None where it is the same, or none was recorded.

        A package may be imported to find it: only for code that may run.
        """
        try:
            found = identify(self.reference, folder)
        except ImportProblem as error:
            return str(error)
        if self.code is not None and found != self.code:
            return f"{self.reference} was {self.code} and is {found}"
        return None

    def _state(self, folder: Path) -> str:
        if not is_file(self.reference):
            return self.code or "its version was not recorded"
        path = folder / self.reference.rpartition(":")[0]
        try:
            found = file_digest(path)
        except OSError:
            return f"no such file: {path}"
        if self.code is None:
            return f"{found[:19]}; its digest was not recorded"
        return f"{found[:19]}, as recorded" if found == self.code else "its content has changed since"


def named_code(spec: Mapping[str, Any], *, data_only: bool = False) -> tuple[NamedCode, ...]:
    """List the code that a trial runs beside optbench's own, by its recorded spec; runs none.

    Parameters
    ----------
    spec : mapping
        Of a stored trial.
    data_only : bool
        Only what makes its data, not what trains it.
    """
    workload = spec["workload"]
    found = []
    if not data_only and spec["optimizer"].get("optimizer") == "custom":
        found.append(("optimizer", spec["optimizer"].get("reference"), spec["optimizer"].get("code")))
    if not data_only:
        found += [
            (f"metric {metric.get('name')}", metric.get("reference"), metric.get("code"))
            for metric in workload.get("metrics") or ()
        ]
    layers = workload.get("model", {}).get("layers") or ()
    if not data_only:
        found += [
            ("model", layer.get("reference"), layer.get("code"))
            for layer in layers
            if isinstance(layer, Mapping) and layer.get("kind") == "own"
        ]
    dataset = workload["dataset"]
    if isinstance(dataset, Mapping) and dataset.get("kind") == "class":
        found.append(("data", dataset.get("location"), dataset.get("code") or dataset.get("file_digest")))
    return tuple(NamedCode(what=what, reference=str(reference), code=code) for what, reference, code in found)


def check_trust(trial: StoredTrial, *, folder: Path, trust: bool, data_only: bool = False) -> None:
    """Refuse to run code that a record names, unless the user trusts it and it is what was recorded.

    Parameters
    ----------
    trial : StoredTrial
    folder : Path
        Where files of the trial's code are looked for.
    trust : bool
        Whether the user has said that this code may run.
    data_only : bool
        As for :func:`named_code`.

    Raises
    ------
    UntrustedError
        The message lists what would run.
    """
    codes = named_code(trial.spec, data_only=data_only)
    if not codes:
        return
    if not trust:
        listed = "\n".join(f"  {code.words(folder)}" for code in codes)
        raise UntrustedError(
            f"trial {trial.trial_id}: this would run code that its store names:\n{listed}\n"
            "It has all your rights. Read it, then give the same command with --trust"
        )
    for code in codes:
        if (how := code.changed(folder)) is not None:
            raise UntrustedError(
                f"trial {trial.trial_id}: {code.what}: {how}; nothing was run: bring back what it was"
            )
