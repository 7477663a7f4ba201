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
