"""How fast this machine is: the fastest of several calls, of as many images as are used, kept with its day."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tlbench.conditions.catalogue import condition_names
from tlbench.engine import probe
from tlbench.engine.plan import PlannedMeasurement, PlannedSet
from tlbench.engine.probe import Speeds, recalled_speeds, remember_speeds
from tlbench.engine.workload import measuring_work
from tlbench.models.zoo import load_backbone
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Attack

IMAGES = torch.zeros(32, 3, 4, 4, dtype=torch.uint8)


def test_a_moment_in_which_the_machine_is_busy_is_not_its_speed() -> None:
    calls: list[int] = []

    def call(images: Tensor) -> None:
        calls.append(len(images))
        # Someone else has the cores for the first calls of every size.
        time.sleep(0.2 if calls.count(len(images)) == 1 else 0.001 * len(images))

    assert probe._network_seconds(call, IMAGES, 128, "cpu") == pytest.approx(0.001, rel=0.5)


def test_small_networks_are_measured_on_batches_as_they_are_used() -> None:
    def call(images: Tensor) -> None:
        # Most of a call of few images is not spent on images.
        time.sleep(0.02 + 0.0002 * len(images))

    each = probe._network_seconds(call, IMAGES, 128, "cpu")
    assert each == pytest.approx(0.02 / 64 + 0.0002, rel=0.5)


def test_large_networks_are_given_few_images() -> None:
    sizes: list[int] = []

    def call(images: Tensor) -> None:
        sizes.append(len(images))
        time.sleep(0.05 * len(images))

    probe._network_seconds(call, IMAGES, 128, "cpu")
    assert max(sizes) <= 10
    assert sum(sizes) <= 60  # of 0.05 seconds each


def test_the_fastest_is_remembered_with_its_day(empty_cache: Path) -> None:
    protocol = load_suite("digits").protocol
    known = ("small-cnn", protocol.recipe, protocol, "cpu")
    remember_speeds(Speeds("cpu", {"forward": 1.0, "fog": 1.0}), *known)
    found = remember_speeds(Speeds("cpu", {"forward": 2.0, "fog": 0.5, "snow": 3.0}), *known)
    assert found.seconds == {"forward": 1.0, "fog": 0.5, "snow": 3.0}
    assert recalled_speeds(*known) == found
    assert set(found.found) == set(found.seconds)
    assert all(len(day) == 10 for day in found.found.values())


def attack(name: str) -> Attack:
    norm = "l2" if name in ("foolbox-l2-pgd", "foolbox-boundary", "foolbox-hopskipjump") else "linf"
    return Attack(kind="attack", name=name, norm=norm, epsilons=(0.1,), steps=3)


@pytest.mark.parametrize("name", condition_names()["attack"])
def test_an_attacks_own_work_is_asked_for_as_often_as_it_asks(name: str) -> None:
    images = probe._images(8, 16)
    found = probe._attack_seconds(attack(name), images, 16)
    # Less than a second a question, and more than nothing: some questions were asked.
    assert 0 < found["question"] < 1
    # One by one, or all images at once.
    assert found["calls"] > 0.9 if name == "foolbox-boundary" else found["calls"] < 0.5


def test_a_probe_knows_all_that_a_plan_of_an_attack_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "_TIMED_SECONDS", 0.05)
    protocol = load_suite("digits").protocol.model_copy(update={"image_size": 16})
    condition = attack("foolbox-boundary")
    speeds = probe.Prober(protocol, "cpu").speeds(
        load_backbone("small-cnn"), protocol.recipe, [condition], trains=False, frozen=False
    )
    work = measuring_work([PlannedMeasurement(PlannedSet("id-test", "x"), condition, "", 10)], 1.0, 10)
    assert not speeds.lacks(work)
    questions = work["attack/foolbox-boundary"]
    assert questions == 10 * condition.queries
    # What the network takes for single images is told with the attack's own work.
    alone = probe._attack_seconds(condition, probe._images(2, 16), 16)["question"]
    assert speeds.seconds["foolbox-boundary"] > alone / 3
    assert 3600 * speeds.hours_of(work)["attack"] > speeds.seconds["foolbox-boundary"] * questions
