"""Every command line that the documentation or a command's help shows is run, where what it names is there.

Runs in this process; what is shown is typed as it stands, but for the words of ``PLACEHOLDERS``. What is slow
is run with ``-m slow``, in a process of its own; what cannot be run here is in ``NOT_HERE`` with the reason,
and is parsed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from optbench import api
from optbench.cli import app
from optbench.records.store import Store
from tests.conftest import inside as in_folder
from tests.records.test_foreign import keras_log
from tests.suite.test_plugins import install, write_package
from tests.test_docs import PAGES, ROOT, blocks, write_files

pytest.importorskip("torch", reason="the commands train")
pytest.importorskip("optuna", reason="a suite shown tunes")

#: Words that stand for something, and what is typed here; ``TRIAL`` and ``3f9a`` are a trial of the store.
PLACEHOLDERS = {
    "SUITE": "suites/quick.yaml",
    "FILE": "suites/quick.yaml",
    "suites/NAME.yaml": "suites/quick.yaml",
    "results/NAME": "results/quick",
    "--workload LABEL": "--workload digits/mlp",
    "[STORE]": "results/quick",
    "STORE": "results/quick",
    "NAME": "digits",
    "TABLE.csv": "table.csv",
    "TABLE": "table.csv",
    "FILE.py": "my_opt.py",
    "LOGS -o STORE": "theirs.csv -o results/theirs",
    "OPTIMIZER": "adam",
    "torch|tensorflow|jax": "torch",
    "[NAME|module:Class|file.py:Class] [--backend ..]": "adam --backend torch",
}
#: Lines that take long, run by ``pytest -m slow``.
SLOW = {
    "optbench report results/a results/b": "draws every plot",
    "optbench report suites/quick.yaml --format latex --format plots": "draws every plot",
    "optbench verify OPTIMIZER": "every backend",
    "optbench doctor --full": "imports every framework",
    "optbench run SUITE --time": "a timing pass",
    "optbench report SUITE": "draws every plot",
}
#: Lines that train a whole suite, run by ``pytest -m nightly``.
NIGHTLY = {"optbench run quick", "optbench run lecture"}
ON_RAY = "optbench run suites/emnist.yaml --executor ray --ray-address auto --gpus-per-trial 0.5"
#: Lines that cannot be run where tests are, and why; they are parsed. (tests/execution/test_ray.py has a
#: cluster.)
NOT_HERE = {
    "optbench run SUITE --device cuda": "needs a GPU",
    "optbench run SUITE --device cuda --workers auto": "needs a GPU",
    "optbench run SUITE --executor ray --ray-address HOST:6379": "needs a cluster",
    ON_RAY: "needs a cluster",
    "optbench run suites/quick.yaml --backend jax --device tpu --seeds 2": "needs a TPU",
    "optbench plan SUITE --freeze FILE": "tests/suite/test_declaration.py runs it",
    "optbench run SUITE --declaration FILE": "tests/suite/test_declaration.py runs it",
    "optbench report SUITE --declaration FILE": "tests/suite/test_declaration.py runs it",
    "optbench run SUITE --until-decided": "needs a sequential suite; tests/execution/test_stages.py runs it",
    "optbench sign results/quick --key ~/.ssh/id_ed25519": "needs a key; test_signatures.py runs it",
    "optbench sign STORE --key FILE": "needs a key; tests/records/test_signatures.py runs it",
    "optbench doctor STORE --signers FILE": "needs a signed store; tests/records/test_signatures.py runs it",
    "optbench data fetch fashion-mnist": "downloads",
    "optbench watch SUITE --web": "serves until Ctrl-C; tests/report/test_live.py asks its page",
    "optbench verify": "takes ten minutes on a busy machine; tests/verification/test_verify.py has its parts",
    "optbench verify --parity": "takes minutes; tests/verification has its parts",
}
#: Exit codes other than 0 that are documented: 3 where a dataset's files are not here.
CODES = {"optbench data verify mnist": {0, 3}, "optbench data path mnist": {0, 3}}

#: What the suites that are named hold here: the same names, as little training as can be.
SMALL = """
suite: quick
workloads:
  - {dataset: digits, model: {name: mlp, hidden: [4]}, batch_size: 256, epochs: 2}
