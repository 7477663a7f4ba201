"""How a run ended, in states, flags and exit codes: no partial value is a result."""

from __future__ import annotations

import pytest

from optbench.datasets.cells import TableError
from optbench.records import logs
from optbench.records.readers.naming import Naming
from optbench.records.tables import compare_file
from tests.records.readers.test_table import CLEAN, NAMES, ROWS, long_text, verdict, write


@pytest.mark.parametrize("column", ["State", "status", "state", "run_state"])
@pytest.mark.parametrize(
    ("fine", "bad"),
    [
        ("finished", "crashed"),
        ("finished", "killed"),
        ("FINISHED", "FAILED"),
        ("FINISHED", "RUNNING"),
        ("COMPLETE", "PRUNED"),
        ("COMPLETED", "CANCELLED by 1000"),
        ("COMPLETED", "OUT_OF_MEMORY"),
        ("COMPLETED", "NODE_FAIL"),
        ("CD", "TO"),
    ],
)
def test_runs_of_failed_states_are_missing(tmp_path, column, fine, bad):
    rows = [(*row, bad if row[1] == "sgd" and row[2] in "012" else fine) for row in ROWS]
    result = compare_file(write(tmp_path, long_text(rows, [*NAMES, column])), baseline="adam")
    assert result.input.missing == 3
    assert any(f"3 {bad}" in note for note in result.notes)


def test_an_unknown_state_is_asked_about_and_named_by_an_option(tmp_path):
    rows = [(*row, "kaput" if row[1:3] == ("sgd", "1") else "prima") for row in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES, "state"]))
    with pytest.raises(TableError, match=r"line 2, column 'state': .*'prima'.*--failed state="):
        compare_file(path)
    result = compare_file(path, naming=Naming(failed={"state": frozenset({"kaput"})}))
    assert result.input.missing == 1


@pytest.mark.parametrize(
    ("column", "fine", "bad"),
    [
        ("crashed", "False", "True"),
        ("failed", "0", "1"),
        ("sys/failed", "no", "yes"),
        ("finished", "True", "False"),
        ("ExitCode", "0:0", "0:9"),
        ("exit_code", "0", "137"),
        ("returncode", "0", "-9"),
        ("info.status", "FINISHED", "FAILED"),
        ("status", "ok", "failed (OOM)"),
    ],
)
def test_flags_and_exit_codes_say_which_runs_failed(tmp_path, column, fine, bad):
    rows = [(*row, bad if row[1] == "sgd" and row[2] in "012" else fine) for row in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES[:3], "test_accuracy", column]))
    result = compare_file(path, baseline="adam")
    assert (result.input.metric, result.input.missing) == ("test_accuracy", 3)
    assert any("failures, missing from the comparison" in note for note in result.notes)
    assert sum(log.status == "crashed" for log in logs.read([path], Naming())) == 3


def test_a_flag_may_say_that_a_run_diverged_and_a_blank_state_is_pointed_out(tmp_path):
    rows = [(*row, row[1] == "sgd" and row[2] == "3") for row in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES, "diverged"]))
    assert compare_file(path, baseline="adam").input.diverged == 1
    rows = [(*row, "" if row[2] == "3" else "finished") for row in ROWS]
    notes = compare_file(write(tmp_path, long_text(rows, [*NAMES, "State"])), baseline="adam").notes
    assert "State: 2 rows say nothing, and count as finished" in notes


def test_words_in_a_column_called_as_a_flag_are_words(tmp_path):
    rows = [(*row, "at noon") for row in ROWS]
    path = write(tmp_path, long_text(rows, [*NAMES, "finished"]))
    assert verdict(path) == CLEAN
