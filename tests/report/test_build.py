from __future__ import annotations

import re

import pandas as pd
import pytest
from PIL import Image

from optbench import api

pytest.importorskip("torch", reason="runs trials with PyTorch")


@pytest.fixture
def report(write_suite, tmp_path):
    path = write_suite(
        ("suite: tiny", 'suite: tiny\ntitle: "<script>alert(1)</script> & co"'),
        ("adam: {lr: 0.01}", '"<b>adam</b>": {optimizer: adam, lr: 0.01}'),
    )
    api.run(path, results=tmp_path)
    return api.report(path, results=tmp_path)


def test_the_page_escapes_names_and_needs_nothing_from_outside(report):
    page = report.index.read_text("utf-8")
    assert "<script" not in page
    assert "<b>adam" not in page
    assert "&lt;b&gt;adam&lt;/b&gt;" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "smallest attainable" in page


def test_tables_carry_the_same_numbers_as_the_store(report):
    table = pd.read_csv(report.folder / "leaderboard.csv").set_index("optimizer")
    trials = api.load_results(report.folder.parent).trials
    means = trials.groupby("optimizer")["test_accuracy"].mean()
    for name, mean in means.items():
        assert table.loc[name, "mean"] == pytest.approx(mean)
    assert table.loc["<b>adam</b>", "pairs"] == 2


def test_plots_are_written_as_png_and_svg(report):
    (png,) = report.folder.glob("*.png")
    (svg,) = report.folder.glob("*.svg")
    with Image.open(png) as image:
        assert image.width > 1000
        assert len(image.convert("L").getcolors(256)) > 10
    assert svg.read_text("utf-8").count("<path") > 10
