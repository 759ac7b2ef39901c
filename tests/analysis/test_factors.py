"""A11: how many things are measured, and what loads on which."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from tlbench.analysis.factors import factors

COLUMNS = [f"{side}_{name}" for side in ("id", "ood") for name in ("accuracy", "nll", "brier", "ece")]


def _measured(loadings: np.ndarray, *, clusters: int = 60, each: int = 3, seed: int = 0) -> pd.DataFrame:
    """Return runs whose measures follow a factor model with these loadings, shape (measures, factors)."""
    rng = np.random.default_rng(seed)
    scores = np.repeat(rng.normal(size=(clusters, loadings.shape[1])), each, axis=0)
    unique = np.sqrt(1 - (loadings**2).sum(axis=1))
    values = scores @ loadings.T + unique * rng.normal(size=(clusters * each, len(loadings)))
    # Of NLL, Brier score and calibration error less is better.
    signs = [1 if name.endswith("accuracy") else -1 for name in COLUMNS]
    frame = pd.DataFrame(values * signs, columns=COLUMNS)
    return frame.assign(
        task="t", source="a", target="b", cluster=np.repeat([f"c{k:02}" for k in range(clusters)], each)
    )


def test_two_factors_and_their_loadings_are_recovered() -> None:
    truth = np.zeros((8, 2))
    truth[[0, 1, 2, 4, 5, 6], 0] = 0.85
    truth[[3, 7], 1] = 0.85
    tables = factors(_measured(truth), draws=30, nulls=50).tables
    assert len(tables["factors"]) == 2
    loadings = tables["loadings"].pivot(index="variable", columns="factor", values="loading").loc[COLUMNS]
    assert loadings.to_numpy() == pytest.approx(truth, abs=0.15)
    assert tables["factors"]["explained"].to_numpy() == pytest.approx([6 * 0.85**2 / 8, 2 * 0.85**2 / 8], abs=0.08)


def test_intervals_hold_the_true_loadings() -> None:
    truth = np.full((8, 1), 0.7)
    loadings = factors(_measured(truth, seed=1), draws=60, nulls=50).tables["loadings"]
    assert len(loadings) == 8
    held = (loadings["loading_low"] < 0.7) & (loadings["loading_high"] > 0.7)
    assert held.sum() >= 7


def test_measures_that_have_nothing_in_common_have_no_factor() -> None:
    answer = factors(_measured(np.zeros((8, 1))), draws=10, nulls=100)
    assert len(answer.tables["factors"]) == 0
    assert "no factor in common" in answer.sentence


def test_runs_of_one_model_are_no_reason_for_a_factor() -> None:
    """Seeds that agree almost exactly make every chance alignment of few models look firm; the null has them, too."""
    rng = np.random.default_rng(3)
    frame = _measured(np.zeros((8, 1)), clusters=10, each=1)
    frame[COLUMNS] = rng.normal(size=(10, 8))
    many = pd.concat([frame] * 20, ignore_index=True)
    assert len(factors(many, draws=5, nulls=100).tables["factors"]) <= 1


def test_accuracies_that_share_a_factor_are_said_to(simulated: ModuleType) -> None:
    answer = factors(simulated.simulate(), draws=20, nulls=50)
    loadings = answer.tables["loadings"]
    home = loadings.loc[loadings.groupby("variable")["loading"].apply(lambda own: own.abs().idxmax())]
    home = home.set_index("variable")["factor"]
    assert home["id_accuracy"] == home["ood_accuracy"] == home["id_nll"]
    assert home["id_mean_robust_accuracy"] == home["ood_mean_robust_accuracy"] != home["id_accuracy"]
    assert "ID and OOD accuracy both load on factor 1" in answer.sentence


def test_more_variables_than_models_are_too_many(simulated: ModuleType) -> None:
    answer = factors(simulated.simulate(simulated.World(backbones=3, methods=2)), draws=5, nulls=5)
    assert "6 (method, backbone) clusters for 9 variables" in answer.too_small


def test_several_tasks_are_pooled_and_told_one_by_one(simulated: ModuleType) -> None:
    shapes = {("t", "a", "b"): simulated.RISING, ("u", "x", "y"): simulated.RISING}
    tables = factors(simulated.simulate(simulated.World(shape_of=shapes)), draws=3, nulls=20).tables
    assert list(dict.fromkeys(tables["loadings"]["scope"])) == ["(all)", "t", "u"]
