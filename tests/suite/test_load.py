from __future__ import annotations

from pathlib import Path

import pytest

from optbench.optimizers import Adam
from optbench.suite.expand import trials
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError
from optbench.trial import Seeds, block_id, trial_id


def plan(path: Path, device: str = "cpu"):
    return trials(load_suite(path), lambda backend, declared: device)


def test_tf32_is_for_nvidia_gpus_alone(write_suite):
    path = write_suite(("suite: tiny", "suite: tiny\nprecision: tf32"))
    assert {trial.spec.precision for trial in plan(path, "cuda")} == {"tf32"}
    with pytest.raises(SuiteError, match=r"precision: found 'tf32' with torch on cpu.*device: cuda"):
        plan(path)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("epochs: 2", "epoch: 2", 7, ["workloads[0].epoch", "Did you mean 'epochs'"]),
        ("suite: tiny", "suite: tiny\nsedes: 3", 3, ["sedes", "Did you mean 'seeds'"]),
        ("batch_size: 256", 'batch_size: "256"', 6, ["batch_size", "found '256'", "whole number", "full"]),
        ("batch_size: 256", "batch_size: true", 6, ["found True"]),
        ("batch_size: 256", "batch_size: 0", 6, ["found 0", "greater than 0"]),
        ("adam: {lr: 0.01}", "adan: {lr: 0.01}", 10, ["unknown optimizer 'adan'", "Did you mean 'adam'"]),
        ("adam: {lr: 0.01}", "adam: {lr: -0.01}", 10, ["optimizers.adam.lr", "found -0.01"]),
        ("adam: {lr: 0.01}", "adam: {lr: .inf}", 10, ["finite"]),
        ("adam: {lr: 0.01}", "adam: {beta: 0.9}", 10, ["'beta'", "Did you mean 'beta"]),
        ("adam: {lr: 0.01}", "adam: 0.01", 10, ["found 0.01", "{lr: 0.01}"]),
        ("adam: {lr: 0.01}", "other: {optimizer: wame, lr: 0.05}", 8, ["the same optimizer"]),
        ("dataset: digits", "dataset: digit", 4, ["unknown dataset", "Did you mean 'digits'", "mnist-mini"]),
        ("seeds: 2", "seeds: []", 11, ["found []"]),
        ("seeds: 2", "seeds: 0", 11, ["found 0"]),
        ("seeds: 2", "seeds: [1, 1]", 11, ["seeds[1]", "twice"]),
        ("seeds: 2", "seeds: [-1]", 11, ["found -1"]),
        ("seeds: 2", "seeds: {inti: 3}", 11, ["unknown stream", "Did you mean 'init'"]),
        ("name: mlp, hidden: [8]", "name: mpl", 5, ["unknown model", "Did you mean 'mlp'"]),
        ("name: mlp, hidden: [8]", "name: mlp, hiden: [8]", 5, ["Did you mean 'hidden'"]),
        ("name: mlp, hidden: [8]", "name: mlp, hidden: [0]", 5, ["model.hidden[0]", "found 0"]),
        ("name: mlp, hidden: [8]", "name: mlp, dropout: [0.1]", 5, ["1 rates for 2 layers"]),
        ("name: mlp, hidden: [8]", "layers: [{kind: dens}]", 5, ["layers[0].kind", "Did you mean 'dense'"]),
        ("name: mlp, hidden: [8]", "layers: [{kind: dense, units: 3}]", 5, ["10 outputs"]),
        ("name: mlp, hidden: [8]", "layers: [{kind: conv2d, filters: 2}]", 5, ["kernel", "is missing"]),
        ("{baseline: wame}", "{baseline: wane}", 12, ["Did you mean 'wame'"]),
        ("{baseline: wame}", "{alpha: 2}", 12, ["analysis.alpha", "less than 1"]),
        ("suite: tiny", "suite: ../tiny", 2, ["becomes a folder"]),
        ("    epochs: 2", "    epochs: 2\n    early_stopping: {patience: 0}", 8, ["early_stopping.patience"]),
        ("    epochs: 2", "    epochs: 2\n    grid: {epochs: 3}", 8, ["found 3", "a list of values"]),
        ("    epochs: 2", "    epochs: 2\n    optimizers: [sgd]", 8, ["unknown optimizer 'sgd'"]),
    ],
)
def test_an_error_names_file_line_field_and_choices(write_suite, old, new, line, words):
    path = write_suite((old, new))
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: ")
    for word in words:
        assert word in message


