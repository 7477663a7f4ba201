"""The pipe of a worker: what one says or leaves unsaid harms no other."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import sys
import time

import pytest

from optbench.environment import Context
from optbench.errors import UserError
from optbench.execution import local
from optbench.execution import pool as pools
from optbench.execution.jobs import ProcessEndedError
from optbench.execution.pool import Pool
from optbench.execution.worker import (
    Began,
    Done,
    Ended,
    Failed,
    Progress,
    Ready,
    Worker,
    WorkersError,
    describe_end,
)
from optbench.records.store import Store
from optbench.suite.load import load_suite

SECONDS = 120


# What the workers do; they import this module.


def count(tell, most):
    for number in range(most):
        tell(number)
    return most


def half_a_message_then_killed(tell):
    write(tell, struct.pack("!i", 10_000) + b"the first few bytes of a record")
    os.kill(os.getpid(), signal.SIGKILL)


def stopped_in_a_message(tell):
    write(tell, struct.pack("!i", 10_000) + b"the first few bytes of a record")
    os.kill(os.getpid(), signal.SIGSTOP)


def bytes_that_are_no_message(tell):
    write(tell, struct.pack("!i", 4) + b"junk")
    time.sleep(SECONDS)


def an_object_that_is_no_message(tell):
    write(tell, struct.pack("!i", len(pickle.dumps(7))) + pickle.dumps(7))
    time.sleep(SECONDS)


def ends_but_a_child_keeps_its_pipe(tell):
    if os.fork() == 0:
        time.sleep(20)
    os._exit(0)


def refused(tell):
    raise UserError("not here")


def broken(tell):
    raise ValueError("a mistake")


def write(tell, data):
    (pipe,) = (cell.cell_contents for cell in tell.__closure__)
    os.write(pipe.fileno(), data)


def threads():
    return os.environ["OMP_NUM_THREADS"]


@pytest.fixture
def start():
    inbox, started = queue.SimpleQueue(), []

    def make():
        started.append(Worker(inbox, (), Context()))
        return started[-1], inbox

    yield make
    for worker in started:
        worker.kill()
        worker.close()


def until_ended(inbox, worker):
    """What a worker says until its end."""
    said = []
    while True:
        who, message = inbox.get(timeout=SECONDS)
        if who is worker:
            said.append(message)
            if isinstance(message, Ended):
                return said


def result(inbox, worker):
    said = []
    while not said or not isinstance(said[-1], Done | Failed | Ended):
        who, message = inbox.get(timeout=SECONDS)
        said += [message] if who is worker else []
    return said


def test_a_worker_tells_of_its_tasks_in_order(start):
    worker, inbox = start()
    worker.give(count, 3)
    worker.give(count, 1)
    said = result(inbox, worker) + result(inbox, worker)
    assert said == [
        *(Ready(), Began(), Progress((0,)), Progress((1,)), Progress((2,)), Done(3)),
        *(Began(), Progress((0,)), Done(1)),
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="writes to the pipe's descriptor")
@pytest.mark.parametrize(
    ("task", "cut"),
    [
        (half_a_message_then_killed, False),
        (bytes_that_are_no_message, True),
        (an_object_that_is_no_message, True),
    ],
)
def test_a_message_cut_off_or_of_junk_ends_that_worker_alone(start, task, cut):
    odd, inbox = start()
    other, _ = start()
    odd.give(task)
    assert until_ended(inbox, odd) == [Ready(), Began(), Ended(-signal.SIGKILL, cut)]
    other.give(count, 500)
    said = result(inbox, other)
    assert said[-1] == Done(500)
    assert sum(isinstance(message, Progress) for message in said) == 500


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="stops a process")
def test_a_worker_that_stops_in_the_middle_of_a_message_keeps_nobody_waiting(start):
    stopped, inbox = start()
    other, _ = start()
    stopped.give(stopped_in_a_message)
    other.give(count, 100)
    assert result(inbox, other)[-1] == Done(100)
    stopped.kill()
    assert until_ended(inbox, stopped)[-1] == Ended(-signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_process_that_is_gone_is_noticed_though_its_child_holds_the_pipe(start):
    worker, inbox = start()
    worker.give(ends_but_a_child_keeps_its_pipe)
    assert [type(inbox.get(timeout=SECONDS)[1]) for _ in range(2)] == [Ready, Began]
    end = time.monotonic() + SECONDS
    while not worker.lost():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert worker.exit_code() == 0


def test_a_task_that_raises_says_what(start):
    worker, inbox = start()
    worker.give(refused)
    worker.give(broken)
    first, second = result(inbox, worker)[-1].exception(), result(inbox, worker)[-1].exception()
    assert (type(first), str(first), first.exit_code) == (UserError, "not here", 2)
    assert isinstance(second, RuntimeError)
    assert "ValueError: a mistake" in str(second)


def test_a_pool_replaces_a_worker_that_died_at_rest(tmp_path):
    """Killed between two tasks: nobody waits for it then."""
    pool = Pool(1, Context(threads=2))
    try:
        pool.open([])
        assert pool.call(threads) == "2"
        (worker,) = pool._workers
        worker.kill()
        worker._reader.join(SECONDS)
        assert pool.call(threads) == "2"
        with pytest.raises(ProcessEndedError, match="exit code 3"):
            pool.call(os._exit, 3)
        assert pool.call(threads) == "2"
    finally:
        pool.close()


def test_workers_that_never_start_end_the_run_with_a_reason(tmp_path, monkeypatch, write_suite):
    pytest.importorskip("torch")

    class Stillborn:
        def __init__(self, inbox, frameworks, context, *, gpu=None):
            self._inbox = inbox

        def give(self, task, *arguments):
            self._inbox.put((self, Ended(1)))

        def exit_code(self):
            return 1

        def lost(self):
            return False

        def kill(self):
            pass

        close = kill

    monkeypatch.setattr(pools, "Worker", Stillborn)
    with pytest.raises(WorkersError, match=r"no worker process starts: 6 ended with exit code 1.*__main__"):
        local.run_suite(load_suite(write_suite()), results=tmp_path, executor=lambda: Pool(2))
    with Store(tmp_path / "tiny") as store:
        assert not store.statuses()


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (Ended(0), "ended itself with exit code 0"),
        (Ended(-9), "died 2 times (exit code -9, SIGKILL)"),
        (Ended(None), "unknown"),
        (Ended(-9, cut=True), "closed its connection"),
    ],
)
def test_the_reason_names_how_it_ended(end, said):
    assert said in describe_end(end, 2)
