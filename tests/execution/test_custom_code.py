"""What code of a suite's own may do to a run: it ends its own trial at most, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from optbench import api
from optbench.errors import UserError
from optbench.execution.choice import OneByOne
from optbench.execution.jobs import InProcess
from optbench.execution.pool import Pool
from optbench.records.store import Store
from optbench.suite.load import load_suite
from tests.conftest import SHARED

pytest.importorskip("torch")

SUITE = """
suite: s
workloads: [{dataset: digits, model: {name: mlp, hidden: [8]}, batch_size: 256, epochs: 2}]
optimizers: {adam: {lr: 0.001}, mine: {class: "mine.py:Mine", lr: 0.1}}
seeds: 2
"""
CLASS = """
import ctypes, os, signal, sys, time
import torch

class Mine(torch.optim.SGD):
    def step(self, closure=None):
        {step}
        return super().step(closure)
"""
#: What a step does, and what the reason of the crash must say.
ENDS = {
    "sys.exit(0)": "called sys.exit(0)",
    "sys.exit('enough')": "called sys.exit('enough')",
    "raise KeyboardInterrupt": "nobody pressed Ctrl-C",
    "raise GeneratorExit": "GeneratorExit",
    "raise type('Mine', (BaseException,), {})('odd')": "odd",
    "os._exit(0)": "exit code 0",
    "os._exit(7)": "exit code 7",
    "ctypes.string_at(0)": "SIGSEGV",
    "os.kill(os.getpid(), signal.SIGKILL)": "SIGKILL",
    "os.closerange(0, 4096)": ("closed its connection", "ended itself"),
}


def write(folder, step, suite=SUITE):
    (folder / "s.yaml").write_text(suite)
    (folder / "mine.py").write_text(CLASS.format(step=step))
    return folder / "s.yaml"


def statuses(store):
    with Store(store) as opened:
        found = {"adam": [], "mine": []}
        for trial in opened.trials():
            name = "adam" if trial.spec["optimizer"]["optimizer"] == "adam" else "mine"
            found[name].append((trial.status, trial.error or ""))
        return found


#: Those that go each another way through the code; the others are slow tests.
QUICK = ("sys.exit(0)", "os._exit(0)")


@pytest.mark.parametrize(
    "step", [step if step in QUICK else pytest.param(step, marks=pytest.mark.slow) for step in ENDS]
)
def test_whatever_ends_a_process_ends_one_trial(tmp_path, step):
    outcome = api.run(write(tmp_path, step, SUITE.replace("seeds: 2", "seeds: 1")), results=tmp_path)
    assert (outcome.completed, outcome.crashed) == (1, 1)
    found = statuses(outcome.store)
    assert [status for status, _ in found["adam"]] == ["completed"]
    ((status, error),) = found["mine"]
    assert status == "crashed"
    said = ENDS[step]
    assert any(words in error for words in ([said] if isinstance(said, str) else said)), error


#: Exceptions whose text cannot be stored, read or made as it is; the third step raises them, past the tryout.
ODD_ERRORS = {
    "half a character": "ValueError('\\ud800 \\0')",
    "very long": "ValueError('x' * 3_000_000)",
    "no text": "type('E', (Exception,), {'__str__': lambda s: 1 / 0, '__repr__': lambda s: 1 / 0})()",
    "an exit code without a text": "SystemExit(type('C', (), {'__repr__': lambda s: 1 / 0})())",
}


@pytest.mark.parametrize("name", ODD_ERRORS)
def test_an_error_of_any_text_is_a_recorded_crash(tmp_path, name):
    from optbench.execution import local

    step = f"""self.taken = getattr(self, "taken", 0) + 1
        if self.taken > 2: raise {ODD_ERRORS[name]}"""
    path = tmp_path / "s.yaml"
    path.write_text(SUITE.replace("seeds: 2", "seeds: 1"))
    (tmp_path / "mine.py").write_text(CLASS.replace("{step}", step))
    outcome = local.run_suite(load_suite(path), results=tmp_path, executor=InProcess)
    assert (outcome.completed, outcome.crashed) == (1, 1)
    ((_, error),) = statuses(outcome.store)["mine"]
    assert 20 < len(error) < 110_000
    error.encode()


def test_an_error_without_a_text_is_said_before_anything_is_trained(tmp_path):
    from optbench.execution import local

    path = tmp_path / "s.yaml"
    path.write_text(SUITE)
    step = f"raise {ODD_ERRORS['no text']}"
    (tmp_path / "mine.py").write_text(CLASS.replace("{step}", step))
    with pytest.raises(UserError, match="E: its text cannot be made, ZeroDivisionError"):
        local.run_suite(load_suite(path), results=tmp_path, executor=InProcess)


def test_a_worker_that_leaves_with_code_0_is_replaced(tmp_path):
    outcome = api.run(write(tmp_path, "os._exit(0)"), results=tmp_path, workers=2)
    assert (outcome.completed, outcome.crashed) == (2, 2)


@pytest.mark.parametrize("step", ["sys.exit(0)", "raise KeyboardInterrupt"])
def test_in_this_process_too_what_can_be_caught_is_the_trial_s_crash(tmp_path, step):
    from optbench.execution import local

    outcome = local.run_suite(load_suite(write(tmp_path, step)), results=tmp_path, executor=InProcess)
    assert (outcome.completed, outcome.crashed) == (2, 2)


def test_the_exit_code_says_that_trials_crashed(tmp_path):
    for name in ("exits.py", "exits.yaml"):
        source = SHARED / "cases" / name
        if not source.exists():
            pytest.skip("no shared/cases beside the repository")
        shutil.copy(source, tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-m", "optbench.cli", "run", "exits.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4, done.stderr
    assert "6 completed, 0 diverged, 6 crashed, 0 not run" in done.stdout


#: After the steps that are tried before the training.
LEAVES = """self.taken = getattr(self, "taken", 0) + 1
        if self.taken < 3:
            return super().step(closure)
        os.chdir("/"); sys.stdout = sys.stderr = open(os.devnull, "w"); sys.stdout.close()
        os.close(1); signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 1000); torch.set_num_threads(2)
        torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); raise ValueError("enough")
