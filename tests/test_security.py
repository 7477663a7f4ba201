"""What SECURITY.md promises of the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import optbench

SOURCES = sorted(Path(optbench.__file__).parent.rglob("*.py"))
#: Reads a pickle from the pipe of a child that this process started.
PIPES = {("execution/memory.py", "pickle.load")}
UNSAFE = {"load", "loads", "Unpickler", "read_pickle", "unsafe_load", "full_load"}


def calls(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def unsafe(name, options):
    """Whether a call may unpickle, or make objects that YAML names."""
    owner, _, function = name.rpartition(".")
    root = owner.split(".")[0]
    if name in ("eval", "exec"):
        return True
    if root in ("np", "numpy") and function in ("load", "fromfile"):
        return options.get("allow_pickle") != "False"
    if root == "torch" and function == "load":
        return options.get("weights_only") != "True"
    return function in UNSAFE and root in (
        "pickle",
        "dill",
        "cloudpickle",
        "joblib",
        "marshal",
        "shelve",
        "pd",
        "yaml",
    )


def test_nothing_is_unpickled_or_evaluated():
    root = Path(optbench.__file__).parent
    found = {
        (path.relative_to(root).as_posix(), name)
        for path in SOURCES
        for name, options in calls(path)
        if unsafe(name, options)
    }
    assert found == PIPES


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("np.load", {}),
        ("np.load", {"allow_pickle": "True"}),
        ("torch.load", {}),
        ("pickle.loads", {}),
        ("yaml.load", {}),
        ("eval", {}),
    ],
)
def test_an_unsafe_call_is_seen(name, options):
    assert unsafe(name, options)
