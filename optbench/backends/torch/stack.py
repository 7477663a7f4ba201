"""Several trials of one config as one PyTorch program: every weight has a leading axis, one entry a trial.

The weights and the optimizer's state live in the stack from its opening to its end; the sessions of its
trials see their own entries, so that nothing is copied between epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optbench.backends.arrays import EVALUATION_VALUES, penalties
from optbench.backends.base import Evaluation, LossSpec, NotStackableError, PartName, is_out_of_memory
from optbench.backends.torch.graph import Recorder, make_capturable, obstacle, state_to_device, step_counts
from optbench.backends.torch.losses import LOSSES, loss_function
from optbench.backends.torch.optimizers import make_optimizer, set_lr
from optbench.backends.torch.rules import RuleOptimizer
from optbench.backends.torch.session import TorchSession
from optbench.backends.torch.stack_rates import StackOptimizer, State, joined, picked
from optbench.backends.torch.stacked_layers import forward
from optbench.backends.torch.stacked_weights import StackedWeights
from optbench.backends.torch.steps import flush_denormals
from optbench.matching import Indices
from optbench.models.layers import BuiltLayer, Role, roles, walk
from optbench.optimizers.groups import at_lr
from optbench.trial import TrialSpec

#: Values that an evaluation of all trials may hold in its widest layer on a GPU: 512 MB in float32.
GPU_EVALUATION_VALUES = 2**27


class TorchStack:
    """See :class:`optbench.backends.base.Stack`.

    Dense layers are batched matrix products over [trials, batch, features]; images travel as [batch, trials *
    channels, height, width], so that convolutions are grouped and pooling and batch normalisation are
    themselves. The update rules work element by element, so one optimizer moves all trials of a rate.

    Parameters
    ----------
    specs, built, sessions
        The trials; they differ in their seeds and learning rates alone.
    recorder : Recorder, optional
        Records a step, to be replayed. Trials that have ended then leave in halves, since each number of
        trials is a recording of its own; without one they leave at once.
    together : bool
        Whether to evaluate all trials as one program too.
    """

    def __init__(
        self,
        specs: Sequence[TrialSpec],
        built: tuple[BuiltLayer, ...],
        sessions: Sequence[TorchSession],
        *,
        recorder: Recorder | None = None,
        together: bool = False,
    ) -> None:
        self._workload, self._config = specs[0].workload, specs[0].optimizer
        self._each_loss = loss_function(LossSpec.of(self._workload), reduction="none")
        self._built, self._recorder, self._together = built, recorder, together
        self._roles = roles(built)
        # Neighbours of one rate share an optimizer.
        self._sessions = sorted(sessions, key=lambda session: session.lr)
        self._ended: set[int] = set()
        self._recording: _Recording | None = None
        self._evaluated: dict[tuple[PartName, bool], list[Evaluation] | None] = {}
        self._moved_alone: set[int] = set()
        #: Kernels of images lie in another order in a trial alone, so that its session has a copy.
        self._copied = [name for name, w in sessions[0].model.weights.items() if w.ndim == 4]
        weights = {name: _stacked([s.model.weights[name] for s in self._sessions]) for name in self._names}
        trained = [weights[name] for name in sessions[0].model.trainable]
        self._open(weights, [self._state(place, w) for place, w in enumerate(trained)])
        self.members: list[Any] = [Member(self, session) for session in sessions]

    @property
    def _names(self) -> list[str]:
        return list(self._sessions[0].model.weights)

    @flush_denormals()
    def train_epoch(
        self, sessions: Sequence[Any], rows: Sequence[Indices], xs: Sequence[NDArray[Any]] | None
    ) -> list[NDArray[np.float64]]:
        """See :class:`optbench.backends.base.Stack`."""
        self._keep(sessions)
        self._evaluated.clear()
        self._moved_alone.clear()
        self._sessions[0].set_products()
        places = {id(session): k for k, session in enumerate(sessions)}
        # A trial that has ended and is still in the stack takes the steps of the first again, unseen.
        which = [places.get(id(session), 0) for session in self._sessions]
        rates = [None if id(s) in self._ended else s.lr for s in self._sessions]
        if self._optimizer.rates(rates):
            self._recording = None
        losses = self._epoch([rows[k] for k in which], None if xs is None else [xs[k] for k in which])
        with torch.no_grad():
            for place, session in enumerate(self._sessions):
                for name in self._copied:
                    session.model.weights[name].copy_(self._weights[name][place])
        found = losses.double().cpu().numpy()
        order = {id(session): k for k, session in enumerate(self._sessions)}
        return [found[order[id(session)]] for session in sessions]

    def evaluate(self, session: TorchSession, part: PartName, *, outputs: bool = False) -> Evaluation:
        """Evaluate a part for a trial, or take its share of an evaluation of all trials."""
        # Where trials end one by one, their last evaluations are theirs alone.
        alone = id(session) in self._moved_alone or (part == "test" and self._workload.early_stopping)
        if not self._together or alone or session not in self._sessions:
            return session.evaluate(part, outputs=outputs)
        key = (part, outputs)
        if key not in self._evaluated:
            self._evaluated[key] = self._evaluate(part, outputs=outputs)
        found = self._evaluated[key]
        if found is None:
            return session.evaluate(part, outputs=outputs)
        return found[self._sessions.index(session)]

    def recalled(self, session: TorchSession) -> None:
        """Note that a session's weights are no longer those of the last epoch."""
        self._moved_alone.add(id(session))

    def share(self, session: TorchSession) -> None:
        """Show a session its part of the optimizer's state."""
        if session in self._sessions:
            states = self._optimizer.state_of(self._sessions.index(session))
            for single, state in zip(session.params, states, strict=True):
                session.optimizer.state[single] = state

    def _state(self, place: int, w: Tensor) -> State:
        """State of a parameter as the sessions have it; where the rule itself runs, what is the rule's."""
        states = [s.optimizer.state.get(s.params[place], {}) for s in self._sessions]
        role = dict([list(self._roles.items())[place]])
        made = self._build_optimizer(self._sessions[0].lr, [w], role)
        of_rule = isinstance(made, RuleOptimizer)
        if not all(states) or any(of_rule != ("t" in state) for state in states):
            return {}
        return joined(states, w)

    def _open(self, weights: Mapping[str, Tensor], states: Sequence[State]) -> None:
        """Go on with these weights and this state of each trained one."""
        trainable = self._sessions[0].model.trainable
        for session_place, session in enumerate(self._sessions):
            for name, single in session.model.weights.items():
                if name not in self._copied:
                    single.data = weights[name].detach()[session_place]
        self._weights = {name: w.requires_grad_(name in trainable) for name, w in weights.items()}
        self._params = [self._weights[name] for name in trainable]
        self._stacked = StackedWeights(
            weights=self._weights, generators=[s.model.generator for s in self._sessions]
        )
        self._penalties = [(self._weights[name], l1, l2) for name, l1, l2 in penalties(self._built)]
        self._layers = [forward(layer, self._stacked) for layer in self._built]
        self._recording = None
        self._optimizer = StackOptimizer(
            self._make,
            self._params,
            [w for name, w in self._weights.items() if name in trainable and name.endswith("/kernel")],
            [session.lr for session in self._sessions],
            states,
            side_by_side=None if self._recorder is None else self._recorder.side_by_side,
        )

    def _make(self, rate: float, params: list[Tensor]) -> torch.optim.Optimizer:
        return self._build_optimizer(rate, params, self._roles)

    def _build_optimizer(
        self, rate: float, params: list[Tensor], roles: Mapping[str, Role]
    ) -> torch.optim.Optimizer:
        config: Any = at_lr(self._config, rate)
        optimizer = stack_optimizer(config, params, roles, recorded=self._recorder is not None)
        set_lr(optimizer, rate)
        return optimizer

    @torch.no_grad()
    def _keep(self, sessions: Sequence[TorchSession]) -> None:
        """Go on with these, and with as many that have ended as make the next recording not worth it."""
        live = {id(session) for session in sessions}
        self._ended = {id(session) for session in self._sessions} - live
        size = len(self._sessions)
        if len(live) == size or (self._recorder is not None and 2 * len(live) > size):
            return
        places = [place for place, session in enumerate(self._sessions) if id(session) in live]
        kept = torch.tensor(places, device=self._params[0].device)
        states = [picked(s, w, kept) for s, w in zip(self._optimizer.state(), self._params, strict=True)]
        weights = {name: w.detach()[kept] for name, w in self._weights.items()}
        # Those that have ended keep what they see now.
        self._sessions, self._ended = [self._sessions[place] for place in places], set()
        self._open(weights, states)

    def _epoch(self, rows: Sequence[Indices], xs: Sequence[NDArray[Any]] | None) -> Tensor:
        """Losses [trials, batches] of an epoch of all trials in the stack."""
        epoch = _Epoch.of(self._sessions, rows, xs)
        batch, n = self._sessions[0].train_state.batch, epoch.places.shape[1]
        whole, done, losses = n // batch, 0, []
        if self._recorder is not None and whole:
            recording = self._recording
            if recording is None or not recording.fits(epoch):
                # A step of the ordinary kind makes the optimizer's state and the libraries' workspaces.
                self._recording = None
                for optimizer in self._optimizer.optimizers:
                    state_to_device(optimizer, epoch.places.device)
                before = [generator.get_state() for generator in self._stacked.generators]
                with self._recorder.aside():
                    losses.append(self._step(*epoch.batch(slice(0, batch))))
                drawing = drawn(self._stacked.generators, before)
                done, recording = 1, self._record(self._recorder, epoch, batch, drawing)
            losses.append(recording.replayed(epoch, done, whole))
        elif whole:
            losses += [self._step(*epoch.batch(slice(k * batch, (k + 1) * batch))) for k in range(whole)]
        if whole * batch < n:
            losses.append(self._step(*epoch.batch(slice(whole * batch, None))))
        return torch.cat(losses, 1)

    def _record(
        self, recorder: Recorder, epoch: _Epoch, batch: int, drawing: Sequence[torch.Generator]
    ) -> _Recording:
        recording = _Recording(epoch, batch, self._params[0].dtype)

        def step() -> None:
            index = recording.count * batch + recording.first
            loss = self._step(*recording.epoch.batch(index))
            recording.losses.index_copy_(1, recording.count, loss)
            recording.count.add_(1)

        counts = [count for o in self._optimizer.optimizers for count in step_counts(o)]
        try:
            recording.replay = recorder.record(step, *drawing)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise NotStackableError(f"a step cannot be recorded: {first_line(error)}") from error
        for kept, name, count in counts:  # recording a step counts it and does not take it
            kept[name] = count
        recording.counted = [(o, step_counts) for o in self._optimizer.optimizers]
        self._recording = recording
        return recording

    def _step(self, x: Tensor, targets: Tensor) -> Tensor:
        """Take a step of all trials; losses [trials, 1] before it."""
        loss = self._loss(x, targets)
        loss.sum().backward()
        self._clip()
        self._optimizer.step(self._workload.weight_decay)
        for w in self._params:
            w.grad = None
        return loss.detach()[:, None]

    def _loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Loss of each trial, [trials]: x is [trials, batch, *shape], targets [trials, batch, ..]."""
        outputs = self._outputs(x, self._layers)
        losses = self._each_loss(outputs.flatten(0, 1), targets.flatten(0, 1))
        loss = losses.reshape(len(targets), -1).mean(1)
        for w, l1, l2 in self._penalties:
            if l1:
                loss = loss + l1 * w.abs().flatten(1).sum(1)
            if l2:
                loss = loss + l2 * w.square().flatten(1).sum(1)
        return loss

    @staticmethod
    def _outputs(x: Tensor, layers: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:
        if x.ndim == 5:
            trials, batch, height, width, channels = x.shape
            x = x.permute(1, 0, 4, 2, 3).reshape(batch, trials * channels, height, width)
        for function in layers:
            x = function(x)
        return x

    @torch.no_grad()
    def _clip(self) -> None:
        value, norm = self._workload.clip_value, self._workload.clip_norm
        if value is None and norm is None:
            return
        gradients = [w.grad for w in self._params if w.grad is not None]
        if value is not None:
            torch._foreach_clamp_min_(gradients, -value)
            torch._foreach_clamp_max_(gradients, value)
        if norm is not None:
            norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients])
            factor = (norm / torch.linalg.vector_norm(norms, dim=0)).clamp(max=1.0)
            for g in gradients:
                g.mul_(factor.view(-1, *[1] * (g.ndim - 1)))

    @torch.inference_mode()
    def _evaluate(self, part: PartName, *, outputs: bool) -> list[Evaluation] | None:
        """Evaluate a part for all trials; None where their parts differ in size."""
        parts = [session.part(part) for session in self._sessions]
        n = len(parts[0][2])
        if any(len(rows) != n for _, _, rows in parts):
            return None
        first = self._sessions[0]
        first.set_products()
        stacked = replace(self._stacked, training=False)
        layers = [forward(layer, stacked) for layer in self._built]
        x_of, y_of = (_pool([p[place] for p in parts]) for place in (0, 1))
        rows = torch.stack([rows for _, _, rows in parts])
        values = EVALUATION_VALUES if rows.device.type == "cpu" else GPU_EVALUATION_VALUES
        shapes = (shape for b in walk(self._built) for shape in (b.input_shape, b.output_shape))
        widest = max(int(np.prod(shape)) for shape in shapes)
        totals = torch.zeros(len(parts), dtype=torch.float64, device=rows.device)
        predictions, kept = [], []
        for which in rows.split(max(1, values // (widest * len(parts))), 1):
            output = self._outputs(x_of(which), layers)
            flat = output.flatten(0, 1)
            losses = LOSSES[LossSpec.of(self._workload).name](
                flat, y_of(which).flatten(0, 1), reduction="none"
            )
            totals += losses.view(*which.shape, -1).double().mean(2).sum(1)
            predicted = first.predict(flat)
            predictions.append(predicted.view(*which.shape, *predicted.shape[1:]))
            if outputs:
                kept.append(output)
        means = (totals / n).cpu().numpy()
        arrays = torch.cat(predictions, 1).cpu().numpy()
        each = torch.cat(kept, 1).cpu().numpy() if outputs else [None] * len(parts)
        return [
            Evaluation(loss=float(loss), predictions=p, outputs=o)
            for loss, p, o in zip(means, arrays, each, strict=True)
        ]


class Member:
    """One trial of a stack, as its protocol sees it: its session, and evaluations of all trials at once."""

    def __init__(self, stack: TorchStack, session: TorchSession) -> None:
        self._stack, self._session = stack, session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def evaluate(self, part: PartName, *, outputs: bool = False) -> Evaluation:
        """See :class:`optbench.backends.base.Session`."""
        return self._stack.evaluate(self._session, part, outputs=outputs)

    def recall(self) -> None:
        """See :class:`optbench.backends.base.Session`."""
        self._stack.recalled(self._session)
        self._session.recall()

    def state(self) -> dict[str, NDArray[Any]]:
        """See :class:`optbench.backends.base.Session`."""
        self._stack.share(self._session)
        return self._session.state()

    def state_bytes(self) -> int:
        """See :class:`optbench.backends.base.Session`."""
        self._stack.share(self._session)
        return self._session.state_bytes()


def stack_optimizer(
    config: Any, params: list[Tensor], roles: Mapping[str, Role], *, recorded: bool
) -> torch.optim.Optimizer:
    """Make the optimizer of stacked weights; the rule itself where a class cannot be recorded."""
    if not recorded:
        return make_optimizer(config, params, roles)
    optimizer = make_optimizer(
        config, params, roles, suits=lambda made: obstacle(made, same_bits=False) is None
    )
    make_capturable(optimizer)
    return optimizer


def drawn(generators: Sequence[torch.Generator], before: Sequence[Tensor]) -> list[torch.Generator]:
    """Those generators that have drawn since: only they take part in a recording, as each costs a replay."""
    return [g for g, state in zip(generators, before, strict=True) if not torch.equal(g.get_state(), state)]


@dataclass
class _Epoch:
    """Order, targets and inputs of an epoch of all trials on the device."""

    pool: Tensor  # inputs of one pool for all, or those of each behind each other
    places: Tensor  # [trials, n], in the pool
    targets: Tensor  # [trials, n, ..]
    resident: bool  # the pool is the engine's, and stays as it is

    @classmethod
    def of(
        cls, sessions: Sequence[TorchSession], rows: Sequence[Indices], xs: Sequence[NDArray[Any]] | None
    ) -> _Epoch:
        states = [session.train_state for session in sessions]
        which = sessions[0].stacked_on_device(rows)
        targets = _pool([state.pool_y for state in states])(which)
        if xs is None and all(state.pool_x is states[0].pool_x for state in states):
            return cls(states[0].pool_x, which, targets, resident=True)
        if xs is None:
            pools, places = [state.pool_x for state in states], which
        else:
            pools = [session.inputs(x) for session, x in zip(sessions, xs, strict=True)]
            places = sessions[0].on_device(np.arange(which.shape[1]))
        ends = np.cumsum([len(pool) for pool in pools])
        offsets = sessions[0].on_device(np.concatenate([[0], ends[:-1]]))
        return cls(torch.cat(pools), (places + offsets[:, None]).contiguous(), targets, resident=False)

    def batch(self, which: Any) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a batch: a slice, or its places on the device."""
        if isinstance(which, slice):
            place, target = self.places[:, which], self.targets[:, which]
        else:
            place, target = self.places.index_select(1, which), self.targets.index_select(1, which)
        x = self.pool.index_select(0, place.reshape(-1))
        return x.view(*place.shape, *self.pool.shape[1:]), target


