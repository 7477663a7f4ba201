"""Several trials of one config as one JAX program: the compiled epoch under ``vmap``.

The state of all trials is one tree of arrays [trials, ..] from the stack's opening to its end. A member takes
its entry of it where its protocol asks for one: to be saved, say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from optbench.backends.arrays import scaled
from optbench.backends.base import Evaluation, NotStackableError, PartName
from optbench.backends.functional import FunctionalSession, State, batched, raw
from optbench.backends.jax.programs import JaxPrograms
from optbench.matching import Indices
from optbench.optimizers import stack_obstacle
from optbench.trial import TrialSpec

#: Whose weights: those of now, or those that each trial remembers.
Which = Literal["now", "remembered"]


class JaxStack:
    """See :class:`optbench.backends.base.Stack`."""

    def __init__(self, specs: Sequence[TrialSpec], sessions: Sequence[FunctionalSession]) -> None:
        if (reason := stack_obstacle(specs[0].optimizer, "jax")) is not None:
            raise NotStackableError(reason)
        self._sessions = list(sessions)
        #: Where trials end one by one, their last evaluations are theirs alone.
        self._alone: tuple[PartName, ...] = ("test",) if specs[0].workload.early_stopping else ()
        first = sessions[0]
        assert isinstance(first.programs, JaxPrograms)
        self._programs = first.programs
        self._tree: State = first.current
        self._pools: tuple[Any, Any, bool] | None = None
        self._parts: dict[PartName, tuple[Any, Any, Any, bool, int] | None] = {}
        self._evaluated: dict[tuple[Which, PartName], Any] = {}
        self._host: dict[Which, list[NDArray[Any]]] = {}
        self._marked: set[int] = set()
        with self._programs.scope():
            self._state = self._filled(self._tree, [s.current for s in sessions])
            kept = [s.kept for s in sessions]
            self._kept = self._filled(self._tree["model"], kept) if all(kept) else None
        self.members: list[Any] = [Member(self, session) for session in sessions]
        for session in sessions:
            session.release()

    def train_epoch(
        self,
        sessions: Sequence[FunctionalSession],
        rows: Sequence[Indices],
        xs: Sequence[NDArray[Any]] | None,
    ) -> list[NDArray[np.float64]]:
        """See :class:`optbench.backends.base.Stack`."""
        with self._programs.scope():
            self._remember()
            self._halve(sessions)
            places = {id(session): k for k, session in enumerate(sessions)}
            # A trial that has ended and is still in the stack goes through the epoch of the first, unseen.
            which = [places.get(id(session), 0) for session in self._sessions]
            losses = self._epoch([rows[k] for k in which], None if xs is None else [xs[k] for k in which])
            self._forget("now")
        order = {id(session): k for k, session in enumerate(self._sessions)}
        return [losses[order[id(session)]] for session in sessions]

    def _epoch(self, rows: Sequence[Indices], xs: Sequence[NDArray[Any]] | None) -> NDArray[np.float64]:
        first, programs = self._sessions[0], self._programs
        x, y, pool_each = self._data(xs)
        rates = programs.rate([session.lr for session in self._sessions])
        n = len(rows[0])
        whole = n // first.batch * first.batch
        losses = []
        for part in (slice(0, whole), slice(whole, None)):
            if len(rows[0][part]):
                targets = programs.put(np.stack([batched(each[part], first.batch) for each in rows]))
                inputs = targets
                if xs is not None:
                    inputs = programs.put(np.stack([batched(np.arange(n)[part], first.batch)] * len(rows)))
                self._state, taken = programs.epochs(
                    self._state, rates, x, y, inputs, targets, pool_each=pool_each
                )
                losses.append(taken)
        return np.concatenate([np.asarray(taken, np.float64) for taken in losses], axis=1)

    def evaluate(self, place: int, which: Which, part: PartName, *, outputs: bool) -> Evaluation | None:
        """Evaluate a part for all trials, and give that of one; None where a trial does that alone."""
        if part in self._alone:
            return None
        with self._programs.scope():
            if part not in self._parts:
                self._parts[part] = self._part(part)
            prepared = self._parts[part]
            if prepared is None:
                return None
            x, y, rows, each, n = prepared
            key = (which, part)
            if key not in self._evaluated:
                found = self._programs.evaluations(self.model(which), x, y, rows, pool_each=each)
                self._evaluated[key] = [found[0], found[1], found[2], [None, None, None]]
            arrays = self._evaluated[key]
            for k in range(3 if outputs else 2):
                if arrays[3][k] is None:
                    arrays[3][k] = np.asarray(arrays[k])
            own = [a[place].reshape(-1, *a.shape[3:])[:n] for a in arrays[3][: 3 if outputs else 2]]
        return Evaluation(
            loss=float(own[0].sum(dtype=np.float64)) / n,
            predictions=own[1],
            outputs=own[2] if outputs else None,
        )

    def place(self, session: FunctionalSession) -> int:
        """Where a trial is in the stack."""
        return self._sessions.index(session)

    def mark(self, session: FunctionalSession) -> None:
        """Have a trial's weights of now kept: with those of all others, before they change."""
        self._marked.add(id(session))
        self._forget("remembered")

    def model(self, which: Which) -> Any:
        """Weights of all trials."""
        if which == "now":
            return self._state["model"]
        self._remember()
        assert self._kept is not None
        return self._kept

    def leaves(self, which: Which) -> list[NDArray[Any]]:
        """Arrays of the whole state, or of the weights that are remembered, on the host."""
        if which not in self._host:
            with self._programs.scope():
                tree = self._state if which == "now" else self.model("remembered")
                self._host[which] = [raw(leaf) for leaf in self._programs.leaves(tree)]
        return self._host[which]

    @property
    def remembers(self) -> bool:
        """Whether there is something that was remembered."""
        return self._kept is not None or bool(self._marked)

    def state_bytes(self) -> int:
        """Bytes of one trial's optimizer state."""
        with self._programs.scope():
            leaves = self._programs.leaves(self._state["optimizer"])
        return sum(leaf.nbytes for leaf in leaves) // len(self._sessions)

    def _remember(self) -> None:
        """Keep the weights of the trials that are marked."""
        if not self._marked:
            return
        mask = np.array([id(session) in self._marked for session in self._sessions])
        with self._programs.scope():
            if self._kept is None or mask.all():
                self._kept = self._state["model"]  # arrays of a state never change, so no copy is made
            else:
                self._kept = self._programs.chosen(mask, self._state["model"], self._kept)
        self._marked.clear()
        self._forget("remembered")

    def _forget(self, which: Which) -> None:
        self._host.pop(which, None)
        self._evaluated = {key: found for key, found in self._evaluated.items() if key[0] != which}

    def _halve(self, sessions: Sequence[FunctionalSession]) -> None:
        """Go on with these alone, once half of the trials have ended: each size is a program of its own."""
        if 2 * len(sessions) > len(self._sessions):
            return
        live = {id(session) for session in sessions}
        kept = [k for k, session in enumerate(self._sessions) if id(session) in live]
        programs = self._programs

        def some(tree: Any) -> Any:
            return programs.filled(tree, [leaf[kept] for leaf in programs.leaves(tree)])

        self._state = some(self._state)
        self._kept = None if self._kept is None else some(self._kept)
        self._sessions = [self._sessions[k] for k in kept]
        self._pools = None
        self._parts.clear()
        self._forget("now")
        self._forget("remembered")

    def _data(self, xs: Sequence[NDArray[Any]] | None) -> tuple[Any, Any, bool]:
        """Inputs and targets of an epoch, and whether each trial has its own."""
        members = self._sessions
        if xs is not None:
            x = np.stack([scaled(x, s.data, s.precision) for x, s in zip(xs, members, strict=True)])
            return self._programs.put(x), self._joined([s.pool[1] for s in members]), True
        if self._pools is None:
            first = members[0].pool
            if all(s.pool[0] is first[0] for s in members):
                self._pools = (*first, False)
            else:
                self._pools = (*(self._joined([s.pool[k] for s in members]) for k in (0, 1)), True)
        return self._pools

    def _part(self, part: PartName) -> tuple[Any, Any, Any, bool, int] | None:
        parts = [session.part(part) for session in self._sessions]
        x, y, rows, n = parts[0]
        if any(p[3] != n or p[2].shape != rows.shape for p in parts):
            return None
        each = any(p[0] is not x for p in parts)
        if each:
            x, y = (self._joined([p[k] for p in parts]) for k in (0, 1))
        return x, y, self._joined([p[2] for p in parts]), each, n

    @staticmethod
    def _joined(arrays: Sequence[Any]) -> Any:
        return jnp.stack(arrays)

    def _filled(self, tree: Any, trees: Sequence[Any]) -> Any:
        """Join trees of single trials, through the host: a copy is less work than a program a leaf."""
        count = len(self._programs.leaves(trees[0]))
        flat = self._programs.leaves(list(trees))
        leaves = [flat[start : start + count] for start in range(0, len(flat), count)]
        return self._programs.filled(tree, [np.stack(arrays) for arrays in zip(*leaves, strict=True)])


