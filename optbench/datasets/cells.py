"""A file of cells as text: encodings, separators, headers, ragged rows. Nothing is a number here yet."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from optbench.environment import limit
from optbench.errors import UserError
from optbench.suite.validation import called, one_line, shown

#: No table of results comes near this size.
MAX_BYTES = 2**30
#: Most columns of a table, and the variable that raises the limit.
MOST_COLUMNS, COLUMNS_VARIABLE = 20_000, "OPTBENCH_MOST_COLUMNS"
_SEPARATORS = ",;\t|"
_MAGIC = {
    b"PK\x03\x04": "an Excel or zip file: save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel file: save the sheet as CSV",
    b"SQLite format 3": "an SQLite file: give it to optbench import, or save the table as CSV",
    b"\x89HDF": "an HDF5 file: save the table as CSV",
    b"%PDF": "a PDF: save the table as CSV",
}
_UNIT = re.compile(
    r"[\[(<{].{0,20}[\])>}]|%|[-–—/.]|(units?|percent|pct|ms|secs?|s|h|hrs?|min|minutes|seconds|hours|days|"
    r"[kmg]i?b|nats|bits|acc|points?|pp|count|epochs?|steps?)\.?",
    re.IGNORECASE,
)
#: A number in any locale, to tell columns of numbers from columns of words.
NUMBER_LIKE = re.compile(r"[+\-−]?[\d.,]*\d[\d.,'’_\u00a0\u202f\u2009 ]*([eE][+\-−]?\d+)?\s*%?")


class TableError(UserError, ValueError):
    """A file of cells that cannot be read: the place, what was found, what is allowed."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A table as text.

    Attributes
    ----------
    path : Path
    names : tuple of str
        Of the columns, without surrounding space; a name may be empty.
    rows : list of list of str
        Cells without surrounding space, as many in each row as there are names.
    lines : list of int
        Line of the file on which each row ends, from 1.
    separator : str
    units : mapping of int to str
        Cells of a row of units below the header, by column.
    repeated : tuple of int
        Lines that repeat the header: one file was appended to another.
    notes : tuple of str
        What was decided and left out, in words.
    """

    path: Path
    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]
    separator: str = ","
    units: dict[int, str] = field(default_factory=dict)
    repeated: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    def column(self, index: int) -> list[str]:
        """All cells of one column."""
        return [row[index] for row in self.rows]


def read_bytes(path: Path) -> bytes:
    """Read a file, decompressed if it is a gzip file, whatever its name.

    Raises
    ------
    TableError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(raw)) as stream:
                raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise TableError(f"{path}: file not found; pass the path of a table or log") from None
    except (OSError, EOFError, zlib.error) as error:
        raise TableError(f"{path}: cannot be read ({one_line(error)})") from None
    if len(raw) > MAX_BYTES:
        raise TableError(f"{path}: holds more than {MAX_BYTES:,} bytes; give the results, not the data")
    return raw


def decode(raw: bytes, path: Path) -> tuple[str, list[str]]:
    """Turn bytes into text: UTF-8, UTF-16 by its mark or its zeros, else Windows-1252 with a note.

    Returns
    -------
    text : str
    notes : list of str

    Raises
    ------
    TableError
        If it is a binary file.
    """
    for magic, words in _MAGIC.items():
        if raw.startswith(magic):
            raise TableError(f"{path}: cannot be read as UTF-8 text; it is {words}")
    notes = []
    even, odd = raw[:4096:2].count(0), raw[1:4096:2].count(0)
    zeros = len(raw[:4096]) // 4
    if raw.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        encoding = "utf-32"
    elif raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif raw and max(even, odd) > zeros:
        encoding = "utf-16-le" if odd > even else "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig" or b"\0" in raw:
            raise TableError(
                f"{path}: cannot be read as UTF-8 or UTF-16 text ({one_line(error)}); save it as a UTF-8 CSV"
            ) from None
        text = raw.decode("cp1252", errors="replace")
        notes.append("the file is not UTF-8: read as Windows-1252")
    if encoding.startswith("utf-16"):
        notes.append("read as UTF-16")
    if "\0" in text:
        raise TableError(f"{path}: cannot be read as UTF-8 text: it holds zero bytes; save it as a UTF-8 CSV")
    return text, notes


