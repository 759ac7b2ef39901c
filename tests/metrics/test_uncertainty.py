from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.metrics import (
    NotEnoughClusters,
    accuracy,
    jackknife_standard_error,
    macro_f1,
    standard_error_of_mean,
)

finite = st.floats(-10, 10).map(lambda value: round(value, 3))


@given(st.lists(finite, min_size=2, max_size=30).map(np.array))
def test_without_clusters_it_is_the_textbook_formula(values):
    expected = np.std(values, ddof=1) / np.sqrt(len(values))
    assert standard_error_of_mean(values) == pytest.approx(expected, abs=1e-12)
    assert standard_error_of_mean(values, cluster=np.arange(len(values)) if len(values) >= 5 else None) == (
        pytest.approx(expected, abs=1e-12)
    )


@given(st.lists(finite, min_size=5, max_size=12).map(np.array), st.integers(2, 4))
def test_copies_within_a_cluster_carry_no_information(values, copies):
    cluster = np.repeat(np.arange(len(values)), copies)
    assert standard_error_of_mean(np.repeat(values, copies), cluster=cluster) == pytest.approx(
        standard_error_of_mean(values), abs=1e-12
    )


def test_it_covers_the_spread_of_means_over_new_clusters():
    draw = np.random.default_rng(0)
    cluster = np.repeat(np.arange(30), 8)
    means, errors, naive = [], [], []
    for _ in range(400):
        values = draw.normal(size=30)[cluster] + draw.normal(size=240)
        means.append(values.mean())
        errors.append(standard_error_of_mean(values, cluster=cluster))
        naive.append(standard_error_of_mean(values))
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.1)
    assert np.mean(naive) < 0.6 * np.std(means)


def test_names_of_clusters_may_be_strings_in_any_order():
    values = np.random.default_rng(1).normal(size=60)
    numbers = np.arange(60) % 6
    names = np.array(["scene f", "scene b", "scene d", "scene a", "scene c", "scene e"])[numbers]
    order = np.random.default_rng(2).permutation(60)
    expected = standard_error_of_mean(values, cluster=numbers)
    assert standard_error_of_mean(values[order], cluster=names[order]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("clusters", [1, 4])
def test_fewer_than_five_clusters_have_no_standard_error(clusters):
    cluster = np.arange(40) % clusters
    with pytest.raises(NotEnoughClusters, match="at least 5"):
        standard_error_of_mean(np.ones(40), cluster=cluster)
    with pytest.raises(NotEnoughClusters, match="at least 5"):
        jackknife_standard_error(lambda kept: 0.0, 40, cluster=cluster)


def test_one_image_has_no_standard_error():
    with pytest.raises(NotEnoughClusters, match="1 image"):
        standard_error_of_mean(np.array([1.0]))
    with pytest.raises(NotEnoughClusters, match="1 image"):
        jackknife_standard_error(lambda kept: 0.0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match=r"NaN|infinite"):
        standard_error_of_mean(np.array([0.0, value]))


@given(st.lists(finite, min_size=2, max_size=50).map(np.array))
def test_the_jackknife_of_a_mean_is_its_standard_error(values):
    error = jackknife_standard_error(lambda kept: float(values[kept].mean()), len(values))
    assert error == pytest.approx(standard_error_of_mean(values), abs=1e-9)


def test_the_jackknife_of_equal_clusters_is_the_clustered_standard_error():
    values = np.random.default_rng(3).normal(size=120)
    cluster = np.arange(120) % 12
    error = jackknife_standard_error(lambda kept: float(values[kept].mean()), 120, cluster=cluster)
    assert error == pytest.approx(standard_error_of_mean(values, cluster=cluster), abs=1e-12)


def test_the_jackknife_never_splits_a_cluster_and_takes_at_most_fifty_statistics():
    cluster = np.random.default_rng(4).integers(130, size=2000)
    left_out = []

    def statistic(kept):
        missing = np.setdiff1d(np.arange(2000), kept)
        assert not np.isin(cluster[kept], cluster[missing]).any()
        left_out.append(missing)
        return 0.0

    jackknife_standard_error(statistic, 2000, cluster=cluster)
    assert len(left_out) == 50
    assert sorted(np.concatenate(left_out).tolist()) == list(range(2000))


def test_the_jackknife_of_many_images_is_near_the_truth():
    draw = np.random.default_rng(5)
    values, errors = [], []
    for _ in range(60):
        label = draw.integers(4, size=600)
        predicted = np.where(draw.random(600) < 0.7, label, draw.integers(4, size=600))
        values.append(macro_f1(label, predicted))
        errors.append(jackknife_standard_error(lambda kept, a=label, b=predicted: macro_f1(a[kept], b[kept]), 600))
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.3)
    assert np.mean(errors) == pytest.approx(np.sqrt(0.775 * 0.225 / 600), rel=0.15)


def test_a_clusters_column_of_another_length_is_refused():
    with pytest.raises(ValueError, match="of 8 images, got 9"):
        jackknife_standard_error(lambda kept: accuracy(kept > 0), 8, cluster=np.arange(9))
