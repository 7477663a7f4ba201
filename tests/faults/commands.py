"""Commands that write files or stores, killed: they leave what was there, or all they write, never a part."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from optbench.errors import UserError
from optbench.records.store import FILE_NAME, Store
from optbench.suite.load import load_suite
from tests.conftest import write_changed
from tests.datasets.test_fetch import Server
from tests.faults.processes import PATIENCE
from tests.report.conftest import fill_store

#: Names of files that are being written, and of locks.
UNFINISHED = (".unfinished-", "part-", "unfinished-", ".lock", "run.lock")
OLD = b"old"
#: `data fetch` from a server of this machine: two files in one archive.
FETCH = """
import sys
from dataclasses import replace
from optbench.cli import main
from optbench.datasets import registry
from optbench.datasets.fetch import Archive, DataFile, Source
address, md5, *sums = sys.argv.pop().split()
archive = Archive(url=address, md5=md5, members={"x/a": "a", "x/b": "b"})
files = tuple(DataFile(name=name, sha256=sha) for name, sha in zip("ab", sums, strict=True))
source = Source(folders=("made",), files=files, archive=archive)
registry.ENTRIES = {**registry.ENTRIES, "mnist": replace(registry.ENTRIES["mnist"], source=source)}
main()
"""


class _Quiet(Server):
    """Says nothing of a client that was killed."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@dataclass(frozen=True)
class Command:
    """A command that is killed.

    Parameters
    ----------
    words : callable
        Makes its command line, given a folder with its input in which it writes ``out``.
    prepare : callable
        Writes its input.
    old : callable
        Writes what is at ``out`` before.
    aim : str
        Pattern of files that are there while it writes.
    """

    words: Callable[[Path], list[str]]
    prepare: Callable[[Path], None]
    old: Callable[[Path], None] = lambda folder: None
    aim: str = ".unfinished-*"


def _optbench(*words: str) -> Callable[[Path], list[str]]:
    return lambda folder: [sys.executable, "-m", "optbench.cli", *(w.format(folder=folder) for w in words)]


def _stores(folder: Path) -> None:
    suite = load_suite(write_changed(folder, ("seeds: 2", "seeds: 60")))
    fill_store(suite, folder / "store", lambda trial: 0.5 + trial.spec.seeds.init / 200, epochs=20)
    for word in ("wame", "adam"):
        fill_store(suite, folder / word, lambda trial, word=word: 0.5 if trial.optimizer == word else None)


def _old_files(folder: Path) -> None:
    """Put old files where a report and an export have theirs."""
    (folder / "out").mkdir()
    for path in (folder / "whole").rglob("*"):
        if path.is_file():
            old = folder / "out" / path.relative_to(folder / "whole")
            old.parent.mkdir(exist_ok=True)
            old.write_bytes(OLD)


def _tables(folder: Path) -> None:
    rows = [
        f"digits,{optimizer},{seed},{0.5 + seed / 3000}"
        for seed in range(400)
        for optimizer in ("wame", "adam")
    ]
    head = "dataset,optimizer,seed,test_accuracy"
    (folder / "all.csv").write_text("\n".join([head, *rows]) + "\n")
    (folder / "half").mkdir()
    (folder / "half" / "all.csv").write_text("\n".join([head, *rows[:400]]) + "\n")


def _half_imported(folder: Path) -> None:
    if not (folder / "before").is_dir():
        words = _optbench("import", "{folder}/half/all.csv", "-o", "{folder}/before")(folder)
        subprocess.run(words, check=True, capture_output=True)
    shutil.copytree(folder / "before", folder / "out")


def _archive(folder: Path) -> None:
    contents = {name: random.Random(name).randbytes(6_000_000) for name in ("x/a", "x/b")}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, raw in contents.items():
            archive.writestr(name, raw)
    (folder / "all.zip").write_bytes(stream.getvalue())
    sums = [hashlib.sha256(raw).hexdigest() for raw in contents.values()]
    md5 = hashlib.md5(stream.getvalue(), usedforsecurity=False).hexdigest()
    (folder / "sums").write_text(" ".join([md5, *sums]))
    (folder / "fetch.py").write_text(FETCH)


