"""Bins of [0, 1]: which one holds an edge, and that it does not depend on how the edge was computed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.binning import Closed, bin_index, class_bins


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("closed", "shift"), [("left", 0), ("right", -1)])
def test_every_decimal_edge_of_ten_bins_belongs_where_its_decimal_says(dtype: type, closed: Closed, shift: int) -> None:
    edges = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], dtype=dtype)
    assert bin_index(edges, bins=10, closed=closed).tolist() == [i + shift for i in range(1, 10)]


@pytest.mark.parametrize("closed", ["left", "right"])
def test_zero_is_in_the_first_bin_and_one_in_the_last(closed: Closed) -> None:
    assert bin_index(np.array([0.0, 1.0]), bins=7, closed=closed).tolist() == [0, 6]


@given(st.floats(0, 1), st.integers(1, 40))
def test_off_the_edges_both_sides_agree_with_the_definition(value: float, bins: int) -> None:
    if abs(value * bins - round(value * bins)) < 1e-9:
        return
    left, right = (bin_index(np.array([value]), bins=bins, closed=side)[0] for side in ("left", "right"))
    assert left == right == int(value * bins)


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
def test_refuses_what_is_no_probability(value: float) -> None:
    with pytest.raises(ValueError, match="expected probabilities"):
        bin_index(np.array([value]), bins=10, closed="left")


def test_counts_of_two_chunks_add_up_to_those_of_both() -> None:
    draws = np.random.default_rng(0)
    probabilities = draws.dirichlet(np.ones(4), size=50)
    label = draws.integers(4, size=50)
    whole = class_bins(probabilities, label)
    parts = class_bins(probabilities[:20], label[:20]) + class_bins(probabilities[20:], label[20:])
    np.testing.assert_array_equal(whole.count, parts.count)
    np.testing.assert_array_equal(whole.positive, parts.positive)
    np.testing.assert_allclose(whole.probability, parts.probability, rtol=1e-13)
