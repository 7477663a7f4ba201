"""Read a YAML file as plain data, remember the line of every key, and refuse what a suite has no use for."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

KeyPath = tuple[Hashable, ...]

MAX_BYTES = 2**20
MAX_VALUES = 20_000
MAX_DEPTH = 30


class YamlError(ValueError):
    """A file that is not the YAML we read; ``line`` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file's data and where each value stands: ``lines[("workloads", 0, "epochs")] == 7``."""

    path: Path
    text: str
    data: Any
    lines: dict[KeyPath, int]

    def line(self, path: KeyPath) -> int:
        """Line of a value, or of the nearest thing around it that the file has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def place(self, path: KeyPath) -> str:
        """File and line of a value; the name alone of what was not read from a file."""
        made = self.data is not None and not self.lines
        return self.path.name if made else f"{self.path}:{self.line(path)}"


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the numbers and truth values of YAML 1.2: 1e-3 is a number, ``no`` a word."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
     "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


class _Dumper(yaml.SafeDumper):
    """Quotes what :class:`_Loader` would not read as a string, and writes lists on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

_SCALARS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}


def read(path: Path) -> Source:
    """Read a YAML file.

    Raises
    ------
    OSError
        If the file cannot be read.
    YamlError
        If it is not YAML, too large, nested too deep, expands to too many values through aliases, repeats a
        key, or asks for a type other than mapping, list, string, number, truth value and null.
    """
    raw = path.read_bytes()
    if len(raw) > MAX_BYTES:
        raise YamlError(f"the file has {len(raw):,} bytes; at most {MAX_BYTES:,} are read", 1)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise YamlError(f"the file is not UTF-8 text ({error.reason} at byte {error.start})", line) from None
    return read_text(text, path=path)


def read_text(text: str, *, path: Path) -> Source:
    """Read YAML from text; ``path`` is for messages. Raises :class:`YamlError` as :func:`read` does."""
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            data = _Builder(loader, lines).build(node, ()) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(f"not valid YAML: {error.problem}", mark.line + 1 if mark else 1) from None
    except yaml.YAMLError as error:
        raise YamlError(f"not valid YAML: {' '.join(str(error).split())}", 1) from None
    except RecursionError:
        raise YamlError("nested too deep to read", 1) from None
    return Source(path=path, text=text, data=data, lines=lines)


def write_text(data: Any) -> str:
    """Write plain data as YAML that :func:`read_text` reads as the same data."""
    return yaml.dump(
        data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110
    )


def _joined(text: str) -> str:
    """Join the two halves of a character that JSON writes as two escapes; half a one stays what it is."""
    if not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


class _Builder:
    """Turns a node tree into plain data, counting what aliases would multiply."""

    def __init__(self, loader: _Loader, lines: dict[KeyPath, int]) -> None:
        self._loader = loader
        self._lines = lines
        self._values = 0

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        line = node.start_mark.line + 1
        self._lines.setdefault(path, line)
        self._values += 1
        if self._values > MAX_VALUES:
            raise YamlError(f"aliases expand to more than {MAX_VALUES:,} values", line)
        if len(path) > MAX_DEPTH:
            raise YamlError(f"nested deeper than {MAX_DEPTH} levels", line)
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALARS:
            try:
                value = self._loader.construct_object(node)
                return _joined(value) if isinstance(value, str) else value
            except ValueError:
                raise YamlError(f"{node.value!r} is no {node.tag.rpartition(':')[2]}", line) from None
        raise YamlError(
            f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')!r} is not allowed; "
            "write plain mappings, lists, strings, numbers, true, false and null",
            line,
        )

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlError("a key must be a word, not a list or a mapping", line)
            key = _joined(str(key_node.value))
            if key in mapping:
                raise YamlError(f"the key {key!r} appears twice in one mapping", line)
            inner = (*path, key)
            self._lines[inner] = line
            mapping[key] = self.build(value_node, inner)
        return mapping
