"""Several trials of one config as one JAX program: the compiled epoch under ``vmap``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from optbench.backends.arrays import scaled
from optbench.backends.base import NotStackableError
from optbench.backends.functional import FunctionalSession, batched
from optbench.backends.jax.programs import JaxPrograms
from optbench.matching import Indices
from optbench.optimizers import family_of
from optbench.trial import TrialSpec


class JaxStack:
    """See :class:`optbench.backends.base.Stack`.

    A session's state is a tree of arrays; those of all trials are joined for an epoch and parted after it.
    """

    def __init__(self, specs: Sequence[TrialSpec], sessions: Sequence[FunctionalSession]) -> None:
        if (reason := family_of(specs[0].optimizer).stack_obstacle("jax")) is not None:
            raise NotStackableError(reason)
        self._size = len(specs)  # of a stack that was cut off, some trials may have ended

    def train_epoch(
        self,
        sessions: Sequence[FunctionalSession],
        rows: Sequence[Indices],
        xs: Sequence[NDArray[Any]] | None,
    ) -> list[NDArray[np.float64]]:
        """See :class:`optbench.backends.base.Stack`."""
        # A program is compiled for a number of trials: where few have ended, the first fills their places.
        while self._size >= 2 * len(sessions):
            self._size //= 2
        places = [*range(len(sessions)), *[0] * (self._size - len(sessions))]
        members = [sessions[k] for k in places]
        first = members[0]
        programs = first._programs
        assert isinstance(programs, JaxPrograms)
        with programs.scope():
            pool_each = xs is not None or any(s._x is not first._x for s in members)
            if xs is not None:
                pools = [programs.put(scaled(xs[k], sessions[k]._data, first._precision)) for k in places]
            else:
                pools = [s._x for s in members]
            x, y = (
                (jnp.stack(pools), jnp.stack([s._y for s in members])) if pool_each else (first._x, first._y)
            )
            state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[s._state for s in members])
            lrs = programs._rate([s._lr for s in members])
            n = len(rows[0])
            losses = []
            whole = n // first._batch * first._batch
            for part in (slice(0, whole), slice(whole, None)):
                if len(rows[0][part]):
                    where = [
                        programs.put(np.stack([batched(indices[k][part], first._batch) for k in places]))
                        for indices in (rows if xs is None else [np.arange(n)] * len(rows), rows)
                    ]
                    state, taken = programs.epochs(state, lrs, x, y, *where, pool_each=pool_each)
                    losses.append(np.asarray(taken, np.float64))
            for k, session in enumerate(sessions):
                session._state = jax.tree.map(lambda leaf, k=k: leaf[k], state)
        return list(np.concatenate(losses, axis=1)[: len(sessions)])
