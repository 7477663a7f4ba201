"""What is done to a run: the registry of faults."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.faults.nodes import TwoNodes
from tests.faults.processes import Found, Running

#: Options of `optbench run`; the last two are there where Ray is.
EXECUTORS = {
    "one process": (),
    "two workers": ("--workers", "2"),
    "Ray": ("--executor", "ray"),
    "Ray, two nodes": ("--executor", "ray", "--ray-address"),
}
RAY = ("Ray", "Ray, two nodes")
MOMENTS = ("start", "checkpoint", "stored trial")
#: Bytes that a file may have where there is little room: fewer than a checkpoint or a store needs.
LITTLE = 30_000
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
#: Starts a command for which permissions hold even where the tests' user may do everything.
BOUND = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
#: libfaketime moves the deadline of Python's sleep too, though it is one of the clock that is left alone; the
#: system refuses it.
SLEEP = """
import select, time
def sleep(seconds):
    select.select((), (), (), seconds)
time.sleep = sleep
"""


@dataclass
class Scene:
    """A run under way that is about to be disturbed."""

    run: Running
    again: Callable[[], Running]
    nodes: TwoNodes | None
    random: random.Random
    hit: bool = True
    complaints: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.run.folder

    @property
    def store(self) -> Path:
        """Folder of the store."""
        return self.folder / "results" / "s"

    def end(self, *codes: int) -> None:
        """Wait for the run's end, and complain about another exit code than these; any if none is given."""
        code = self.run.wait()
        if code is None:
            self.complaints.append("the run did not end")
        elif codes and code not in codes:
            self.complaints.append(f"exit code {code} instead of {' or '.join(map(str, codes))}")

    def pick(self, wanted: Callable[[Found], bool]) -> int | None:
        """Choose one of the run's and the cluster's processes at random; None where there is no such one."""
        there = [*self.run.members(), *(self.nodes.members() if self.nodes else ())]
        found = sorted({one.pid for one in there if wanted(one)})
        return self.random.choice(found) if found else None


Options = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A fault: what is done to a run under way, after which the same command is run again.

    Parameters
    ----------
    act : callable
        Does it; it waits for the run's end itself.
    executors, moments : tuple
        With and at which it can be.
    before : callable
        Makes what the disturbed run is started with (``environment``, ``stdin``) in a folder.
    after : callable
        Undoes it, so that the same command can go on.
    bound : bool
        Whether permissions must hold for the runs.
    lacking : callable
        Why it cannot be tried here; empty where it can.
    """

    act: Callable[[Scene], None]
    executors: tuple[str, ...] = tuple(EXECUTORS)
    moments: tuple[str, ...] = ("checkpoint", "stored trial")
    before: Callable[[Path], Options] = lambda folder: {}
    after: Callable[[Scene], None] = lambda scene: None
    bound: bool = False
    lacking: Callable[[], str] = lambda: ""


def _kill(scene: Scene) -> None:
    scene.run.kill()


def _kill_the_run_alone(scene: Scene) -> None:
    """Nobody tells its workers."""
    scene.run.process.kill()
    scene.end()


def _signal(number: int, *codes: int) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(scene.run.process.pid, number)
        scene.end(*codes)

    return act


def _terminate(scene: Scene) -> None:
    scene.run.process.terminate()
    scene.end(130)


def _stop(scene: Scene) -> None:
    scene.run.send(signal.SIGSTOP)
    time.sleep(1)
    scene.run.send(signal.SIGCONT)
    scene.end(0)


def _lose_the_log(scene: Scene) -> None:
    """A write-ahead log that is gone takes the last trials along; the run trains them again."""
    scene.run.kill()
    for name in ("store.sqlite-wal", "store.sqlite-shm"):
        (scene.store / name).unlink(missing_ok=True)


def _damage_checkpoints(scene: Scene) -> None:
    scene.run.kill()
    for path in (scene.store / "checkpoints").glob("*"):
        raw = bytearray(path.read_bytes())
        if raw:
            raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)


def _cut_checkpoints(scene: Scene) -> None:
    """As a disk leaves files that had not reached it."""
    scene.run.kill()
    for path in (scene.store / "checkpoints").glob("*"):
        os.truncate(path, scene.random.randrange(path.stat().st_size + 1))


def _run_out_of_room(scene: Scene) -> None:
    for found in scene.run.members():
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(found.pid, resource.RLIMIT_FSIZE, (LITTLE, resource.RLIM_INFINITY))
    scene.end()


def _start_a_second(scene: Scene) -> None:
    """A second run of the same suite is told, and the first one goes on."""
    scene.run.send(signal.SIGSTOP)
    second = scene.again()
    code = second.wait()
    if code != 2 or "another run is writing to this store" not in second.output:
        scene.complaints.append(f"the second run ended with exit code {code}: {second.output}")
    scene.run.send(signal.SIGCONT)
    scene.end(0)


def _jump(scene: Scene) -> None:
    """A clock that is set back, or ahead, in mid-run; what measures durations goes on evenly."""
    (scene.folder / "clock").write_text(scene.random.choice(["-400d", "-2h", "+2h", "+400d"]))
    scene.end(0)


def _clock(folder: Path) -> Options:
    (folder / "clock").write_text("+0")
    (folder / "shim").mkdir(exist_ok=True)
    (folder / "shim" / "sitecustomize.py").write_text(SLEEP)
    return {
        "environment": {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "PYTHONPATH": os.pathsep.join(
                filter(None, [str(folder / "shim"), os.environ.get("PYTHONPATH", "")])
            ),
        }
    }


_RIGHTS = {
    "results": 0o500,
    "results/s": 0o500,
    "results/s/checkpoints": 0o500,
    "results/s/store.sqlite": 0o400,
}


def _take_rights(scene: Scene) -> None:
    for name, mode in _RIGHTS.items():
        with contextlib.suppress(FileNotFoundError):
            (scene.folder / name).chmod(mode)
    scene.end()


def _give_rights(scene: Scene) -> None:
    for name in _RIGHTS:
        with contextlib.suppress(FileNotFoundError):
            (scene.folder / name).chmod(0o700)


def _wait(*codes: int) -> Callable[[Scene], None]:
    return lambda scene: scene.end(*codes)


def _without(*names: str) -> Callable[[Path], Options]:
    return lambda folder: {"environment": dict.fromkeys(names)}


def _is_worker(found: Found) -> bool:
    return found.words.startswith("ray::_work") or "spawn_main" in found.words


def _kill_a_worker(scene: Scene) -> None:
    """A worker of Ray, one started afresh, or a fork of the server that PyTorch's workers come from."""
    servers = {found.pid for found in scene.run.members() if "multiprocessing.forkserver" in found.words}
    chosen = scene.pick(lambda found: _is_worker(found) or found.parent in servers)
    scene.hit = chosen is not None
    if chosen is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chosen, signal.SIGKILL)
    scene.end(0)