def read_cells(path: Path, *, forms: str = "") -> Cells:
    """Read a file of separated cells.

    Parameters
    ----------
    path : Path
        Commas, semicolons, tabs or bars between cells, by the header; a first line ``sep=;``, lines of
        comments, blank lines, trailing separators and a row of units are known.
    forms : str
        What is allowed, for messages.

    Raises
    ------
    TableError
        Names the line, what was found and what to do.
    """
    raw = read_bytes(path)
    if raw.startswith(b"PAR1"):
        return _parquet(raw, path)
    text, notes = decode(raw, path)
    return cells_of(text, path, notes, forms=forms)


def _parquet(raw: bytes, path: Path) -> Cells:
    """Cells of a Parquet file as the text that says them; a null is a gap, a NaN was written."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise TableError(
            f"{path}: a Parquet file needs pyarrow; bring it with pip install 'optbench[parquet]'"
        ) from None
    try:
        table = parquet.read_table(pa.BufferReader(raw))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TableError(f"{path}: no sound Parquet file ({one_line(error)})") from None
    columns = [["" if v is None else str(v).strip() for v in column.to_pylist()] for column in table.columns]
    # The index of a frame is a column without a name.
    named = ["" if re.fullmatch(r"__index_level_\d+__", name) else name for name in table.column_names]
    if not columns or not columns[0]:
        raise TableError(f"{path}: found no rows")
    rows = [list(row) for row in zip(*columns, strict=True)]
    return Cells(path=path, names=tuple(named), rows=rows, lines=list(range(1, len(rows) + 1)))


def cells_of(text: str, path: Path, notes: Sequence[str] = (), *, forms: str = "") -> Cells:
    """Split decoded text; see :func:`read_cells`."""
    said = list(notes)
    tail = f"; {forms}" if forms else ""
    body, skipped, separator = _preamble(text, said)
    header_line = next(iter(body.splitlines()), "")
    if (
        found := re.match(r"[\[{]\s*([\[{\"]|$)|<(!doctype|html|table|\?xml)", header_line, re.IGNORECASE)
    ) is not None:
        what = "a web page or XML" if found[0].startswith("<") else "JSON"
        raise TableError(f"{path}: line {skipped + 1}: it is {what} and no table of cells; save it as CSV")
    if separator is None:
        bare = re.sub(r'"[^"]*"', "", header_line)
        separator = max(_SEPARATORS, key=bare.count)
        if not bare.count(separator):
            body, separator = _by_spaces(body, said)
    columns = header_line.count(separator) + 1
    if columns > (most := limit(COLUMNS_VARIABLE, MOST_COLUMNS)):
        raise TableError(
            f"{path}: line {skipped + 1}: found {columns:,} columns, and {most:,.0f} are read; cut the table "
            f"down to the results, or allow more, as in {COLUMNS_VARIABLE}={columns}"
        )
    rows, lines = _split(body, separator, path, skipped)
    if _is_spaced(body, separator):
        said.append("spaces around cells are left out")
    if not rows:
        raise TableError(f"{path}: line 1: found 0 columns{tail}")
    if separator == "|":
        rows, lines = _without_rules(rows, lines)
    header, rows, lines = rows[0], rows[1:], lines[1:]
    cut = not text.endswith(("\n", "\r"))
    header, rows, lines = _squared(header, rows, lines, path, said, cut=cut)
    if len(header) < 2:
        raise TableError(f"{path}: line 1: found {len(header)} column(s){tail}")
    counts = Counter(header)
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        named = ", ".join(called(name) or "(no name)" for name in twice[:5])
        raise TableError(f"{path}: line 1: column {named} appears twice; name each column once")
    repeated = tuple(line for row, line in zip(rows, lines, strict=True) if row == header)
    kept = [i for i, row in enumerate(rows) if row != header]
    rows, lines = [rows[i] for i in kept], [lines[i] for i in kept]
    units = _units(header, rows)
    if units:
        said.append(f"line {lines[0]} holds units ({', '.join(units.values())}) and is left out")
        rows, lines = rows[1:], lines[1:]
    if not rows:
        raise TableError(f"{path}: found a header and no rows{tail}")
    return Cells(
        path=path,
        names=tuple(header),
        rows=rows,
        lines=lines,
        separator=separator,
        units=units,
        repeated=repeated,
        notes=tuple(said),
    )


def _preamble(text: str, notes: list[str]) -> tuple[str, int, str | None]:
    """Text from its header on, lines passed over, and the separator that a line ``sep=`` names."""
    lines = text.splitlines(keepends=True)
    separator, start, comments = None, 0, 0
    while start < len(lines):
        line = lines[start].strip()
        named = re.fullmatch(r'"?sep=(.|\\t)"?', line, re.IGNORECASE)
        if not line:
            start += 1
        elif named and separator is None:
            separator = named[1].replace("\\t", "\t")
            notes.append(f"line {start + 1} names the separator {separator!r}")
            start += 1
        elif line.startswith("#") and not _is_header(lines, start):
            comments += 1
            start += 1
        else:
            break
    if comments:
        notes.append(f"{comments} lines of comments above the header are left out")
    body = "".join(lines[start:])
    if body.startswith("#") and not body.startswith(("#,", "#;", "#\t")):
        body = body.lstrip("# ")
    return body, start, separator


def _is_header(lines: list[str], at: int) -> bool:
    """Whether a line with # in front names the columns of the next one, as numpy.savetxt writes it."""
    follows = next((line for line in lines[at + 1 :] if line.strip()), "")
    return any(
        follows.count(s) and follows.count(s) == lines[at].count(s) and not follows.startswith("#")
        for s in _SEPARATORS
    )


