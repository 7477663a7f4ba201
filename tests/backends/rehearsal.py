"""A stand-in for CUDA graphs: a replay calls the step, which may look only at what a graph would read."""

from __future__ import annotations

from contextlib import nullcontext


class Rehearsal:
    """In place of a CUDA graph."""

    def __init__(self):
        self.recorded = self.replayed = self.branches = 0

    def aside(self):
        return nullcontext()

    def record(self, step, *generators):
        self.recorded += 1

        def replay():
            self.replayed += 1
            step()

        return replay

    def side_by_side(self, works):
        self.branches = max(self.branches, len(works))
        for work in works:
            work()