def test_all_problems_of_a_section_are_reported_at_once(write_suite):
    path = write_suite(("adam: {lr: 0.01}", "adam: {lr: 0, beta1: 1, eps: -1}"))
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_file_is_a_suite_error(tmp_path):
    with pytest.raises(SuiteError, match="cannot be read"):
        load_suite(tmp_path / "no.yaml")


def test_ids_do_not_depend_on_key_order_or_spelt_out_defaults(write_suite):
    first = plan(write_suite())
    second = plan(
        write_suite(
            (
                "    batch_size: 256\n    epochs: 2\n",
                "    epochs: 2\n    batch_size: 256\n    shuffle: true\n",
            ),
            ("adam: {lr: 0.01}", "adam: {eps: 1.0e-8, beta1: 0.9, lr: 1e-2}"),
            name="other.yaml",
        )
    )
    assert [trial_id(t.spec) for t in first] == [trial_id(t.spec) for t in second]


def test_ids_are_the_same_on_every_machine(write_suite):
    # Written down once: a change here renames every trial in every store.
    assert [trial_id(t.spec) for t in plan(write_suite())] == GOLDEN_IDS


GOLDEN_IDS = ["b1cba00b9d1f3038", "2c4f7e4e7bf5451d", "676d24b889200f9a", "f9d170fb14e06d29"]


def test_a_label_is_not_part_of_the_id_and_every_number_is(write_suite):
    base = plan(write_suite())
    renamed = plan(write_suite(("adam: {lr: 0.01}", "mine: {optimizer: adam, lr: 0.01}"), name="b.yaml"))
    assert [trial_id(t.spec) for t in base] == [trial_id(t.spec) for t in renamed]
    for old, new in [("lr: 0.01", "lr: 0.02"), ("epochs: 2", "epochs: 3"), ("[8]", "[9]")]:
        changed = plan(write_suite((old, new), name="c.yaml"))
        assert {trial_id(t.spec) for t in changed} != {trial_id(t.spec) for t in base}


def test_a_block_is_everything_but_the_optimizer(write_suite):
    planned = plan(write_suite())
    blocks = [block_id(t.spec) for t in planned]
    assert [t.optimizer for t in planned] == ["wame", "adam", "wame", "adam"]
    assert blocks[0] == blocks[1] != blocks[2] == blocks[3]


def test_seed_lists_a_stream_are_crossed(write_suite):
    suite = load_suite(write_suite(("seeds: 2", "seeds: {init: 2, order: [5, 6, 7]}")))
    assert len(suite.seeds) == 6
    assert suite.seeds[1] == Seeds(init=0, order=6)


def test_grids_are_crossed_and_labelled(write_suite):
    path = write_suite(
        ("epochs: 2", "epochs: 2\n    grid: {batch_size: [16, 32], model.dropout: [0.0, 0.5]}"),
        ("adam: {lr: 0.01}", "adam: {grid: {lr: [0.1, 0.01]}}"),
    )
    suite = load_suite(path)
    assert [w.label for w in suite.workloads] == [
        f"digits/mlp batch_size={b} dropout={d}" for b in (16, 32) for d in ("0", "0.5")
    ]
    assert [w.workload.batch_size for w in suite.workloads] == [16, 16, 32, 32]
    assert suite.optimizers == ("wame", "adam lr=0.1", "adam lr=0.01")


def test_a_workload_may_change_or_choose_its_optimizers(write_suite):
    changed = load_suite(write_suite(("epochs: 2", "epochs: 2\n    optimizers: {adam: {lr: 0.5}}")))
    assert changed.workloads[0].optimizers["adam"] == Adam(lr=0.5)
    chosen = load_suite(write_suite(("epochs: 2", "epochs: 2\n    optimizers: [adam]")))
    assert list(chosen.workloads[0].optimizers) == ["adam"]