class Member:
    """One trial of a stack, as its protocol sees it."""

    def __init__(self, stack: JaxStack, session: FunctionalSession) -> None:
        self._stack, self._session = stack, session
        self._which: Which = "now"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def evaluate(self, part: PartName, *, outputs: bool = False) -> Evaluation:
        """See :class:`optbench.backends.base.Session`."""
        place = self._stack.place(self._session)
        found = self._stack.evaluate(place, self._which, part, outputs=outputs)
        if found is not None:
            return found
        return self._session.evaluated(self._model(self._which), part, outputs=outputs)

    def weights(self) -> dict[str, NDArray[Any]]:
        """See :class:`optbench.backends.base.Session`."""
        return {name: np.array(value) for name, value in self._model(self._which).items()}

    def remember(self) -> None:
        """See :class:`optbench.backends.base.Session`."""
        self._stack.mark(self._session)

    def recall(self) -> None:
        """See :class:`optbench.backends.base.Session`; the trial trains no further."""
        self._which = "remembered"

    def state(self) -> dict[str, NDArray[Any]]:
        """See :class:`optbench.backends.base.Session`."""
        place = self._stack.place(self._session)
        parts: list[tuple[str, Which]] = [("state", "now")]
        if self._stack.remembers:
            parts.append(("remembered", "remembered"))
        return {"lr": np.array(self._session.lr)} | {
            f"{part}/{number}": leaf[place].copy()
            for part, which in parts
            for number, leaf in enumerate(self._stack.leaves(which))
        }

    def state_bytes(self) -> int:
        """See :class:`optbench.backends.base.Session`."""
        return self._stack.state_bytes()

    def _model(self, which: Which) -> Mapping[str, Any]:
        place = self._stack.place(self._session)
        return {name: value[place] for name, value in self._stack.model(which).items()}
