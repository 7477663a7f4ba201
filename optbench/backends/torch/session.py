"""A running trial in PyTorch: data resident on the device, no synchronisation inside an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from optbench import matching
from optbench.backends.arrays import evaluation_batch, layout, scaled
from optbench.backends.base import Evaluation, LossSpec, PartName, Weights, entry
from optbench.backends.global_draws import GlobalDraws
from optbench.backends.own_network import init_seed
from optbench.backends.torch import saving
from optbench.backends.torch.losses import LOSSES, PREDICTIONS
from optbench.backends.torch.model import TorchModel, from_torch, to_torch
from optbench.backends.torch.optimizers import class_facts, make_optimizer, switch
from optbench.backends.torch.own_network import OwnModel, build
from optbench.backends.torch.state import GradientRules, TrainState
from optbench.backends.torch.steps import MakeStep, flush_denormals
from optbench.datasets.base import Part, TrialData
from optbench.matching import Indices
from optbench.models.layers import BuiltLayer, roles
from optbench.optimizers import groups, has_rule
from optbench.task import TASKS
from optbench.trial import TrialSpec, stored_precision

#: Inputs and targets of a part's whole pool on the device.
Pool = Callable[[Part], tuple[Tensor, Tensor]]


class TorchSession:
    """A running trial; see :class:`optbench.backends.base.Session`."""

    def __init__(
        self,
        spec: TrialSpec,
        built: tuple[BuiltLayer, ...],
        data: TrialData,
        weights: Weights,
        pool: Pool,
        make_step: MakeStep,
    ) -> None:
        self._device, self._precision, self._data = torch.device(spec.device), spec.precision, data
        workload, task = spec.workload, TASKS[spec.workload.task]
        loss = LossSpec.of(workload)
        self._half = half_device(spec)
        dropout_seed = int(matching.stream(spec.seeds.dropout, "dropout").integers(2**63))
        self._custom = not has_rule(spec.optimizer)
        own = workload.model.own
        # What custom code may draw from.
        self._draws = GlobalDraws(dropout_seed) if self._custom or own is not None else None
        self.model: TorchModel | OwnModel
        if own is None:
            self.model = TorchModel(built, weights, device=self._device, dropout_seed=dropout_seed)
            self.roles = roles(built)
        else:
            module = build(own, init_seed(spec.seeds.init))
            dtype = getattr(torch, stored_precision(spec.precision))
            self.model = OwnModel(module, built[0], device=self._device, dtype=dtype)
            self.roles = self.model.roles
        self.params = self.model.parameters()
        sizes = {name: w.numel() for name, w in self.model.weights.items()}
        self._groups = groups.described(spec.optimizer, self.roles, sizes)
        pool_x, pool_y = pool(data.train)
        self.train_state = TrainState(
            model=self.model,
            optimizer=self._optimizer_of(spec),
            loss=loss,
            half=self._half,
            rules=GradientRules.of(workload),
            pool_x=pool_x,
            pool_y=pool_y,
            batch=data.examples if workload.batch_size == "full" else workload.batch_size,
            lr=spec.optimizer.lr or 0.0,  # a custom class without one takes no weight decay
            ema=workload.ema,
            accumulate=workload.accumulate,
        )
        self.optimizer = self.train_state.optimizer
        self._parts = {
            name: (*pool(part), self.on_device(part.rows))
            for name, part in (
                ("train_eval", data.train_eval),
                ("validation", data.validation),
                ("test", data.test),
            )
        }
        self._evaluation_batch = evaluation_batch(built)
        self._evaluated_loss = partial(entry(LOSSES, loss.name, "torch losses"), reduction="sum")
        self.predict = entry(PREDICTIONS, task.targets, "torch predictions")
        self._first_rows = data.train.rows[: self.train_state.batch]
        self._remembered: dict[str, Tensor] = {}
        self._stored, self._layout = stored_precision(spec.precision), layout(built)
        self._step = make_step(self.train_state)

    def _optimizer_of(self, spec: TrialSpec) -> torch.optim.Optimizer:
        with self._mine():
            return make_optimizer(spec.optimizer, self.params, self.roles)

    def _mine(self) -> AbstractContextManager[None]:
        """Have the global generators in this trial's states, where custom code runs."""
        return nullcontext() if self._draws is None else self._draws.mine()

    @property
    def lr(self) -> float:
        """Learning rate of the steps to come."""
        return self.train_state.lr

    def facts(self) -> Mapping[str, Any]:
        """Name the way of a step, the layout it computes in, the optimizer's class and its kernel."""
        return {
            **class_facts(self.optimizer),
            **self._groups,
            "step": self._step.name,
            "step_because": self._step.why,
            "stored": self._stored,
            **self._layout,
        }

    def warm_up(self) -> None:
        """Run one forward and backward pass, and let the optimizer compile what it must."""
        state = self.model.generator.get_state()
        draws = None if self._draws is None else self._draws.state()
        self.remember()
        self.set_products()
        with self._mine():
            self._step.warm_up(self.train_state, self.on_device(self._first_rows))
            for w in self.params:
                w.grad = None
            if hasattr(self.optimizer, "warm_up"):
                self.optimizer.warm_up()
        if self._draws is not None and draws is not None:
            self._draws.restore(draws)
        self.recall()
        self.model.generator.set_state(state)
        self._synchronize()

    @flush_denormals()
    def train_epoch(
        self,
        rows: Indices,
        epoch: int,
        x: NDArray[Any] | None = None,
        rates: NDArray[np.float64] | None = None,
    ) -> NDArray[np.float64]:
        """See :class:`optbench.backends.base.Session`."""
        self.set_products()
        self.train_state.rates = None if rates is None else iter(rates.tolist())
        if self._custom:
            switch(self.optimizer, "train")
        which = self.on_device(rows)
        state = self.train_state
        with self._mine():
            if x is None:
                losses = self._step.epoch(state, state.pool_x, which, which)
            else:
                places = self.on_device(np.arange(len(rows)))
                losses = self._step.epoch(state, self.inputs(x), places, which)
        if self._custom:
            switch(self.optimizer, "eval")
        return losses.double().cpu().numpy()

    def some_rows(self, count: int) -> Indices:
        """Training rows of a number of full batches."""
        return np.resize(self._first_rows, count * self.train_state.batch)

    @torch.inference_mode()
    def evaluate(self, part: PartName, *, outputs: bool = False, averaged: bool = False) -> Evaluation:
        """See :class:`optbench.backends.base.Session`."""
        x, y, rows = self._parts[part]
        weights: Mapping[str, Tensor] = self.model.weights
        if averaged:
            weights = {**weights, **dict(zip(self.model.trainable, self.train_state.averages, strict=True))}
        self.set_products()
        total = torch.zeros((), dtype=torch.float64, device="cpu" if x.device.type == "mps" else x.device)
        predictions, kept = [], []
        for batch in rows.split(self._evaluation_batch):
            with self._mine():
                output = self.model.network.outputs(
                    weights,
                    x.index_select(0, batch),
                    training=False,
                    draw=self.model.draw,
                    half=self._half,
                )
            total += self._evaluated_loss(output, y.index_select(0, batch)).to(total)
            predictions.append(self.predict(output))
            if outputs:
                kept.append(output)
        return Evaluation(
            loss=total.item() / len(rows),
            predictions=torch.cat(predictions).cpu().numpy(),
            outputs=torch.cat(kept).cpu().numpy() if outputs else None,
        )

    def set_lr(self, lr: float) -> None:
        """See :class:`optbench.backends.base.Session`."""
        self.train_state.set_lr(lr)

    def weights(self) -> dict[str, NDArray[Any]]:
        """See :class:`optbench.backends.base.Session`."""
        return {name: from_torch(tensor) for name, tensor in self.model.weights.items()}

    @torch.no_grad()
    def remember(self) -> None:
        """See :class:`optbench.backends.base.Session`."""
        for name, tensor in self.model.weights.items():
            if name in self._remembered:
                self._remembered[name].copy_(tensor)
            else:
                self._remembered[name] = tensor.detach().clone()

    @torch.no_grad()
    def recall(self) -> None:
        """See :class:`optbench.backends.base.Session`."""
        for name, tensor in self.model.weights.items():
            tensor.copy_(self._remembered[name])

    def state(self) -> dict[str, NDArray[Any]]:
        """See :class:`optbench.backends.base.Session`."""
        copied = {
            "lr": np.array(self.train_state.lr),
            "dropout": self.model.generator.get_state().numpy().copy(),
            **saving.export(self.optimizer, self.params, custom=self._custom),
        }
        for part, tensors in (("weights", self.model.weights), ("remembered", self._remembered)):
            copied |= {f"{part}/{name}": from_torch(tensor) for name, tensor in tensors.items()}
        if self._draws is not None:
            copied |= {f"draws/{name}": value for name, value in self._draws.state().items()}
        averages = zip(self.model.trainable, self.train_state.averages, strict=False)
        return copied | {f"ema/{name}": from_torch(tensor) for name, tensor in averages}

    @torch.no_grad()
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See :class:`optbench.backends.base.Session`."""
        if f"remembered/{next(iter(self.model.weights))}" in state:
            self.remember()
        for part, tensors in (("weights", self.model.weights), ("remembered", self._remembered)):
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(to_torch(state[f"{part}/{name}"])))
        for name, tensor in zip(self.model.trainable, self.train_state.averages, strict=False):
            tensor.copy_(torch.from_numpy(to_torch(state[f"ema/{name}"])))
        saving.restore(self.optimizer, self.params, state)
        self.model.generator.set_state(torch.from_numpy(state["dropout"]))
        if self._draws is not None:
            drawn = (name for name in state if name.startswith("draws/"))
            self._draws.restore({name.removeprefix("draws/"): state[name] for name in drawn})
        self.train_state.lr = float(state["lr"])

    def state_bytes(self) -> int:
        """See :class:`optbench.backends.base.Session`."""
        return saving.state_bytes(self.optimizer)

    def part(self, name: PartName) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs and targets of a part's pool, and its rows there."""
        return self._parts[name]

    def inputs(self, x: NDArray[Any]) -> Tensor:
        """Scale inputs that are not the pool's and bring them to the device."""
        dtype = str(self.train_state.pool_x.dtype).removeprefix("torch.")
        return torch.from_numpy(scaled(x, self._data, dtype)).to(self._device)

    def on_device(self, rows: Indices) -> Tensor:
        """Bring row numbers to the device."""
        return torch.from_numpy(rows).to(self._device)

    def stacked_on_device(self, rows: Sequence[Indices]) -> Tensor:
        """Bring the row numbers of several trials to the device, [trials, n]."""
        if self._device.type != "cuda":
            return self.on_device(np.stack(rows))
        # Half as many bytes, from memory that the device reads by itself.
        pinned = torch.empty((len(rows), len(rows[0])), dtype=torch.int32, pin_memory=True)
        whole = pinned.numpy()
        for own, given in zip(whole, rows, strict=True):
            own[:] = given
        return pinned.to(self._device, non_blocking=True)

    def use(self, optimizer: torch.optim.Optimizer) -> None:
        """Train with another optimizer of these weights from now on."""
        self.optimizer = optimizer
        self.train_state.use(optimizer)

    def set_products(self) -> None:
        """Switch TF32, PyTorch's own switches being for the whole process (cuDNN's is on by default)."""
        if self._device.type == "cuda":
            on = self._precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        elif self._device.type == "mps":
            torch.mps.synchronize()


def half_device(spec: TrialSpec) -> str | None:
    """Device on which autocast computes in bfloat16; None for a trial in another precision."""
    return spec.device if spec.precision == "bfloat16" else None
