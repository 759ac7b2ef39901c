"""A4 and A5: what predicts OOD accuracy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from scipy.stats import spearmanr

from tlbench.analysis.predictors import predictors, second_domain


def test_the_measure_that_sees_most_is_first(simulated: ModuleType) -> None:
    """Corruption accuracy sees a model's gift for the pair, which ID accuracy does not."""
    table = predictors(simulated.simulate(simulated.World(noise=0.4)), draws=300).tables["measures"]
    assert table["measure"].iloc[0] == "mean_corruption_accuracy"
    assert table["lead_low"].iloc[0] > 0
    assert table["best_share"].iloc[0] > 0.9
    assert table["best_share"].sum() == pytest.approx(1)


def test_without_such_gifts_nothing_beats_accuracy_and_robustness_is_last(simulated: ModuleType) -> None:
    table = predictors(simulated.simulate(simulated.World(noise=0.05)), draws=300).tables["measures"]
    by = table.set_index("measure")
    assert table["measure"].iloc[0] == "accuracy"
    assert not (by["lead_low"] > 0).any()
    assert by.loc["mean_robust_accuracy", "spearman_low"] < 0 < by.loc["mean_robust_accuracy", "spearman_high"]
    assert table["measure"].iloc[-1] == "mean_robust_accuracy"


def test_measures_are_turned_so_that_higher_is_better(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(shape_of={("t", "a", "b"): simulated.RISING}))
    by = predictors(runs, draws=10).tables["measures"].set_index("measure")["spearman"]
    assert by["nll"] == pytest.approx(-spearmanr(runs["id_nll"], runs["ood_accuracy"]).statistic)
    assert by["nll"] > 0.8


def test_measures_are_compared_on_the_same_runs(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(shape_of={("t", "a", "b"): simulated.RISING}))
    runs.loc[runs["seed"].eq(0) & runs["backbone"].eq("backbone0"), "id_nll"] = np.nan
    kept = runs.dropna(subset=["id_nll"])
    by = predictors(runs, draws=10).tables["measures"].set_index("measure")["spearman"]
    assert by["accuracy"] == pytest.approx(spearmanr(kept["id_accuracy"], kept["ood_accuracy"]).statistic)


def test_a_second_domain_predicts_better_where_ood_gifts_are_shared(simulated: ModuleType) -> None:
    table = second_domain(simulated.simulate(simulated.World(gift=0.6)), draws=300).tables["tasks"].iloc[0]
    assert table["difference_low"] > 0
    other = second_domain(simulated.simulate(simulated.World(backbones=10, noise=0.4)), draws=300)
    assert other.tables["tasks"].iloc[0]["difference_high"] < 0
    assert "worse than" in other.sentence


def test_a_second_domain_needs_a_third_domain(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(shape_of={("t", "a", "b"): simulated.RISING}))
    assert second_domain(runs, draws=10).too_small
