"""A Ray cluster of two nodes on this machine, of which one is lost or cut off."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any
from unittest import mock

from tests.faults.processes import MARK, Found, of_mark

#: The head takes a node for lost that has not answered for some two seconds; by default it is half a minute.
IMPATIENT = {
    "health_check_initial_delay_ms": 500,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 3,
}


class TwoNodes:
    """The cluster; the processes of its second node can be ended, or made deaf.

    Parameters
    ----------
    mark : str
        What its processes inherit, to be found by.
    """

    def __init__(self, mark: str) -> None:
        from ray.cluster_utils import Cluster

        self._mark = mark
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        before = os.environ.get(MARK)
        os.environ[MARK] = mark
        try:
            head = {"num_cpus": 1, "include_dashboard": False, "_system_config": IMPATIENT}
            # Ray handles SIGTERM for each node, which only the main thread may.
            with mock.patch("ray._private.utils.set_sigterm_handler"):
                self._cluster: Any = Cluster(initialize_head=True, head_node_args=head)
                self._other: Any = self._cluster.add_node(num_cpus=1)
            self._cluster.wait_for_nodes()
        finally:
            os.environ.pop(MARK) if before is None else os.environ.update({MARK: before})

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def members(self) -> list[Found]:
        """Processes of both nodes."""
        return of_mark(self._mark, -1)

    def lose(self) -> None:
        """End the second node as a power cut does."""
        self._cluster.remove_node(self._other, allow_graceful=False)

    def cut_off(self) -> None:
        """Make the second node deaf; what it trains goes on."""
        for entry in self._other.all_processes["raylet"]:
            os.kill(entry.process.pid, signal.SIGSTOP)

    def close(self) -> None:
        """End the cluster."""
        with contextlib.suppress(Exception):  # of a node that was lost
            self._cluster.shutdown()
        for found in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
