"""The HTML report: one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from optbench.frames import Results
from optbench.report.text import TextTable
from optbench.suite import Suite


def render(results: Results, suite: Suite, *, tables: Sequence[TextTable], plots: Mapping[str, Path]) -> str:
    """Render the page.

    Parameters
    ----------
    results : Results
        For the counts and environments.
    suite : Suite
        Its title, text and analysis.
    tables : sequence of TextTable
        The leaderboards.
    plots : mapping of str to Path
        PNG files by caption; they are embedded.

    Returns
    -------
    str
        HTML with every text escaped and no reference to anything outside.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        (files("optbench.report") / "templates" / "report.html.j2").read_text("utf-8")
    )
    images = {name: base64.b64encode(path.read_bytes()).decode() for name, path in plots.items()}
    counts: dict[str, Any] = results.trials["status"].value_counts().to_dict() if len(results.trials) else {}
    return template.render(
        suite=suite,
        tables=tables,
        images=images,
        counts=counts,
        planned=results.planned,
        smoke=any(meta.get("smoke") for meta in results.meta),
        environments=results.environments,
    )
