from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import pytest
from PIL import Image
from typer.testing import CliRunner

import optbench
from optbench.cli import app
from optbench.records.step_times import read
from optbench.records.store import Store
from optbench.suite.load import load_suite
from tests.conftest import inside
from tests.report.conftest import fill_store

pytest.importorskip("torch", reason="runs trials with PyTorch")


def run(*arguments, cwd=".") -> subprocess.CompletedProcess[str]:
    """Run a command line in this process, which has everything imported; an error it hides is raised."""
    with inside(cwd, COLUMNS="140"):
        done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def program(*arguments) -> subprocess.CompletedProcess[str]:
    """Run a command line as a user does, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "optbench.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "140"},
    )


def test_run_report_list_and_show(write_suite, tmp_path):
    path, results = write_suite(), tmp_path / "results"
    done = program("run", path, "--results", results)
    assert done.returncode == 0, done.stderr
    assert "4 completed, 0 diverged, 0 crashed, 0 not run" in done.stdout
    assert "smallest attainable" in done.stdout
    assert run("report", path, "--results", results).returncode == 0
    assert (results / "tiny" / "report" / "index.html").is_file()
    assert run("report", results / "tiny", "--format", "terminal").returncode == 0
    assert "results/tiny" in run("list", "results", cwd=tmp_path).stdout
    with Store(results / "tiny") as store:
        trial = next(iter(store.statuses()))
    shown = run("show", trial[:8], "--results", results)
    assert shown.returncode == 0
    assert f"trial_id: {trial}" in shown.stdout


@pytest.mark.parametrize("what", ["datasets", "models", "optimizers", "suites"])
def test_lists(what, repository):
    done = run("list", what, cwd=repository)
    assert done.returncode == 0
    expected = {"datasets": "mnist-mini", "models": "small_cnn", "optimizers": "wame", "suites": "quick.yaml"}
    assert expected[what] in done.stdout


BAD = {
    "misspelt key": "suite: x\nworkload: []\n",
    "wrong type": "suite: x\nworkloads: 3\noptimizers: {}\n",
    "broken": "suite: [x\n",
    "bomb": "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
    "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
    "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
    "object tag": "suite: !!python/object/apply:os.system ['touch pwned']\n",
    "empty": "",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_bad_suites_exit_with_2_and_one_message(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    done = run("run", path, "--results", tmp_path / "results", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}:")
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.yaml"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "none"], "--seeds: found 'none'"),
        (["--seeds", "0"], "--seeds: found 0"),
        (["--device", "gpu"], "has no device 'cuda'"),
        (["--device", "cuda:1"], "CUDA_VISIBLE_DEVICES=1"),
        (["--device", "cuda"], "has no device 'cuda'"),
        (["--backend", "troch"], "Did you mean 'torch'"),
        (["--only", "optimizer=adams"], "Did you mean 'adam'"),
        (["--only", "seed=1"], "--only: unknown value 'seed'"),
    ],
)
def test_bad_options_exit_with_2_and_say_what_is_allowed(write_suite, tmp_path, arguments, words):
    done = run("run", write_suite(), "--results", tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_suite_ends_the_program_with_2_and_no_traceback(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(BAD["misspelt key"])
    done = program("run", path, "--results", tmp_path / "results")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{path}:")
    assert "Traceback" not in done.stderr


def test_a_plan_runs_nothing(write_suite, tmp_path):
    done = run("run", write_suite(), "--results", tmp_path / "results", "--plan")
    assert done.returncode == 0
    assert "4 trials" in done.stdout
    assert not (tmp_path / "results").exists()


def test_a_crash_exits_with_4_after_the_others_ran(write_suite, tmp_path):
    (tmp_path / "broken.py").write_text(
        "import torch\n\n\nclass Broken(torch.optim.SGD):\n    taken = 0\n    def step(self, closure=None):\n"
        "        self.taken += 1\n"
        "        if self.taken > 2:\n"  # later than what is tried before anything is trained
        "            raise ValueError('made')\n"
    )
    path = write_suite(("adam: {lr: 0.01}", "broken: {class: broken.py:Broken, lr: 0.1}"))
    done = run("run", path, "--results", tmp_path)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "2 completed, 0 diverged, 2 crashed" in done.stdout
    assert "ValueError" in done.stdout


def test_a_batch_that_no_batch_normalisation_takes_is_said_before_anything_is_trained(write_suite, tmp_path):
    path = write_suite(
        ("{name: mlp, hidden: [8]}", "{layers: [{kind: dense, units: 4}, batch_norm, dense]}"),
        ("batch_size: 256", "batch_size: 1292"),
    )
    done = run("run", path, "--results", tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{path}: batch_size: found 1292, which makes a batch of one" in done.stderr


@pytest.mark.slow
def test_time_runs_what_is_missing_then_only_times(write_suite, tmp_path, monkeypatch):
    command = ("run", write_suite(), "--results", tmp_path, "--time", "--only", "optimizer=adam")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a lock of this test's own
    first, second = run(*command), run(*command)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "2 trials run" in first.stdout
    assert "0 trials run" in second.stdout
    assert "timing digits/mlp (torch): adam" in second.stdout
    assert "Timing pass" in second.stdout
    with Store(tmp_path / "tiny") as store:
        (entry,) = read(store.meta())
    assert entry.host_bytes is None or entry.host_bytes > entry.host_start_bytes


def test_plan_says_what_the_seeds_can_show_and_writes_nothing(write_suite, tmp_path):
    done = run("plan", write_suite(), "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert "no test can reject at 0.05" in done.stdout
    assert not (tmp_path / "results").exists()


def test_compare_takes_runs_without_common_seeds_as_independent(tmp_path):
    path = tmp_path / "runs.csv"
    rows = [
        (o, s, 0.8 + 0.1 * (o == "b") + 0.001 * s)
        for o, first in (("a", 0), ("b", 9))
        for s in range(first, first + 6)
    ]
    path.write_text("optimizer,seed,accuracy\n" + "".join(f"{o},{s},{v}\n" for o, s, v in rows))
    found = json.loads(run("compare", path, "--baseline", "a", "--json").stdout)
    assert found["schema"] == "optbench-independent/1"
    assert found["comparisons"]["runs"][0]["verdict"]["word"] == "better"
    done = run("compare", path, "--target", "0.85")
    assert "Is the typical run above 0.85?" in done.stdout
    assert "independent runs" in done.stdout
    paired = json.loads(run("compare", path, "--baseline", "a", "--paired", "--json").stdout)
    assert paired["within"][0]["comparisons"][0]["n"] == 0


def test_compare_reads_a_table_and_prints_json(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("dataset,adam,wame\n" + "".join(f"d{k},0.{k + 1},0.{k + 2}\n" for k in range(7)))
    done = run("compare", path, "--maximise", "--baseline", "adam", "--json")
    assert done.returncode == 0, done.stderr
    (comparison,) = json.loads(done.stdout)["new_datasets"]["comparisons"]
    assert comparison["signed_rank"]["pvalue"] == 2 / 2**7
    assert comparison["verdict"]["word"] == "better"
    assert "better" in run("compare", path, "--maximise", "--baseline", "adam").stdout
    refused = run("compare", path)
    assert refused.returncode == 2
    assert "--maximise or --minimise" in refused.stderr
    assert run("compare", tmp_path / "none.csv").returncode == 2


def test_verify_passes_a_family_and_names_the_known_ones(tmp_path):
    done = run("verify", "sgd", "--backend", "torch")
    assert done.returncode == 0, done.stdout
    assert " 0 failed" in done.stdout
    unknown = run("verify", "sgdd")
    assert unknown.returncode == 2
    assert "choose from wame" in unknown.stderr


def test_verify_fails_an_optimizer_that_does_nothing(tmp_path):
    path = tmp_path / "idle.py"
    path.write_text(
        "import torch\n"
        "class Idle(torch.optim.Optimizer):\n"
        "    def __init__(self, params, lr=0.1):\n"
        "        super().__init__(params, {'lr': lr})\n"
        "    def step(self, closure=None):\n"
        "        return None\n"
    )
    done = run("verify", "idle.py:Idle", cwd=tmp_path)
    assert done.returncode == 1
    assert "FAIL" in done.stdout


def test_missing_data_exits_with_3_and_the_way_to_get_it(write_suite, tmp_path):
    folder = tmp_path / "data"
    path = write_suite(("dataset: digits", "dataset: sign-mnist"))
    ran = run("run", path, "--results", tmp_path / "results", "--data-dir", folder)
    fetched = run("data", "fetch", "sign-mnist", "--data-dir", folder)
    for done in (ran, fetched, run("data", "path", "sign-mnist", "--data-dir", folder)):
        assert done.returncode == 3
        assert "Traceback" not in done.stderr
        assert str(folder) in done.stderr
    assert "sign_mnist_train.csv" in fetched.stderr
    assert "kaggle" in fetched.stderr
    assert run("data", "path", "mnits").returncode == 2


def test_version_and_help():
    assert program("--version").stdout == f"optbench {optbench.__version__}\n"
    for command in ("run", "plan", "report", "compare", "list", "show"):
        done = run(command, "--help")
        assert done.returncode == 0
        assert "Example" in done.stdout


HEAVY = ("torch", "tensorflow", "jax", "pandas", "scipy", "matplotlib", "sklearn", "statsmodels", "pydantic")


@pytest.mark.parametrize("code", ["import optbench", "import optbench.cli as c; c.app(['--help'])"])
def test_importing_and_help_load_nothing_heavy(code):
    script = f"""
