"""Labels of an untrusted store command no terminal and no spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from contextlib import closing

import pandas as pd
import pytest
from typer.testing import CliRunner

from optbench.cli import app
from optbench.records.digests import reseal
from optbench.report.exports import cell, frame_csv, table_csv
from optbench.report.text import TextTable, markdown_prose
from optbench.suite.load import SuiteError, load_suite
from optbench.suite.validation import visible
from optbench.trial import content_hash
from tests.conftest import TINY, write_changed
from tests.report.conftest import fill_store

ODD = ("\x1b[2J\x1b]0;owned\x07", "\x00nul", "\x9b31m", "\rover", "\x08\x08back")


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """A store whose optimizer, workload and title are odd texts, with digests that fit."""
    folder = tmp_path_factory.mktemp("sent")
    suite = load_suite(write_changed(folder, ("seeds: 2", "seeds: 6")))
    fill_store(suite, folder / "store", lambda t: 0.7 + t.spec.seeds.init / 50 + (t.optimizer == "adam") / 9)
    path = folder / "store" / "store.sqlite"
    odd = "".join(ODD)
    with closing(sqlite3.connect(path)) as db, db:
        (view,) = db.execute("SELECT value FROM meta WHERE key = 'view'").fetchone()
        seen = json.loads(view)
        seen["title"] = odd
        (entry,) = seen["workloads"]
        entry["label"] = f"=work{odd}"
        entry["optimizers"] = [f"=cmd|{name}{odd}" for name in entry["optimizers"]]
        seen["analysis"]["baseline"] = f"=cmd|wame{odd}"
        db.execute("UPDATE meta SET value = ? WHERE key = 'view'", (json.dumps(seen),))
        db.execute("UPDATE meta SET value = ? WHERE key = 'title'", (odd,))
        db.execute("UPDATE plan SET workload = '=work' || ?1, optimizer = '=cmd|' || optimizer || ?1", (odd,))
        db.execute("UPDATE environments SET facts = json_set(facts, '$.framework', ?)", (odd,))
        db.execute("DELETE FROM seals")
        db.execute("UPDATE trials SET digest = NULL")
        (facts,) = db.execute("SELECT facts FROM environments").fetchone()
        now = content_hash(json.loads(facts))
        db.execute("UPDATE environments SET id = ?", (now,))
        db.execute("UPDATE trials SET environment = ?", (now,))
        reseal(db)
    return path


COMMANDS = {
    "report": ("report", "{store}", "--out", "{out}"),
    "terminal": ("report", "{store}", "--format", "terminal"),
    "watch": ("watch", "{store}", "--every", "0.1"),
    "list": ("list", "results", "--results", "{results}"),
    "show": ("show", "{trial}", "--store", "{store}"),
    "doctor": ("doctor", "{store}"),
    "sign": ("sign", "{store}", "--key", "{store}"),
    "export": ("export", "{store}", "-o", "{out}"),
    "merge": ("merge", "{store}", "{store}", "-o", "{out}/merged"),
    "no such optimizer": ("report", "{store}", "--baseline", "x\x1b[31m"),
    "no such trial": ("show", "x\x1b[31m", "--store", "{store}"),
}


def run(command, sent, tmp_path):
    with closing(sqlite3.connect(sent)) as db:
        (key,) = db.execute("SELECT trial_id FROM trials").fetchone()
    places = {"store": sent, "out": tmp_path, "results": sent.parent.parent, "trial": key}
    return CliRunner().invoke(app, [word.format(**places) for word in command])


@pytest.mark.parametrize("name", COMMANDS)
def test_no_control_character_reaches_the_terminal(sent, tmp_path, name):
    done = run(COMMANDS[name], sent, tmp_path)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    output = done.output + done.stderr
    assert output
    assert visible(output, lines=True) == output


def test_no_cell_of_an_exported_table_is_a_formula(sent, tmp_path):
    for command in ("report", "export"):
        assert run(COMMANDS[command], sent, tmp_path).exit_code == 0
    files = list(tmp_path.rglob("*.csv"))
    assert {"trials.csv", "leaderboard.csv", "comparisons.csv"} <= {path.name for path in files}
    seen = 0
    for path in files:
        for row in csv.reader(io.StringIO(path.read_text("utf-8"))):
            for text in row:
                seen += text.startswith("'=")
                assert not text.startswith(("=", "@", "\t", "\r")), (path, text)
                if text.startswith(("+", "-")) and text != "-":
                    float(text.partition(" [")[0])
    assert seen


@pytest.mark.parametrize(
    "text", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd|x", "\t=1", "-x", "+1+1"]
)
def test_a_formula_becomes_a_text(text):
    assert cell(text) == f"'{text}"
    frame = pd.DataFrame({text: [text], "n": [-1.5], "c": pd.Categorical([text])})
    read = list(csv.reader(io.StringIO(frame_csv(frame))))
    assert read == [[f"'{text}", "n", "c"], [f"'{text}", "-1.5", f"'{text}"]]
    table = TextTable(title="t", columns=(text,), rows=((text,),))
    assert table_csv(table).count("'") >= 2


@pytest.mark.parametrize("value", ["-", "-0.5", "+1.25 [-0.5, +3.0]", "1e-5", "adam", -0.5, None, 7])
def test_numbers_and_plain_texts_stay(value):
    assert cell(value) == value


PLACES = (
    ("suite: tiny", 'suite: tiny\ntitle: "{}"'),
    ("wame: {", '"w{}": {optimizer: wame, '),
    ("hidden: [8]", 'hidden: [8], "x{}": 1'),
)


@pytest.mark.parametrize("text", ["\\e[2J", "\\0", "\\x07", "\\ud800", "\\u009b1m"])
@pytest.mark.parametrize(("old", "new"), PLACES)
def test_a_suite_with_control_characters_is_refused(write_suite, text, old, new):
    path = write_suite((old, new.replace("{}", text, 1)), text=TINY.replace("baseline: wame", "alpha: 0.05"))
    with pytest.raises(SuiteError, match="without control characters"):
        load_suite(path)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("run `optbench doctor A_B` now", "run `optbench doctor A_B` now"),
        ("a` <b>*\n c", r"a\` \<b\>\* c"),
        ("`x", r"\`x"),
    ],
)
def test_code_in_a_sentence_stays_code_in_markdown(text, written):
    assert markdown_prose(text) == written


def test_a_label_is_no_markup_of_the_terminal(tmp_path):
    pytest.importorskip("torch", reason="plans trials with PyTorch")
    workload = "{dataset: digits, model: mlp, batch_size: 64, epochs: 1, name: '[/]'}"
    optimizers = "{'[bold]x[/bold]': {optimizer: adam}}"
    (tmp_path / "s.yaml").write_text(
        f"suite: s\nworkloads: [{workload}]\noptimizers: {optimizers}\nseeds: 1\n"
    )
    done = CliRunner().invoke(app, ["run", str(tmp_path / "s.yaml"), "--plan"])
    assert done.exit_code == 0, done.exception
    assert "[/]" in done.output
    assert "[bold]x[/bold]" in done.output
