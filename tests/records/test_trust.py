"""An untrusted store: what is read of it runs none of the code that it names."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import pytest

from optbench import api
from optbench.records.store import Store
from optbench.records.trust import UntrustedError, check_trust, named_code

SUITE = """
suite: sent
workloads:
  - dataset: {class: "made.py:blobs", test: 0.4}
    model: {name: mlp, hidden: [4]}
    batch_size: 32
    epochs: 1
    metrics: {doubt: {class: "score.py:doubt", minimise: true}}
optimizers:
  adam: {lr: 0.01}
  mine: {class: "mine.py:Mine", lr: 0.1}
seeds: 1
"""
MARK = "open(__file__ + '.ran', 'a').write('x')\n"
FILES = {
    "made.py": f"""
import numpy as np
{MARK}
def blobs():
    {MARK}
    rng = np.random.default_rng(0)
    y = np.arange(100) % 2
    return (rng.normal(size=(100, 3)) + y[:, None]).astype("float32"), y
""",
    "score.py": f"{MARK}\ndef doubt(probabilities, labels):\n    {MARK}\n    return 0.5\n",
    "mine.py": f"import torch\n{MARK}\nclass Mine(torch.optim.SGD):\n    {MARK}\n    pass\n",
}
#: Calls each command in a process that has imported none of the files; prints exit codes and output.
CALLS = """
import json, sys
from typer.testing import CliRunner
from optbench.cli import app
found = []
for words in json.loads(sys.argv[1]):
    done = CliRunner().invoke(app, words)
    trace = done.exception is not None and not isinstance(done.exception, SystemExit)
    found.append([done.exit_code, done.output + done.stderr, trace])
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """A store whose data, metric and optimizer are files; and a folder in which those files lie again."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("sent")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "sent.yaml").write_text(SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "optbench.cli", "run", "sent.yaml", "--results", "results"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(marks(folder)) == len(FILES)
    with Store(folder / "results" / "sent") as store:
        ids = {optimizer: key for key, _, optimizer in store.plan()}
    return folder, ids


def marks(folder):
    return sorted(path.name for path in folder.glob("*.ran"))


def call(folder, *commands):
    """Exit codes and output of commands, and the files that ran meanwhile."""
    for path in folder.glob("*.ran"):
        path.unlink()
    done = subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps([[str(word) for word in words] for words in commands])],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert "FOUND" in done.stdout, done.stderr
    found = json.loads(done.stdout.partition("FOUND")[2])
    assert not any(trace for _, _, trace in found), found
    return [(code, output) for code, output, _ in found], marks(folder)


def test_reading_reporting_showing_exporting_and_merging_run_none_of_its_code(sent):
    folder, ids = sent
    store = folder / "results" / "sent"
    shown = [(word, str(key)) for key in ids.values() for word in ("show",)]
    found, ran = call(
        folder,
        ("report", store, "--out", "report"),
        *((*words, "--store", store) for words in shown),
        ("export", store, "-o", "tables"),
        ("merge", store, store, "-o", "merged"),
        ("list", "results", "--results", folder / "results"),
        ("watch", store, "--every", "0.1"),
        ("doctor", "--results", folder / "results"),
        ("doctor", store),
    )
    assert [code for code, _ in found] == [0] * len(found), found
    assert not ran


def test_what_would_run_its_code_says_so_and_runs_none(sent):
    folder, ids = sent
    store = folder / "results" / "sent"
    commands = [
        (*words, "--store", store)
        for key in ids.values()
        for words in (("rerun", key), ("show", key, "--plots"), ("show", key, "--plots", "--weights"))
    ]
    found, ran = call(folder, *commands)
    assert not ran
    for (code, output), words in zip(found, commands, strict=True):
        assert code == 2
        assert "made.py:blobs" in output
        assert "as recorded" in output
        assert "--trust" in output
        trains = words[0] == "rerun" or "--weights" in words
        assert ("score.py:doubt" in output) is trains
        assert ("mine.py:Mine" in output) is (trains and words[1] == ids["mine"])


@pytest.mark.slow
def test_trusted_code_runs_if_it_is_what_was_recorded(sent):
    folder, ids = sent
    store = folder / "results" / "sent"
    command = ("rerun", ids["mine"], "--store", store, "--trust")
    ((code, output),), ran = call(folder, command)
    assert (code, "identical" in output) == (0, True), output
    assert len(ran) == len(FILES)
    for name, text in FILES.items():
        (folder / name).write_text(text + "# another line\n")
        ((code, output),), ran = call(folder, command)
        (folder / name).write_text(text)
        assert code == 2, output
        assert name in output
        assert "nothing was run" in output
        assert not ran


def test_a_store_that_asks_for_a_module_imports_no_package_before_it_is_trusted(sent, tmp_path):
    folder, ids = sent
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text(MARK)
    (tmp_path / "pack" / "inner.py").write_text("class Mine: ...\n")
    path = tmp_path / "store.sqlite"
    path.write_bytes((folder / "results" / "sent" / "store.sqlite").read_bytes())
    with sqlite3.connect(path) as db:
        query = "UPDATE trials SET spec = replace(spec, 'mine.py:Mine', 'pack.inner:Mine')"
        assert db.execute(query).rowcount
    db.close()
    found, _ = call(tmp_path, *((word, ids["mine"], "--store", path) for word in ("show", "rerun")))
    assert [code for code, _ in found] == [0, 2]
    assert "pack.inner:Mine" in found[1][1]
    assert not (tmp_path / "pack" / "__init__.py.ran").exists()


def test_a_trial_of_optbench_s_own_parts_needs_no_trust(write_suite, tmp_path):
    store = api.run(write_suite(), results=tmp_path, only=lambda t: t.spec.seeds.init == 0).store
    with Store(store) as opened:
        for trial in opened.trials():
            assert not named_code(trial.spec)
            check_trust(trial, folder=tmp_path, trust=False)


def test_what_is_named_is_listed_with_what_was_recorded(tmp_path):
    (tmp_path / "mine.py").write_text("class Mine: ...\n")
    spec = {
        "optimizer": {"optimizer": "custom", "reference": "mine.py:Mine", "code": "sha256:0"},
        "workload": {"dataset": {"kind": "class", "location": "gone.py:data"}},
    }
    words = [code.words(tmp_path) for code in named_code(spec)]
    assert words[0] == "optimizer mine.py:Mine (its content has changed since)"
    assert words[1].startswith("data gone.py:data (no such file")
    trial = SimpleNamespace(trial_id="t", spec=spec)
    with pytest.raises(UntrustedError, match=r"mine.py:Mine was sha256:0 and is sha256:"):
        check_trust(trial, folder=tmp_path, trust=True)
