"""A12 and A13: paired differences at equal other factors."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from tlbench.analysis.effects import augmentations, regimes


@pytest.fixture(scope="module")
def augmented(simulated: ModuleType) -> Any:
    world = simulated.World(augment_effect={"augmix": 0.2, "blur": -0.1}, shots=("full", "10"), noise=0.2)
    return simulated.simulate(world)


def _slow(runs: Any, factor: str, level: str, reference: str, outcome: str) -> float:
    """Mean over pairs of the difference of two means: balanced runs need no matching."""
    means = runs.groupby(["source", "target", factor])[outcome].mean().unstack(factor)
    return float((means[level] - means[reference]).mean())


def test_every_effect_has_its_sign_and_is_that_of_a_balanced_table(augmented: Any) -> None:
    effects = augmentations(augmented, draws=300).tables["effects"].set_index(["shots", "augment", "outcome"])
    for shots in ("full", "10"):
        own = augmented[augmented["shots"] == shots]
        for augment, sign in (("augmix", 1), ("blur", -1)):
            row = effects.loc[(shots, augment, "ood_accuracy")]
            assert row["difference"] == pytest.approx(_slow(own, "augment", augment, "identity", "ood_accuracy"))
            assert sign * row["difference_low"] > 0
            assert sign * row["difference_high"] > 0
            assert row["matches"] == 24 * 3 * 6


def test_an_interval_holds_the_effect_of_a_thousand_models(simulated: ModuleType, augmented: Any) -> None:
    world = simulated.World(augment_effect={"augmix": 0.2}, noise=0.2, methods=100, seeds=1)
    many = simulated.simulate(world, seed=1)
    truth = _slow(many, "augment", "augmix", "identity", "ood_accuracy")
    effects = augmentations(augmented, draws=500).tables["effects"].set_index(["shots", "augment", "outcome"])
    row = effects.loc[("full", "augmix", "ood_accuracy")]
    assert row["difference_low"] < truth < row["difference_high"]


def test_no_effect_is_not_told_from_zero(augmented: Any) -> None:
    tables = augmentations(augmented, draws=500).tables
    inside = tables["effects"].set_index(["shots", "augment", "outcome"]).loc[("full", "augmix", "id_accuracy")]
    assert inside["difference_low"] < 0 < inside["difference_high"]
    more = tables["few_shot"].set_index(["augment", "outcome"]).loc[("augmix", "ood_accuracy")]
    assert more["more_than_full_low"] < 0 < more["more_than_full_high"]


def test_only_runs_that_agree_in_all_else_are_matched(augmented: Any) -> None:
    """An unmatched run, however good, moves no effect."""
    lone = augmented[(augmented["augment"] == "augmix") & (augmented["seed"] == 0)]
    lone = lone.assign(seed=7, ood_accuracy=1.0, fit_id="lone")
    before, after = (
        augmentations(table, draws=5).tables["effects"]["difference"].tolist()
        for table in (augmented, pd.concat([lone, augmented], ignore_index=True))
    )
    assert after == pytest.approx(before)


def test_all_weights_against_a_head(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(regimes=True, full_effect=0.3))
    effects = regimes(runs, draws=300).tables["effects"].set_index("outcome")
    for outcome in ("id_accuracy", "ood_accuracy"):
        assert effects.loc[outcome, "difference"] == pytest.approx(_slow(runs, "regime", "full", "head-only", outcome))
        assert effects.loc[outcome, "difference_low"] > 0


def test_one_backbone_is_too_few(simulated: ModuleType) -> None:
    world = simulated.World(backbones=1, methods=2, regimes=True, augment_effect={"augmix": 0.2})
    runs = simulated.simulate(world)
    for answer in (augmentations(runs, draws=5), regimes(runs, draws=5)):
        assert "2 (method, backbone) clusters" in answer.too_small
        assert not answer.tables


def test_without_a_match_there_is_no_effect(simulated: ModuleType) -> None:
    runs = simulated.simulate()
    assert augmentations(runs, draws=5).too_small
    assert regimes(runs, draws=5).too_small
