"""A8 and A9: which measures keep their order under a shift."""

from __future__ import annotations

from types import ModuleType

import pytest
from scipy.stats import spearmanr

from tlbench.analysis.transfer import calibration, transfer


def test_what_is_the_same_on_both_sides_is_first_and_noise_is_last(simulated: ModuleType) -> None:
    table = transfer(simulated.simulate(simulated.World(noise=0.3)), draws=300).tables["measures"]
    assert table["measure"].iloc[0] == "mean_robust_accuracy"
    assert table["measure"].iloc[-1] == "ece"
    assert table["best_share"].iloc[0] > 0.9
    assert table["worst_share"].iloc[-1] > 0.9
    own = table.set_index("measure").loc["ece"]
    assert own["spearman_low"] < 0 < own["spearman_high"]


def test_a_pair_s_transfer_is_scipy_s(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(shape_of={("t", "a", "b"): simulated.RISING}))
    by = transfer(runs, draws=10).tables["measures"].set_index("measure")["spearman"]
    assert by["nll"] == pytest.approx(spearmanr(runs["id_nll"], runs["ood_nll"]).statistic)


def test_calibration_goes_with_accuracy_and_does_not_carry_over(simulated: ModuleType) -> None:
    row = calibration(simulated.simulate(), draws=300).tables["tasks"].iloc[0]
    assert row["with_accuracy_low"] > 0.2
    assert row["with_ood_low"] < 0 < row["with_ood_high"]
    assert row["difference_low"] > 0
    assert row["difference"] == pytest.approx(row["with_accuracy"] - row["with_ood"])


def test_one_measure_alone_is_no_comparison(simulated: ModuleType) -> None:
    runs = simulated.simulate()[["task", "source", "target", "cluster", "id_accuracy", "ood_accuracy"]]
    assert transfer(runs, draws=10).too_small
    assert calibration(runs, draws=10).too_small
