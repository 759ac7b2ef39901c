"""Draws that are shared by name, means over crossed margins, degrees of freedom."""

from __future__ import annotations

import numpy as np
import pytest

from tlbench.metrics.resampling import KNOWN_DEGREES, drawn_shares, pooled_degrees, resampled_means


def test_equal_names_give_equal_draws_and_others_do_not() -> None:
    first, again, other = (drawn_shares(9, 50, (name,)) for name in ("a", "a", "b"))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_allclose(first.sum(axis=1), 1, rtol=1e-6)


def test_the_spread_of_the_means_is_the_standard_error_also_of_three_units() -> None:
    values = np.array([0.2, 0.5, 0.9])
    means = drawn_shares(3, 20_000, ("three",)) @ values
    assert means.std() == pytest.approx(values.std(ddof=1) / np.sqrt(3), rel=0.02)


def test_a_mean_over_both_margins_is_the_one_written_the_slow_way() -> None:
    rng = np.random.default_rng(1)
    sums, sizes = rng.normal(size=(4, 3, 7)), rng.integers(1, 5, 7)
    images, fits = drawn_shares(7, 20, ("images",)), drawn_shares(3, 20, ("fits",))
    found = resampled_means(images, fits, sums, sizes)
    slow = [
        [sum(f * (i @ row[s]) for s, f in enumerate(fit)) / (i @ sizes) for row in sums]
        for i, fit in zip(images, fits, strict=True)
    ]
    np.testing.assert_allclose(found, slow, rtol=1e-5, atol=1e-6)


def test_degrees_of_equal_variances_add_and_nothing_that_varies_is_known() -> None:
    assert pooled_degrees(np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0])) == pytest.approx(6)
    assert pooled_degrees(np.zeros(2), np.array([2.0, 2.0])) == KNOWN_DEGREES
    found = pooled_degrees(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([2.0, 5.0]))
    np.testing.assert_allclose(found, [2, 5])
