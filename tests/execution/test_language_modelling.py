"""Language modelling: windows of a text, what is evaluated, what is drawn."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from optbench.backends.base import Evaluation
from optbench.datasets import registry
from optbench.datasets.base import DataError, cut
from optbench.execution import language_modelling
from optbench.trial import Seeds, Split

CONTEXT = 16


def data_of(seed=0, **split):
    text = registry.load("shakespeare")
    few = {name: getattr(text, name)[:5000] for name in ("x_train", "y_train", "x_test", "y_test")}
    text = replace(text, **few)
    parts = cut(text, Split(how="tail", **split), Seeds(split=seed), train_eval=20, context=CONTEXT)
    return parts, text


def test_training_windows_never_reach_into_the_validation_part():
    data, text = data_of()
    assert data.train.rows.max() + CONTEXT == 4499  # the last target is the last token of the part
    assert data.validation.rows.min() == 4500
    assert np.array_equal(data.train.x[7], text.x_train[7 : 7 + CONTEXT])
    assert np.array_equal(data.train.y[7], text.x_train[8 : 8 + CONTEXT])


def test_every_token_that_is_evaluated_is_evaluated_once():
    data, text = data_of()
    for part, low, end, tokens in (
        (data.validation, 4500, 5000, text.x_train),
        (data.test, 0, 5000, text.x_test),
    ):
        targets = part.targets.ravel()
        assert np.array_equal(targets, tokens[low + 1 : low + 1 + len(targets)])
        assert end - low - len(targets) <= CONTEXT


def test_an_epoch_draws_windows_from_its_own_stream():
    data, _ = data_of()
    first, second = (data.epoch_rows(3, epoch, shuffle=True) for epoch in (1, 2))
    assert len(first) == data.examples == 4499 // CONTEXT
    assert np.array_equal(first, data.epoch_rows(3, 1, shuffle=True))
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, data.epoch_rows(4, 1, shuffle=True))
    assert set(first) <= set(data.train.rows)
    in_order = data.epoch_rows(3, 1, shuffle=False)
    assert np.array_equal(in_order, np.arange(0, 4500 - CONTEXT, CONTEXT)[: data.examples])


def test_the_fingerprint_tells_contexts_and_spans_apart():
    data, text = data_of()
    others = [
        cut(text, Split(how="tail"), Seeds(), train_eval=20, context=CONTEXT + 1),
        cut(text, Split(how="tail", validation=0.2), Seeds(), train_eval=20, context=CONTEXT),
        cut(text, Split(how="tail"), Seeds(split=1), train_eval=20, context=CONTEXT),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert data.fingerprint == data_of()[0].fingerprint


def test_a_part_that_holds_no_window_is_refused():
    with pytest.raises(DataError, match="validation part has 5 tokens, too few for one window of 16"):
        data_of(validation=5)


def test_metrics_are_of_the_mean_cross_entropy():
    info = replace(registry.info("shakespeare"), bytes_per_token=2.0)
    found = Evaluation(loss=math.log(8), predictions=np.zeros((1, 1)))
    assert language_modelling.bits_per_byte(found, None, info) == pytest.approx(1.5)
    assert language_modelling.perplexity(found, None, info) == pytest.approx(8)
    assert language_modelling.perplexity(replace(found, loss=1e4), None, info) == math.inf