def _is_raylet(found: Found) -> bool:
    return "raylet/raylet " in found.words


def _kill_the_raylet(scene: Scene) -> None:
    """The only one of a cluster: the run cannot go on, and must not wait for ever.

    Ray ends its driver with code 1 where that has not noticed by itself.
    """
    chosen = scene.pick(_is_raylet)
    assert chosen is not None
    os.kill(chosen, signal.SIGKILL)
    scene.end(1, 2)


def _stop_the_raylets(scene: Scene) -> None:
    """As a network that carries nothing for some seconds."""
    there = [found for found in scene.run.members() if _is_raylet(found) or "gcs_server" in found.words]
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for found in there:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, number)
        if number == signal.SIGSTOP:
            time.sleep(3)
    scene.end(0)


def _lose_a_node(scene: Scene) -> None:
    assert scene.nodes is not None
    scene.nodes.lose()
    scene.end(0)


def _cut_off_a_node(scene: Scene) -> None:
    """Its trials go on where nobody hears of them, while another node begins them again."""
    assert scene.nodes is not None
    scene.nodes.cut_off()
    scene.end(0)


def _limited(folder: Path) -> Options:
    return {"limit": LITTLE}


def _no_faketime() -> str:
    return "" if FAKETIME.is_file() else f"{FAKETIME} is not there (Debian's package faketime)"


def prefix(kind: Kind) -> tuple[str, ...]:
    """What comes before the command of a kind's runs."""
    return BOUND if kind.bound and not os.geteuid() else ()


def _permissions_do_nothing() -> str:
    if os.geteuid():
        return ""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o500)
        try:
            done = subprocess.run([*BOUND, "touch", f"{folder}/file"], capture_output=True, check=False)
        except OSError as error:
            return f"they do not hold for this user, and setpriv does not start ({error})"
        return "" if done.returncode == 1 else "they do not hold for this user, nor by setpriv"


LOCAL = ("one process", "two workers")
KINDS: dict[str, Kind] = {
    "kill": Kind(_kill, moments=MOMENTS),
    "kill the run alone": Kind(_kill_the_run_alone, moments=MOMENTS),
    "kill a worker": Kind(_kill_a_worker, executors=("two workers", *RAY)),
    "terminate": Kind(_terminate),
    "interrupt": Kind(_signal(signal.SIGINT, 130)),
    "hang up": Kind(_signal(signal.SIGHUP)),
    "stop": Kind(_stop),
    "second run": Kind(_start_a_second),
    "lose the log": Kind(_lose_the_log),
    "damage the checkpoints": Kind(_damage_checkpoints, moments=("checkpoint",)),
    "cut the checkpoints": Kind(_cut_checkpoints, moments=("checkpoint",)),
    "little room": Kind(_wait(), moments=("start",), before=_limited, executors=LOCAL),
    "room runs out": Kind(_run_out_of_room, executors=LOCAL),
    "permissions taken": Kind(
        _take_rights, executors=LOCAL, after=_give_rights, bound=True, lacking=_permissions_do_nothing
    ),
    "no home": Kind(_wait(0), moments=("start",), before=_without("HOME", "USER")),
    "closed input": Kind(_wait(0), moments=("start",), before=lambda folder: {"stdin": subprocess.DEVNULL}),
    "clock jumps": Kind(_jump, executors=LOCAL, before=_clock, lacking=_no_faketime),
    "kill the raylet": Kind(_kill_the_raylet, executors=("Ray",)),
    "network stops for a while": Kind(_stop_the_raylets, executors=("Ray",)),
    "lose a node": Kind(_lose_a_node, executors=("Ray, two nodes",)),
    "cut off a node": Kind(_cut_off_a_node, executors=("Ray, two nodes",)),
}


def executors_here() -> list[str]:
    """Executors that this interpreter has."""
    return [name for name in EXECUTORS if name not in RAY or find_spec("ray") is not None]


def kinds_here() -> tuple[list[str], dict[str, str]]:
    """Kinds that can be tried here, and why the others cannot."""
    lacking = {}
    for name, kind in KINDS.items():
        if reason := kind.lacking():
            lacking[name] = reason
        elif not set(kind.executors) & set(executors_here()):
            lacking[name] = "Ray is not installed"
    return [name for name in KINDS if name not in lacking], lacking
