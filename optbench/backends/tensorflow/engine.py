"""The TensorFlow engine: data resident on the device, an epoch one compiled loop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from optbench.backends.tensorflow.quiet import quietly
from optbench.environment import Context, set_framework_variables

with quietly():
    # Read when TensorFlow is imported; its notes about kernels and processors are not for the user.
    set_framework_variables({"TF_CPP_MIN_LOG_LEVEL": "3", "TF_FORCE_GPU_ALLOW_GROWTH": "true"})
    if "tensorflow" not in sys.modules and find_spec("triton") is not None:
        # PyTorch's Triton and TensorFlow both carry LLVM, and the process aborts if Triton comes second.
        import_module("triton")
    import tensorflow as tf

from optbench.backends.arrays import Resident, keep_pages
from optbench.backends.base import DeviceError, Weights, check_started
from optbench.backends.functional import KEPT, Configuration, FunctionalSession
from optbench.datasets.base import TrialData
from optbench.errors import UserError
from optbench.models.layers import BuiltLayer
from optbench.trial import TrialSpec

from optbench.backends.tensorflow.programs import TensorFlowPrograms  # isort: skip

#: TensorFlow's name of each of our devices.
DEVICES = {"cuda": "GPU", "tpu": "TPU", "cpu": "CPU"}


class TensorFlowEngine:
    """Trains trials on CPU, CUDA or TPU. One instance serves a process and keeps programs and data."""

    name = "tensorflow"

    def __init__(self, context: Context) -> None:
        self._context = context
        threads = context.threads
        tf.get_logger().setLevel(logging.ERROR)
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        except RuntimeError:
            raise UserError(
                f"backend tensorflow: this process has used TensorFlow before, not with {threads} threads, "
                "which are part of a result; run trials before all else that uses it, or by `optbench run`"
            ) from None
        if context.deterministic:
            tf.config.experimental.enable_op_determinism()
        tf.config.experimental.enable_tensor_float_32_execution(False)
        with quietly():  # XLA announces itself once, with the first program
            tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(0))
        keep_pages()
        self._resident = Resident()
        self._programs = lru_cache(KEPT)(self._make)

    def configure(self, context: Context) -> None:
        """See :class:`optbench.backends.base.Engine`; TensorFlow reads its threads once, when it starts."""
        check_started(context, self._context, self.name)

    def resolve_device(self, device: str) -> str:
        """See :class:`optbench.backends.base.Engine`."""
        available = [name for name in DEVICES if _devices(name)]
        if device == "auto":
            return available[0]
        if device not in available:
            have = ", ".join(available)
            raise DeviceError(f"tensorflow {tf.__version__} has no device {device!r} here; it has {have}")
        return device

    def describe(self, device: str) -> Mapping[str, Any]:
        """See :class:`optbench.backends.base.Engine`."""
        facts: dict[str, Any] = {
            "framework": f"tensorflow {tf.__version__}",
            "threads": tf.config.threading.get_intra_op_parallelism_threads(),
            "device": device,
            **({} if self._context.deterministic else {"deterministic": False}),
        }
        if device == "cuda":
            details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
            facts |= {"device_name": details.get("device_name", "GPU")}
            facts |= {"cuda": tf.sysconfig.get_build_info().get("cuda_version")}
        return facts

    def peak_bytes(self, device: str) -> int | None:
        """See :class:`optbench.backends.base.Engine`."""
        if device == "cpu":
            return None
        return int(tf.config.experimental.get_memory_info(f"{DEVICES[device]}:0")["peak"])

    def open(
        self, spec: TrialSpec, built: tuple[BuiltLayer, ...], data: TrialData, weights: Weights
    ) -> FunctionalSession:
        """See :class:`optbench.backends.base.Engine`."""
        programs = self._programs(Configuration.of(spec, built))
        return FunctionalSession(programs, self._resident, spec, built, data, weights)

    def _make(self, configuration: Configuration) -> TensorFlowPrograms:
        return TensorFlowPrograms(configuration, _devices(configuration.device)[0])


def _devices(name: str) -> list[str]:
    return [device.name for device in tf.config.list_logical_devices(DEVICES[name])]
