"""What fits into a budget, and whether the words that a plan prints run just that."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tlbench import api
from tlbench.engine.budget import read_budget, saving, within
from tlbench.engine.forecast import forecast_row, open_place, open_plan
from tlbench.engine.probe import Speeds, operation_of
from tlbench.engine.summary import summarise
from tlbench.engine.workload import FitWork

# Ten epochs of a thousand images are an hour; nothing else takes time.
SLOW = Speeds("slow", {"step": 0.36})
PACS_HOURS = 1.644 + 1.880 + 1.339 + 3.145


def fits_of(run_dir: Path, *tasks: str) -> list[tuple[FitWork, Speeds]]:
    selection = {"only": {"task": tasks}}
    place = open_place("ood172", selection, data_root=None, run_dir=run_dir)
    return [(fit, SLOW) for fit in open_plan(place, selection, "finetune").fits]


def test_times_are_read_with_their_unit() -> None:
    assert [read_budget(text) for text in ("24h", "90m", "2d", " 1.5H ")] == [24, 1.5, 48, 1.5]


def test_fits_are_taken_in_the_plans_order(tmp_path: Path) -> None:
    found = within(4.0, fits_of(tmp_path, "PACS"), "slow")
    assert (found.fits, found.of, found.last, found.seeds) == (2, 12, "PACS/cartoon, seed 0", ())
    assert (found.tasks, found.words) == ((), "")  # not even one task


def test_whole_seeds_are_named_first(tmp_path: Path) -> None:
    found = within(17.0, fits_of(tmp_path, "PACS"), "slow")
    assert (found.fits, found.seeds, found.words) == (8, (0, 1), "--seeds 0,1")
    assert found.hours == pytest.approx(2 * PACS_HOURS)


def test_where_no_seed_fits_the_tasks_of_one_are_named_that_do(tmp_path: Path) -> None:
    found = within(9.0, fits_of(tmp_path, "PACS", "OfficeHome"), "slow")
    assert (found.fits, found.tasks) == (2, ("PACS",))
    assert found.hours == pytest.approx(PACS_HOURS)
    seeds, only = found.words.removeprefix("--seeds ").split(" --only ")
    plan = api.plan("ood172", "finetune", seeds=[int(seeds)], only=[only], run_dir=tmp_path, probe=False)
    assert (plan.fits, [task.task for task in plan.tasks]) == (4, ["PACS"])


def test_all_of_it_needs_no_words(tmp_path: Path) -> None:
    found = within(25.0, fits_of(tmp_path, "PACS"), "slow")
    assert (found.fits, found.of, found.words, found.parts) == (12, 12, "", 1)


def test_shards_are_the_fewest_that_each_fit(tmp_path: Path) -> None:
    # Thirds of the list hold every source once; halves hold two sources three times over.
    found = within(9.0, fits_of(tmp_path, "PACS"), "slow")
    assert (found.parts, found.longest_hours) == (3, pytest.approx(PACS_HOURS))


def test_no_number_of_shards_helps_where_one_fit_takes_too_long(tmp_path: Path) -> None:
    found = within(2.0, fits_of(tmp_path, "PACS"), "slow")
    assert (found.parts, found.longest_hours) == (None, pytest.approx(3.145))


def test_an_assumed_device_needs_cores_that_keep_up(tmp_path: Path) -> None:
    part: dict[str, Any] = {"only": ["task=PACS"], "seeds": [0], "run_dir": tmp_path, "budget": "24h"}
    (unknown,) = api.plan("ood172", "finetune", probe=False, **part).budgets
    assert (unknown.assumed, unknown.cpu_cores) == (True, None)
    place = open_place("ood172", {"only": {"task": ("PACS",)}, "seeds": (0,)}, data_root=None, run_dir=tmp_path)
    row = forecast_row(open_plan(place, {"only": {"task": ("PACS",)}, "seeds": (0,)}, "finetune"), None)
    slow = {name: 0.0 for fit in row.fits for name in map(operation_of, fit.left)} | {"fog": 36.0, "decode": 3.6}
    here, there = summarise([replace(row, speeds=Speeds("here", slow))], 224, 24.0).hours
    fog, decoded = 997 * 5, 9_991
    assert there.cpu_hours == pytest.approx((fog * 36 + decoded * 3.6) / 3600)
    # Pictures are decoded by all cores together, a corruption by one.
    cores = os.cpu_count() or 1
    assert there.cpu_cores == pytest.approx((fog * 36 + decoded * 3.6 * cores) / 3600 / there.total)
    budgets = summarise([replace(row, speeds=Speeds("here", slow))], 224, 24.0).budgets
    assert [(one.assumed, one.cpu_cores) for one in budgets] == [(False, None), (True, there.cpu_cores)]
    assert here.cpu_cores is None


def test_the_costliest_kind_of_condition_can_be_left_out() -> None:
    hours = {"train": 5.0, "clean": 1.0, "corruption": 2.0, "attack": 12.0}
    found = saving(hours, "here")
    assert found is not None
    assert (found.kind, found.share, found.hours) == ("attack", 0.6, 8.0)
    assert found.words == "--metrics accuracy,corruption_accuracy"


def test_what_takes_little_time_is_not_worth_a_word() -> None:
    assert saving({"train": 9.0, "attack": 1.0}, "here") is None
    assert saving({}, "here") is None


def test_the_words_leave_out_that_kind_and_no_other(tmp_path: Path) -> None:
    found = api.plan("ood172", "finetune", only=["task=PACS"], run_dir=tmp_path, probe=False).savings[0]
    metrics = found.words.removeprefix("--metrics ").split(",")
    without = api.plan("ood172", "finetune", only=["task=PACS"], metrics=metrics, run_dir=tmp_path, probe=False)
    assert set(without.hours[0].by_kind) == {"train", "clean", "corruption", "transform"}
    assert without.hours[0].total == pytest.approx(found.hours)
