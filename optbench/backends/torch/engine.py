"""The PyTorch engine: it opens trials, and keeps what they share on a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from optbench.backends.arrays import Resident, keep_pages
from optbench.backends.base import DeviceError, Stack, Weights
from optbench.backends.torch.choice import GraphObstacles, make_step
from optbench.backends.torch.session import TorchSession
from optbench.backends.torch.stacking import make_stack, stack_facts
from optbench.datasets.base import Part, TrialData
from optbench.environment import Context, set_framework_variables
from optbench.models.layers import BuiltLayer
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
        self._graph_obstacles: GraphObstacles = {}

    def configure(self, context: Context) -> None:
        """See :class:`optbench.backends.base.Engine`; also what an optimizer's code may have changed."""
        self._context = context
        torch.set_num_threads(context.threads)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        # use_deterministic_algorithms does this, and imports PyTorch's compiler to tell it, too.
        torch.set_deterministic_debug_mode("warn" if context.deterministic else "default")
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
        pool = partial(self.pool, data=data, device=spec.device, dtype=stored_precision(spec.precision))
        open_trial = partial(TorchSession, spec, built, data, weights, pool)
        return open_trial(
            make_step(spec, built, self._graph_obstacles, open_trial, requested=self._context.step)
        )

    def stack(
        self, specs: Sequence[TrialSpec], built: tuple[BuiltLayer, ...], sessions: Sequence[TorchSession]
    ) -> Stack:
        """Join trials that differ in seeds and learning rates alone; raises ``NotStackableError``."""
        return make_stack(specs, built, sessions, requested=self._context.step)

    def stack_facts(
        self, spec: TrialSpec, built: tuple[BuiltLayer, ...], session: TorchSession
    ) -> Mapping[str, Any]:
        """Say how a trial's steps are taken in a stack, for its record."""
        return stack_facts(spec, built, session, requested=self._context.step)

    def pool(self, part: Part, data: TrialData, *, device: str, dtype: str) -> tuple[Tensor, Tensor]:
        """Inputs and targets of a part's whole pool on the device, scaled; the last few stay there."""

        def put(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(device)

        x, y = self._resident.pool(part, data, device=device, dtype=dtype, put=put)
        if part.tokens is None:
            return x, y
        context = part.x.shape[1]  # a view of all windows, by where they start
        return x.unfold(0, context, 1), y.unfold(0, context, 1)
