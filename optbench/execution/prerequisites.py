"""What a suite needs and this machine lacks, reported before anything is trained."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from optbench import backends
from optbench.datasets import registry
from optbench.environment import pip_hint
from optbench.suite.spec import Suite
from optbench.suite.validation import one_line
from optbench.trial import OwnData

#: Time limit of an import, in seconds.
IMPORT_LIMIT = 120.0
_IMPORT = (
    "import sys, pathlib; from optbench.suite.references import load_object; "
    "load_object(sys.argv[1], pathlib.Path(sys.argv[2]))"
)


def missing(suite: Suite, *, data_dir: Path | None = None) -> list[str]:
    """List what a run of a suite lacks: data, frameworks, custom code that imports.

    Parameters
    ----------
    suite : Suite
    data_dir : Path, optional
        Folder in which data are looked for first.

    Returns
    -------
    list of str
        One sentence each, with the remedy; empty where a run can begin. Custom code is imported
        in another process, which it may end.
    """
    return [*_data(suite, data_dir), *_frameworks(suite), *_code(suite)]


def _data(suite: Suite, data_dir: Path | None) -> Iterator[str]:
    for dataset in dict.fromkeys(entry.workload.dataset for entry in suite.workloads):
        smoke = any(e.workload.smoke for e in suite.workloads if e.workload.dataset == dataset)
        if smoke or isinstance(dataset, OwnData) or registry.is_present(dataset, data_dir=data_dir):
            continue
        yield f"Data: {dataset} is not on this machine; bring it with `optbench data fetch {dataset}`."


def _frameworks(suite: Suite) -> Iterator[str]:
    for name in suite.backends:
        if name not in backends.installed():
            yield f"Framework: {name} is not installed; bring it with `{pip_hint(name)}`."


def _code(suite: Suite) -> Iterator[str]:
    folder = suite.path.parent if suite.path is not None else Path()
    configs = (config for entry in suite.workloads for config in entry.optimizers.values())
    references = dict.fromkeys(
        str(config.reference)
        for config in configs
        if hasattr(config, "reference")  # a custom class
    )
    for reference in references:
        problem = _imported(reference, folder)
        if problem:
            yield f"Code: {reference} does not import: {problem}."


def _imported(reference: str, folder: Path) -> str:
    """Import custom code in another process; the reason why that fails, or nothing."""
    command = [sys.executable, "-c", _IMPORT, reference, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return f"it took more than {IMPORT_LIMIT:.0f} s"
    if done.returncode == 0:
        return ""
    last = [line for line in done.stderr.strip().splitlines() if line.strip()][-1:]
    text = last[0].partition("ImportProblem: ")[2] or last[0] if last else f"exit code {done.returncode}"
    return one_line(ValueError(text))
