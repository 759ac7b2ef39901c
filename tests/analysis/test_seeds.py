"""A17: the seeds' share of variance, and orderings that survive them."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway

from tlbench.analysis.clustered import Draws, over_pairs
from tlbench.analysis.seeds import seed_share, seeds


def _table(within: float, between: float, *, configs: int = 40, each: int = 3, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    mean = np.repeat(rng.normal(0, between, configs), each)
    return pd.DataFrame(
        {
            "task": "t", "source": "a", "target": "b",
            "config": np.repeat([f"c{k:03}" for k in range(configs)], each),
            "cluster": np.repeat([f"c{k:03}" for k in range(configs)], each),
            "value": mean + rng.normal(0, within, configs * each),
        }
    )  # fmt: skip


def test_components_are_those_of_the_analysis_of_variance() -> None:
    table = _table(0.5, 1.0)
    share = over_pairs(table, seed_share("value"), Draws.of(table, 1), needs=["config", "value"]).samples[0, 0]
    groups = [own["value"].to_numpy() for _, own in table.groupby("config")]
    # F = (within + 3 between) / within, so between / within = (F - 1) / 3.
    ratio = (f_oneway(*groups).statistic - 1) / 3
    assert share == pytest.approx(1 / (1 + ratio))


def test_the_interval_of_the_share_holds_the_truth() -> None:
    table = _table(0.5, 1.0, configs=60, seed=1)
    found = over_pairs(table, seed_share("value"), Draws.of(table, 500), needs=["config", "value"]).overall
    assert found.low < 0.2 < found.high


def test_configurations_that_are_alike_differ_by_seeds_alone() -> None:
    table = _table(0.5, 0.0)
    assert over_pairs(table, seed_share("value"), Draws.of(table, 1), needs=["config", "value"]).samples[0, 0] > 0.8


def test_small_seed_noise_leaves_orderings_and_large_noise_does_not(simulated: ModuleType) -> None:
    shapes = {("t", "a", "b"): simulated.RISING, ("t", "a", "c"): simulated.RISING}
    quiet, loud = (
        seeds(simulated.simulate(simulated.World(methods=1, seed_sd=sd, backbone_step=0.4, shape_of=shapes)), draws=50)
        for sd in (0.01, 1.0)
    )
    board = [one.tables["orderings"].set_index("question").loc["the board"] for one in (quiet, loud)]
    assert board[0]["kendall"] > 0.9
    assert board[0]["same_first"]
    assert board[1]["kendall"] < 0.6
    shares = [one.tables["variance"].set_index("measure")["seed_share"] for one in (quiet, loud)]
    assert shares[0]["ood_accuracy"] < 0.02
    assert shares[1]["ood_accuracy"] > 0.5


def test_a_deterministic_run_stands_for_every_seed(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(shape_of={("t", "a", "b"): simulated.RISING}))
    fixed = runs["core"].eq("method0")
    runs = runs[~fixed | (runs["seed"] == 0)].assign(deterministic=fixed)
    orderings = seeds(runs, draws=20).tables["orderings"].set_index("question")
    assert orderings.loc["the board", "items"] == 24


def test_two_seeds_are_too_few(simulated: ModuleType) -> None:
    answer = seeds(simulated.simulate(simulated.World(seeds=2)), draws=5)
    assert answer.too_small == "2 seeds, at least 3 are needed"
