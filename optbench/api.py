"""The Python API behind the command line; ``import optbench`` offers these names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from optbench.records.frames import Results, load_results
from optbench.records.pairing import counted_block
from optbench.records.store import Store, StoreError
from optbench.report.analysis import analyse
from optbench.report.build import DEFAULT_FORMATS, file_name, write_report
from optbench.report.combine import gather, with_analysis
from optbench.report.declared import note_look
from optbench.report.failures import ReportFiles
from optbench.suite.declaration import read as read_declaration
from optbench.suite.load import load_suite, suite_from_source
from optbench.suite.report_spec import ReportSpec
from optbench.suite.spec import Suite, SuiteError, store_path
from optbench.suite.validation import dotted, one_line, shown

if TYPE_CHECKING:
    import pandas as pd

    from optbench.execution.running import run
    from optbench.stats.compare import Comparison


def make_suite(
    name: str,
    *,
    workloads: Sequence[Mapping[str, Any]],
    optimizers: Mapping[str, Mapping[str, Any]],
    folder: str | Path = ".",
    **fields: Any,
) -> Suite:
    """Build a suite without a file.

    Parameters
    ----------
    name : str
        Folder of its results.
    workloads, optimizers
        What stands under these keys of a suite file, as plain mappings, sequences and scalars.
    folder : path
        Where paths of ``class:`` and of custom data begin.
    **fields
        The other fields of a suite file: ``seeds``, ``backends``, ``tuning``, ...

    Returns
    -------
    Suite
        The same, hash included, as :func:`load_suite` gives for a file of this content.

    Raises
    ------
    SuiteError
        If something does not fit; the message names the field.

    Examples
    --------
    >>> suite = make_suite(
    ...     "first",
    ...     workloads=[{"dataset": "iris", "model": "mlp", "batch_size": 16, "epochs": 2}],
    ...     optimizers={"wame": {"lr": 0.05}, "adam": {}},
    ...     seeds=3,
    ... )
    >>> suite.optimizers, len(suite.seeds)
    (('wame', 'adam'), 3)
    """
    from optbench.suite.yamlfile import Source, read_text, write_text

    given = {"suite": name, **fields, "workloads": workloads, "optimizers": optimizers}
    text = write_text({key: _plain(value, (key,)) for key, value in given.items()})
    source = Source(path=Path(folder) / f"suite {name}", text=text, data=None, lines={})
    suite = suite_from_source(replace(source, data=read_text(text, path=source.path).data))
    return replace(suite, path=None)


def _plain(value: Any, path: tuple[Any, ...]) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item, (*path, key)) for key, item in value.items()}
    if hasattr(value, "tolist"):  # NumPy's numbers and arrays
        value = value.tolist()
    if isinstance(value, list | tuple | range):
        return [_plain(item, (*path, index)) for index, item in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if value is None or type(value) in (str, int, float, bool):
        return value
    raise SuiteError(
        f"{dotted(path)}: found {shown(value)}; give mappings, sequences, strings, numbers, True, False, None"
    )


def compare(
    table: pd.DataFrame | Results,
    *,
    metric: str = "test_accuracy",
    baseline: str | None = None,
    maximise: bool | None = None,
    alpha: float = 0.05,
    correction: str = "holm",
    margin: float | None = None,
    family: Literal["baseline", "all"] | None = None,
    examples: int | Mapping[str, int] | None = None,
    streams: Sequence[str] | None = None,
    rope: float | None = None,
) -> Comparison:
    """Run the whole statistical procedure on a table of trials.

    Parameters
    ----------
    table : DataFrame or Results
        One row a trial: columns dataset, optimizer, seed and the metric, optionally status; or what
        :func:`load_results` gives, whose workloads then stand for datasets and whose proved blocks for seeds.
    metric, baseline, maximise, alpha, correction, margin, family, examples, streams, rope
        See :func:`optbench.stats.compare.compare_table`. Streams whose seeds are crossed are found in records
        by themselves.

    Returns
    -------
    Comparison
        ``to_dict()`` has everything computed.

    Raises
    ------
    StatsError
        If columns are missing, pairs are not unique, or several backends, devices or precisions are mixed.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = [("mnist", o, s, v + s / 100) for o, v in (("adam", 0.9), ("wame", 0.92)) for s in range(6)]
    >>> frame = pd.DataFrame(rows, columns=["dataset", "optimizer", "seed", "accuracy"])
    >>> compare(frame, metric="accuracy", baseline="adam").within[0].comparisons[0].verdict.word
    'better'
    """
    from optbench.stats.common import StatsError
    from optbench.stats.compare import compare_table

    frame = table.trials if isinstance(table, Results) else table
    if {"workload", "block"} <= set(frame.columns):
        settings = frame[["backend", "device", "precision"]].drop_duplicates()
        if len(settings) > 1:
            found = "; ".join(" ".join(row) for row in settings.itertuples(index=False))
            raise StatsError(f"table: found trials of several settings ({found}); pick one's rows first")
        frame = frame.assign(dataset=frame["workload"], seed=counted_block(frame))
        streams = streams or [name for name in frame if str(name).startswith("seed_")] or None
    return compare_table(
        frame,
        metric=metric,
        baseline=baseline,
        maximise=maximise,
        alpha=alpha,
        correction=correction,
        margin=margin,
        family=family,
        examples=examples,
        streams=streams,
        rope=rope,
    )


def report(
    *suites: Suite | str | Path,
    results: str | Path = "results",
    out: str | Path | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    baseline: str | None = None,
    primary: str | None = None,
    alpha: float | None = None,
    correction: str | None = None,
    declaration: str | Path | None = None,
    workloads: Sequence[str] | None = None,
    data_dir: str | Path | None = None,
) -> ReportFiles:
    """Write the report of one suite, or of several together: page, tables, exports and plots.

    Parameters
    ----------
    *suites : Suite or path
        Suites, their files, or stores; a store's report follows the suite that it was last run with.
    results : path
        Folder of all stores.
    out : path, optional
        Where to write; ``report`` beside the store if not given, for several stores in a folder of all their
        names beside theirs.
    formats : sequence of str
        See :func:`optbench.report.build.write_report`.
    baseline, primary, alpha, correction : optional
        Test this instead of what the (first) suite declares.
    declaration : path, optional
        A published declaration that the report is compared with.
    workloads : sequence of str, optional
        Read and report only these, by their labels; what is declared of all is then no question of it.
    data_dir : path, optional
        Where the true classes of a dataset are looked for first; ``OPTBENCH_DATA`` if not given.

    Returns
    -------
    ReportFiles
        What was written.
    """
    spec, found, folder = gather_results(*suites, results=results, workloads=workloads, data_dir=data_dir)
    spec = with_analysis(spec, baseline=baseline, primary=primary, alpha=alpha, correction=correction)
    published = None if declaration is None else read_declaration(Path(declaration))
    made = analyse(found, spec, published=published)
    made.failures.attempt("note of this look", lambda: note_look(made))
    folder = Path(out) if out else folder / report_folder(workloads)
    return write_report(found, spec, folder, formats=formats, report=made)


def report_folder(workloads: Sequence[str] | None) -> str:
    """Name the folder of a report beside its store; one of some workloads leaves that of all as it is."""
    return "report" if workloads is None else file_name(f"report-{'-'.join(workloads)}")


def gather_results(
    *suites: Suite | str | Path,
    results: str | Path = "results",
    workloads: Sequence[str] | None = None,
    data_dir: str | Path | None = None,
) -> tuple[ReportSpec, Results, Path]:
    """Find and read stores for one analysis; see :func:`optbench.report.combine.gather`.

    Data are looked for first in ``data_dir``, or ``OPTBENCH_DATA`` if it is not given.

    Returns
    -------
    spec : ReportSpec
    results : Results
    folder : Path
        The store's folder, or for several a folder of all their names beside the first.
    """
    if not suites:
        raise StoreError("name at least one suite or store")
    stores = [find_store(suite, results=results) for suite in suites]
    spec, found = gather(stores, workloads)
    found = found if data_dir is None else replace(found, data_dir=Path(data_dir))
    folder = stores[0][1].parent
    return spec, found, folder if len(stores) == 1 else folder.with_name(file_name(spec.name))


def find_store(suite: Suite | str | Path, *, results: str | Path = "results") -> tuple[ReportSpec, Path]:
    """Find a store and what a report needs of its suite, given the suite, its file, the store, or its folder.

    Raises
    ------
    SuiteError
        If the suite file is not one.
    StoreError
        If there is no store.
    """
    if not isinstance(suite, Suite):
        path = Path(suite)
        if path.is_dir() or path.suffix == ".sqlite":
            with Store(path) as store:
                return _report_spec(store), store.path
        suite = load_suite(path)
    folder = store_path(suite, results)
    with Store(folder / "store.sqlite") as store:
        return spec_for(suite, store), store.path


def spec_for(suite: Suite, store: Store) -> ReportSpec:
    """What a report needs of a suite; where several winners of a search were evaluated, their labels."""
    several = suite.tuning is not None and suite.tuning.winners > 1
    return _report_spec(store) if several and store.meta().get("hash") == suite.hash else suite.report_spec


def _report_spec(store: Store) -> ReportSpec:
    meta = store.meta()
    if "view" not in meta:
        raise StoreError(f"{store.path}: names no suite; give the suite file instead")
    try:
        return ReportSpec.from_json(meta["view"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(
            f"{store.path}: its suite is damaged ({one_line(error)}); give the suite file instead"
        ) from None


def __getattr__(name: str) -> Any:
    """Load what trains when it is asked for: a report needs nothing of it."""
    if name == "run":
        from optbench.execution.running import run

        return run
    raise AttributeError(f"module 'optbench.api' has no attribute {name!r}")


__all__ = [
    "compare",
    "find_store",
    "gather_results",
    "load_results",
    "load_suite",
    "make_suite",
    "report",
    "run",
]