optimizers: {wame: {lr: 0.05}, adam: {lr: 0.005}, rmsprop: {lr: 0.002}, sgd: {lr: 0.05, momentum: 0.9}}
seeds: 2
analysis: {baseline: wame}
"""
AUGMENTED = SMALL.replace("epochs: 2", "epochs: 2, augment: {rotation: 10}").replace("quick", "augmented")


def commands_of(page):
    """Lines of a page's console blocks, in order, and those inside its text."""
    lines = []
    for block in blocks(page):
        if block.language in ("console", "bash"):
            for line in block.text.splitlines():
                lines += [part.replace(".venv/bin/", "").strip() for part in line.split("#")[0].split("&&")]
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S).replace(r"\|", "|")
    inline = re.findall(r"[`'](?:\.venv/bin/)?(optbench [^`']+)[`']", text)
    return (
        [line for line in lines if line.startswith("optbench ")],
        [re.sub(r"\s+", " ", line) for line in inline],
    )


def leaves(command, path=("optbench",)):
    """Every command with its words."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*path, name))


ROOT_COMMAND = typer.main.get_command(app)
COMMANDS = dict(leaves(ROOT_COMMAND))
EXAMPLES = [
    line.strip()
    for command in COMMANDS.values()
    for line in (command.epilog or "").removeprefix("Example: ").split(";")
]
CONSOLE = {
    page: commands_of(page)[0] for page in PAGES if page.name != "tutorial.md" and commands_of(page)[0]
}


def spelt_out(line):
    """Put in place what a line's placeholders stand for."""
    line = line.replace("3f9a", "TRIAL")
    for word, here in sorted(PLACEHOLDERS.items(), key=lambda pair: -len(pair[0])):
        line = re.sub(rf"(?<![\w.\]]){re.escape(word)}(?![\w.\[])", here, line)
    return line


def listed(line, table):
    """Tell whether a table of exceptions has a line, however it is written."""
    return spelt_out(line) in map(spelt_out, table)


#: The others, each once.
SINGLE = list(
    {
        spelt_out(line): line for line in [*(x for page in PAGES for x in commands_of(page)[1]), *EXAMPLES]
    }.values()
)


