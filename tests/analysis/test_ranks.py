"""A15: ranks of backbones, and what sets them apart."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy.stats import friedmanchisquare

from tlbench.analysis.ranks import backbone_ranks, critical_difference

# Demsar (2006), table 5(a): critical values of the two-tailed Nemenyi test at 5 %, by number of treatments.
PUBLISHED = {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949, 8: 3.031, 9: 3.102, 10: 3.164}


@pytest.mark.parametrize("treatments", [3, 5, 10])
def test_critical_values_are_the_published_ones(treatments: int) -> None:
    scores = np.random.default_rng(0).normal(size=(14, treatments))
    unit = np.sqrt(treatments * (treatments + 1) / (6 * 14))
    assert critical_difference(scores).difference / unit == pytest.approx(PUBLISHED[treatments], abs=0.001)


def test_friedman_s_test_is_scipy_s_and_the_textbook_s() -> None:
    scores = np.random.default_rng(1).normal(size=(12, 4)) + np.arange(4) * 0.5
    found = critical_difference(scores)
    assert (found.statistic, found.p) == pytest.approx(tuple(friedmanchisquare(*scores.T)))
    textbook = 12 * 12 / (4 * 5) * ((found.mean_ranks**2).sum() - 4 * 25 / 4)
    assert found.statistic == pytest.approx(textbook)


def test_what_is_tied_everywhere_is_not_told_apart() -> None:
    found = critical_difference(np.ones((6, 3)))
    assert found.p == 1
    assert found.mean_ranks.tolist() == [2, 2, 2]


def _world(simulated: ModuleType, **changes: object) -> object:
    shapes = {("t", source, target): simulated.RISING for source in "abcdef" for target in "ab" if source != target}
    return simulated.World(**{"backbones": 5, "methods": 2, "shape_of": shapes, "backbone_step": 1.0, **changes})


def test_the_true_order_is_recovered(simulated: ModuleType) -> None:
    answer = backbone_ranks(simulated.simulate(_world(simulated)))
    ranks = answer.tables["ranks"]
    for measure in ("id_accuracy", "ood_accuracy"):
        own = ranks[ranks["measure"] == measure]
        assert own["backbone"].tolist() == [f"backbone{b}" for b in (4, 3, 2, 1, 0)]
        assert not set(own["groups"].iloc[0]) & set(own["groups"].iloc[-1])
    tests = answer.tables["tests"]
    assert (tests["blocks"] == 6).all()
    assert (tests["p"] < 0.05).all()


def test_equal_backbones_share_a_group(simulated: ModuleType) -> None:
    runs = simulated.simulate(_world(simulated))
    for name in ("id_accuracy", "ood_accuracy"):
        runs[name] = runs.groupby(["source", "target"])[name].transform("mean")
    ranks = backbone_ranks(runs).tables["ranks"]
    assert set(ranks["groups"]) == {"a"}


def test_six_tasks_are_the_blocks(simulated: ModuleType) -> None:
    shapes = {(task, source, "z"): simulated.RISING for task in "tuvwxy" for source in "ab"}
    answer = backbone_ranks(simulated.simulate(_world(simulated, shape_of=shapes)))
    assert (answer.tables["tests"]["blocks"] == 6).all()
    assert "6 tasks" in answer.sentence


def test_only_what_every_backbone_ran_counts(simulated: ModuleType) -> None:
    runs = simulated.simulate(_world(simulated))
    before = backbone_ranks(runs).tables["ranks"]
    # A method that was run on the worst backbone alone, with perfect results.
    alone = runs[(runs["backbone"] == "backbone0") & (runs["core"] == "method0")]
    alone = alone.assign(core="own", factors=alone["factors"].str.replace("method0", "own"), ood_accuracy=1.0)
    after = backbone_ranks(pd.concat([alone, runs], ignore_index=True)).tables["ranks"]
    assert after.equals(before)


def test_two_backbones_or_four_training_sets_are_too_few(simulated: ModuleType) -> None:
    assert "2 backbones" in backbone_ranks(simulated.simulate(_world(simulated, backbones=2))).too_small
    assert "3 training sets" in backbone_ranks(simulated.simulate()).too_small
