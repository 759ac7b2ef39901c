"""Other weightings, one task left out, cost, other tasks: against sums by hand and against SciPy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tlbench.leaderboard.forms import form
from tlbench.leaderboard.generalisation import over_tasks
from tlbench.leaderboard.pareto import unbeaten
from tlbench.leaderboard.weightings import (
    image_weights,
    pair_weights,
    ranks,
    task_weights,
    tasks_of,
    without_each,
)


def test_weights_by_pair_and_image_are_those_worked_out_by_hand(synthetic: ModuleType) -> None:
    plain = form(synthetic.make_suite(), "accuracy")  # six pairs of task t, one of task u
    np.testing.assert_allclose(pair_weights(plain), 1 / 7)
    images = np.where(plain.terms["task"] == "u", 60.0, 10.0)
    np.testing.assert_allclose(image_weights(plain, images), images / 120)
    assert tasks_of(plain) == ("t", "u")
    terms = np.arange(7.0)
    np.testing.assert_allclose(task_weights(plain) @ terms, [terms[:6].mean(), terms[6]])
    assert (task_weights(plain) @ terms).mean() == pytest.approx(plain.terms["weight"] @ terms)


def test_settings_of_a_pair_share_its_weight(synthetic: ModuleType) -> None:
    corrupted = form(synthetic.make_suite(), "mean_corruption_accuracy")
    weights = pair_weights(corrupted)
    by_cell = corrupted.terms.assign(own=weights).groupby(["task", "source"])["own"].sum()
    np.testing.assert_allclose(by_cell, 1 / 4)  # four sources
    np.testing.assert_allclose(image_weights(corrupted, np.full(len(weights), 5.0)).sum(), 1)


def test_without_each_task_is_the_mean_of_the_others() -> None:
    tasks = np.random.default_rng(0).random((3, 5))
    slow = [[np.delete(row, task).mean() for task in range(5)] for row in tasks]
    np.testing.assert_allclose(without_each(tasks), slow)


def test_ranks_share_the_better_place_and_lower_may_be_better() -> None:
    scores = np.array([0.3, 0.1 + 0.2, 0.5])  # the first two differ in the last bit
    np.testing.assert_array_equal(ranks(scores, higher=True), [2, 2, 1])
    np.testing.assert_array_equal(ranks(scores, higher=False), [1, 1, 3])


def test_the_interval_over_tasks_is_that_of_scipy() -> None:
    tasks = np.random.default_rng(1).random(9)
    outside = stats.ttest_1samp(tasks, 0).confidence_interval(0.95)
    assert over_tasks(tasks) == pytest.approx((outside.low, outside.high))
    assert np.isnan(over_tasks(tasks[:5])).all()
    assert np.isnan(over_tasks(np.array([*tasks[:6], np.inf]))).all()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_the_unbeaten_are_those_whom_nobody_beats(rows: list[tuple[int, int]]) -> None:
    good, cost = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    slow = [not any(g >= a and c <= b and (g > a or c < b) for g, c in rows) for a, b in rows]
    np.testing.assert_array_equal(unbeaten(good, cost), slow)


def test_a_row_of_unknown_cost_is_not_unbeaten() -> None:
    np.testing.assert_array_equal(unbeaten(np.array([0.9, 0.5]), np.array([np.nan, 1.0])), [False, True])
