r"""WAME for PyTorch.

The rule and its variants are those of :mod:`optbench.optimizers.wame`. The state takes 12 bytes a float32
parameter: zeta, Z and theta, with the sign of the previous gradient in zeta's sign bit and "it was not zero"
in theta's, which changes no bit of the result; 8 with ``state_dtype=torch.bfloat16``, which keeps zeta and Z
in bfloat16 and moves results by about 1 %.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor

from optbench.optimizers.torch_kernels import gpu, native, plain
from optbench.optimizers.torch_kernels.plain import Hyper
from optbench.optimizers.wame import WAME as Config
from optbench.optimizers.wame import EpsMode, Variant, corrected_lr, rule

HYPERPARAMETERS = ("alpha", "eta_plus", "eta_minus", "zeta_min", "zeta_max", "eps", "variant", "eps_mode")
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
Entry = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


class WAME(torch.optim.Optimizer):
    r"""Weight-wise adaptive learning rates with a moving average estimator.

    .. math::

        \zeta_t &= \operatorname{clip}(\{\eta_+, 1, \eta_-\} \zeta_{t-1}) \text{ as } g_t g_{t-1} >, =, < 0 \\
        Z_t &= \alpha Z_{t-1} + (1 - \alpha) \zeta_t, \quad
        \theta_t = \alpha \theta_{t-1} + (1 - \alpha) g_t^2 \\
        w_t &= w_{t-1} - \eta Z_t g_t / \sqrt{\theta_t + \epsilon}

    Parameters
    ----------
    params : iterable
        Tensors, named tensors or parameter groups, as for any PyTorch optimizer. Every argument below may
        differ by group.
    lr : float
        Learning rate, above 0; .01 to .1 where gradients are noisy.
    alpha : float
        Decay of Z and theta, in [0, 1).
    eta_plus, eta_minus : float
        Growth and shrinkage of zeta.
    zeta_min, zeta_max : float
        Bounds of zeta.
    eps : float
        Added under the root.
    variant : str
        ``adjusted``, ``paper``, ``divide``, ``author``, ``author_shipped``, ``report1_shipped`` or
        ``report2_shipped``.
    eps_mode : "inside", "outside" or None
        Epsilon inside or outside the root; None is the variant's own place.
    weight_decay : float
        Decoupled decay, 0 or more: before a step the weights are multiplied by 1 - lr * weight_decay.
    state_dtype : torch.dtype, optional
        Of zeta and Z: ``torch.bfloat16``, or None for the arithmetic's own, which is float64 for float64
        parameters and float32 for all others.
    fused : bool, optional
        None takes the one-pass kernel where it can be had: C++ on a CPU with a compiler, Triton on a GPU.
        True demands it, False takes plain PyTorch. All of them are deterministic; on a CPU they agree to the
        bit.

    Attributes
    ----------
    path : str
        What a step runs: ``cpp``, ``triton``, ``plain``, or several of them joined by ``+``.

    Raises
    ------
    ValueError
        If a hyperparameter is out of range.
    TypeError
        If a parameter is not a floating-point tensor.
    RuntimeError
        With ``fused=True`` where there is no kernel; in a step, if a gradient is sparse.

    Notes
    -----
    Kernels are built or compiled when the optimizer is made or by :meth:`warm_up`, never inside a step.

    References
    ----------
    Mosca & Magoulas, "Training convolutional networks with weight-wise adaptive learning rates", ESANN 2017.

    Examples
    --------
    >>> import torch
    >>> from optbench.optimizers.torch import WAME
    >>> w = torch.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = WAME([w], lr=0.1)
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> w.tolist()
    [0.9683772325515747, -1.9683772325515747]
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]],
        lr: float = 0.05,
        *,
        alpha: float = 0.9,
        eta_plus: float = 1.2,
        eta_minus: float = 0.1,
        zeta_min: float = 0.01,
        zeta_max: float = 100.0,
        eps: float = 1e-11,
        variant: Variant = "adjusted",
        eps_mode: EpsMode | None = None,
        weight_decay: float = 0.0,
        state_dtype: torch.dtype | None = None,
        fused: bool | None = None,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eta_plus": eta_plus,
            "eta_minus": eta_minus,
            "zeta_min": zeta_min,
            "zeta_max": zeta_max,
            "eps": eps,
            "variant": variant,
            "eps_mode": eps_mode,
            "weight_decay": weight_decay,
            "state_dtype": state_dtype,
            "fused": fused,
        }
        self._paths: dict[Tensor, str] = {}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its hyperparameters and tensors are checked, and its kernel is made ready."""
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except (RuntimeError, TypeError, ValueError):
            self.param_groups.pop()
            raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._paths = {}
        for group in self.param_groups:
            self._check(group)

    @property
    def path(self) -> str:
        """What a step runs."""
        return "+".join(sorted(set(self._paths.values())))

    def graph_obstacle(self) -> str | None:
        """Say why a step cannot be recorded in a CUDA graph; None where it can."""
        name = type(self).__qualname__
        for group in self.param_groups:
            if rule(group["variant"], group["eps_mode"]).author:
                return f"{name}'s variant {group['variant']} moves its learning rate every step"
        return None if self.path == "triton" else f"{name} has no Triton kernel here"

    def warm_up(self) -> None:
        """Compile what a step needs; weights and state stay as they are."""
        for group in self.param_groups:
            for device, dtype in {(w.device, w.dtype) for w in group["params"]}:
                w = torch.zeros(1, device=device, dtype=dtype)
                state = _new_state(w, group)
                entry = (w, w.clone(), state["zeta"], state["Z"], state["theta"])
                _run(_path(w, group), [entry], float(group["lr"]), _hyper(group))

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss and its gradients anew.

        Returns
        -------
        float or None
            The closure's loss.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            hyper, lr = _hyper(group), float(group["lr"])
            author = hyper.rule.author
            if group.get("weight_decay"):  # not there in a group that was saved before
                torch._foreach_mul_(
                    [w for w in group["params"] if w.grad is not None], 1 - lr * group["weight_decay"]
                )
            batches: dict[tuple[str, torch.dtype, float], list[Entry]] = {}
            for w in group["params"]:
                g = w.grad
                if g is None:
                    continue
                if g.layout is not torch.strided:
                    raise RuntimeError(
                        "WAME takes no sparse gradients; make the layer dense (Embedding(sparse=False)) or "
                        "give its parameters to torch.optim.SparseAdam"
                    )
                state = self.state[w]
                if not state:
                    state.update(_new_state(w, group))
                state["step"] += 1
                zeta, strides = state["zeta"], w.stride()
                if g.stride() != strides or g.dtype != w.dtype:
                    g = torch.empty_like(w).copy_(g)
                # A kernel reads by address, so nothing may have moved or changed its layout since.
                as_made = w.shape == zeta.shape and strides == zeta.stride() and w.device == zeta.device
                path = self._paths.get(w, "plain") if as_made else "plain"
                rate = corrected_lr(lr, state["step"], None) if author else lr
                entry = (w, g, zeta, state["Z"], state["theta"])
                batches.setdefault((path, w.dtype, rate), []).append(entry)
            for (path, _, rate), entries in batches.items():
                _run(path, entries, rate, hyper)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; zeta and Z keep bfloat16, and half-precision parameters their float32 state.

        Raises
        ------
        ValueError
            If a tensor has not the shape of its parameter, or the groups differ.
        """
        saved = [index for group in state_dict["param_groups"] for index in group["params"]]
        mine = [w for group in self.param_groups for w in group["params"]]
        kept: dict[Tensor, dict[str, Tensor]] = {}
        for index, w in zip(saved, mine, strict=False):
            for name, value in state_dict["state"].get(index, {}).items():
                if not isinstance(value, Tensor):
                    continue
                if value.shape != w.shape:
                    shapes = f"{tuple(value.shape)}, its parameter {tuple(w.shape)}"
                    raise ValueError(f"the state's {name} of parameter {index} has shape {shapes}")
                dtype = value.dtype if value.dtype == torch.bfloat16 else _arithmetic(w)
                kept.setdefault(w, {})[name] = value.detach().to(w.device, dtype, copy=True)
        super().load_state_dict(state_dict)  # which casts every state to its parameter's precision
        for w, tensors in kept.items():
            self.state[w].update(tensors)

    def unpacked(self, param: Tensor) -> dict[str, Tensor]:
        """Show a parameter's state as the formula has it: ``zeta``, ``Z``, ``theta`` and ``sign``."""
        state = self.state[param]
        zeta, theta = state["zeta"], state["theta"]
        sign = torch.where(theta.signbit(), torch.where(zeta.signbit(), -1.0, 1.0), 0.0)
        return {"zeta": zeta.abs(), "Z": state["Z"].clone(), "theta": theta.abs(), "sign": sign}

    def _check(self, group: dict[str, Any]) -> None:
        _check_ranges(group)
        if group["state_dtype"] not in (None, torch.bfloat16, torch.float32, torch.float64):
            raise ValueError(f"state_dtype is {group['state_dtype']}; choose torch.bfloat16 or None")
        for w in group["params"]:
            if w.dtype not in _DTYPES:
                raise TypeError(
                    f"WAME takes floating-point parameters, not {w.dtype}; keep them out of params"
                )
            self._paths[w] = _path(w, group)
            if self._paths[w] == "plain" and group["fused"]:
                reason = native.available() if w.device.type == "cpu" else gpu.available()
                layout = f"a {w.dtype} tensor on {w.device} with state {_state_dtype(w, group)}"
                raise RuntimeError(f"fused=True: {reason or f'no kernel takes {layout}'}; leave fused out")


