"""The Slurm script, with stand-ins for what a cluster has: it starts Ray, runs a suite, takes Ray down."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a shell script")

PROGRAMS = {
    # Slurm's: runs a command on nodes, names the nodes.
    "srun": 'while [ "${1#-}" != "$1" ]; do [ "$1" = -w ] && shift; shift; done; exec "$@"',
    "scontrol": "echo first; echo second",
    "ray": """
trap 'echo down >> "$CALLS/ray"; exit 0' TERM
echo "$@" >> "$CALLS/ray"
while :; do sleep 0.05; done
""",
    "python": 'echo "${NODES:-1}"',
    # Takes a moment; a signal has it store what has ended and say that it was interrupted.
    "optbench": """
trap 'echo stored > "$CALLS/stored"; exit 130' TERM
echo "$@" > "$CALLS/optbench"
for _ in $(seq "${TENTHS:-1}"); do sleep 0.1; done
exit "${CODE:-0}"
""",
}


@pytest.fixture
def job(tmp_path, repository):
    """Start the script as on a node of a job."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)

    def start(*arguments, **settings):
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "CALLS": str(tmp_path),
            "SLURM_JOB_NUM_NODES": "1",
            "SLURM_JOB_NODELIST": "node[1]",
            "SLURM_CPUS_PER_TASK": "3",
            **settings,
        }
        script = repository / "tools" / "slurm_ray.sh"
        return subprocess.Popen(
            ["bash", script, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.mark.parametrize("code", ["0", "4"])
def test_the_suite_runs_on_the_job_s_cluster_and_its_exit_code_is_the_job_s(job, tmp_path, code):
    running = job("suites/quick.yaml", "--gpus-per-trial", "0.5", CODE=code)
    output = running.communicate(timeout=60)[0]
    assert running.returncode == int(code), output
    assert "1 of 1 nodes have joined" in output
    wanted = "run suites/quick.yaml --gpus-per-trial 0.5 --executor ray --ray-address first:6379"
    assert (tmp_path / "optbench").read_text().strip() == wanted
    started, ended = (tmp_path / "ray").read_text().splitlines()
    assert started == "start --head --port=6379 --num-cpus=3 --block"
    assert ended == "down"


def test_the_time_limit_has_the_run_store_what_has_ended(job, tmp_path):
    """Slurm sends TERM to the script two minutes before."""
    running = job("suites/quick.yaml", TENTHS="600")
    end = time.monotonic() + 60
    while not (tmp_path / "optbench").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGTERM)
    output = running.communicate(timeout=60)[0]
    assert running.returncode == 130, output
    assert (tmp_path / "stored").exists()


def test_outside_of_a_job_it_says_what_it_wants(job):
    running = job()
    assert "usage: sbatch" in running.communicate(timeout=60)[0]
    assert running.returncode == 2