"""


def test_a_trial_leaves_nothing_behind_in_its_process(tmp_path, capfd):
    import torch

    from optbench.execution import local

    path = write(tmp_path, LEAVES)
    before = (os.getcwd(), sys.stdout, sys.stderr)
    handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    only_mine = local.run_suite(
        load_suite(path), results=tmp_path, executor=InProcess, only=lambda t: t.optimizer == "mine"
    )
    assert only_mine.crashed == 2
    assert (os.getcwd(), sys.stdout, sys.stderr) == before
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    print("heard", flush=True)
    os.write(1, b"written\n")
    assert capfd.readouterr().out == "heard\nwritten\n"
    rest = local.run_suite(load_suite(path), results=tmp_path, executor=InProcess)
    assert (rest.completed, rest.crashed) == (2, 2)
    with Store(rest.store) as store:
        assert {t.environment["threads"] for t in store.trials() if t.status == "completed"} == {1}
    calm = local.run_suite(
        load_suite(path), results=tmp_path / "calm", executor=InProcess, only=lambda t: t.optimizer == "adam"
    )
    with Store(rest.store) as one, Store(calm.store) as other:
        for trial in other.trials():
            (found,) = one.trials([trial.trial_id])
            assert found.history["train_loss"].tobytes() == trial.history["train_loss"].tobytes()
    assert torch.get_default_dtype() == torch.float32


def test_only_a_suite_with_custom_code_gets_a_process_of_its_own(write_suite, tmp_path):
    from optbench.execution import local

    plain = OneByOne()
    plain.prepare(local.plan(load_suite(write_suite())))
    assert isinstance(plain._chosen, InProcess)
    custom = OneByOne()
    custom.prepare(local.plan(load_suite(write(tmp_path, "pass"))))
    try:
        assert isinstance(custom._chosen, Pool)
    finally:
        custom.close()


def test_the_process_of_custom_code_leaves_the_same_bits_and_compares_times(tmp_path):
    from optbench.execution import local
    from optbench.records.frames import load_results

    path = write(tmp_path, "pass")
    apart = api.run(path, results=tmp_path / "apart")
    here = local.run_suite(load_suite(path), results=tmp_path / "here", executor=InProcess)
    assert apart.completed == here.completed == 4
    with Store(apart.store) as one, Store(here.store) as other:
        for trial in one.trials():
            (twin,) = other.trials([trial.trial_id])
            assert twin.history["train_loss"].tobytes() == trial.history["train_loss"].tobytes()
    assert load_results(apart.store).trials["timed"].all()


def test_a_metric_that_ends_its_process_is_named_before_anything_is_trained(tmp_path):
    (tmp_path / "m.py").write_text("import os\ndef score(probabilities, labels):\n    os._exit(0)\n")
    text = SUITE.replace('mine: {class: "mine.py:Mine", lr: 0.1}', "sgd: {lr: 0.1}").replace(
        "epochs: 2}", "epochs: 2, metrics: {odd: {class: m.py:score, minimise: true}}}"
    )
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"metric odd: m.py:score.*exit code 0"):
        api.run(tmp_path / "s.yaml", results=tmp_path)
    with Store(tmp_path / "s") as store:
        assert not store.statuses()


UNGUARDED = """
import optbench
{before}
optbench.run("s.yaml", results="results"{options})
print("reached the end")
"""


@pytest.mark.parametrize(
    "options", [", workers=2", ', workers="auto"', ", time_limit=60"], ids=["workers", "auto", "limit"]
)
def test_workers_without_the_guard_are_refused_and_nothing_is_recorded(tmp_path, options):
    write(tmp_path, "pass")
    (tmp_path / "go.py").write_text(UNGUARDED.format(options=options, before=""))
    done = subprocess.run([sys.executable, "go.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr
    assert "go.py" in done.stderr.splitlines()[-1]
    assert "line 4" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "results").exists()


GUARDED = """
import optbench

