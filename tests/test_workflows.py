"""CI that others see does what ``.ci/run`` does, by the same scripts."""

from __future__ import annotations

import os
import re

import yaml

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.yml"))}
SCRIPT = re.compile(r"\.ci/\w+")


def commands(workflow):
    return [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]


def test_every_command_is_a_script_that_is_there_and_may_be_run():
    for name, workflow in WORKFLOWS.items():
        assert commands(workflow), name
        for command in commands(workflow):
            found = SCRIPT.findall(command)
            assert found, f"{name}: {command}"
            assert all(os.access(REPOSITORY / script, os.X_OK) for script in found), f"{name}: {command}"


def test_all_that_the_run_here_does_is_done_there():
    steps = set(SCRIPT.findall((REPOSITORY / ".ci" / "run").read_text())) - {".ci/pytest"}
    assert steps >= {".ci/readme", ".ci/lint", ".ci/frameworks"}
    assert steps <= set(SCRIPT.findall("\n".join(commands(WORKFLOWS["ci.yml"]))))


def test_every_python_of_the_package_is_tested():
    declared = re.findall(r"Python :: (3\.\d+)", (REPOSITORY / "pyproject.toml").read_text())
    assert WORKFLOWS["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["python"] == declared
