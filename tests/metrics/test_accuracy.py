from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.metrics import (
    accuracy,
    balanced_accuracy,
    brier_score,
    infinite_count,
    macro_f1,
    negative_log_likelihood,
    top_k_accuracy,
    worst_group_accuracy,
)

labelled = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40).map(
    lambda rows: np.array(rows).T
)


def slow_balanced_accuracy(label, predicted):
    return np.mean([np.mean(predicted[label == k] == k) for k in set(label.tolist())])


def slow_macro_f1(label, predicted):
    scores = []
    for k in set(label.tolist()) | set(predicted.tolist()):
        hits = np.sum((label == k) & (predicted == k))
        precision = hits / np.sum(predicted == k) if np.any(predicted == k) else 0.0
        recall = hits / np.sum(label == k) if np.any(label == k) else 0.0
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return np.mean(scores)


@given(labelled)
def test_balanced_accuracy_is_its_definition(rows):
    assert balanced_accuracy(*rows) == pytest.approx(slow_balanced_accuracy(*rows), abs=1e-12)


@given(labelled)
def test_macro_f1_is_its_definition(rows):
    assert macro_f1(*rows) == pytest.approx(slow_macro_f1(*rows), abs=1e-12)


@pytest.mark.parametrize("metric", [balanced_accuracy, macro_f1, lambda label, guess: accuracy(label == guess)])
@given(rows=labelled, order=st.randoms(use_true_random=False))
def test_lies_in_the_unit_interval_and_ignores_order_and_duplication(metric, rows, order):
    value = metric(*rows)
    places = list(range(rows.shape[1]))
    order.shuffle(places)
    assert 0 <= value <= 1
    assert metric(*rows[:, places]) == pytest.approx(value, abs=1e-12)
    assert metric(*np.tile(rows, 3)) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("metric", [balanced_accuracy, macro_f1])
def test_one_image_of_one_class_is_right_or_wrong(metric):
    assert metric(np.array([3]), np.array([3])) == 1.0
    assert metric(np.array([3]), np.array([0])) == 0.0


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30).map(np.array))
def test_top_k_accuracy_grows_with_k_from_accuracy_to_one(rank):
    curve = [top_k_accuracy(rank, k=k, classes=7) for k in range(1, 8)]
    assert curve == sorted(curve)
    assert curve[0] == accuracy(rank == 0)
    assert curve[-1] == 1.0


def test_top_k_accuracy_is_undefined_with_fewer_classes_than_guesses():
    with pytest.raises(ValueError, match="top-10 accuracy is undefined for 7 classes"):
        top_k_accuracy(np.array([0]), k=10, classes=7)
    with pytest.raises(ValueError, match="ranks from 0 to 6, got 0 to 7"):
        top_k_accuracy(np.array([0, 7]), k=5, classes=7)


def test_worst_group_accuracy_is_the_lowest_of_the_groups():
    correct = np.array([True, False, True, True, False, False])
    assert worst_group_accuracy(correct, np.array([0, 0, 1, 1, 2, 2])) == 0.0
    assert worst_group_accuracy(correct, np.array(["a", "a", "b", "b", "b", "a"])) == pytest.approx(1 / 3)
    assert worst_group_accuracy(correct, np.zeros(6, dtype=int)) == accuracy(correct)


def test_one_impossible_truth_makes_the_nll_infinite_and_is_counted():
    log_likelihood = np.array([-0.5, -np.inf, 0.0, -np.inf])
    assert negative_log_likelihood(log_likelihood) == np.inf
    assert infinite_count(log_likelihood) == 2
    assert infinite_count(log_likelihood[[0, 2]]) == 0


def test_certainty_that_is_right_scores_zero_and_not_minus_zero():
    value = negative_log_likelihood(np.zeros(3))
    assert value == 0.0
    assert not np.signbit(value)


def test_float32_columns_are_summed_in_float64():
    column = np.full(300_000, 0.1, dtype=np.float32)
    exact = float(np.float32(0.1))
    assert brier_score(column) == pytest.approx(exact, abs=1e-12)
    assert negative_log_likelihood(-column) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("metric", [negative_log_likelihood, brier_score, infinite_count])
def test_nan_is_refused_and_not_averaged(metric):
    with pytest.raises(ValueError, match="1 of 2 values are NaN"):
        metric(np.array([0.1, np.nan]))


@pytest.mark.parametrize(
    "metric",
    [
        accuracy,
        negative_log_likelihood,
        brier_score,
        lambda none: balanced_accuracy(none, none),
        lambda none: macro_f1(none, none),
        lambda none: top_k_accuracy(none, k=1, classes=3),
        lambda none: worst_group_accuracy(none, none),
    ],
)
def test_no_images_are_refused(metric):
    with pytest.raises(ValueError, match="at least one image"):
        metric(np.array([]))


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="label 2, predicted 1"):
        macro_f1(np.array([0, 1]), np.array([0]))
