"""What the commands share: options, errors as exit codes, the console."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer

from optbench.errors import UserError, explain
from optbench.suite.validation import visible

if TYPE_CHECKING:
    from optbench.records.frames import Results
    from optbench.records.store import StoredTrial
    from optbench.report.analysis import Report
    from optbench.report.answer import Answer
    from optbench.report.failures import Failures
    from optbench.suite.declaration import Published
    from optbench.suite.report_spec import ReportSpec

NOT_AS_WRITTEN, DATA_MISSING, CRASHED, INTERRUPTED = 2, 3, 4, 130

DataDirOption = Annotated[
    Path | None, typer.Option(envvar="OPTBENCH_DATA", help="Folder to look in first, and to download to.")
]
ResultsOption = Annotated[
    Path,
    typer.Option("--results", help="Folder of all stores.", envvar="OPTBENCH_RESULTS", show_default=True),
]
StoreOption = Annotated[
    Path | None, typer.Option(help="Store to look in; all stores under --results if not given.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Run code that the store names: look at it first, it has your rights.")
]
TrialArgument = Annotated[str, typer.Argument(help="Trial id or its first digits.")]


@contextlib.contextmanager
def errors(about: Path | None = None) -> Iterator[None]:
    """Turn expected errors into one message and the exit code that the design gives them.

    A message that does not name the file that the command is ``about`` gets its name in front.
    """
    try:
        yield
    except KeyboardInterrupt:
        fail(
            "Interrupted. What is finished is in the store; the same command goes on from there.", INTERRUPTED
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except sqlite3.Error as error:
        from optbench.records.trouble import remedy

        words = remedy(error, about or Path())
        fail(f"the store cannot be read: {words or f'{error}; restore it from a copy'}", 2)
    except OSError as error:
        fail(explain(error), 2)
    except UserError as error:
        message = str(error)
        fail(message if about is None or str(about) in message else f"{about}: {message}", error.exit_code)


def asked_to_trust(trial: StoredTrial, folder: Path, *, trust: bool, data_only: bool = False) -> bool:
    """Ask a person whether the code that a store names may run; without one only ``--trust`` allows it."""
    from optbench.records.trust import named_code

    codes = named_code(trial.spec, data_only=data_only)
    if trust or not codes or not sys.stdin.isatty():
        return trust
    tell("This runs code that the store names, with all your rights:")
    for code in codes:
        tell(f"  {code.words(folder)}")
    return typer.confirm("Run it?")


def new_console() -> Any:
    """A console that shows control characters as escapes; in a file or a pipe nothing is wrapped.

    Unless ``COLUMNS`` asks for a width.
    """
    from rich.console import Console

    from optbench.cli.visible import VisibleText
    from optbench.environment import variable
    from optbench.report.terminal import UNWRAPPED

    wide = not sys.stdout.isatty() and variable("COLUMNS") is None
    console = Console(width=UNWRAPPED if wide else None)
    console.push_render_hook(VisibleText())
    return console


def tell(text: object, *, end: str = "\n", file: TextIO | None = None) -> None:
    """Print a line; control characters in it, from a store or a file, are shown as escapes."""
    print(visible(str(text), lines=True), end=end, file=file)


def say(console: Any, message: str) -> None:
    """Print a line as it is."""
    console.print(message, highlight=False, markup=False, soft_wrap=True)


def fail(message: str, code: int) -> NoReturn:
    """End with a message and an exit code."""
    tell(message, file=sys.stderr)
    raise typer.Exit(code)


def flush_output() -> None:
    """Write out what was printed: on a full disk a line and exit code 2, where Python would end with 120."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        if not isinstance(error, BrokenPipeError):
            tell(explain(error), file=sys.stderr)
            raise SystemExit(2) from None


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import without the collector, and keep what was imported out of its sight: a fifth of a start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def show_report(
    spec: ReportSpec, results: Results, console: Any, *, published: Published | None = None
) -> Report:
    """Show the leaderboard and the main tables of some records, and what the report warns of.

    Stores with a declaration note that verdicts were shown. What cannot be made or shown is named in the
    report's ``failures``; see :func:`end_report`. ``published`` is a declaration to compare with.
    """
    from optbench.report import analysis
    from optbench.report.declared import note_look
    from optbench.report.failures import Failures
    from optbench.report.terminal import rich_table

    failures = Failures()
    found = failures.attempt("analysis", lambda: analysis.analyse(results, spec, published=published))
    report = analysis.without_analysis(results, spec, failures) if found is None else found
    show_answer(report.answer, console)
    for table in analysis.main_tables(report):
        report.failures.attempt(
            f"table {table.title}",
            lambda table=table: console.print(rich_table(table, width=console.width)),  # type: ignore[misc]
        )
    for text in report.declared.sentences:
        console.print(text, markup=False, highlight=False)
    for text in (*report.failures.sentences, *report.warnings):
        console.print(text, style="yellow", markup=False)
    for text in report.failures.attempt("note of this look", lambda: note_look(report)) or ():
        console.print(text, style="yellow", markup=False)
    return report


def show_answer(answer: Answer, console: Any) -> None:
    """Show what the report says first; nothing where it has nothing to say."""
    from optbench.report.terminal import answer_lines

    if answer:
        console.print(answer_lines(answer))


def print_format(
    results: Results,
    spec: ReportSpec,
    formats: Sequence[str],
    *,
    command: str,
    published: Published | None = None,
) -> None:
    """Print a report in one format to standard output, for scripts; failures go to standard error."""
    from optbench.report import build, exports
    from optbench.report.analysis import analyse
    from optbench.report.declared import note_look

    writers: dict[str, Any] = {
        "csv": lambda report: exports.csv_text(report.boards),
        "json": build.json_text,
        "markdown": build.markdown_text,
        "latex": build.latex_text,
    }
    if len(formats) != 1 or formats[0] not in writers:
        raise UserError(
            f"--out -: needs one --format of {', '.join(writers)}; found {', '.join(formats) or 'none'}"
        )
    report = analyse(results, spec, published=published)
    text = report.failures.attempt(f"format {formats[0]}", lambda: writers[formats[0]](report))
    print(text or "", end="")
    for line in report.failures.attempt("note of this look", lambda: note_look(report)) or ():
        print(line, file=sys.stderr)
    if report.failures:
        fail(report.failures.explain(file=None, command=command), report.failures.exit_code)


def end_report(failures: Failures, folder: Path, command: str) -> None:
    """End the command where parts of a report failed: say which, and how to go on; else do nothing.

    Parameters
    ----------
    failures : Failures
    folder : Path
        Gets the file of tracebacks.
    command : str
        The command that makes the report again.
    """
    trace = failures.write(folder)
    if failures:
        fail(failures.explain(file=trace, command=command), failures.exit_code)
