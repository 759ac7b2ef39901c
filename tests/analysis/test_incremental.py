"""A6, A7, A10: what is added to ID accuracy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from tlbench.analysis.incremental import added_value, adversarial_value, corruption_value, normal_scores


def test_what_sees_the_pair_adds_and_what_does_not_adds_nothing(simulated: ModuleType) -> None:
    answer = added_value(simulated.simulate(simulated.World(noise=0.3)), draws=300)
    by = answer.tables["measures"].set_index("measure")
    assert by.loc["mean_corruption_accuracy", "partial_low"] > 0.5
    assert by.loc["mean_corruption_accuracy", "gain_low"] > 0
    for name in ("mean_robust_accuracy", "ece", "nll"):
        assert by.loc[name, "partial_low"] < 0.05
        assert not by.loc[name, "gain_low"] > 0
    assert "intervals are above zero for mean_corruption_accuracy" in answer.sentence


def test_the_partial_correlation_is_that_of_the_normal_distribution(simulated: ModuleType) -> None:
    """OOD = skill + gift and corruption = 0.3 skill + gift + noise, all normal: r of ranks is 6 / pi asin(r / 2)."""
    world = simulated.World(noise=0.3, seed_sd=0.0, seeds=1, backbones=20, methods=8, backbone_step=0.02)
    runs = simulated.simulate(world)
    found = added_value(runs, draws=10).tables["measures"].set_index("measure").loc["mean_corruption_accuracy"]
    skill = float(runs["id_probit"].std())
    together = 0.3 * skill**2 + 0.09
    x, y = np.sqrt(0.09 * skill**2 + 0.09 + 0.02**2), np.hypot(skill, 0.3)
    xy, xz, yz = (6 / np.pi * np.arcsin(r / 2) for r in (together / (x * y), 0.3 * skill / x, skill / y))
    truth = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert found["partial"] == pytest.approx(truth, abs=0.03)


def test_the_explained_share_is_scikit_learn_s_out_of_fold(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(shape_of={("t", "a", "b"): simulated.RISING}))
    row = added_value(runs, draws=10).tables["measures"].set_index("measure").loc["nll"]
    outcome = normal_scores(runs["ood_accuracy"].to_numpy())
    columns = [normal_scores(runs["id_accuracy"].to_numpy()), normal_scores(-runs["id_nll"].to_numpy())]
    shares = [
        r2_score(
            outcome,
            cross_val_predict(
                LinearRegression(), np.column_stack(columns[:k]), outcome, groups=runs["cluster"], cv=GroupKFold(10)
            ),
        )
        for k in (1, 2)
    ]
    assert row["base"] == pytest.approx(shares[0])
    assert row["gain"] == pytest.approx(shares[1] - shares[0])


def test_nine_clusters_have_no_regression_but_a_partial_correlation(simulated: ModuleType) -> None:
    answer = added_value(simulated.simulate(simulated.World(backbones=3, methods=3)), draws=100)
    by = answer.tables["measures"]
    assert by["gain"].isna().all()
    assert by["partial"].notna().all()
    assert "too few for a regression" in answer.sentence


def test_corruptions_are_held_against_a_second_real_domain(simulated: ModuleType) -> None:
    answer = corruption_value(simulated.simulate(simulated.World(gift=0.6, noise=0.1)), draws=200)
    by = answer.tables["predictors"].set_index("predictor")
    assert by.loc["second_accuracy", "partial_low"] > 0.5
    assert by.loc["second_accuracy", "partial"] > by.loc["mean_corruption_accuracy", "partial"]


def test_toughness_is_not_told_from_nothing(simulated: ModuleType) -> None:
    answer = adversarial_value(simulated.simulate(), draws=300)
    row = answer.tables["tasks"].iloc[0]
    assert row["partial_low"] < 0 < row["partial_high"]
    assert answer.sentence.endswith("not told from zero.")


def test_toughness_that_helps_is_found(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(gift=0.4))
    gift = runs["ood_probit"] - runs["id_probit"]
    answer = adversarial_value(runs.assign(id_mean_robust_accuracy=gift), draws=300)
    assert answer.tables["tasks"].iloc[0]["partial_low"] > 0.5


def test_a_suite_without_attacks_or_corruptions_is_told(simulated: ModuleType) -> None:
    runs = simulated.simulate().assign(id_mean_robust_accuracy=np.nan, id_mean_corruption_accuracy=np.nan)
    assert "attacks" in adversarial_value(runs, draws=10).too_small
    assert "corruptions" in corruption_value(runs, draws=10).too_small