def _check_ranges(group: dict[str, Any]) -> None:
    """Hold a group to the ranges that a suite file is held to."""
    rule(group["variant"], group["eps_mode"])
    if group["eps_mode"] not in (None, "inside", "outside"):
        raise ValueError(f"eps_mode is {group['eps_mode']!r}; choose inside, outside or None")
    Config(**{name: group[name] for name in HYPERPARAMETERS})  # zeta's bounds, and eps_mode against variant
    bounds = {
        "lr": float(group["lr"]) >= 0,
        "alpha": 0 <= group["alpha"] < 1,
        "eta_plus": group["eta_plus"] > 1,
        "eta_minus": 0 < group["eta_minus"] < 1,
        "zeta_min": group["zeta_min"] > 0,
        "eps": group["eps"] > 0,
        "weight_decay": group.get("weight_decay", 0.0) >= 0,
    }
    for name, good in bounds.items():
        if not good:
            raise ValueError(f"{name} is {group[name]}, out of range")


def _hyper(group: dict[str, Any]) -> Hyper:
    return _make_hyper(*[group[name] for name in HYPERPARAMETERS])


@functools.lru_cache(maxsize=64)
def _make_hyper(*values: Any) -> Hyper:
    return Hyper(**dict(zip(HYPERPARAMETERS, values, strict=True)))