def _by_spaces(body: str, notes: list[str]) -> tuple[str, str]:
    """A table with runs of spaces between its cells, where every line has as many; else commas."""
    rows = [line.split() for line in body.splitlines() if line.strip()]
    if len(rows) < 2 or len({len(row) for row in rows}) > 1 or len(rows[0]) < 2 or '"' in body:
        return body, ","
    notes.append("cells are separated by spaces")
    return "\n".join("\t".join(row) for row in rows) + "\n", "\t"


def _split(body: str, separator: str, path: Path, skipped: int) -> tuple[list[list[str]], list[int]]:
    rows, lines = [], []
    reader = csv.reader(
        io.StringIO(body, newline=""), delimiter=separator, skipinitialspace=separator != "\t", strict=True
    )
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append(cells)
                lines.append(reader.line_num + skipped)
    except csv.Error as error:
        raise TableError(
            f"{path}: line {reader.line_num + skipped}: {one_line(error)}; correct the quotes of this line"
        ) from None
    return rows, lines


def _is_spaced(body: str, separator: str) -> bool:
    """Whether cells have spaces around them, which are no part of a label."""
    if separator in "|\t ":
        return False
    bare = re.sub(
        r'"[^"]*"', lambda found: '" "' if found[0] != f'"{found[0][1:-1].strip()}"' else '""', body
    )
    mark = re.escape(separator)
    return re.search(rf'[ \u00a0]{mark}|{mark}[ \u00a0]|" "|[ \u00a0](\r?\n)', bare) is not None


def _without_rules(rows: list[list[str]], lines: list[int]) -> tuple[list[list[str]], list[int]]:
    """A table with bars: no rule below the header, no bars at the edges."""
    kept = [i for i, row in enumerate(rows) if not all(re.fullmatch(r":?-*:?", cell) for cell in row)]
    rows, lines = [rows[i] for i in kept], [lines[i] for i in kept]
    if rows and all(not row[0] and not row[-1] for row in rows):
        rows = [row[1:-1] for row in rows]
    return rows, lines


