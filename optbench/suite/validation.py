"""Check plain data against a frozen dataclass, and say what is wrong in words a suite's author can use."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from optbench.suite import suggestions

if TYPE_CHECKING:
    from pydantic import ValidationError

    from optbench.suite.yamlfile import KeyPath

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong: where (path of keys), what was found, what is allowed.

    ``nearest`` is the known word that an unknown one is like; ``missing``: it is a key that is not there.
    """

    path: KeyPath
    message: str
    nearest: str | None = None
    missing: bool = False


class InvalidError(ValueError):
    """Data that does not fit; ``problems`` says all that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{dotted(p.path)}: {p.message}" for p in problems))
        self.problems = tuple(problems)


def problem(path: KeyPath, message: str) -> InvalidError:
    """Build the error for a single problem."""
    return InvalidError([Problem(path=path, message=message)])


def parse(kind: type[T], data: Any, path: KeyPath = ()) -> T:
    """Make a frozen dataclass from plain data, strictly: no word becomes a number, no truth value an int.

    Raises
    ------
    InvalidError
        With every problem found; paths start with ``path``.
    """
    if not isinstance(data, dict):
        raise problem(path, f"found {shown(data)}; a mapping of {listed(names(kind))} belongs here")
    unknown = [key for key in data if key not in names(kind)]
    wrong = [unknown_choice(key, names(kind), (*path, key), what="key") for key in unknown]
    meant = {p.nearest for p in wrong}
    from pydantic import ValidationError  # here, as a report checks no suite

    data = {key: value for key, value in data.items() if key not in unknown}
    try:
        # JSON mode, as it is the strict mode in which a list may become a tuple.
        made = cast(T, _adapter(kind).validate_json(json.dumps(data), strict=True))  # type: ignore[arg-type]
    except ValidationError as error:
        others = _problems(kind, data, path, error)
        # A key that is missing because it is misspelt is one mistake.
        others = [p for p in others if not (p.missing and p.path[-1] in meant)]
        raise InvalidError([*wrong, *others]) from None
    if wrong:
        raise InvalidError(wrong)
    return made


@cache
def _adapter(kind: type) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def names(kind: type) -> list[str]:
    """Keys that a dataclass takes."""
    return [f.name for f in fields(kind)]


def unknown_choice(
    found: Any, choices: Iterable[str], path: KeyPath, *, what: str, beyond: str = ""
) -> Problem:
    """Say that a word is not among the choices, with the nearest ones; ``beyond`` says how to use others."""
    known = list(choices)
    word = suggestions.alias_of(str(found), known)
    near = [word] if word else difflib.get_close_matches(str(found), known, n=1, cutoff=0.6)
    alike = near
    if not word and (not near or what == "model"):  # of a model people name the kind
        alike = list(dict.fromkeys([*near, *suggestions.similar(str(found), known)]))[:4]
    hint = f" Did you mean {' or '.join(map(repr, alike))}?" if alike else ""
    tail = f"; {beyond}" if beyond else ""
    message = f"unknown {what} {shown(found)}.{hint} Known: {listed(known)}{tail}"
    return Problem(path=path, message=message, nearest=near[0] if near else None)


def dotted(path: KeyPath) -> str:
    """Write a path of keys as ``workloads[0].model.name``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text or "the file"


#: Characters of an error that are looked at; a message may quote a whole array.
_MOST_READ = 10_000


def shown(value: Any) -> str:
    """Quote a found value, shortened."""
    return called(repr(value))


def called(name: str) -> str:
    """Write a name of unknown length as it is, or shortened."""
    return name if len(name) <= 60 else name[:57] + "..."


def one_line(error: BaseException) -> str:
    """Quote another library's error: printable, on one line, shortened."""
    try:
        words = str(error)[:_MOST_READ]
    except Exception as other:  # the error is of a class of the user's own
        words = f"its text cannot be made, {type(other).__name__}"
    text = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return text if len(text) <= 200 else text[:197] + "..."


#: Characters that a terminal or a reader of text may take as a command, and halves of characters.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_UNSEEN_BUT_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def visible(text: str, *, lines: bool = False) -> str:
    r"""Write control characters as escapes, so that they can be read and do nothing.

    Parameters
    ----------
    text : str
    lines : bool
        Leave line breaks and tabs as they are.

    Examples
    --------
    >>> visible("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    found = _UNSEEN_BUT_LINES if lines else _UNSEEN
    return found.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def listed(words: Iterable[str]) -> str:
    """Join words by commas."""
    return ", ".join(words)


#: What pydantic calls the kinds of JSON, in YAML's words.
_PLAIN = (
    ("a integer", "a whole number"),
    ("a array", "a list"),
    ("an object", "a mapping, such as {name: {key: value}}"),
    ("a dictionary", "a mapping, such as {name: {key: value}}"),
)


def _problems(kind: type, data: Any, path: KeyPath, error: ValidationError) -> list[Problem]:
    found: dict[KeyPath, Problem] = {}
    allowed: dict[KeyPath, list[str]] = {}
    for item in error.errors(include_url=False):
        where, value, owner = _locate(kind, data, item["loc"])
        full = (*path, *where)
        choices = item.get("ctx", {}).get("expected", "")
        if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            found[full] = unknown_choice(where[-1], names(owner), full, what="key")
        elif item["type"] == "missing":
            found[full] = Problem(path=full, message="is missing; it has no default", missing=True)
        elif item["type"] == "literal_error" and isinstance(value, str) and " or " in choices:
            words = choices.replace(" or ", ", ").replace("'", "").split(", ")
            found[full] = unknown_choice(value, words, full, what="value")
        else:
            # The branches of a union fail one by one; together they are what is allowed.
            text = item["msg"].removeprefix("Input should be ").replace("valid ", "")
            for json_name, word in _PLAIN:
                text = text.replace(json_name, word)
            allowed.setdefault(full, [])
            if text not in allowed[full]:
                allowed[full].append(text)
            message = f"found {shown(value)}; must be {', or '.join(allowed[full])}"
            found[full] = Problem(path=full, message=message)
    return list(found.values())


def _locate(kind: Any, data: Any, loc: tuple[int | str, ...]) -> tuple[KeyPath, Any, type]:
    """Follow pydantic's location through the data, leaving out the union tags that it puts in between."""
    path: list[Any] = []
    owner = kind
    for number, part in enumerate(loc):
        last = number == len(loc) - 1
        inside = (isinstance(data, dict) and part in data) or (
            isinstance(data, list) and isinstance(part, int) and part < len(data)
        )
        if inside:
            path.append(part)
            data = data[part]
            if not last:
                owner = _owner(owner, part, data)
        elif last and isinstance(data, dict) and part in names(owner):
            path.append(part)
    return tuple(path), data, owner


def _owner(kind: Any, part: int | str, data: Any) -> Any:
    """Find the dataclass that a key of a dataclass holds; the kind itself where there is none."""
    if not (is_dataclass(kind) and isinstance(part, str)):
        return kind
    candidates = _dataclasses(get_type_hints(kind).get(part))
    for candidate in candidates:
        if isinstance(data, dict) and set(data) <= set(names(candidate)):
            return candidate
    return candidates[0] if candidates else kind


def _dataclasses(hint: Any) -> list[Any]:
    if is_dataclass(hint):
        return [hint]
    if get_origin(hint) in (Union, types.UnionType, tuple):
        return [found for arg in get_args(hint) for found in _dataclasses(arg)]
    return []