def _arithmetic(w: Tensor) -> torch.dtype:
    return torch.float64 if w.dtype == torch.float64 else torch.float32


def _state_dtype(w: Tensor, group: dict[str, Any]) -> torch.dtype:
    return group["state_dtype"] or _arithmetic(w)


def _new_state(w: Tensor, group: dict[str, Any]) -> dict[str, Any]:
    how, dtype = rule(group["variant"], group["eps_mode"]), _state_dtype(w, group)
    return {
        "step": 0,
        "zeta": torch.full_like(w, how.zeta0, dtype=dtype),
        "Z": torch.full_like(w, how.average0, dtype=dtype),
        "theta": torch.zeros_like(w, dtype=_arithmetic(w)),
    }


def _path(w: Tensor, group: dict[str, Any]) -> str:
    if group["fused"] is False:
        return "plain"
    if gpu.supports(w, _state_dtype(w, group)) and gpu.available() is None:
        return "triton"
    if native.supports(w, _state_dtype(w, group)) and native.available() is None:
        return "cpp"
    return "plain"


def _run(path: str, entries: list[Entry], lr: float, hyper: Hyper) -> None:
    if path == "cpp":
        native.step(entries, lr=lr, hyper=hyper)
        return
    one = gpu.step if path == "triton" else plain.step
    for w, g, zeta, average, theta in entries:
        one(w, g, zeta, average, theta, lr=lr, hyper=hyper)