def inside(folder):
    return in_folder(folder, OPTBENCH_DATA=str(folder / "data"), COLUMNS="150")


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Make a folder with everything that the pages name."""
    folder = tmp_path_factory.mktemp("prepared")
    write_files(folder)
    (folder / "suites").mkdir()
    (folder / "suites" / "quick.yaml").write_text(SMALL)
    (folder / "suites" / "digits_augmented.yaml").write_text(AUGMENTED)
    for block in blocks(ROOT / "README.md"):
        if block.language == "yaml":
            (folder / "mine.yaml").write_text(block.text)
    rows = [f"{d},{o},{s},{0.8 + s / 100}" for d in ("a", "b") for o in ("adam", "wame") for s in range(7)]
    (folder / "table.csv").write_text("\n".join(["dataset,optimizer,seed,accuracy", *rows]))
    (folder / "theirs.csv").write_text("\n".join(["dataset,optimizer,seed,test_accuracy", *rows]))
    for optimizer in ("adam", "wame"):
        for seed in range(2):
            keras_log(folder / "logs" / "mnist" / f"{optimizer}-{seed}.csv")
            keras_log(folder / "runs" / optimizer / f"seed{seed}.csv")
    api.run(folder / "suites" / "quick.yaml", results=folder / "results")
    with inside(folder):
        assert CliRunner().invoke(app, ["new", "optimizer", "my_opt.py", "--force"]).exit_code == 0
    return folder


@pytest.fixture
def folder(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "here")


def typed(line, folder):
    """Say what is typed for a line that is shown."""
    line = spelt_out(line)
    if "TRIAL" not in line:
        return line
    with Store(folder / "results" / "quick") as store:
        return line.replace("TRIAL", next(iter(store.statuses()))[:8])


def run(line, folder, *, mentioned=False):
    """Run a line in the folder; one that is only mentioned may lack the arguments that it needs."""
    if "parquet" in line:
        pytest.importorskip("pyarrow", reason="needs optbench[parquet]")
    words = shlex.split(typed(line, folder), comments=True)[1:]
    output = words[words.index(">") + 1] if ">" in words else None
    for copy in {"results/a", "results/b", "A", "B", "laptop/quick", "desk/quick"} & set(words):
        shutil.copytree(folder / "results" / "quick", folder / copy)
    if words[0] in ("run", "merge"):  # they begin with nothing
        shutil.rmtree(folder / "results" / "quick", ignore_errors=True)
    if words[0] == "new":
        (folder / "my_opt.py").unlink()
        (folder / "my_opt.yaml").unlink()
    if listed(
        line, {*SLOW, *NIGHTLY}
    ):  # some import every framework, which other tests of this process may not bear
        program = [sys.executable, "-m", "optbench.cli"]
        ended = subprocess.run([*program, *words], cwd=folder, capture_output=True, text=True)
        assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
        return
    with inside(folder):
        done = CliRunner().invoke(app, words[: words.index(">")] if output else words)
    if mentioned and done.exit_code == 2 and "Missing argument" in done.output:
        parse(line)
        return
    assert done.exit_code in CODES.get(line, {0}), f"{line}\n{done.output}\n{done.exception!r}"
    if output:
        (folder / output).write_text(done.stdout)


def parse(line):
    """Parse a line: ``--help`` behind known words ends a command before it does anything."""
    done = CliRunner().invoke(app, [*shlex.split(line, comments=True)[1:], "--help"])
    assert done.exit_code == 0, f"{line}\n{done.output}"


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow) if p.name == "optimizer.md" else p for p in CONSOLE],
    ids=lambda page: page.name,
)
def test_the_commands_of_a_page_run_in_order(page, folder, monkeypatch):
    if page.name == "plugin.md":
        write_package(folder)
        install(folder)
        monkeypatch.syspath_prepend(folder)
    for line in CONSOLE[page]:
        if listed(line, NOT_HERE):
            parse(line)
            continue
        run(line, folder)
        if line == "optbench new optimizer my_opt.py":  # the suite of its making, smaller
            suite = folder / "my_opt.yaml"
            text = re.sub(r"epochs: \d", "epochs: 1", suite.read_text())
            suite.write_text(text.replace("trials: 8", "trials: 2").replace("seeds: 7", "seeds: 2"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "moonlab"]:
        del sys.modules[name]


def marks_of(line):
    if listed(line, NIGHTLY):
        return pytest.mark.nightly
    return pytest.mark.slow if listed(line, SLOW) else ()


@pytest.mark.parametrize("line", [pytest.param(line, marks=marks_of(line)) for line in SINGLE])
def test_a_command_in_the_text_or_in_the_help_runs(line, folder):
    if listed(line, NOT_HERE):
        parse(line)
    else:
        run(line, folder, mentioned=True)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_of_itself(path):
    epilog = COMMANDS[path].epilog or ""
    assert epilog.startswith(f"Example: {' '.join(path)} ") or epilog == f"Example: {' '.join(path)}", epilog
    done = CliRunner().invoke(app, [*path[1:], "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert re.sub(r"\s+", "", epilog) in re.sub(r"\s+", "", done.output)


def test_the_lists_of_exceptions_name_lines_that_are_shown():
    shown = {*EXAMPLES, *(line for page in PAGES for part in commands_of(page) for line in part)}
    assert {*SLOW, *NOT_HERE, *CODES} <= shown
