from __future__ import annotations

import sqlite3

import numpy as np
import pandas as pd
import pytest

from optbench import api
from optbench.records.frames import epochs_to_target, load_results
from optbench.records.gathered import seed_label
from optbench.records.pairing import prove_blocks
from optbench.report.leaderboard import leaderboards


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory):
    from tests.conftest import TINY

    pytest.importorskip("torch", reason="the trials to read are trained in PyTorch")
    folder = tmp_path_factory.mktemp("frames")
    suite = folder / "tiny.yaml"
    suite.write_text(TINY)
    api.run(suite, results=folder)
    return folder


def test_frames_are_tidy(results_folder):
    results = load_results(results_folder / "tiny")
    assert list(results.trials["optimizer"]) == ["wame", "adam", "wame", "adam"]
    assert list(results.trials["seed"]) == ["0", "0", "1", "1"]
    assert results.trials["block"].nunique() == 2
    assert len(results.epochs) == 4 * 3
    first = results.epochs[results.epochs["trial_id"] == results.trials["trial_id"][0]]
    assert list(first["epoch"]) == [0, 1, 2]
    assert first["seconds"].iloc[0] == 0
    assert first["seconds"].iloc[2] == pytest.approx(first["step_seconds"].sum())
    assert not results.refusals


@pytest.mark.parametrize(
    ("column", "words"),
    [("init", "initial weights"), ("split", "data or split"), ('"order"', "batch order")],
)
def test_a_pair_whose_fingerprints_differ_is_refused(results_folder, tmp_path, column, words):
    copy = tmp_path / "store.sqlite"
    source = sqlite3.connect(results_folder / "tiny" / "store.sqlite")
    target = sqlite3.connect(copy)
    source.backup(target)
    victim = load_results(results_folder / "tiny").trials["trial_id"][1]
    target.execute(f"UPDATE trials SET {column} = 'tampered' WHERE trial_id = ?", (victim,))
    target.commit()
    target.close()
    source.close()
    results = load_results(copy)
    (refusal,) = results.refusals
    assert words in refusal.reason
    suite, _ = api.find_store(copy)
    (board,) = leaderboards(results, suite)
    (comparison,) = [row.comparison for row in board.rows if row.comparison]
    assert comparison.n == 1
    assert any("Refused" in note and words in note for note in board.notes)


def row(trial: str, **changes):
    return {
        "trial_id": trial,
        "block_id": "b",
        "optimizer": trial,
        "split": "s",
        "init": "i",
        "order": "o",
        **changes,
    }


def test_orders_are_compared_over_the_epochs_that_both_trained():
    rows = [row("a"), row("b"), row("c")]
    keys, refusals = prove_blocks(rows, {"a": (1, 2, 3), "b": (1, 2), "c": (1, 9, 3)})
    assert keys == ["b", "b", "b/1"]
    assert [(r.trial_id, r.reason) for r in refusals] == [("c", "the batch orders differ in epoch 2")]


def test_the_larger_group_of_a_block_is_kept():
    rows = [row("a", init="x"), row("b"), row("c")]
    keys, refusals = prove_blocks(rows, {"a": (), "b": (), "c": ()})
    assert keys[1] == keys[2] != keys[0]
    assert [r.trial_id for r in refusals] == ["a"]


def test_a_crash_pairs_with_nothing():
    rows = [row("a"), row("b", split=None, init=None, order=None)]
    keys, refusals = prove_blocks(rows, {"a": (), "b": ()})
    assert len(set(keys)) == 2
    assert not refusals


def test_seed_labels():
    streams = dict.fromkeys(("split", "init", "order", "dropout", "augment"), 3)
    assert seed_label(streams) == "3"
    assert seed_label({**streams, "split": 0, "order": 5}) == "init=3 order=5 dropout=3 augment=3"


def test_time_to_target_is_the_first_epoch_that_meets_all_targets():
    epochs = pd.DataFrame(
        {
            "trial_id": ["a"] * 3 + ["b"] * 3,
            "epoch": [0, 1, 2] * 2,
            "seconds": [0.0, 1.0, 2.0] * 2,
            "val_accuracy": [0.1, 0.95, 0.9, 0.1, 0.2, np.nan],
            "val_loss": [2.0, 0.5, 0.1, 2.0, 1.0, 0.1],
        }
    )
    reached = epochs_to_target(epochs, [("val_accuracy", 0.9)]).set_index("trial_id")
    assert reached.loc["a", "target_epoch"] == 1
    assert reached.loc["a", "target_seconds"] == 1.0
    assert np.isnan(reached.loc["b", "target_epoch"])
    both = epochs_to_target(epochs, [("val_accuracy", 0.9), ("val_loss", 0.2)]).set_index("trial_id")
    assert both.loc["a", "target_epoch"] == 2


@pytest.mark.parametrize("count", [3, 200])
@pytest.mark.parametrize("reaching", [0, 1, 2])
def test_time_to_target_where_few_or_none_of_many_trials_reach_it(count, reaching):
    names = [f"t{number}" for number in range(count)]
    epochs = pd.DataFrame(
        {
            "trial_id": pd.Categorical(np.repeat(names, 2), categories=names),
            "epoch": [0, 1] * count,
            "seconds": [0.0, 1.5] * count,
            "val_accuracy": np.repeat([0.95] * reaching + [0.5] * (count - reaching), 2),
        }
    )
    part = epochs[epochs["trial_id"].isin(names[: count // 2 + 1])]
    reached = epochs_to_target(part, [("val_accuracy", 0.9)]).set_index("trial_id")
    assert list(reached.index) == names[: count // 2 + 1]
    assert reached["target_epoch"].notna().sum() == reaching
    assert set(reached["target_seconds"].dropna()) == ({0.0} if reaching else set())
    assert list(reached.dtypes) == [float, float]
