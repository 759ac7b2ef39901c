"""The bootstrap of clusters, and the statistics that it draws again."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, rankdata, spearmanr, t

from tlbench.analysis.answer import estimate
from tlbench.analysis.clustered import (
    Draws,
    Weights,
    correlation,
    mean_of,
    over_pairs,
    partial_spearman,
    spearman,
    weighted_ranks,
)


def _runs(seed: int, clusters: int, each: int = 2) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    skill = np.repeat(rng.normal(size=clusters), each)
    return pd.DataFrame(
        {
            "task": "t",
            "source": "a",
            "target": "b",
            "cluster": np.repeat([f"c{k:02}" for k in range(clusters)], each),
            "x": skill + 0.1 * rng.normal(size=clusters * each),
            "y": skill + rng.normal(size=clusters * each),
        }
    )


def _all(runs: pd.DataFrame) -> Weights:
    return Weights(np.ones((1, len(runs))), np.arange(len(runs)))


@given(
    values=st.lists(st.sampled_from([-np.inf, 0.0, 0.5, 1.0, 2.0, np.inf]), min_size=2, max_size=12),
    seed=st.integers(0, 1000),
)
def test_weighted_ranks_are_those_of_rows_that_stand_there_so_often(values: list[float], seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 4, len(values))
    repeated = np.repeat(np.arange(len(values)), counts)
    ranks = weighted_ranks(np.array(values), Weights(counts[None, :].astype(float), np.arange(len(values))))[0]
    assert ranks[repeated] == pytest.approx(rankdata(np.array(values)[repeated]))


@pytest.mark.parametrize("seed", range(5))
def test_a_drawn_correlation_is_scipy_s_of_the_repeated_rows(seed: int) -> None:
    runs = _runs(seed, 8)
    draws = Draws.of(runs, 20)
    weights = draws.weights(runs)
    ranked = spearman("x", "y")(runs, weights)
    plain = correlation(runs["x"].to_numpy(), runs["y"].to_numpy(), weights)
    for row, counts in enumerate(weights.rows):
        again = runs.loc[runs.index.repeat(counts.astype(int))]
        assert ranked[row] == pytest.approx(spearmanr(again["x"], again["y"]).statistic)
        assert plain[row] == pytest.approx(pearsonr(again["x"], again["y"]).statistic)


def test_the_first_row_of_weights_is_the_runs_as_they_are() -> None:
    runs = _runs(0, 6)
    assert (Draws.of(runs, 5).weights(runs).rows[0] == 1).all()


def test_runs_of_one_cluster_are_drawn_together() -> None:
    runs = _runs(0, 6, each=3)
    weights = Draws.of(runs, 50).weights(runs).rows
    by_cluster = weights.reshape(51, 6, 3)
    assert (by_cluster == by_cluster[:, :, :1]).all()
    assert (weights[1:].sum(axis=1) == 18).all()


def test_a_partial_correlation_is_that_of_the_residuals_of_ranks() -> None:
    runs = _runs(1, 20)
    runs["z"] = runs["x"] + np.random.default_rng(2).normal(size=len(runs))
    ranks = {name: rankdata(runs[name]) for name in "xyz"}
    left = [ranks[n] - np.polyval(np.polyfit(ranks["z"], ranks[n], 1), ranks["z"]) for n in "xy"]
    found = partial_spearman("x", "y", "z")(runs, _all(runs))
    assert found[0] == pytest.approx(pearsonr(*left).statistic)


def test_there_is_no_correlation_without_spread() -> None:
    runs = _runs(0, 6).assign(x=0.1 + 0.2)
    assert np.isnan(spearman("x", "y")(runs, _all(runs)))[0]
    found = over_pairs(runs, spearman("x", "y"), Draws.of(runs, 10), needs=["x", "y"])
    assert found.reason == "a measure is the same for all runs"


def test_four_clusters_have_a_reason_and_no_number() -> None:
    runs = _runs(0, 4)
    found = over_pairs(runs, spearman("x", "y"), Draws.of(runs, 10), needs=["x", "y"])
    assert np.isnan(found.samples).all()
    assert "4 (method, backbone) clusters" in found.reason


def test_seeds_of_one_model_are_no_evidence_of_their_own() -> None:
    """Ten copies of every run leave the interval as wide as it was."""
    runs = _runs(3, 12)
    many = pd.concat([runs] * 10, ignore_index=True)
    once, often = (
        over_pairs(table, spearman("x", "y"), Draws.of(table, 400), needs=["x", "y"]).overall for table in (runs, many)
    )
    assert once.high - once.low == pytest.approx(often.high - often.low, rel=0.02)


def test_the_interval_of_a_mean_is_about_student_s() -> None:
    """Expanded percentiles of six clusters, where those of the plain bootstrap are a third too narrow."""
    runs = _runs(5, 6, each=1)
    found = over_pairs(runs, mean_of("y"), Draws.of(runs, 4000), needs=["y"]).overall
    student = 2 * t.ppf(0.975, 5) * runs["y"].std(ddof=1) / np.sqrt(6)
    assert found.high - found.low == pytest.approx(student, rel=0.12)


def test_the_interval_of_a_mean_covers_it() -> None:
    """95 % of the intervals of eight clusters hold the truth, zero, up to three standard errors of 300 trials."""
    runs = _runs(0, 8, each=1)
    weights = Draws.of(runs, 1000).weights(runs)
    trials = np.random.default_rng(0).normal(size=(300, 8))
    found = [estimate(weights.rows @ trial / 8, 8) for trial in trials]
    assert np.mean([one.low <= 0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.04)


def test_an_interval_that_a_tenth_of_the_draws_lacks_is_not_given() -> None:
    samples = np.r_[0.5, np.linspace(0, 1, 100)]
    assert np.isfinite(estimate(samples, 10).low)
    samples[1:12] = np.nan
    assert np.isnan(estimate(samples, 10).low)
