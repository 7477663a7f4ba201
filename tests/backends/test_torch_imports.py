"""What training with PyTorch imports, beyond PyTorch: each second of it is waited for at every start."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="needs PyTorch")

PROGRAM = """
import sys
from optbench import backends, matching
from optbench.datasets import registry
from optbench.optimizers import SGD, Adam, Nadam, RMSprop, WAME
from tests.backends.contract import CNN, MLP, session, spec
for model in (MLP, CNN):
    for optimizer in (Adam(), SGD(lr=0.1, momentum=0.9), RMSprop(), Nadam(), WAME()):
        live, _, data = session(spec("torch", optimizer, model, precision="float32"))
        live.warm_up()
        live.train_epoch(data.train.rows[:200], 1)
        live.evaluate("validation")
        live.state()
print(sorted(name for name in ("torch._dynamo", "sympy", "sklearn", "scipy.stats") if name in sys.modules))
"""


def test_no_compiler_and_no_statistics():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


RUN = """
import os, sys
from optbench.cli.progress import RunView
class First:
    def epoch(self, trial, epoch, row):
        found = {"pandas", "scipy", "matplotlib", "sklearn"} & sys.modules.keys()
        print(sorted(found), flush=True)
        os._exit(0)
RunView.epoch = First.epoch
sys.argv = ["optbench", "run", sys.argv[1], "--results", sys.argv[2]]
from optbench.cli import main
main()
"""


def test_a_first_trial_waits_for_no_report(tmp_path, write_suite):
    command = [sys.executable, "-c", RUN, str(write_suite()), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"
