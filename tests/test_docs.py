"""The documentation's own examples: the tutorial is run as it stands, suites and code blocks are tried."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import sysconfig
import textwrap
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)(?: title=\"(.+?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: str
    language: str
    title: str
    text: str


def blocks(page):
    return [Block(page.name, *found) for found in FENCE.findall(page.read_text())]


BLOCKS = [block for page in PAGES for block in blocks(page)]
#: Suites, or parts of one, that load without a package that tests/suite/test_plugins.py installs.
SUITES = [block for block in BLOCKS if block.language == "yaml" and block.page != "plugin.md"]
#: Files that several pages speak of, as small as can be loaded.
FILES = {
    "my_opt.py": "class MyOpt: pass\n",
    "lion_pytorch.py": "class Lion: pass\n",
    "pytorch_optimizer.py": "class Lion: pass\nclass Prodigy: pass\n",
    "torch_optimizer.py": "class Yogi: pass\n",
    "lion.py": "class Lion: pass\n",
    "my_metric.py": "def brier_score(probabilities, labels): return 0.0\n",
    "flowers.csv": "length,width,species\n" + "".join(f"{i % 7},{i % 5},{'ab'[i % 2]}\n" for i in range(40)),
}


def write_files(folder, page=None):
    """Write the files that pages speak of, and those that one page shows with their names."""
    shown = {block.title: block.text for block in BLOCKS if block.title and block.page == page}
    for name, text in {**FILES, **shown}.items():
        (folder / name).write_text(text)


def follow_tutorial(folder, optbench):
    """Write the tutorial's files and run its commands, in order; returns what each command printed."""
    printed = {}
    for block in blocks(ROOT / "docs" / "tutorial.md"):
        if block.title:
            (folder / block.title).write_text(block.text)
            continue
        assert block.language == "console"
        for line in block.text.splitlines():
            program, *arguments = shlex.split(line)
            if program != "optbench":
                assert line in ("pip install 'optbench[torch]'", "mkdir lion && cd lion")
                continue
            done = subprocess.run([*optbench, *arguments], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
            printed[line] = done.stdout
    return printed


def check_tutorial(folder, printed):
    board = printed["optbench run lion.yaml"]
    assert all(name in board for name in ("adam", "lion", "wame"))
    assert re.search(r"better|worse|equivalent|inconclusive", board)
    assert "24 trials run, 24 planned: 24 completed" in board
    assert "<html" in (folder / "results/lion/report/index.html").read_text()
    assert r"\toprule" in (folder / "paper/leaderboard.tex").read_text()


@pytest.mark.slow
def test_the_tutorial_leads_from_the_installed_wheel_and_an_empty_folder_to_a_verdict(tmp_path):
    """A new environment: the wheel, the dependencies of this one, and nothing of the repository."""
    pytest.importorskip("torch")
    wheels = tmp_path / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", wheels, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = wheels.glob("optbench-*.whl")
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    folder = tmp_path / "lion"
    folder.mkdir()
    where = subprocess.run(
        [python, "-c", "import optbench; print(optbench.__file__)"],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(home))
    check_tutorial(folder, follow_tutorial(folder, [home / "bin" / "optbench"]))


@pytest.mark.parametrize(
    "block", [b for b in SUITES if re.search(r"^suite:", b.text, re.MULTILINE)], ids=lambda b: b.page
)
def test_a_suite_shown_loads(block, tmp_path):
    from optbench.suite.load import load_suite

    write_files(tmp_path, block.page)
    (tmp_path / "shown.yaml").write_text(block.text)
    assert load_suite(tmp_path / "shown.yaml").optimizers


BASE = """
suite: base
workloads: [{dataset: iris, model: {name: mlp, hidden: [4]}, batch_size: 16, epochs: 1}]
optimizers: {adam: {}}
"""


@pytest.mark.parametrize(
    "block", [b for b in SUITES if re.match("(optimizers|workloads):", b.text)], ids=lambda b: b.page
)
def test_a_part_of_a_suite_shown_fits_into_one(block, tmp_path, monkeypatch):
    from optbench.suite.load import load_suite

    monkeypatch.syspath_prepend(tmp_path)
    write_files(tmp_path, block.page)
    part = block.text.partition(":")[0]
    kept = [line for line in BASE.splitlines() if not line.startswith(part)]
    (tmp_path / "shown.yaml").write_text("\n".join([*kept, block.text]))
    assert load_suite(tmp_path / "shown.yaml").optimizers


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "python" and not b.title], ids=lambda b: b.page
)
def test_python_shown_runs(block, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    before = "import torch\nmodel = torch.nn.Linear(2, 2)\nparams = list(model.parameters())\n"
    exec(compile(before + textwrap.dedent(block.text), block.page, "exec"), {})


@pytest.mark.slow
def test_the_notebook_runs_as_it_stands(tmp_path):
    pytest.importorskip("torch")
    nbclient = pytest.importorskip("nbclient", reason="executes the notebook: pip install nbclient ipykernel")
    import nbformat

    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    assert re.search(r"wame against adam over 6 seeds: (better|worse|equivalent|inconclusive)", said)
    assert any("image/png" in output.get("data", {}) for output in outputs)


PATHS = sorted(
    {
        (page.name, found)
        for page in PAGES
        for found in re.findall(
            r"`((?:docs|suites|tools|tests|benchmarks|optbench)/[\w./-]+\.(?:py|md|yaml|txt|json))`",
            page.read_text("utf-8"),
        )
        if "NAME" not in found
    }
)


@pytest.mark.parametrize(("page", "path"), PATHS)
def test_a_file_that_the_documentation_names_is_there(page, path):
    assert (ROOT / path).is_file(), f"{page} names {path}"


def test_the_pages_of_a_report_name_its_folders_as_they_are():
    from optbench.report.build import DEFAULT_FORMATS, PLOTS, TABLES

    assert (PLOTS, TABLES) == ("plots", "tables")
    assert "plots" not in DEFAULT_FORMATS
    for name in ("tutorial.md", "howto/paper.md", "report.md"):
        text = (ROOT / "docs" / name).read_text("utf-8")
        for command in re.findall(r"^optbench report .*$", text, re.MULTILINE):
            assert ("`plots/" in text) <= ("--format plots" in text), f"{name}: {command}"


def test_every_plot_of_a_report_is_in_the_gallery():
    source = (ROOT / "optbench" / "report" / "figures.py").read_text("utf-8")
    names = set(re.findall(r'plot\(\n\s+"(\w+)",|name="(\w+)",', source))
    shown = set(re.findall(r"img/gallery/(\w+)\.png", (ROOT / "docs" / "gallery.md").read_text("utf-8")))
    wanted = {a or b for a, b in names}
    assert len(wanted) > 10
    assert wanted - shown <= {"variance", "profile", "success"}, "make them: tools/make_pictures.py"
    for name in shown:
        assert (ROOT / "docs" / "img" / "gallery" / f"{name}.png").is_file()