def _fetch(folder: Path) -> list[str]:
    known = f"{(folder / 'address').read_text()} {(folder / 'sums').read_text()}"
    words = ["data", "fetch", "mnist", "--data-dir", str(folder / "out")]
    return [sys.executable, str(folder / "fetch.py"), *words, known]


COMMANDS = {
    "report": Command(
        _optbench(
            "report", "{folder}/store", "--out", "{folder}/out", "--format", "markdown", "--format", "csv"
        ),
        _stores,
        _old_files,
    ),
    "export": Command(
        _optbench("export", "{folder}/store", "--to", "json", "-o", "{folder}/out"), _stores, _old_files
    ),
    "merge": Command(
        _optbench("merge", "{folder}/wame", "{folder}/adam", "-o", "{folder}/out"),
        _stores,
        aim="unfinished-*",
    ),
    "import": Command(
        _optbench("import", "{folder}/all.csv", "-o", "{folder}/out"), _tables, aim="unfinished-*"
    ),
    "import into a store": Command(
        _optbench("import", "{folder}/all.csv", "-o", "{folder}/out"),
        _tables,
        _half_imported,
        aim="*.sqlite-wal",
    ),
    "data fetch": Command(_fetch, _archive, aim="**/part-*"),
}


def killed(name: str, kills: int, seed: int, folder: Path) -> Iterator[list[str]]:
    """Kill a command so many times; what is wrong after each.

    Half of the kills come at any moment after the first third, half where a file is being written.
    """
    command, rng = COMMANDS[name], random.Random(seed)
    folder.mkdir(parents=True)
    command.prepare(folder)
    with _serving(folder):
        clock = time.monotonic()
        _complete(command, folder)
        took = time.monotonic() - clock
        whole = _state(folder / "out")
        shutil.move(folder / "out", folder / "whole")
        for number in range(kills):
            command.old(folder)
            old = _state(folder / "out")
            _kill(command, folder, rng, took=took if number % 2 else None)
            yield _complaints(command, folder, old, whole)
            shutil.rmtree(folder / "out", ignore_errors=True)


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[None]:
    """Serve the archive, where there is one."""
    if not (folder / "all.zip").is_file():
        yield
        return
    with _Quiet() as server:
        server.pages["/all.zip"] = (folder / "all.zip").read_bytes()
        (folder / "address").write_text(f"{server.address}all.zip")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield
        server.shutdown()
        thread.join()


def _complete(command: Command, folder: Path) -> None:
    done = subprocess.run(
        command.words(folder), capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _kill(command: Command, folder: Path, rng: random.Random, *, took: float | None) -> None:
    """Kill the command after a part of the time that it takes, or soon after it has begun a file."""
    devices = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command.words(folder), **devices)
    if took is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(took * rng.uniform(0.3, 1.0))
    else:
        while process.poll() is None and not any((folder / "out").glob(command.aim)):
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


def _complaints(
    command: Command, folder: Path, old: dict[str, object], whole: dict[str, object]
) -> list[str]:
    """What is neither as before nor whole after a kill, and whether the same command then does its work."""
    found = []
    for name, there in _state(folder / "out").items():
        if there not in (old.get(name), whole.get(name)):
            found.append(f"{name} is neither the old one nor the new one")
    try:
        _complete(command, folder)
    except AssertionError as error:
        return [*found, f"run again: {error}"]
    if _state(folder / "out") != whole:
        found.append("run again, it wrote something else than without the kill")
    return found


def _state(folder: Path) -> dict[str, object]:
    """Files with their bytes; of a store what is in it, as its bytes depend on the moments of writing."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.name.startswith((*UNFINISHED, f"{FILE_NAME}-")):
            continue
        found[name] = _records(path) if path.name == FILE_NAME else path.read_bytes()
    return found


def _records(path: Path) -> object:
    try:
        with Store(path) as store:
            assert not store.verify().misfits
            records = [
                (t.trial_id, t.status, dict(t.metrics), {n: v.tobytes() for n, v in t.history.items()})
                for t in store.trials()
            ]
            return json.dumps(store.meta(), sort_keys=True), sorted(store.plan()), records
    except UserError as error:
        return str(error)
