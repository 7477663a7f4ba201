"""What people write for what is meant: other names of fields, models and optimizers, and what brings them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

#: Other words for a key or a value, without case, dashes and underscores; the first that is known is meant.
MEANT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "learningrate": ("lr",),
        "stepsize": ("lr",),
        "beta": ("beta1", "momentum"),
        "decay": ("weight_decay", "rho"),
        "alpha": ("rho",),
        "epsilon": ("eps",),
        "batch": ("batch_size",),
        "bs": ("batch_size",),
        "minibatch": ("batch_size",),
        "nepochs": ("epochs",),
        "numepochs": ("epochs",),
        "maxepochs": ("epochs",),
        "iterations": ("epochs",),
        "data": ("dataset",),
        "net": ("model",),
        "network": ("model",),
        "architecture": ("model",),
        "task": ("workloads",),
        "experiments": ("workloads",),
        "optimisers": ("optimizers",),
        "nseeds": ("seeds",),
        "repeats": ("seeds",),
        "runs": ("seeds",),
        "framework": ("backends",),
        "frameworks": ("backends",),
        "valsplit": ("split",),
        "validationsplit": ("split",),
        "validation": ("split",),
        "lrschedule": ("schedule",),
        "lrscheduler": ("schedule",),
        "scheduler": ("schedule",),
        "patience": ("early_stopping",),
        "gradientclipping": ("clip_norm",),
        "gradclip": ("clip_norm",),
        "name": ("suite",),
        "metric": ("primary", "metrics"),
        "reference": ("baseline",),
        "significance": ("alpha",),
        "keras": ("tensorflow",),
        "tf": ("tensorflow",),
        "pytorch": ("torch",),
        "gpu": ("cuda",),
        "fp32": ("float32",),
        "fp64": ("float64",),
        "double": ("float64",),
        "bf16": ("bfloat16",),
        "perceptron": ("mlp",),
        "dense": ("mlp",),
        "fashionmnist": ("fashion-mnist", "fashion-mini"),
        "cifar": ("cifar-10",),
        "momentum": ("sgd",),
        "nesterov": ("sgd",),
    }
)
#: Kinds of networks by a part of their names, and the part that the nearest models here share.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("resnet", "vgg", "lenet", "alexnet", "convnet", "densenet", "mobilenet"), "cnn"),
        **dict.fromkeys(("perceptron", "feedforward", "linear", "logistic", "fcn"), "mlp"),
    }
)
#: Packages that bring an optimizer of this name: what to install, and its class.
BROUGHT_BY: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "dadaptation": ("dadaptation", "dadaptation:DAdaptAdam"),
        "ranger": ("pytorch-optimizer", "pytorch_optimizer:Ranger21"),
        "adahessian": ("pytorch-optimizer", "pytorch_optimizer:AdaHessian"),
        "asgd": ("torch", "torch.optim:ASGD"),
    }
)


def plain(word: str) -> str:
    """A word without case and what stands between its parts."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


def meant(found: str, known: Iterable[str]) -> str | None:
    """The known word that another one stands for; None if nothing says so.

    Examples
    --------
    >>> meant("learning_rate", ["lr", "beta1"]), meant("Beta_1", ["lr", "beta1"]), meant("x", ["lr"])
    ('lr', 'beta1', None)
    """
    choices = list(known)
    bare = plain(found)
    same = (word for word in choices if plain(word) == bare)
    return next((word for word in (*same, *MEANT.get(bare, ())) if word in choices), None)


def related(found: str, known: Iterable[str]) -> list[str]:
    """Known words that share a part with another one: ``cnn`` with ``small_cnn``.

    Examples
    --------
    >>> related("resnet18", ["mlp", "resnet8"]), related("cnn", ["mlp", "small_cnn", "cnn_2c1d"])
    (['resnet8'], ['small_cnn', 'cnn_2c1d'])
    """
    stem = re.sub(r"[^a-z]+", "", found.lower())
    if len(stem) < 3:
        return []
    words = list(known)
    alike = [word for word in words if stem in re.sub(r"[^a-z]+", "", word.lower())]
    kind = next((part for name, part in KINDS.items() if name in stem), None)
    return alike or [word for word in words if kind is not None and kind in word]


def brings(optimizer: str) -> str:
    """What brings an optimizer that is none of optbench's own, as the end of a sentence."""
    known = BROUGHT_BY.get(plain(optimizer))
    if known is not None:
        package, reference = known
        return f"pip install {package}, then {optimizer}: {{class: {reference}, lr: ...}}"
    return (
        "any other is brought by its class, as in mine: {class: my_opt.py:MyOpt, lr: 0.01} or {class: "
        "package.module:Class, lr: 0.01}; `optbench new optimizer my_opt.py` writes one to begin with"
    )


def model_hint() -> str:
    """How to get a model that is none of optbench's own, as the end of a sentence."""
    return (
        "any other is written by `layers:`, or brought by its function, as in {class: my_model.py:make} "
        "(docs/howto/model.md)"
    )


def data_hint() -> str:
    """How to get a dataset that is none of optbench's own, as the end of a sentence."""
    return "data of your own: {csv: table.csv, label: COLUMN}, {npz: file.npz} (docs/howto/data.md)"