class _Recording:
    """What a recorded step of a stack reads and writes."""

    def __init__(self, epoch: _Epoch, batch: int, dtype: torch.dtype) -> None:
        self.epoch = epoch
        places = epoch.places
        self.count = places.new_zeros(1, dtype=torch.int64)
        self.first = torch.arange(batch, device=places.device)
        self.losses = places.new_zeros((len(places), places.shape[1] // batch), dtype=dtype)
        self.replay: Callable[[], None] = lambda: None
        self.counted: list[tuple[torch.optim.Optimizer, Callable[..., Any]]] = []

    def fits(self, epoch: _Epoch) -> bool:
        """Whether an epoch can be brought to where the recording looks for it."""
        mine = self.epoch
        if epoch.pool is not mine.pool and (mine.resident or epoch.pool.shape != mine.pool.shape):
            return False
        return epoch.places.shape == mine.places.shape and epoch.targets.shape == mine.targets.shape

    def replayed(self, epoch: _Epoch, done: int, whole: int) -> Tensor:
        """Take the steps from ``done`` on; their losses [trials, steps]."""
        mine = self.epoch
        for new, held in (
            (epoch.pool, mine.pool),
            (epoch.places, mine.places),
            (epoch.targets, mine.targets),
        ):
            if new is not held:
                held.copy_(new)
        self.count.fill_(done)
        for _ in range(done, whole):
            self.replay()
        for optimizer, counts in self.counted:
            for kept, name, count in counts(optimizer):
                kept[name] = count + whole - done
        return self.losses[:, done:whole].clone()


def _stacked(weights: Sequence[Tensor]) -> Tensor:
    """Put weights behind each other; each keeps the order of its memory."""
    return torch.stack([w.detach() for w in weights])


def _pool(pools: Sequence[Tensor]) -> Callable[[Tensor], Tensor]:
    """Make the function of rows [trials, n] that looks them up in each trial's pool."""
    first = pools[0]
    if all(pool is first for pool in pools):
        return lambda rows: first.index_select(0, rows.reshape(-1)).view(*rows.shape, *first.shape[1:])
    return lambda rows: torch.stack([p.index_select(0, r) for p, r in zip(pools, rows, strict=True)])


def first_line(error: BaseException) -> str:
    """Kind of an error and the first line of its message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
