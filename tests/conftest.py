"""Fixtures that more than one room uses."""

from __future__ import annotations

import functools
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings

from optbench import backends
from optbench.environment import visible_gpus

REPOSITORY = Path(__file__).resolve().parent.parent
#: Original data and real inputs, where they lie beside the repository; what needs them skips elsewhere.
SHARED = REPOSITORY.parent / "shared"

# A busy machine is no reason to fail: no test judges a time.
settings.register_profile("optbench", deadline=None)
settings.load_profile("optbench")

# One thread a process, as a trial has it: test processes on every core leave no core for more.
for _library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
# A shell's background job ignores Ctrl-C, and so would every run that is started and interrupted here.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


@contextmanager
def inside(folder, **environment):
    """Work in a folder with environment variables, and undo what commands change for their process."""
    before, handler = os.getcwd(), signal.getsignal(signal.SIGTERM)
    os.chdir(folder)
    try:
        with mock.patch.dict(os.environ, environment):
            yield
    finally:
        os.chdir(before)
        signal.signal(signal.SIGTERM, handler)


def pytest_collection_modifyitems(items) -> None:
    """Skip what needs an NVIDIA GPU where there is none; no framework is imported to find that out."""
    if not visible_gpus():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(autouse=True)
def tensorflow_starts_as_a_trial_starts_it(request) -> None:
    """TensorFlow keeps the threads of its first use, which may be in any test: tests run in any order."""
    if find_spec("tensorflow") is not None and may_use_tensorflow(request.node):
        backends.engine("tensorflow")


def may_use_tensorflow(test: pytest.Item) -> bool:
    """Whether a test's name or its module speaks of TensorFlow, or of all that is installed."""
    words = "keras|tensorflow|installed"
    return bool(re.search(words, test.nodeid) or re.search(words, _text_of(test.path)))


@functools.cache
def _text_of(path: Path) -> str:
    return path.read_text()


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what a report or a framework caches out of the user's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def repository() -> Path:
    return REPOSITORY


@pytest.fixture
def shared_data() -> Path:
    """The folder with the original datasets, where there is one beside the repository."""
    folder = SHARED / "data"
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
