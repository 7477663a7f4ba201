"""What is shipped: the wheel alone reads and reports a result set, and the sdist builds the same wheel."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Framework imports fail, as they do where none is installed.
BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "tensorflow", "keras", "jax", "optax", "optuna", "ray"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
"""
READ = (
    BLOCK
    + """
import optbench
assert optbench.__file__.startswith(sys.argv[1])
results = optbench.load_results(sys.argv[2])
print(len(results.trials), optbench.compare(
    results.trials[results.trials.workload == results.trials.workload.iloc[0]]).input.rows)
from optbench.cli import main
sys.argv = ["optbench", "report", sys.argv[2], "--out", sys.argv[3]]
main()
"""
)


def contents(wheel):
    return {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("RECORD")}


@pytest.mark.slow
def test_the_wheel_alone_reports_and_the_sdist_builds_the_same_wheel(tmp_path):
    pytest.importorskip("build", reason="builds the sdist: pip install build")
    subprocess.run([sys.executable, "-m", "build", "--sdist", "-o", tmp_path / "sdist", ROOT], check=True)
    (sdist,) = (tmp_path / "sdist").glob("optbench-*.tar.gz")
    wheels = {}
    for name, source in (("tree", ROOT), ("sdist", sdist)):
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            tmp_path / name,
            source,
        ]
        subprocess.run(command, check=True)
        (wheels[name],) = (tmp_path / name).glob("optbench-*.whl")
    assert contents(wheels["tree"]) == contents(wheels["sdist"])
    assert "optbench/py.typed" in contents(wheels["tree"])
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheels["tree"]], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    store = ROOT / "results" / "mnist_mlp" / "store.sqlite"
    done = subprocess.run(
        [python, "-c", READ, home, store, tmp_path / "report"],
        cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "report" / "index.html").is_file()
