"""Parts of a report that could not be made: each is named, and none keeps the others from being made."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import optbench
from optbench.errors import UserError, explain
from optbench.records.whole import whole
from optbench.suite.validation import one_line

T = TypeVar("T")

#: File of the tracebacks.
FILE_NAME = "report-errors.txt"
#: The command line's exit code where a part of a report failed.
REPORT_FAILED = 5


@dataclass(frozen=True, kw_only=True)
class ReportFiles:
    """What was written; ``index`` is the page, or the first file where no page was asked for."""

    folder: Path
    index: Path
    files: tuple[Path, ...]


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A part that could not be made; ``fault`` says that optbench, not its user, can fix it.

    ``left_out`` says that it is a trial whose record is not as it was written.
    """

    part: str
    reason: str
    trace: str
    fault: bool
    exit_code: int = REPORT_FAILED
    left_out: bool = False

    @classmethod
    def of(cls, part: str, error: Exception) -> Failure:
        """Write down an error."""
        known = isinstance(error, UserError)
        reason = one_line(error) if known else f"{type(error).__name__}: {one_line(error)}"
        return cls(
            part=part,
            reason=explain(error) if isinstance(error, OSError) and error.errno else reason,
            trace="".join(traceback.format_exception(error)),
            fault=not (known or isinstance(error, OSError)),
            exit_code=error.exit_code if isinstance(error, UserError) else REPORT_FAILED,
        )

    @classmethod
    def missing(cls, part: str, reason: str) -> Failure:
        """Write down a trial that is left out, as its record is not as it was written: damaged data."""
        return cls(
            part=part, reason=reason, trace=reason, fault=False, exit_code=UserError.exit_code, left_out=True
        )


class Failures:
    """What of one report could not be made so far, a part once."""

    def __init__(self) -> None:
        self._found: dict[str, Failure] = {}

    def __iter__(self) -> Iterator[Failure]:
        return iter(self._found.values())

    def __len__(self) -> int:
        return len(self._found)

    def add(self, failure: Failure) -> None:
        """Note a failure; a part that several formats need fails once."""
        self._found.setdefault(failure.part, failure)

    def attempt(self, part: str, make: Callable[[], T]) -> T | None:
        """Make a part of the report.

        Parameters
        ----------
        part : str
            Its name for the reader, such as ``table tuning``.
        make : callable

        Returns
        -------
        What ``make`` returns, or None where it fails.

        Notes
        -----
        Whatever it raises is kept with its traceback and reported at the end, but for the end of a pipe's
        reader, after which nothing can be written.
        """
        try:
            return make()
        except BrokenPipeError:
            raise
        except Exception as error:
            self.add(Failure.of(part, error))
            return None

    @property
    def sentences(self) -> list[str]:
        """One a failure, for the report itself."""
        return [f"Missing from this report: {found.part} ({found.reason})." for found in self]

    @property
    def exit_code(self) -> int:
        """Of the command line: :data:`REPORT_FAILED` where anything failed that the user cannot fix."""
        codes = [found.exit_code for found in self]
        return max(codes, default=0)

    def write(self, folder: Path) -> Path | None:
        """Write the tracebacks into a folder, in place of those of an earlier report; None without one.

        A folder that cannot be written holds none either: the failures are still reported.
        """
        path = folder / FILE_NAME
        try:
            if all(found.left_out for found in self):
                path.unlink(missing_ok=True)
                return None
            folder.mkdir(parents=True, exist_ok=True)
            head = (
                f"optbench {optbench.__version__}, Python {platform.python_version()}, {platform.platform()}"
            )
            parts = [f"{found.part}\n{found.trace}" for found in self]
            with whole(path) as place:
                place.write_text("\n".join([head, "", *parts]), encoding="utf-8")
        except OSError:
            return None
        return path

    def explain(self, *, file: Path | None, command: str) -> str:
        """Say what failed, what is safe, and how to go on.

        Parameters
        ----------
        file : Path or None
            Where the tracebacks are.
        command : str
            The command that makes the report again.
        """
        lines = [f"{found.part}: {found.reason}" for found in self]
        if all(found.left_out for found in self):
            lines.append(
                "The report is made without these trials. Restore their store from a copy, or have `optbench "
                f"run SUITE` train them again; then: {command}"
            )
            return "\n".join(lines)
        where = f" (tracebacks: {file})" if file is not None else ""
        safe = "The rest of the report is made, and no record is lost."
        if any(found.fault for found in self):
            lines.append(
                f"{safe} This is a fault of optbench: please report it in the issues of its repository"
                f"{where}; after an update: {command}"
            )
        else:
            lines.append(f"{safe} When that is fixed: {command}{where}")
        return "\n".join(lines)


class Raising(Failures):
    """For a caller who wants the first exception itself."""

    def attempt(self, part: str, make: Callable[[], T]) -> T | None:
        """Make a part; exceptions pass."""
        return make()


class ReportError(UserError):
    """Parts of a report failed; the others are made, and ``written`` says which files."""

    def __init__(self, message: str, failures: Failures, written: ReportFiles) -> None:
        super().__init__(message)
        self.failures, self.written = failures, written
        self.exit_code = failures.exit_code