import sys
try:
    {code}
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_the_report_of_a_store_in_the_terminal_loads_only_what_it_shows(write_suite, tmp_path):
    suite = load_suite(write_suite())
    folder = fill_store(suite, tmp_path / "store", lambda trial: 0.9)
    heavy = (
        *HEAVY[:3],
        *HEAVY[5:8],
        "scipy.stats",
        "yaml",
        "multiprocessing",
        "jinja2",
        "optbench.execution",
    )
    script = f"""
import sys
import optbench.cli
sys.argv = ["optbench", "report", {str(folder)!r}, "--format", "terminal"]
try:
    optbench.cli.main()
except SystemExit as end:
    assert not end.code
print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "digits/mlp" in done.stdout
    assert done.stderr.strip() == "[]"


def test_stats_and_report_import_no_framework():
    code = (
        "import sys, optbench.report.build, optbench.stats.paired, optbench.records.frames;"
        "print([m for m in ('torch', 'tensorflow', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_show_augment_draws_a_sample(write_suite, tmp_path):
    path = write_suite(("    epochs: 2", "    epochs: 2\n    augment: {rotation: 20}"))
    done = run("show", path, "--augment", "--out", tmp_path / "pictures")
    assert done.returncode == 0, done.stderr
    (picture,) = (tmp_path / "pictures").iterdir()
    with Image.open(picture) as image:
        assert len(image.convert("L").getcolors(256)) > 20
    assert run("show", write_suite(), "--augment").returncode == 2
