"""How PyTorch trains the trials of a stack together, by device, model, precision and rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs PyTorch")

from optbench.backends.base import NotStackableError
from optbench.backends.torch.stacking import way
from optbench.execution import stacks
from optbench.models.layers import build
from optbench.optimizers import FAMILIES, Adam, custom
from tests.backends.contract import CNN, MLP, spec

MUON = FAMILIES["muon"].config()
MINE = custom.from_mapping({"class": "torch.optim:Adam", "lr": 0.01}, base_dir=Path())


def chosen(optimizer, model=MLP, *, device="cuda", precision="float32", asked="auto"):
    trial = replace(spec("torch", optimizer, model, precision=precision), device=device)
    found = way(trial, build(model, (8, 8, 1), 10), requested=asked)
    return found.kind, found.recorded


def test_dense_models_are_a_batch_and_all_else_are_branches_on_a_gpu():
    assert chosen(Adam()) == ("batch", True)
    assert chosen(Adam(), precision="tf32") == ("batch", True)
    assert chosen(Adam(), CNN) == ("branches", True)
    assert chosen(Adam(), precision="bfloat16") == ("branches", True)
    assert chosen(MUON) == ("branches", True)
    assert stacks.obstacle(replace(spec("torch", MUON), device="cuda")) == ""


def test_what_is_not_recorded_is_a_batch_or_nothing():
    assert chosen(Adam(), CNN, asked="eager") == ("batch", False)
    assert chosen(Adam(), CNN, device="cpu") == ("batch", False)
    for options in ({"asked": "eager"}, {"device": "cpu"}):
        with pytest.raises(NotStackableError, match="bfloat16 cannot be trained in a stack"):
            chosen(Adam(), precision="bfloat16", **options)
        with pytest.raises(NotStackableError, match="muon does not work element by element"):
            chosen(MUON, **options)


def test_a_custom_class_is_trained_alone_everywhere():
    for device in ("cpu", "cuda"):
        with pytest.raises(NotStackableError, match="custom optimizer"):
            chosen(MINE, device=device)
