from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optbench.optimizers import SGD, Adam, Custom
from optbench.suite.validation import InvalidError
from optbench.tuning.space import (
    Axis,
    assembled,
    drawn_axes,
    family_axes,
    grid,
    read_axes,
    with_others,
    with_values,
)


def axis(kind: str, low: float = 0.0, high: float = 0.0, **more) -> Axis:
    return Axis(name="x", kind=kind, low=low, high=high, **more)


def test_places_lie_where_the_scale_says():
    assert axis("log", 1e-4, 1e-2).at(0.5) == pytest.approx(1e-3)
    assert axis("uniform", 0, 4).at(0.25) == 1
    assert axis("decay", 0.9, 0.999).at(0.5) == pytest.approx(0.99)
    assert [axis("int", 256, 1024, step=256).at(u) for u in (0, 0.3, 0.99, 1)] == [256, 512, 1024, 1024]
    assert [axis("choice", choices=("a", "b")).at(u) for u in (0, 0.49, 0.5, 1)] == ["a", "a", "b", "b"]


@given(st.floats(0, 1), st.sampled_from(["log", "uniform", "decay"]))
def test_a_drawn_value_stays_inside_its_range_and_prints_as_it_is(u, kind):
    drawn = axis(kind, 0.003, 0.97).at(u)
    assert 0.003 <= drawn <= 0.97
    assert float(f"{drawn:.12g}") == drawn


def test_an_edge_is_the_outer_twentieth_on_the_scale():
    found = axis("log", 1e-4, 1e-2)
    assert found.edge(1e-4 * 100**0.04) == "lower"
    assert found.edge(1e-3) is None
    assert found.edge(1e-2 / 100**0.04) == "upper"
    assert axis("choice", choices=(1, 2)).edge(2) is None


def test_a_range_moves_over_its_edge_by_half_its_width():
    up = axis("log", 1e-4, 1e-2).shifted("upper")
    assert (up.low, up.high) == (pytest.approx(1e-3), pytest.approx(1e-1))
    down = axis("uniform", 0.2, 1.0).shifted("lower")
    assert (down.low, down.high) == (0.0, pytest.approx(0.6))
    decay = axis("decay", 0.9, 0.99).shifted("upper")
    assert 0.99 < decay.high < 1
    assert axis("int", 2, 6, step=2).shifted("upper").high == 8


def test_a_grid_fills_the_budget_exactly_or_says_what_is_possible():
    axes = read_axes({"lr": {"log": [1e-4, 1e-2]}, "momentum": [0.0, 0.9]}, ())
    points = grid(axes, 6)
    assert len(points) == 6
    assert sorted({p["lr"] for p in points}) == pytest.approx([1e-4, 1e-3, 1e-2])
    with pytest.raises(ValueError, match="cannot have 7 points; 8 is possible"):
        grid(axes, 7)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "map hyperparameters to ranges"),
        ({"lr": 0.1}, "list the values"),
        ({"lr": [0.1]}, "at least two"),
        ({"lr": {"log": [0, 1]}}, "above 0"),
        ({"lr": {"log": [1, 0.1]}}, "low and high"),
        ({"lr": {"decay": [0.9, 1]}}, "decays lie"),
        ({"lr": {"int": [1, 2], "step": 0}}, "whole number from 1"),
        ({"lr": {"log": [0.1, 1], "steps": 3}}, "unknown key 'steps'"),
        ({"lr": {"log": [True, 2]}}, "two numbers"),
    ],
)
def test_what_is_no_range_is_refused(entry, message):
    with pytest.raises(InvalidError, match=message):
        read_axes(entry, ())


def test_values_are_checked_like_a_suites():
    assert with_values(Adam(lr=0.1), {"lr": 0.2, "beta1": 0.5}) == Adam(lr=0.2, beta1=0.5)
    with pytest.raises(InvalidError, match="unknown key 'momentum'"):
        with_values(Adam(), {"momentum": 0.9})
    mine = Custom(reference="m.py:M", code="sha256:0", arguments=(("lr", 0.1),), directory=Path("x"))
    assert with_values(mine, {"lr": 0.2}).arguments == (("lr", 0.2),)
    assert family_axes(mine) == ()
    assert math.isclose(family_axes(SGD())[0].high, 1.0)


LISTS = {
    "model.dense": {"list": {"length": {"int": [1, 3]}, "of": [8, 16, 32]}},
    "model.dropout": {"list": {"length": "model.dense", "of": {"uniform": [0.1, 0.5]}}},
}


def test_a_list_has_as_many_values_as_its_length_says():
    axes = read_axes(LISTS, ())
    names = [part.name for part in drawn_axes(axes)]
    assert names == [
        "model.dense length",
        *(f"model.dense {k}" for k in (1, 2, 3)),
        *(f"model.dropout {k}" for k in (1, 2, 3)),
    ]
    drawn = {part.name: part.at(0.5) for part in drawn_axes(axes)}
    assert assembled(axes, drawn) == {"model.dense": (16, 16), "model.dropout": (0.3, 0.3)}
    assert all(axis.edge((16,)) is None for axis in axes)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"a": {"list": {"length": "b", "of": [1, 2]}}}, "found 'b'; name a list of this space"),
        ({"a": {"list": {"length": {"int": [0, 3]}, "of": [1, 2]}}}, "whole numbers from 1"),
        ({"a": {"list": {"of": [1, 2]}}}, "write a list as"),
        ({"a": {"choice": [1, 2], "also": "b"}}, "list the keys"),
    ],
)
def test_lists_that_cannot_be_are_refused(entry, message):
    with pytest.raises(InvalidError) as error:
        read_axes(entry, ())
    assert message in error.value.problems[0].message


def test_a_value_can_go_to_further_keys():
    (axis,) = read_axes({"model.head": {"choice": [128, 256], "also": ["batch_size"]}}, ())
    assert with_others([axis], {"model.head": 256}) == {"model.head": 256, "batch_size": 256}
