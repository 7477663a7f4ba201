"""Tables of a store as files: each with its rows, none that is empty, texts that no spreadsheet computes."""

import json

import pandas as pd
import pytest

from optbench.report import exports
from optbench.report.exports import frame_csv, write_frames

SCORES = {"wame": [0.8, 0.81], "adam": [0.85, "crashed"]}


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_a_table_is_a_file_with_its_rows_and_an_empty_one_is_none(made_results, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    results, _ = made_results(SCORES)
    found = write_frames(tmp_path / "store", tmp_path / "out", kind)
    assert [path.name for path in found.files] == [f"trials.{kind}", f"epochs.{kind}"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        path.name for path in found.files
    )
    for path in found.files:
        written = getattr(pd, f"read_{kind}")(path)
        wanted = getattr(results, path.stem)
        assert len(written) == len(wanted) > 0
        assert list(written.columns) == list(wanted.columns)
        assert written["optimizer"].astype(str).tolist() == wanted["optimizer"].astype(str).tolist()


def test_json_has_a_record_a_trial_over_several_lines(made_results, tmp_path):
    made_results(SCORES)
    trials, _ = write_frames(tmp_path / "store", tmp_path / "out", "json").files
    text = trials.read_text()
    assert len(json.loads(text)) == 4
    assert text.startswith('[\n {\n  "')


def test_texts_of_a_table_are_made_safe_and_numbers_are_left(tmp_path):
    frame = pd.DataFrame(
        {"=name": ["=1+1", "plain", None], "value": [-1.5, 2.0, float("nan")], "ok": [True, False, True]}
    )
    assert frame_csv(frame) == "'=name,value,ok\n'=1+1,-1.5,True\nplain,2.0,False\n,,True\n"
    frame_csv(frame, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text() == frame_csv(frame)


def test_parquet_files_are_asked_of_pyarrow_without_an_index(made_results, tmp_path, monkeypatch):
    """Where pyarrow is not installed, too: what is asked of it."""
    results, _ = made_results(SCORES)
    asked = []

    def to_parquet(frame, path, **options):
        asked.append((len(frame), options))
        path.write_text("made")

    monkeypatch.setattr(exports, "find_spec", lambda name: object())
    monkeypatch.setattr(pd.DataFrame, "to_parquet", to_parquet)
    files = write_frames(tmp_path / "store", tmp_path / "deep" / "out", "parquet").files
    assert files == [tmp_path / "deep" / "out" / f"{name}.parquet" for name in ("trials", "epochs")]
    assert [path.read_text() for path in files] == ["made", "made"]
    options = {"engine": "pyarrow", "index": False}
    assert asked == [(len(results.trials), options), (len(results.epochs), options)]
