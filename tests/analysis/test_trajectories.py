"""A16: learning rate, epochs, and what happens within one configuration."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from tlbench.analysis.correlations import correlations
from tlbench.analysis.trajectories import trajectories


def test_a_trade_off_within_models_is_found_although_models_hide_it(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(epochs=(10, 100), epochs_opposite=True, seed_sd=0.01, backbone_step=0.4))
    assert correlations(runs, draws=50).tables["tasks"]["spearman_low"].iloc[0] > 0.5
    answer = trajectories(runs, draws=300)
    row = answer.tables["within"].iloc[0]
    assert row["epochs_high"] < -0.7
    assert row["seeds_low"] > 0.5
    assert row["opposite"] == pytest.approx(1.0)
    effects = answer.tables["effects"].set_index("outcome")
    assert effects.loc["id_accuracy", "difference_low"] > 0
    assert effects.loc["ood_accuracy", "difference_high"] < 0


def test_training_that_helps_both_is_no_trade_off(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(epochs=(10, 100), seed_sd=0.01))
    row = trajectories(runs, draws=300).tables["within"].iloc[0]
    assert row["epochs_low"] > 0.7
    assert row["opposite"] == pytest.approx(0.0)


def test_an_effect_is_the_difference_of_matched_means(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(epochs=(10, 100)))
    effects = trajectories(runs, draws=5).tables["effects"].set_index("outcome")
    means = runs.groupby("epochs")["ood_accuracy"].mean()
    assert effects.loc["ood_accuracy", "difference"] == pytest.approx(means[100] - means[10])
    assert (effects["setting"] == "epochs").all()


def test_one_schedule_says_what_is_missing_and_tells_of_seeds(simulated: ModuleType) -> None:
    answer = trajectories(simulated.simulate(), draws=50)
    assert set(answer.tables) == {"within", "pairs"}
    assert "no runs differ in learning rate alone" in answer.sentence
    assert "no configuration was run with several epochs" in answer.sentence


def test_what_searches_tried_is_told_on_id_val() -> None:
    rng = np.random.default_rng(0)
    rows = [
        {"cluster": f"c{c}", "model": f"m{c}", "task": "t", "source": source, "shots": "full", "seed": seed,
         "lr": lr, "epochs": epochs, "rest": "{}", "selected": False,
         "val_accuracy": 0.7 + 0.05 * (lr > 1e-4) + 0.1 * (epochs > 10) + 0.01 * rng.normal()}
        for c in range(8) for source in "ab" for seed in range(2) for lr in (5e-5, 5e-4) for epochs in (10.0, 100.0)
    ]  # fmt: skip
    runs = pd.DataFrame(
        columns=["fit_id", "task", "source", "target", "seed", "cluster", "factors", "searched", "lr", "epochs",
                 "id_accuracy", "ood_accuracy", "shots"]
    ).astype({"searched": bool, "lr": float, "epochs": float, "id_accuracy": float, "ood_accuracy": float})  # fmt: skip
    answer = trajectories(runs, pd.DataFrame(rows), draws=300)
    effects = answer.tables["selection"].set_index("setting")
    assert effects.loc["lr", "difference_low"] < 0.05 < effects.loc["lr", "difference_high"]
    assert effects.loc["epochs", "difference_low"] < 0.1 < effects.loc["epochs", "difference_high"]


def test_what_was_tried_is_compared_at_equal_other_settings() -> None:
    """The rate moves accuracy by 0.05; augmentation, tried at the larger rate alone, by 0.2."""
    rows = [
        {"cluster": f"c{c}", "model": f"m{c}", "task": "t", "source": "a", "shots": "full", "seed": 0, "lr": lr,
         "epochs": 10.0, "rest": rest, "selected": False, "val_accuracy": accuracy}
        for c in range(8) for lr, rest, accuracy in ((5e-5, "a", 0.5), (5e-4, "a", 0.55), (5e-4, "b", 0.75))
    ]  # fmt: skip
    runs = pd.DataFrame(
        columns=["fit_id", "task", "source", "target", "seed", "cluster", "factors", "searched", "lr", "epochs",
                 "id_accuracy", "ood_accuracy", "shots"]
    ).astype({"searched": bool, "lr": float, "epochs": float, "id_accuracy": float, "ood_accuracy": float})  # fmt: skip
    effects = trajectories(runs, pd.DataFrame(rows), draws=50).tables["selection"].set_index("setting")
    assert effects.loc["lr", "difference"] == pytest.approx(0.05)


def test_four_models_are_too_few(simulated: ModuleType) -> None:
    answer = trajectories(simulated.simulate(simulated.World(backbones=2, methods=2, epochs=(10, 100))), draws=5)
    assert "4 (method, backbone) clusters" in answer.too_small
    assert not answer.tables
