"""What people mistype, and what they are told: each answer names what was meant and what to do."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from optbench import environment
from optbench.cli import BEGIN, app, complete
from optbench.optimizers import FAMILIES
from optbench.suite.load import load_suite
from optbench.suite.spec import SuiteError
from tests.conftest import inside

ADAM = "adam: {lr: 0.01}"
#: A change of a suite that works, and what the answer must hold.
IN_A_SUITE = {
    "learning_rate": ((ADAM, "adam: {learning_rate: 0.01}"), ["'learning_rate'", "Did you mean 'lr'?"]),
    "beta_1": ((ADAM, "adam: {lr: 0.01, beta_1: 0.9}"), ["Did you mean 'beta1'?"]),
    "epsilon": ((ADAM, "adam: {lr: 0.01, epsilon: 1e-8}"), ["Did you mean 'eps'?"]),
    "another's hyperparameter": (
        (ADAM, "adam: {lr: 0.01, momentum: 0.9}"),
        ["unknown key 'momentum'", "Known:"],
    ),
    "an unknown optimizer": (
        (ADAM, "frobnicator: {lr: 0.01}"),
        ["class: my_opt.py:MyOpt", "optbench new optimizer"],
    ),
    "a misspelt optimizer": ((ADAM, "adm: {lr: 0.01}"), ["Did you mean 'adam'?"]),
    "resnet18": (
        ("name: mlp, hidden: [8]", "name: resnet18"),
        ["Did you mean 'resnet'?", "`layers:`", "docs/howto/model.md"],
    ),
    "cnn": (("name: mlp, hidden: [8]", "name: cnn"), ["Did you mean 'cnn_bn' or 'small_cnn' or"]),
    "another name of a dataset": (
        ("dataset: digits", "dataset: fashion_mnist"),
        ["Did you mean 'fashion-mnist'?"],
    ),
    "a dataset that is not here": (
        ("dataset: digits", "dataset: my_table"),
        ["csv: table.csv", "docs/howto/data.md"],
    ),
    "batch": (("batch_size: 256", "batch: 256"), ["Did you mean 'batch_size'?"]),
    "max_epochs": (("epochs: 2", "max_epochs: 2"), ["Did you mean 'epochs'?"]),
    "lr_scheduler": (("epochs: 2", "epochs: 2\n    lr_scheduler: cosine"), ["Did you mean 'schedule'?"]),
    "optimisers": (("optimizers:", "optimisers:"), ["Did you mean 'optimizers'?"]),
    "n_seeds": (("seeds: 2", "n_seeds: 2"), ["Did you mean 'seeds'?"]),
    "keras": (("seeds: 2", "seeds: 2\nbackends: [keras]"), ["Did you mean 'tensorflow'?"]),
    "fp32": (("seeds: 2", "seeds: 2\nprecision: fp32"), ["Did you mean 'float32'?"]),
    "device gpu": (("seeds: 2", "seeds: 2\ndevice: gpu"), ["Did you mean 'cuda'?"]),
    "reference": (("{baseline: wame}", "{reference: wame}"), ["Did you mean 'baseline'?"]),
    "accuracy": (("{baseline: wame}", "{primary: accuracy}"), ["Did you mean 'test_accuracy'?"]),
    "betas": ((ADAM, "adam: {betas: [0.9, 0.99]}"), ["Did you mean 'beta1'?"]),
    "a list of optimizers": (
        ("optimizers:\n  wame: {lr: 0.05}\n  adam: {lr: 0.01}", "optimizers: [wame, adam]"),
        ["found ['wame', 'adam']; must be a mapping, such as {name: {key: value}}"],
    ),
    "no such file": ((ADAM, "mine: {class: my_opt.py:MyOpt}"), ["my_opt.py: there is no such file"]),
}


@pytest.mark.parametrize("typo", IN_A_SUITE)
def test_a_typo_in_a_suite_is_answered_with_what_was_meant(write_suite, typo):
    change, expected = IN_A_SUITE[typo]
    path = write_suite(change)
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    text = str(caught.value)
    assert text.startswith(f"{path}:")
    for words in expected:
        assert words in text, text


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        ("quik", "did you mean quick?"),
        ("tinny.yaml", "did you mean tiny.yaml?"),
        ("tiny.yml", "did you mean tiny.yaml?"),
        ("frobnicate", "a name of `optbench list suites`"),
        ("nowhere/tiny.yaml", "give the path of a suite file"),
    ],
)
def test_a_mistyped_suite_is_answered_with_the_nearest(write_suite, typed, answer):
    with inside(write_suite().parent), pytest.raises(SuiteError) as caught:
        load_suite(typed)
    assert str(caught.value).startswith(f"{typed}: cannot be read")
    assert answer in str(caught.value)


def test_lion_is_there_or_one_is_told_what_brings_it(write_suite):
    path = write_suite((ADAM, "lion: {lr: 0.001}"))
    if "lion" in FAMILIES:
        assert "lion" in load_suite(path).optimizers
        return
    with pytest.raises(SuiteError, match="pip install lion-pytorch, then lion"):
        load_suite(path)


def cli(*arguments, cwd="."):
    with inside(cwd, COLUMNS="140"):
        return CliRunner().invoke(app, [*map(str, arguments)])


def test_one_of_something_may_be_listed():
    assert "mnist-mini" in cli("list", "dataset").stdout


def test_an_unknown_list_is_answered_in_plain_words():
    done = cli("list", "modles")
    assert done.exit_code == 2
    assert done.stderr == (
        "list: unknown value 'modles'. Did you mean 'models'? Known: datasets, models, optimizers, suites, "
        "results\n"
    )


def test_the_program_alone_says_what_to_begin_with():
    done = cli()
    assert done.exit_code == 0
    assert done.stdout.strip() == BEGIN
    for command in ("optbench run quick", "optbench new optimizer", "optbench compare"):
        assert command in BEGIN


def test_help_is_in_the_order_of_use():
    text = cli("--help").stdout
    order = [text.index(f"─ {panel} ") for panel in ("Compare", "Look", "Extend", "Housekeeping")]
    assert order == sorted(order)
    assert text.index("│ run ") < text.index("│ report ") < text.index("│ list ") < text.index("│ doctor ")


@pytest.mark.parametrize("command", [("plan",), ("run", "--plan")])
def test_a_plan_says_which_data_and_code_are_lacking(write_suite, tmp_path, command):
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n\n\nclass Mine: ...\n")
    path = write_suite(
        (ADAM, f"{ADAM}\n  mine: {{class: broken.py:Mine, lr: 0.1}}"),
        ("dataset: digits", "dataset: cifar-10"),
    )
    with inside(tmp_path, OPTBENCH_DATA=str(tmp_path / "empty"), HOME=str(tmp_path)):
        done = CliRunner().invoke(app, [command[0], str(path), *command[1:]])
    said = " ".join(done.stdout.split())  # a narrow terminal breaks lines
    assert "optbench data fetch cifar-10" in said
    assert "broken.py:Mine does not import" in said
    assert "nothing_of_that_name" in said


def test_a_plan_opens_with_its_four_answers(write_suite, tmp_path):
    text = cli("plan", write_suite(), "--results", tmp_path).stdout
    heads = ["How much: 4 trials", "How long: about ", "What it can show: ", "What is lacking: nothing"]
    assert [text.index(head) for head in heads] == sorted(text.index(head) for head in heads)
    assert text.index(heads[-1]) < text.index("│ digits/mlp")


def test_a_hint_installs_into_the_clone_or_the_package(tmp_path, monkeypatch):
    assert environment.pip_hint("jax") == "pip install -e '.[jax]'"
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "site" / "optbench" / "environment.py"))
    assert environment.pip_hint("jax") == "pip install 'optbench[jax]'"


def test_the_shell_completes_datasets_backends_formats_and_suites(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("")
    (tmp_path / "more").mkdir()
    assert complete.datasets("mnist") == ["mnist-mini", "mnist"]
    assert complete.of(complete.BACKENDS)("t") == ["torch", "tensorflow"]
    assert complete.of(complete.FORMATS)("h") == ["html"]
    assert complete.suites("m")[:2] == ["mine.yaml", "more/"]
    assert "lecture" in complete.suites("lec")
    assert complete.suites("more/") == []


def test_what_is_completed_is_what_is_known():
    from optbench.report.build import FORMATS
    from optbench.suite.load import BACKENDS, DEVICES

    assert set(complete.FORMATS) == {"terminal", *FORMATS}
    assert complete.BACKENDS == BACKENDS
    assert complete.DEVICES == DEVICES
