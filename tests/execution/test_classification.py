import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support, top_k_accuracy_score

from optbench.execution.classification import per_class, ranks


@pytest.fixture
def generator():
    return np.random.default_rng(5)


def test_precision_recall_and_f1_agree_with_scikit_learn(generator):
    labels, predictions = generator.integers(0, 5, 300), generator.integers(0, 4, 300)
    found = per_class(labels, predictions, 5)
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predictions, zero_division=0)
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.f1, f1)
    assert found.macro_f1 == pytest.approx(f1.mean())


def test_an_output_beyond_the_classes_is_wrong_and_an_absent_class_is_left_out():
    found = per_class(np.array([0, 0, 1, 1]), np.array([0, 7, 1, 1]), 3)
    np.testing.assert_allclose(found.recall, [0.5, 1.0, np.nan])
    np.testing.assert_allclose(found.precision, [1.0, 1.0, np.nan])
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 2)


def test_ranks_give_top_k_accuracy(generator):
    logits, labels = generator.normal(size=(200, 6)), generator.integers(0, 6, 200)
    for k in (1, 2, 3):
        assert (ranks(logits, labels) < k).mean() == pytest.approx(top_k_accuracy_score(labels, logits, k=k))


def test_a_constant_model_is_right_for_one_class_only():
    assert (ranks(np.zeros((4, 4)), np.arange(4)) < 1).mean() == 0.25


def test_an_output_that_is_no_number_ranks_last():
    assert ranks(np.array([[1.0, np.nan]]), np.array([0])).tolist() == [2]
