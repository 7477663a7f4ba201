"""Fixtures that more than one room uses."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

TINY = """
suite: tiny
workloads:
  - dataset: digits
    model: {name: mlp, hidden: [8]}
    batch_size: 256
    epochs: 2
optimizers:
  wame: {lr: 0.05}
  adam: {lr: 0.01}
seeds: 2
analysis: {baseline: wame}
"""


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def shared_data() -> Path:
    """The folder with the original datasets, where there is one beside the repository."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared/data beside the repository: the original datasets are not here")
    return folder


def write_changed(
    folder: Path, *replacements: tuple[str, str], text: str = TINY, name: str = "tiny.yaml"
) -> Path:
    """Write a suite file, the tiny one with replacements by default, and return its path."""
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / name
    path.write_text(text)
    return path


@pytest.fixture
def write_suite(tmp_path):
    """See :func:`write_changed`; into the test's own folder."""
    return partial(write_changed, tmp_path)
