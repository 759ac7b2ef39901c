"""Who is told apart from whom: against closed forms and outside implementations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from tlbench.leaderboard.ties import LEVEL, compare_over_draws, compare_over_tasks, rank_intervals, tie_groups


def test_two_rows_have_the_p_of_an_exact_paired_permutation_test() -> None:
    rng = np.random.default_rng(0)
    tasks = rng.normal(size=(2, 9)) + np.array([[0.4], [0.0]])
    outside = stats.permutation_test(
        (tasks[0], tasks[1]), lambda x, y: stats.ttest_rel(x, y).statistic, permutation_type="samples", n_resamples=1000
    )
    found = compare_over_tasks(tasks)
    assert found.p[0] == pytest.approx(outside.pvalue, abs=1e-12)
    assert found.adjusted_p[0] == found.p[0]  # of one pair the largest is the only one


def test_two_rows_have_nearly_the_p_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    tasks = rng.normal(size=(2, 13)) + np.array([[0.5], [0.0]])
    assert compare_over_tasks(tasks).p[0] == pytest.approx(stats.ttest_rel(*tasks).pvalue, abs=0.01)


def test_random_flips_agree_with_all_of_them() -> None:
    rng = np.random.default_rng(2)
    tasks = rng.normal(size=(2, 16)) + np.array([[0.6], [0.0]])
    assert compare_over_tasks(tasks).p[0] == pytest.approx(stats.ttest_rel(*tasks).pvalue, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(arrays(np.float64, (4, 7), elements=st.floats(0, 1).map(lambda value: round(value, 3))))
def test_an_interval_leaves_out_zero_where_and_only_where_a_difference_counts(tasks: np.ndarray) -> None:
    found = compare_over_tasks(tasks)
    assert (found.adjusted_p >= found.p - 1e-12).all()
    known = np.isfinite(found.low)
    apart = (found.low > 1e-9) | (found.high < -1e-9)
    np.testing.assert_array_equal(apart[known], (found.adjusted_p <= LEVEL)[known])


def test_rows_that_are_equal_or_equal_up_to_rounding_are_never_apart() -> None:
    row = np.linspace(0.1, 0.9, 8)
    found = compare_over_tasks(np.array([row, row + 1e-15, row]))
    np.testing.assert_array_equal(found.adjusted_p, 1)
    np.testing.assert_array_equal(found.difference, 0)


def test_six_tasks_are_the_fewest_that_can_tell_two_rows_apart() -> None:
    ahead = np.vstack([np.ones(6), np.linspace(0, 0.1, 6)])
    assert compare_over_tasks(ahead).p[0] == pytest.approx(2 / 2**6)
    assert compare_over_tasks(ahead[:, :5]).p[0] == pytest.approx(2 / 2**5)
    assert 2 / 2**6 <= LEVEL < 2 / 2**5


def test_more_rows_make_a_difference_harder_to_find() -> None:
    rng = np.random.default_rng(3)
    tasks = rng.normal(size=(12, 10))
    tasks[0] += 1.2
    alone, among = compare_over_tasks(tasks[:2]), compare_over_tasks(tasks)
    assert among.p[0] == pytest.approx(alone.p[0])
    assert among.adjusted_p[0] > alone.adjusted_p[0]


def test_draws_of_many_degrees_give_the_normal_p() -> None:
    rng = np.random.default_rng(4)
    samples = rng.normal(size=(4000, 2)) * [0.01, 0.02]
    found = compare_over_draws(np.array([0.05, 0.0]), samples, np.full((2, 2), 1e9))
    assert found.p[0] == pytest.approx(2 * stats.norm.sf(0.05 / np.hypot(0.01, 0.02)), rel=0.15)
    assert found.adjusted_p[0] == pytest.approx(found.p[0], abs=0.01)
    assert found.high[0] - found.difference[0] == pytest.approx(1.96 * np.hypot(0.01, 0.02), rel=0.05)


def test_draws_of_few_degrees_give_student_s_t() -> None:
    rng = np.random.default_rng(5)
    samples = rng.normal(size=(4000, 2)) * 0.01
    found = compare_over_draws(np.array([0.05, 0.0]), samples, np.full((2, 2), 4.0))
    assert found.p[0] == pytest.approx(2 * stats.t.sf(0.05 / 0.01 / 2**0.5, 4), rel=0.1)
    assert found.adjusted_p[0] == pytest.approx(found.p[0], abs=0.01)


def test_draws_that_two_rows_share_cancel() -> None:
    rng = np.random.default_rng(6)
    shared = rng.normal(size=(2000, 1))
    samples = shared + 0.01 * rng.normal(size=(2000, 2))
    found = compare_over_draws(np.array([0.06, 0.0]), samples, np.full((2, 2), 1e9))
    assert found.p[0] < 1e-3
    same = compare_over_draws(np.array([0.5, 0.5]), np.repeat(shared, 2, axis=1), np.full((2, 2), 1e9))
    assert (same.p[0], same.adjusted_p[0], same.low[0], same.high[0]) == (1, 1, 0, 0)


def test_a_group_is_what_is_not_told_apart_from_its_best() -> None:
    better = np.zeros((4, 4), dtype=bool)
    better[0, [1, 3]] = True  # the third, noisier, is not told apart from the first
    better[1, 3] = True
    np.testing.assert_array_equal(tie_groups(better, np.arange(4)), [1, 2, 1, 3])
    least, most = rank_intervals(better)
    np.testing.assert_array_equal(least, [1, 2, 1, 3])
    np.testing.assert_array_equal(most, [2, 3, 4, 4])
