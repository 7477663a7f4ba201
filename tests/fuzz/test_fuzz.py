"""Mutated suites, stores, logs and data end in a word, not in a traceback; and the fuzzer can fail."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings

import pytest

from optbench.errors import UserError
from tests.conftest import REPOSITORY
from tests.fuzz.cases import KINDS, Material, run_case
from tests.fuzz.sandbox import Sandbox

pytest.importorskip("torch", reason="trains the stores to damage")

#: Cases of each kind in a default run, about as many seconds in all as the slow kinds allow.
FEW = {
    "suites": 40,
    "smoke runs": 8,
    "stores": 30,
    "carried stores": 15,
    "resumed stores": 6,
    "checkpoints": 8,
    "imports": 20,
    "published data": 20,
    "decoders": 40,
    "own data": 30,
    "tables": 40,
}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return Material(tmp_path_factory.mktemp("fuzz") / "sound")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_input_ends_in_a_message(kind, material, tmp_path):
    found = []
    for number in range(FEW[kind]):
        outcome = run_case(kind, number, tmp_path / str(number), material)
        if (complaint := outcome.complaint()) is not None:
            again = f"python -m tests.fuzz --kind {kind!r} --first {number} --cases 1 --verbose"
            found.append(f"{again}\n{complaint}")
    assert not found, "\n\n".join(found)


@pytest.mark.parametrize(
    "cases", [pytest.param(300, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.nightly)]
)
def test_many_damaged_inputs_end_in_a_message(cases):
    """Two processes take half of the cases each; what fails names the case that repeats it."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", str(cases // 2), "--verbose", "--first"]
    halves = [
        subprocess.Popen(
            [*command, first], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for first in ("0", str(cases // 2))
    ]
    outputs = [half.communicate()[0] for half in halves]
    assert [half.returncode for half in halves] == [0, 0], "\n".join(outputs)


def test_a_case_is_made_from_its_number_alone(material, tmp_path):
    first, second = (run_case("suites", 7, tmp_path / name, material) for name in "ab")
    texts = [next((tmp_path / name).rglob("suite.yaml")).read_bytes() for name in "ab"]
    assert texts[0] == texts[1]
    assert (first.code, first.arguments[0]) == (second.code, second.arguments[0])


def _fail(*_, **__):
    raise ZeroDivisionError("made")


def _hang(*_, **__):
    while True:
        time.sleep(0.01)


def _write_outside(*_, **__):
    with open("beside.txt", "w") as file:
        file.write("x")


def _print_traceback(*_, **__):
    print("Traceback (most recent call last):", file=sys.stderr)


def _say(text):
    def command(*_, **__):
        raise UserError(text)

    return command


def _warn(*_, **__):
    warnings.warn("some cells were left out", UserWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (_fail, "ZeroDivisionError: made"),
        (_hang, "no end within"),
        (_write_outside, "wrote a/b/inside/beside.txt"),
        (_print_traceback, "a traceback in the output"),
        (_warn, "a Python warning"),
        (_say(""), "without a word"),
        (_say("it does not fit"), "names none of table.csv"),
        (_say("table.csv: " + "x" * 2000), "a line of"),
        (_say("table.csv: odd\n" * 200), "a message of 200 lines"),
        (_say("table.csv: odd\nbecause of this"), "names none of table.csv"),
        (lambda *_, **__: sys.exit(1), "exit code 1"),
        (lambda *_, **__: sys.exit(4), "exit code 4"),
    ],
)
def test_the_fuzzer_finds_a_broken_command(broken, complaint, tmp_path):
    sandbox = Sandbox(tmp_path / "s")

    limit = 0.3 if broken is _hang else 20.0
    assert complaint in sandbox.call(broken, names=("table.csv",), limit=limit).complaint()


def test_a_broken_command_is_found_through_the_command_line(material, tmp_path, monkeypatch):
    monkeypatch.setattr("optbench.records.tables.compare_file", _fail)
    monkeypatch.setattr("optbench.records.tables.compare_predictions", _fail)
    found = [run_case("tables", k, tmp_path / str(k), material).complaint() for k in range(5)]
    assert any("ZeroDivisionError: made" in (text or "") for text in found)


def test_a_sound_command_has_no_complaint(tmp_path):
    outcome = Sandbox(tmp_path / "s").call(
        _say("table.csv: line 3: found 'x'; a number belongs here"), names=("table.csv",)
    )
    assert outcome.complaint() is None
    assert outcome.code == 2
