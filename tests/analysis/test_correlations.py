"""A1 and A2: how OOD accuracy goes with ID accuracy, and where against it."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from tlbench.analysis.correlations import correlations, holm, negative_pairs


def _six(simulated: ModuleType, **shapes: str) -> dict[tuple[str, str, str], str]:
    """Six rising pairs of a, b, c, but those given as ``a_b="falling line"``."""
    pairs = simulated.World().shape_of
    return {pair: shapes.get(f"{pair[1]}_{pair[2]}", shape) for pair, shape in pairs.items()}


def test_pairs_have_scipy_s_correlations(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(backbones=4, methods=2))
    pairs = correlations(runs, draws=20).tables["pairs"]
    for row in pairs.to_dict("records"):
        own = runs[(runs["source"] == row["source"]) & (runs["target"] == row["target"])]
        assert row["spearman"] == pytest.approx(spearmanr(own["id_accuracy"], own["ood_accuracy"]).statistic)
        assert row["pearson"] == pytest.approx(pearsonr(own["id_accuracy"], own["ood_accuracy"]).statistic)
        assert row["probit"] == pytest.approx(pearsonr(own["id_probit"], own["ood_probit"]).statistic)


def test_the_interval_holds_what_a_thousand_models_show(simulated: ModuleType) -> None:
    world = simulated.World(noise=0.3)
    many = simulated.simulate(simulated.World(backbones=6, methods=200, seeds=1, noise=0.3), seed=1)
    truth = correlations(many, draws=10).tables["tasks"].iloc[0]
    found = correlations(simulated.simulate(world), draws=500).tables["tasks"].iloc[0]
    for name in ("spearman", "pearson", "probit"):
        assert found[f"{name}_low"] < truth[name] < found[f"{name}_high"]
        assert found[f"{name}_high"] - found[f"{name}_low"] < 0.5


def test_a_task_is_the_mean_of_its_pairs_and_all_that_of_the_tasks(simulated: ModuleType) -> None:
    shapes = {("t", "a", "b"): simulated.RISING, ("t", "b", "a"): simulated.NONE, ("u", "x", "y"): simulated.RISING}
    tables = correlations(simulated.simulate(simulated.World(shape_of=shapes)), draws=20).tables
    pairs, tasks = tables["pairs"], tables["tasks"].set_index("task")["spearman"]
    by_task = pairs.groupby("task")["spearman"].mean()
    assert tasks["t"] == pytest.approx(by_task["t"])
    assert tasks["(all)"] == pytest.approx(by_task.mean())


def test_only_the_falling_pair_is_negative(simulated: ModuleType) -> None:
    world = simulated.World(shape_of=_six(simulated, b_c=simulated.FALLING, a_b=simulated.NONE))
    answer = negative_pairs(simulated.simulate(world))
    pairs = answer.tables["pairs"]
    assert pairs.loc[pairs["negative"], ["source", "target"]].to_numpy().tolist() == [["b", "c"]]
    assert answer.sentence.startswith("On 1 of 6 pairs")


def test_no_trend_is_rarely_taken_for_a_negative_one(simulated: ModuleType) -> None:
    shapes = {pair: simulated.NONE for pair in simulated.World().shape_of}
    world = simulated.World(backbones=3, methods=4, seeds=1, shape_of=shapes)
    alarms = [
        negative_pairs(simulated.simulate(world, seed=seed)).tables["pairs"]["negative"].any() for seed in range(8)
    ]
    assert sum(alarms) <= 2


def test_the_least_p_of_five_models_is_too_large_for_twelve_pairs(simulated: ModuleType) -> None:
    shapes = {("t", source, target): simulated.FALLING for source in "abcd" for target in "abcd" if source != target}
    answer = negative_pairs(simulated.simulate(simulated.World(backbones=5, methods=1, shape_of=shapes)))
    assert "even opposite orders" in answer.too_small
    assert not answer.tables


def test_holm_s_procedure_agrees_with_its_definition() -> None:
    p = np.random.default_rng(0).uniform(size=20) ** 3
    slow = np.array([max(min(1, (20 - sorted(p).index(q)) * q) for q in p if q <= own) for own in p])
    assert holm(p) == pytest.approx(slow)


def test_a_small_permutation_test_counts_every_order(simulated: ModuleType) -> None:
    """Six models in opposite order: one of 720."""
    shapes = {("t", "a", "b"): simulated.FALLING}
    world = simulated.World(backbones=6, methods=1, seeds=1, shape_of=shapes, noise=0.0, seed_sd=0.0, backbone_step=1.0)
    pairs = negative_pairs(simulated.simulate(world)).tables["pairs"]
    assert pairs["p"].iloc[0] == pytest.approx(1 / 720)
    assert pairs["spearman"].iloc[0] == pytest.approx(-1)
