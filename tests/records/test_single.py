import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from optbench import api
from optbench.cli import app, listing
from optbench.records import single
from optbench.records.store import Store, StoredTrial
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.trial import block_id, to_plain, trial_id


def recorded(spec, **changes) -> StoredTrial:
    """What a store gives back of a trial."""
    given = {
        "trial_id": trial_id(spec),
        "block_id": block_id(spec),
        "status": "completed",
        "attempts": 1,
        "started": "2020-01-01T00:00:00+00:00",
        "environment": {},
        "spec": json.loads(json.dumps(to_plain(spec))),
        "fingerprints": {},
        "order_by_epoch": (),
        "metrics": {},
        "timings": {},
        "history": {},
        "error": None,
    }
    return StoredTrial(**{**given, **changes})


def read_back(trial, folder, **labels):
    path = folder / "one.yaml"
    path.write_text(single.write(trial, store=folder, **labels))
    (found,) = trials(load_suite(path), lambda backend, device: device)
    return found


@pytest.mark.slow
def test_every_trial_of_the_suites_here_is_named_the_same_when_shown_and_read(repository, tmp_path):
    for file in sorted((repository / "suites").glob("*.yaml")):
        seen = set()
        for planned in trials(load_suite(file), lambda backend, device: "cpu"):
            if (planned.workload, planned.optimizer) in seen:
                continue
            seen.add((planned.workload, planned.optimizer))
            back = read_back(
                recorded(planned.spec), tmp_path, workload=planned.workload, optimizer=planned.optimizer
            )
            assert trial_id(back.spec) == trial_id(planned.spec), (file, planned.workload)
            assert (back.workload, back.optimizer) == (planned.workload, planned.optimizer)


@pytest.mark.parametrize("label", ["1e-3", "no", "null", "a: b", "# x", "<script> 🚀", "lr=0.1", "x" * 200])
def test_labels_and_words_that_yaml_would_take_for_something_else(write_suite, tmp_path, label):
    (tmp_path / "mine.py").write_text("class Mine: ...")
    text = f"mine: {{class: 'mine.py:Mine', lr: 1.0e-5, mode: {json.dumps(label)}, betas: [0, 1.0]}}"
    suite = load_suite(
        write_suite(("adam: {lr: 0.01}", text), ("seeds: 2", "seeds: {init: [1], order: [2]}"))
    )
    planned = next(p for p in trials(suite, lambda backend, device: "cpu") if p.optimizer == "mine")
    back = read_back(recorded(planned.spec), tmp_path, workload=label, optimizer=label)
    assert trial_id(back.spec) == trial_id(planned.spec)
    assert (back.workload, back.optimizer) == (label, label)


def test_data_of_ones_own_are_found_from_anywhere(write_suite, tmp_path):
    rows = "".join(f"{k},{k * k},{'ab'[k % 2]}\n" for k in range(40))
    (tmp_path / "mine.csv").write_text(f"p,q,kind\n{rows}")
    path = write_suite(("dataset: digits", "dataset: {csv: mine.csv, label: kind, test: 0.25}"))
    planned = trials(load_suite(path), lambda backend, device: "cpu")[0]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert trial_id(read_back(recorded(planned.spec), elsewhere).spec) == trial_id(planned.spec)
    (tmp_path / "mine.csv").write_text(f"p,q,kind\n{rows}9,9,a\n")
    with pytest.raises(single.NotRunnableError, match=r"the data in .*mine.csv have changed"):
        single.planned(recorded(planned.spec), folder=tmp_path)


def test_what_is_shown_of_a_real_trial_runs_and_gives_the_same_trial(write_suite, tmp_path):
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "optbench.cli"]
    results = ["--results", str(tmp_path / "results")]

    def only(trial):
        return trial.optimizer == "adam" and trial.spec.seeds.init == 0

    api.run(write_suite(), results=tmp_path / "results", only=only)
    with Store(tmp_path / "results" / "tiny") as store:
        (first,) = store.trials()
    shown = CliRunner().invoke(app, ["show", first.trial_id[:8], *results]).output
    (tmp_path / "one.yaml").write_text(shown)
    subprocess.run([*command, "run", str(tmp_path / "one.yaml"), *results], check=True, capture_output=True)
    with Store(tmp_path / "results" / f"trial-{first.trial_id}") as store:
        (again,) = store.trials()
    assert again.trial_id == first.trial_id
    assert again.metrics == first.metrics
    assert f"# trial_id: {first.trial_id}" in shown
    assert listing.show(first.trial_id, stores=[tmp_path / "results" / "tiny"]) == shown
