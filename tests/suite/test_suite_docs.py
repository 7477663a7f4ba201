"""The table of suites in the docs says what the files say: trials by their plan, hours by their headers."""

from __future__ import annotations

import re

import pytest

from optbench.models.layers import LAYERS
from optbench.suite.expand import trials, tuning_total
from optbench.suite.load import load_suite
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "suites"
ROWS = {
    cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
    for line in (REPOSITORY / "docs" / "suites.md").read_text().splitlines()
    if line.startswith("| `") and (cells := line.strip("| ").split("|"))[0].strip("` ").endswith(".yaml")
}


def test_every_suite_is_in_the_table():
    assert set(ROWS) == {path.name for path in FOLDER.glob("*.yaml")}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_the_trials_of_the_plan(name):
    suite = load_suite(FOLDER / name)
    evaluated = len(trials(suite, lambda backend, device: "cpu"))
    found = [int(number.replace(",", "")) for number in re.findall(r"[\d,]+", ROWS[name][1])]
    if suite.tuning is None:
        assert found == [evaluated]
    else:
        searched = tuning_total(suite.tuning, suite.workloads)
        winners = evaluated * suite.tuning.winners
        assert found in ([searched, winners], [searched + evaluated * (1 + suite.tuning.untuned)])


@pytest.mark.parametrize("name", ROWS)
def test_a_row_has_the_hours_of_the_header(name):
    header = (FOLDER / name).read_text().split("suite:")[0]
    takes = re.sub(r"\s*\n#\s*", " ", header.split("# Takes:")[1]).split("Estimates")[0]

    def amounts(text):
        words = {"half an hour": "0.5 h", "ten": "10"}
        for word, number in words.items():
            text = text.replace(word, number)
        found = re.findall(r"(\d[\d,.]*)(?: (?:to|and) (\d[\d,.]*))? ?(h|min)", text)
        return {(float(x.replace(",", "")), unit) for a, b, unit in found for x in (a, b) if x}

    cells = amounts(" ".join(ROWS[name][2:]).replace("hours", "h"))
    assert cells, f"{name}: no time in its row"
    assert cells <= amounts(takes.replace("minutes", "min").replace("hours", "h").replace("hour", "h")), (
        f"{name}: docs/suites.md says {sorted(cells)}, its header: {takes.strip()}"
    )


def test_the_docs_name_every_kind_of_layer():
    text = (REPOSITORY / "docs" / "suite.md").read_text(encoding="utf-8")
    section = text.split("\nmodel:\n", 1)[1].split("\n## ", 1)[0]
    assert set(LAYERS) - set(re.findall(r"(?:`|kind: |    - )(\w+)", section)) == set()
