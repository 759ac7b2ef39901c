"""The rule keeps its 5 %, finds what it should, and intervals hold the truth: small runs of the page's simulation."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "board_simulation.py"


@pytest.fixture(scope="module")
def simulation() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tlbench_board_simulation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("tasks", [6, 10])
@pytest.mark.parametrize("differ", ["no", "in spread"])
def test_rows_that_are_alike_are_seldom_told_apart(simulation: ModuleType, tasks: int, differ: str) -> None:
    found = simulation.false_differences(simulation.World(tasks=tasks, rows_differ=differ), 800)
    assert found.share <= 0.05 + 2.5 * found.error


def test_rows_that_are_alike_stay_so_beside_others_that_differ(simulation: ModuleType) -> None:
    found = simulation.false_differences(simulation.World(better=(4.0, 3.0, -9.0, -9.0)), 800)  # two are like controls
    assert found.share <= 0.05 + 2.5 * found.error


def test_a_difference_of_two_spreads_is_found_in_ten_tasks_and_half_of_one_is_not(simulation: ModuleType) -> None:
    assert simulation.detected(simulation.World(better=(2.0,)), 200).share > 0.8
    assert simulation.detected(simulation.World(better=(0.5,)), 200).share < 0.3
    assert simulation.detected(simulation.World(rows=2, better=(1.2,)), 200).share > 0.8


def test_the_generalisation_interval_holds_the_truth(simulation: ModuleType) -> None:
    plain = simulation.covered_by_tasks(simulation.World(skewed=False, unequal=False), 800)
    assert abs(plain.share - 0.95) < 0.05
    # Tasks as skewed as these: ten of them seldom show their own tail, and Student's t does not know.
    assert simulation.covered_by_tasks(simulation.World(), 800).share > 0.8


def test_the_measurement_interval_holds_the_truth_and_tells_nothing_apart_that_is_alike(
    simulation: ModuleType,
) -> None:
    for world in (simulation.Images(), simulation.Images(clusters=8, seed_spread=0.05)):
        held, apart = simulation.covered_by_images(world, 150, draws=600)
        assert held.share >= 0.95 - 3 * held.error
        assert apart.share <= 0.05 + 2.5 * apart.error


def test_the_page_s_table_is_of_this_version(simulation: ModuleType) -> None:
    text = (SCRIPT.parents[1] / "docs" / "board.md").read_text(encoding="utf-8")
    assert f"<!-- version {simulation.version()} -->" in text, "run python scripts/board_simulation.py"
