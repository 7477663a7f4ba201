"""The PyTorch engine: data resident on the device, no loader, no synchronisation inside an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from optbench import matching
from optbench.backends.arrays import Resident, evaluation_batch, keep_pages, layout, scaled
from optbench.backends.base import DeviceError, Evaluation, PartName, Stack, Weights
from optbench.backends.torch import saving
from optbench.backends.torch.choice import Found, MakeStep, make_step
from optbench.backends.torch.model import LossOptions, TorchModel, from_torch, to_torch
from optbench.backends.torch.optimizers import make_optimizer, switch
from optbench.backends.torch.steps import flush_denormals
from optbench.datasets.base import Part, TrialData
from optbench.environment import Context, set_framework_variables
from optbench.matching import Indices
from optbench.models.layers import BuiltLayer
from optbench.optimizers import has_rule
from optbench.trial import TrialSpec, stored_precision


class TorchEngine:
    """Trains trials on CPU, CUDA or MPS. One instance serves a process and keeps its last data resident."""

    name = "torch"

    def __init__(self, context: Context) -> None:
        if context.deterministic:  # before the first CUDA call, as cuBLAS reads it once
            set_framework_variables({"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
        self.configure(context)
        keep_pages()
        self._resident = Resident()
        self._found: Found = {}

    def configure(self, context: Context) -> None:
        """See :class:`optbench.backends.base.Engine`; also what an optimizer's code may have changed."""
        self._context = context
        torch.set_num_threads(context.threads)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(context.deterministic, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False

    def resolve_device(self, device: str) -> str:
        """See :class:`optbench.backends.base.Engine`."""
        available = {
            "cpu": True,
            "cuda": torch.cuda.is_available(),
            "mps": torch.backends.mps.is_available(),
        }
        if device == "auto":
            return next(name for name in ("cuda", "mps", "cpu") if available[name])
        if not available.get(device, False):
            have = ", ".join(name for name, present in available.items() if present)
            raise DeviceError(f"torch {torch.__version__} has no device {device!r} here; it has {have}")
        return device

    def describe(self, device: str) -> Mapping[str, Any]:
        """See :class:`optbench.backends.base.Engine`."""
        facts: dict[str, Any] = {
            "framework": f"torch {torch.__version__}",
            "threads": torch.get_num_threads(),
            "device": device,
            **({} if self._context.deterministic else {"deterministic": False}),
        }
        if device == "cuda":
            facts |= {"device_name": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
        return facts

    def peak_bytes(self, device: str) -> int | None:
        """See :class:`optbench.backends.base.Engine`."""
        return torch.cuda.max_memory_allocated() if device == "cuda" else None

    def open(
        self, spec: TrialSpec, built: tuple[BuiltLayer, ...], data: TrialData, weights: Weights
    ) -> TorchSession:
        """See :class:`optbench.backends.base.Engine`."""
        smoothing = spec.workload.label_smoothing or 0.0
        half = spec.device if spec.precision == "bfloat16" else None
        options = LossOptions(smoothing=smoothing, half=half)
        again = partial(TorchSession, self, spec, built, data, weights, options)
        return again(make_step(spec, built, options, self._found, again, asked=self._context.step))

    def stack(
        self, specs: Sequence[TrialSpec], built: tuple[BuiltLayer, ...], sessions: Sequence[TorchSession]
    ) -> Stack:
        """Join trials that differ in their seeds alone; raises ``NotStackableError``."""
        from optbench.backends.torch.stack import TorchStack

        return TorchStack(specs, built, sessions)

    def pool(self, part: Part, data: TrialData, *, device: str, dtype: str) -> tuple[Tensor, Tensor]:
        """Inputs and labels of a part's whole pool on the device, scaled; the last few stay there."""

        def put(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        return self._resident.pool(part, data, device=device, dtype=dtype, put=put)


class TorchSession:
    """One trial under way; see :class:`optbench.backends.base.Session`."""

    def __init__(
        self,
        engine: TorchEngine,
        spec: TrialSpec,
        built: tuple[BuiltLayer, ...],
        data: TrialData,
        weights: Weights,
        options: LossOptions,
        make: MakeStep,
    ) -> None:
        self._device = torch.device(spec.device)
        self._precision, self._options = spec.precision, options
        stored = stored_precision(spec.precision)
        dropout_seed = int(matching.stream(spec.seeds.dropout, "dropout").integers(2**63))
        self.model = TorchModel(built, weights, device=self._device, dropout_seed=dropout_seed)
        self.params = self.model.parameters()
        self.workload = spec.workload
        self._data = data
        self.lr = spec.optimizer.lr or 0.0  # a custom class without one takes no weight decay
        kernels = [name for name in self.model.trainable if name.endswith("/kernel")]
        self._kernels = [self.model.weights[name] for name in kernels]
        self._custom_class = not has_rule(spec.optimizer)
        self.optimizer = make_optimizer(spec.optimizer, self.params)
        self.pool_x, self.pool_y = engine.pool(data.train, data, device=spec.device, dtype=stored)
        self._parts = {
            name: (*engine.pool(part, data, device=spec.device, dtype=stored), self._rows(part.rows))
            for name, part in (
                ("train_eval", data.train_eval),
                ("validation", data.validation),
                ("test", data.test),
            )
        }
        self.batch = len(data.train) if spec.workload.batch_size == "full" else spec.workload.batch_size
        self._evaluation_batch = evaluation_batch(built)
        self._first_rows = data.train.rows[: self.batch]
        self._remembered: dict[str, Tensor] = {}
        rules = (spec.workload.clip_value, spec.workload.clip_norm, spec.workload.weight_decay)
        self._regularized = any(rule is not None for rule in rules)
        self._stored, self._layout = stored, layout(built)
        self._step = make(self)

    def facts(self) -> Mapping[str, Any]:
        """Name the way of a step, the layout it computes in, the optimizer's class and its kernel."""
        optimizer = self.optimizer
        form = next((name for name in ("fused", "foreach") if optimizer.defaults.get(name)), "plain")
        return {
            "optimizer": type(optimizer).__qualname__,
            "kernel": getattr(optimizer, "path", form),
            "step": self._step.name,
            "step_because": self._step.why,
            "stored": self._stored,
            **self._layout,
        }

    def warm_up(self) -> None:
        """Run one forward and backward pass, and let the optimizer compile what it must."""
        state = self.model.generator.get_state()
        self.remember()
        self._set_products()
        self._step.warm_up(self, self._rows(self._first_rows))
        self.optimizer.zero_grad(set_to_none=True)
        if hasattr(self.optimizer, "warm_up"):
            self.optimizer.warm_up()
        self.recall()
        self.model.generator.set_state(state)
        self._synchronize()

    @flush_denormals()
    def train_epoch(self, rows: Indices, epoch: int, x: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """See :class:`optbench.backends.base.Session`."""
        self._set_products()
        if self._custom_class:
            switch(self.optimizer, "train")
        which = self._rows(rows)
        if x is None:
            losses = self._step.epoch(self, self.pool_x, which, which)
        else:
            losses = self._step.epoch(self, self._inputs(x), self._rows(np.arange(len(rows))), which)
        if self._custom_class:
            switch(self.optimizer, "eval")
        return losses.double().cpu().numpy()

    def loss(self, x: Tensor, rows: Tensor) -> Tensor:
        """Loss of a batch in training mode, with penalties."""
        y = self.pool_y.index_select(0, rows)
        return self.model.network.loss(self.model.weights, x, y, draw=self.model.draw, options=self._options)

    def update(self) -> None:
        """Take the step that the gradients say, and drop them."""
        self.regularize()
        self.optimizer.step()
        for w in self.params:  # what zero_grad does, without its hooks: a tenth of a small step
            w.grad = None

    def some_rows(self, count: int) -> Indices:
        """Training rows of so many full batches."""
        return np.resize(self._first_rows, count * self.batch)

    @torch.inference_mode()
    def evaluate(self, part: PartName, *, logits: bool = False) -> Evaluation:
        """See :class:`optbench.backends.base.Session`."""
        x, y, rows = self._parts[part]
        self._set_products()
        total = torch.zeros((), dtype=torch.float64, device="cpu" if x.device.type == "mps" else x.device)
        predictions, outputs = [], []
        for batch in rows.split(self._evaluation_batch):
            output = self.model.network.logits(
                self.model.weights,
                x.index_select(0, batch),
                training=False,
                draw=self.model.draw,
                options=self._options,
            )
            labels = y.index_select(0, batch)
            total += F.cross_entropy(output, labels, reduction="sum").to(total)
            predictions.append(output.argmax(1))
            if logits:
                outputs.append(output)
        predicted = torch.cat(predictions)
        correct = (predicted == y.index_select(0, rows)).sum()
        return Evaluation(
            loss=total.item() / len(rows),
            accuracy=correct.item() / len(rows),
            predictions=predicted.cpu().numpy(),
            logits=torch.cat(outputs).cpu().numpy() if logits else None,
        )

    def set_lr(self, lr: float) -> None:
        """See :class:`optbench.backends.base.Session`."""
        self.lr = lr
        for group in self.optimizer.param_groups:
            group["lr"] = lr

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
        found = {
            "lr": np.array(self.lr),
            "dropout": self.model.generator.get_state().numpy().copy(),
            **saving.export(self.optimizer, self.params, own=self._custom_class),
        }
        for part, tensors in (("weights", self.model.weights), ("remembered", self._remembered)):
            found |= {f"{part}/{name}": from_torch(tensor) for name, tensor in tensors.items()}
        return found

    @torch.no_grad()
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See :class:`optbench.backends.base.Session`."""
        if f"remembered/{next(iter(self.model.weights))}" in state:
            self.remember()
        for part, tensors in (("weights", self.model.weights), ("remembered", self._remembered)):
            for name, tensor in tensors.items():
                tensor.copy_(torch.from_numpy(to_torch(state[f"{part}/{name}"])))
        saving.restore(self.optimizer, self.params, state)
        self.model.generator.set_state(torch.from_numpy(state["dropout"]))
        self.lr = float(state["lr"])

    def state_bytes(self) -> int:
        """See :class:`optbench.backends.base.Session`."""
        return saving.state_bytes(self.optimizer)

    def _set_products(self) -> None:
        """Switch TF32, PyTorch's own switches being for the whole process (cuDNN's is on by default)."""
        if self._device.type == "cuda":
            on = self._precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on

    def regularize(self) -> None:
        """Clip the gradients and decay the kernels, where the workload says so."""
        if self._regularized:
            self._regularize()

    @torch.no_grad()
    def _regularize(self) -> None:
        workload = self.workload
        if workload.clip_value is not None or workload.clip_norm is not None:
            gradients = [w.grad for w in self.params if w.grad is not None]
            if workload.clip_value is not None:
                torch._foreach_clamp_min_(gradients, -workload.clip_value)
                torch._foreach_clamp_max_(gradients, workload.clip_value)
            if workload.clip_norm is not None:
                norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
                torch._foreach_mul_(gradients, (workload.clip_norm / norm).clamp(max=1.0))
        if workload.weight_decay is not None and self._kernels:
            torch._foreach_mul_(self._kernels, 1 - self.lr * workload.weight_decay)

    def _inputs(self, x: NDArray[Any]) -> Tensor:
        dtype = str(self.pool_x.dtype).removeprefix("torch.")
        return torch.from_numpy(scaled(x, self._data, dtype)).to(self._device)

    def _rows(self, rows: Indices) -> Tensor:
        return torch.from_numpy(rows).to(self._device)

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        elif self._device.type == "mps":
            torch.mps.synchronize()