def test_every_suite_of_the_repository_loads(repository):
    paths = sorted((repository / "suites").glob("*.yaml"))
    assert paths
    for path in paths:
        assert load_suite(path).workloads


def test_a_suite_s_hash_is_of_what_it_says_not_of_how(write_suite):
    plain = write_suite()
    hashes = {
        load_suite(write_suite(*changes, name=f"other{k}.yaml")).hash
        for k, changes in enumerate(
            [
                (("suite: tiny", "# a remark\n\nsuite: tiny  # its name"),),
                (("suite: tiny", 'suite: "tiny"'),),
                (("adam: {lr: 0.01}", "adam:\n    lr: 1e-2"),),
            ]
        )
    }
    assert hashes == {load_suite(plain).hash}
    changed = write_suite(("adam: {lr: 0.01}", "adam: {lr: 0.02}"), name="changed.yaml")
    assert load_suite(changed).hash != load_suite(plain).hash


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 2", "epochs: 2\n    optimizers: [{adam: 1}]", "unknown optimizer {'adam': 1}"),
        ("seeds: 2", "seeds: {init: 100000, order: 100000}", "10,000,000,000 blocks"),
        (
            "{lr: 0.01}",
            f"{{grid: {{lr: {list(range(1, 102))}, beta1: {[0.1] * 100}}}}}",
            "10,100 combinations",
        ),
    ],
)
def test_typos_are_answered_at_once(write_suite, old, new, message):
    with pytest.raises(SuiteError, match=message):
        load_suite(write_suite((old, new)))


@pytest.mark.parametrize(
    "schedule",
    [
        "{kind: linear, warmup: 12}",
        "{kind: chain, steps: [11], parts: [{kind: linear}, {kind: wsd, warmup: 1}]}",
    ],
)
def test_a_schedule_that_a_training_does_not_come_to_the_end_of_is_refused(write_suite, schedule):
    """Digits without a fifth are 1,150 examples: 5 batches of 256, so 10 steps in 2 epochs."""
    path = write_suite(("epochs: 2", f"epochs: 2\n    schedule: {schedule}"))
    with pytest.raises(
        SuiteError, match=r"schedule: is still in its first part at step 12 of a training of 1"
    ):
        load_suite(path)
    longer = schedule.replace("12", "9").replace("11", "8")
    assert load_suite(write_suite(("epochs: 2", f"epochs: 2\n    schedule: {longer}"))).workloads


def test_a_search_that_does_not_come_to_the_end_of_the_schedule_is_refused(write_suite):
    steps = "steps: 40\n    evaluate_every: 10\n    schedule: {kind: linear, warmup: 12}"
    for epochs, message in ((1, "at step 12 of a training of 10"), (2, "")):
        tuning = f"tuning: {{trials: 2, epochs: {epochs}}}\nseeds: 2"
        path = write_suite(("epochs: 2", steps), ("seeds: 2", tuning))
        if not message:
            assert load_suite(path).tuning
            continue
        with pytest.raises(SuiteError, match=rf"tuning.epochs.*is still in its first part {message}"):
            load_suite(path)


def test_a_workload_gives_a_class_of_ones_own_other_arguments(write_suite, tmp_path):
    (tmp_path / "mine.py").write_text("class Mine: ...")
    suite = load_suite(
        write_suite(
            ("adam: {lr: 0.01}", "mine: {class: 'mine.py:Mine', lr: 0.01}"),
            ("epochs: 2", "epochs: 2\n    optimizers: {mine: {lr: 0.1}}"),
        )
    )
    assert suite.workloads[0].optimizers["mine"].lr == 0.1


def test_many_problems_are_named_in_part(write_suite):
    with pytest.raises(SuiteError) as told:
        load_suite(write_suite(("hidden: [8]", f"hidden: {[-1] * 300}")))
    lines = str(told.value).splitlines()
    assert len(lines) == 41
    assert "and 260 more problems" in lines[-1]
