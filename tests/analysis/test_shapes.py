"""A3: the shape of a pair's scatter."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from tlbench.analysis.shapes import Criteria, shapes


def _world(simulated: ModuleType, **changes: object) -> object:
    kinds = [simulated.RISING, simulated.VERTICAL, simulated.LOW, simulated.NONE, simulated.FALLING]
    pairs = {("t", "abcde"[k], "z"): kind for k, kind in enumerate(kinds)}
    return simulated.World(shape_of=pairs, **changes)


def test_every_shape_is_recognised(simulated: ModuleType) -> None:
    world = _world(simulated)
    answer = shapes(simulated.simulate(world), draws=100)
    pairs = answer.tables["pairs"].set_index("source")
    for (_, source, _), truth in world.shape_of.items():
        assert pairs.loc[source, "shape"] == truth
        assert pairs.loc[source, "certainty"] > 0.5
    assert answer.tables["shapes"]["pairs"].sum() == 5


def test_the_criteria_decide(simulated: ModuleType) -> None:
    runs = simulated.simulate(_world(simulated))
    nothing = Criteria(margin=-1.0, narrow=0.0, trend=1.1)
    assert set(shapes(runs, criteria=nothing, draws=10).tables["pairs"]["shape"]) == {"no trend"}
    everything = Criteria(margin=2.0)
    assert set(shapes(runs, criteria=everything, draws=10).tables["pairs"]["shape"]) == {"low horizontal line"}


def test_a_range_leaves_out_a_twentieth_on_either_side(simulated: ModuleType) -> None:
    runs = simulated.simulate(_world(simulated))
    row = shapes(runs, draws=10).tables["pairs"].iloc[0]
    values = runs.loc[runs["source"] == row["source"], "id_accuracy"]
    low, high = np.quantile(values, [0.05, 0.95], method="inverted_cdf")
    assert row["id_range"] == pytest.approx(high - low)


def test_without_knowing_chance_there_is_no_shape(simulated: ModuleType) -> None:
    runs = simulated.simulate(_world(simulated)).assign(chance=np.nan)
    assert "chance" in shapes(runs, draws=10).too_small
