"""How much memory a configuration needs, measured in a process that trains it and nothing else."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

from optbench.environment import Context
from optbench.errors import UserError
from optbench.trial import TrialSpec


class Held(TypedDict):
    """Bytes; see :class:`optbench.records.step_times.PassTimes`."""

    host_bytes: int | None
    host_start_bytes: int | None
    device_bytes: int | None


def measure(spec: TrialSpec, *, rows: int, context: Context) -> Held:
    """Train a configuration in a process of its own and read its highest memory.

    Parameters
    ----------
    spec : TrialSpec
    rows : int
        Training examples to go through.
    context : Context
        As of the trials.

    Returns
    -------
    Held

    Raises
    ------
    UserError
        If the process fails; the message has its last line.
    """
    # The spec travels to our own child through a pipe; no pickle is ever read from a file.
    command = [sys.executable, "-m", "optbench.execution.memory"]
    done = subprocess.run(
        command, input=pickle.dumps((spec, rows, context)), capture_output=True, check=False
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(f"memory of {spec.optimizer.optimizer}: the process that measures failed: {last}")
    found: Held = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Train what comes through the standard input, and print the bytes as JSON."""
    from optbench import backends, matching
    from optbench.datasets import registry
    from optbench.datasets.base import network, trial_data

    spec, rows, context = pickle.load(sys.stdin.buffer)
    workload = spec.workload
    dataset = registry.of_workload(workload, data_dir=context.data_dir)
    data = trial_data(dataset, workload, spec.seeds)
    engine = backends.engine(spec.backend, context)
    start = _status("VmRSS")
    built = network(workload, dataset.info)
    session = engine.open(spec, built, data, matching.initial_weights(built, spec.seeds.init, spec.precision))
    session.warm_up()
    order = data.train.rows[:rows]
    session.train_epoch(order, 1, data.train.x[order] if workload.augment is not None else None)
    session.evaluate("train_eval")
    if len(data.validation):
        session.evaluate("validation")
    peak = _status("VmHWM")
    held = Held(host_bytes=peak, host_start_bytes=start, device_bytes=engine.peak_bytes(spec.device))
    print(json.dumps(held))


def _status(name: str) -> int | None:
    """Read a line of Linux's /proc/self/status, in bytes.

    Not getrusage: its maximum is inherited from the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text("ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


if __name__ == "__main__":
    main()
