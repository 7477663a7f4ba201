"""The options that say how tables and logs are read: one list, and each does its work in both commands."""

from __future__ import annotations

import typer.main
from typer.testing import CliRunner

from optbench.cli import app

OF_READING = {
    "kind", "pattern", "dataset", "model", "optimizer", "seed", "names", "failed", "decimal", "line",
    "first_epoch", "percent",
}  # fmt: skip
#: Options of import that say where the result goes, or what it is called there.
OF_IMPORT = {"sources", "out", "dry_run", "backend", "maximise", "minimise", "baseline"}


def parameters(command):
    return {one.name: one for one in typer.main.get_command(app).commands[command].params}


def said(*words, code=0):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def test_compare_and_import_have_the_same_options_of_reading():
    both = parameters("compare"), parameters("import")
    for name in OF_READING:
        compared, imported = (found[name] for found in both)
        assert compared.opts == imported.opts
        assert compared.help == imported.help
        assert compared.default == imported.default
    assert set(both[1]) - {"help"} == OF_READING | OF_IMPORT


def logs(folder, make, suffix):
    for optimizer, value in (("adam", 0.90), ("sgd", 0.92)):
        for seed in range(6):
            path = folder / optimizer / f"seed{seed}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(value + seed / 1000))
    return folder


PATTERN = ("--pattern", "{optimizer}/seed{seed}.*")


def test_a_line_of_a_text_log_may_be_described_to_both(tmp_path):
    folder = logs(tmp_path / "logs", lambda v: f"[1/2] 0.5\n[2/2] {v}\n", ".log")
    line = ("--line", "[{epoch}/*] {val_accuracy}")
    assert "sgd: better" not in said("compare", folder, *PATTERN, code=2)
    told = said("compare", folder, *PATTERN, *line, "--baseline", "adam")
    assert "sgd is better than adam in the typical run: val_accuracy +0.02" in told
    assert "12 of format text" in said("import", folder, *PATTERN, *line, "--dataset", "d", "--dry-run")


def test_a_format_may_be_said_to_both(tmp_path):
    folder = logs(tmp_path / "logs", lambda v: f"val_accuracy,other\n0.5,1\n{v},2\n", ".csv")
    said("compare", folder, *PATTERN, code=2)
    told = said("compare", folder, *PATTERN, "--as", "keras", "--baseline", "adam")
    assert "sgd is better than adam in the typical run: val_accuracy +0.02" in told
    assert "no column epoch or step: the rows are numbered" in told
    told = said("import", folder, *PATTERN, "--as", "keras", "--dataset", "d", "--dry-run")
    assert "no column epoch or step: the rows are numbered" in told
    for command in ("compare", "import"):
        assert "--as: found 'kera'" in said(command, folder, "--as", "kera", code=2)


def test_percentages_are_divided_where_that_is_said_and_they_are_some(tmp_path):
    folder = logs(tmp_path / "logs", lambda v: f"epoch,val_accuracy\n0,50\n1,{100 * v}\n", ".csv")
    told = said("compare", folder, *PATTERN, "--percent", "--baseline", "adam")
    assert "val_accuracy +0.02" in told
    assert "taken as percentages, as asked" in told
    table = tmp_path / "t.csv"
    table.write_text("optimizer,seed,test_accuracy\n" + "".join(f"{o},{s},0.9\n" for o in "ab" for s in "01"))
    assert "its largest value is 0.9" in said("compare", table, "--percent", code=2)
    told = said("import", table, "--percent", "--dry-run")
    assert "Taken as percentages: nothing" in told
    assert "Runs: 4, of which 4 completed" in told


def test_facts_that_nothing_says_may_be_said_to_both(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("seed,test_accuracy\n" + "".join(f"{s},0.9{s}\n" for s in range(4)))
    told = said("import", table, "--optimizer", "adam", "--model", "mlp", "--dry-run")
    assert "Optimizers: adam (4 runs)" in told
    assert "Models: mlp (4 runs)" in told
    table.write_text("optimizer,seed,test_accuracy\n" + "".join(f"{o},{s},0.9\n" for o in "ab" for s in "01"))
    for command in (("compare", table), ("import", table, "--dry-run")):
        assert "--optimizer adam is not needed: the table says it" in said(*command, "--optimizer", "adam")
    table.write_text("seed,test_accuracy\n0,0.9\n1,0.8\n")
    assert "found only adam" in said("compare", table, "--optimizer", "adam", code=2)
