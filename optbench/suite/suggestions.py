"""Suggestions for unknown words: other names of fields, models and optimizers, and how to use custom ones."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType

#: Other names of a key or a value, without case, dashes and underscores; the first known one is suggested.
ALIASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "learningrate": ("lr",),
        "stepsize": ("lr",),
        "beta": ("beta1", "momentum"),
        "betas": ("beta1",),
        "accuracy": ("test_accuracy", "val_accuracy"),
        "acc": ("test_accuracy", "val_accuracy"),
        "testacc": ("test_accuracy",),
        "valacc": ("val_accuracy",),
        "loss": ("test_loss", "val_loss"),
        "f1": ("test_f1", "val_f1"),
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
#: Packages with an optimizer of this name: what to install, and its class.
PACKAGES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "dadaptation": ("dadaptation", "dadaptation:DAdaptAdam"),
        "ranger": ("pytorch-optimizer", "pytorch_optimizer:Ranger21"),
        "adahessian": ("pytorch-optimizer", "pytorch_optimizer:AdaHessian"),
        "asgd": ("torch", "torch.optim:ASGD"),
    }
)


def _normalised(word: str) -> str:
    """A word in lower case, letters and digits only."""
    return re.sub(r"[^a-z0-9]", "", word.lower())


def alias_of(word: str, known: Iterable[str]) -> str | None:
    """The known word of which another one is an alias; None if it is none.

    Examples
    --------
    >>> alias_of("learning_rate", ["lr", "beta1"]), alias_of("Beta_1", ["lr", "beta1"]), alias_of("x", ["lr"])
    ('lr', 'beta1', None)
    """
    choices = list(known)
    key = _normalised(word)
    same = (choice for choice in choices if _normalised(choice) == key)
    return next((choice for choice in (*same, *ALIASES.get(key, ())) if choice in choices), None)


def similar(word: str, known: Iterable[str]) -> list[str]:
    """Known words that share a part with another one: ``cnn`` with ``small_cnn``.

    Examples
    --------
    >>> similar("resnet18", ["mlp", "resnet8"]), similar("cnn", ["mlp", "small_cnn", "cnn_2c1d"])
    (['resnet8'], ['small_cnn', 'cnn_2c1d'])
    """
    stem = re.sub(r"[^a-z]+", "", word.lower())
    if len(stem) < 3:
        return []
    choices = list(known)
    alike = [choice for choice in choices if stem in re.sub(r"[^a-z]+", "", choice.lower())]
    kind = next((part for name, part in KINDS.items() if name in stem), None)
    return alike or [choice for choice in choices if kind is not None and kind in choice]


def custom_optimizer_hint(optimizer: str) -> str:
    """How to use an optimizer that optbench lacks, as the end of a sentence."""
    known = PACKAGES.get(_normalised(optimizer))
    if known is not None:
        package, reference = known
        return f"pip install {package}, then {optimizer}: {{class: {reference}, lr: ...}}"
    return (
        "any other is brought by its class, as in mine: {class: my_opt.py:MyOpt, lr: 0.01} or {class: "
        "package.module:Class, lr: 0.01}; `optbench new optimizer my_opt.py` writes one to begin with"
    )


def custom_model_hint() -> str:
    """How to use a model that optbench lacks, as the end of a sentence."""
    return (
        "any other is written by `layers:`, or brought by its function, as in {class: my_model.py:make} "
        "(docs/howto/model.md)"
    )


def custom_data_hint() -> str:
    """How to use a dataset that optbench lacks, as the end of a sentence."""
    return "data of your own: {csv: table.csv, label: COLUMN}, {npz: file.npz} (docs/howto/data.md)"