def main():
    print(optbench.run("s.yaml", results="results", workers=2).completed, "completed")

if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_workers_under_the_guard_run(tmp_path):
    write(tmp_path, "pass")
    (tmp_path / "go.py").write_text(GUARDED)
    done = subprocess.run([sys.executable, "go.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "4 completed\n", done.stderr


def test_custom_code_without_the_guard_runs_in_this_process_and_says_so(tmp_path):
    write(tmp_path, "pass")
    (tmp_path / "go.py").write_text(UNGUARDED.format(options="", before=""))
    done = subprocess.run([sys.executable, "go.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "reached the end\n", done.stderr
    assert "custom code runs in this process" in done.stderr
    with Store(tmp_path / "results" / "s") as store:
        assert list(store.statuses().values()) == ["completed"] * 4


@pytest.mark.parametrize(
    "step",
    [
        "time.sleep(0.05)",
        "try: time.sleep(0.05)\n        except BaseException: pass",
    ],
)
@pytest.mark.slow
def test_a_person_s_ctrl_c_still_ends_the_run(tmp_path, step):
    path = write(tmp_path, step, SUITE.replace("seeds: 2", "seeds: 50").replace("epochs: 2", "epochs: 20"))
    code = (
        "from optbench.execution import local; from optbench.suite.load import load_suite\n"
        f"local.run_suite(load_suite({str(path)!r}), results={str(tmp_path / 'r')!r})"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (tmp_path / "r" / "s" / "store.sqlite").exists() or not stored(tmp_path / "r" / "s"):
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < end, "no trial was stored"
        time.sleep(0.1)
    time.sleep(1)
    run.send_signal(signal.SIGINT)
    errors = run.communicate(timeout=120)[1]
    assert run.returncode != 0
    assert "KeyboardInterrupt" in errors
    with Store(tmp_path / "r" / "s") as store:
        assert set(store.statuses().values()) == {"completed"}


def stored(folder):
    try:
        with Store(folder) as store:
            return len(store.statuses())
    except Exception:  # not yet a store
        return 0