def _squared(
    header: list[str],
    rows: list[list[str]],
    lines: list[int],
    path: Path,
    notes: list[str],
    *,
    cut: bool,
) -> tuple[list[str], list[list[str]], list[int]]:
    """Rows as long as the header: trailing separators, row names without a name, short and cut rows."""
    width = len(header)
    firsts = {row[0] for row in rows}
    longer = bool(rows) and all(len(row) == width + 1 for row in rows) and any(row[-1] for row in rows)
    if longer and len(firsts) == len(rows) and "" not in firsts:
        notes.append("the header has no name for the first column, as R writes row names")
        header, width = ["", *header], width + 1
    wide = [i for i, row in enumerate(rows) if len(row) > width and any(row[width:])]
    if wide:
        row, line = rows[wide[0]], lines[wide[0]]
        commas = (
            "; numbers with decimal commas need another separator between cells, or quotes"
            if any(re.fullmatch(r"[+-]?\d+", a) and re.fullmatch(r"\d+%?", b) for a, b in pairwise(row))
            else ""
        )
        raise TableError(
            f"{path}: line {line}: found {len(row)} cells; every line needs {width} columns{commas}"
        )
    if any(len(row) > width for row in rows):
        notes.append("empty cells behind the last column are left out")
        rows = [row[:width] for row in rows]
    short = [i for i, row in enumerate(rows) if len(row) < width]
    if short and cut and short[-1] == len(rows) - 1 and len(rows) > 1:
        notes.append(
            f"line {lines[-1]} has {len(rows[-1])} of {width} cells and no end: the file was cut short "
            "there; the line is left out"
        )
        rows, lines, short = rows[:-1], lines[:-1], short[:-1]
    if short:
        places = ", ".join(str(lines[i]) for i in short[:5]) + (" ..." if len(short) > 5 else "")
        notes.append(f"line {places} has fewer cells than the header: what is missing counts as empty")
        rows = [row + [""] * (width - len(row)) for row in rows]
    empty = [k for k, name in enumerate(header) if not name and not any(row[k] for row in rows)]
    if empty:
        header = [name for k, name in enumerate(header) if k not in empty]
        rows = [[cell for k, cell in enumerate(row) if k not in empty] for row in rows]
    return header, rows, lines


def _units(header: list[str], rows: list[list[str]]) -> dict[int, str]:
    """The cells of a row of units: no number in it, every cell a unit, above columns of numbers."""
    if len(rows) < 2:
        return {}
    first, rest = rows[0], rows[1:]
    found = {k: cell for k, cell in enumerate(first) if cell}
    numbers = [
        k
        for k in range(len(header))
        if all(NUMBER_LIKE.fullmatch(row[k]) for row in rest if row[k]) and any(row[k] for row in rest)
    ]
    fits = all(
        _UNIT.fullmatch(cell) or (k == 0 and cell.lower().startswith("unit")) for k, cell in found.items()
    )
    marked = [k for k in found if k in numbers and found[k] not in "-–—/."]
    # A row of results with its numbers missing has labels that are no units.
    return found if fits and marked else {}


def at_line(path: Path, line: int, column: str) -> str:
    """Place of a cell, for messages."""
    return f"{path}: line {line}, column {shown(column)}"


def words(text: str) -> tuple[str, ...]:
    """Split a list of words."""
    return tuple(text.split())


def is_unnamed(name: str) -> bool:
    """Whether a column has no name, as written by tools that write a row index."""
    return re.fullmatch(r"\W*|unnamed\W*\d+(\W+\d+)?", name.strip().lower().replace("_", " ")) is not None


def is_count(cells: Sequence[str]) -> bool:
    """Whether cells count the rows: 0, 1, 2, .. or 1, 2, 3, .., three of them at least."""
    if len(cells) < 3 or cells[0] not in ("0", "1", "0.0", "1.0"):
        return False
    first = int(float(cells[0]))
    return all(cell.removesuffix(".0") == str(first + i) for i, cell in enumerate(cells))


def look_alike(role: str, labels: Iterable[str], notes: list[str]) -> None:
    """Point out labels that differ by case or space only, or are one number written in two ways."""
    alike: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        key = re.sub(r"\s+", "", label).casefold()
        if re.fullmatch(r"[+-]?\d+(\.\d*)?", key):
            key = f"{float(key):.17g}"
        alike.setdefault(key, []).append(label)
    for group in alike.values():
        if len(group) > 1:
            listed = ", ".join(repr(label) for label in group)
            notes.append(f"{role}: {listed} look alike and are kept apart; make them one if they are")
