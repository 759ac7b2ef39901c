"""How fast this machine is: the fastest of several calls, of as many images as are used, kept with its day."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tlbench.engine import probe
from tlbench.engine.probe import Speeds, recalled_speeds, remember_speeds
from tlbench.suites.load import load_suite

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

    started = time.perf_counter()
    probe._network_seconds(call, IMAGES, 128, "cpu")
    assert max(sizes) <= 10
    assert time.perf_counter() - started < 3


def test_the_fastest_is_remembered_with_its_day(empty_cache: Path) -> None:
    protocol = load_suite("digits").protocol
    known = ("small-cnn", protocol.recipe, protocol, "cpu")
    remember_speeds(Speeds("cpu", {"forward": 1.0, "fog": 1.0}), *known)
    found = remember_speeds(Speeds("cpu", {"forward": 2.0, "fog": 0.5, "snow": 3.0}), *known)
    assert found.seconds == {"forward": 1.0, "fog": 0.5, "snow": 3.0}
    assert recalled_speeds(*known) == found
    assert set(found.found) == set(found.seconds)
    assert all(len(day) == 10 for day in found.found.values())
