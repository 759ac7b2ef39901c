"""Batches made ahead: every image once and in order, errors told, nobody left waiting."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from tlbench.conditions.base import Drawn, ImageCondition
from tlbench.conditions.clean import Clean
from tlbench.data.domain import Batch, Split
from tlbench.engine.feed import AHEAD, Crossing, ahead, fed, observe, observed_ahead
from tlbench.engine.measured import MeasuredPredictor
from tlbench.methods.base import Predictor
from tlbench.models.zoo import load_backbone
from tlbench.records.manifest import Manifest
from tlbench.setting import Setting

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def split() -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (25, 16, 16, 3), dtype=np.uint8)
    names = tuple(f"{number:02d}" for number in range(25))
    return Split(Manifest("t", "d", "test", ("a", "b", "c"), names, np.arange(25) % 3, "pixels", 16), pixels)


@pytest.fixture(scope="module")
def predictor() -> MeasuredPredictor:
    net = load_backbone("small-cnn").fresh(3)
    example = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    return MeasuredPredictor(Predictor(net), classes=3, device="cpu", chunk=8, example=example)


def threads() -> int:
    return sum(thread.name == "tlbench-feed" for thread in threading.enumerate())


def test_every_image_comes_once_and_in_order(split: Split) -> None:
    places = torch.cat([batch.ids for batch in fed(split.batches(4), Crossing(CPU))])
    assert places.tolist() == list(range(25))
    assert threads() == 0


def test_no_more_is_made_ahead_than_may_wait() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    for taken, number in enumerate(ahead(items())):
        assert number == taken
        # What waits, the one that the thread holds in its hands, and the one that was taken.
        assert len(made) <= taken + AHEAD + 2


def test_an_error_of_the_thread_reaches_the_caller_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise LookupError("the third cannot be read")

    made = ahead(items())
    assert [next(made), next(made)] == [1, 2]
    with pytest.raises(LookupError, match="the third"):
        next(made)
    assert threads() == 0


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_whoever_stops_early_leaves_no_thread_behind(taken: int) -> None:
    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    made = ahead(endless())
    assert [next(made) for _ in range(taken)] == list(range(taken))
    made.close()
    assert threads() == 0


class Shifted(ImageCondition):
    """Adds to every image a number that its name and the setting give; counts where that was worked out."""

    def __init__(self) -> None:
        self.drawn_in: set[str] = set()

    @property
    def name(self) -> str:
        return "shifted"

    @property
    def settings(self) -> tuple[Setting, ...]:
        return Setting("shifted", severity=1.0), Setting("shifted", severity=5.0)

    def apply(self, batch: Batch, setting: Setting) -> Tensor:
        return self.applied(batch.images, self.drawn(batch, setting, batch.images.device), setting)

    def drawn(self, batch: Batch, setting: Setting, device: torch.device) -> Drawn:
        self.drawn_in.add(threading.current_thread().name)
        added = torch.tensor([int(name) for name in batch.names], dtype=torch.uint8)
        return Drawn(batch, (added * int(setting.severity or 0),))

    def applied(self, images: Tensor, drawn: Drawn, setting: Setting) -> Tensor:
        return images + drawn.tensors[0].view(-1, 1, 1, 1)


def test_what_is_observed_ahead_is_what_is_observed(split: Split, predictor: MeasuredPredictor) -> None:
    plain = list(observe(Shifted(), predictor, lambda: split.batches(8), CPU))
    condition = Shifted()
    hurried = list(observed_ahead(condition, predictor, lambda: split.batches(8), Crossing(CPU)))
    assert condition.drawn_in == {"tlbench-feed"}
    assert len(plain) == len(hurried) == 8
    for one, other in zip(plain, hurried, strict=True):
        assert one.setting == other.setting
        assert torch.equal(one.ids, other.ids)
        assert one.outputs is not None
        assert other.outputs is not None
        assert torch.equal(one.outputs, other.outputs)


def test_a_predictor_that_depends_on_its_batch_sees_one_setting_at_a_time(split: Split) -> None:
    net = load_backbone("small-cnn").fresh(3)
    started: list[int] = []
    claims = {"adapts": True, "reset": lambda: started.append(1)}
    example = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    adapting = MeasuredPredictor(Predictor(net, **claims), classes=3, device="cpu", chunk=8, example=example)
    rows = list(observed_ahead(Shifted(), adapting, lambda: split.batches(25), Crossing(CPU)))
    assert [row.setting.severity for row in rows] == [1.0, 5.0]
    assert len(started) == 2


def test_an_error_of_the_predictor_ends_the_thread(split: Split, predictor: MeasuredPredictor) -> None:
    rows = observed_ahead(Clean(), predictor, lambda: split.batches(2), Crossing(CPU))
    next(rows)
    assert threads() == 1
    rows.close()
    assert threads() == 0


def test_on_a_cpu_there_is_no_thread(split: Split, predictor: MeasuredPredictor) -> None:
    rows = observe(Clean(), predictor, lambda: split.batches(2), CPU)
    next(rows)
    assert threads() == 0
