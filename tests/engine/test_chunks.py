"""How many images go into a pass: what fits a CPU's caches, what keeps a GPU busy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tlbench.engine.chunks import MOST_ON_CPU, best_chunk, cpu_chunk, remembered_chunk
from tlbench.engine.measured import MeasuredPredictor
from tlbench.methods.base import Predictor
from tlbench.models.prepare import prepare
from tlbench.models.zoo import load_backbone


def images(n: int, side: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 3, side, side), dtype=np.uint8))


@given(st.integers(0, 2**31), st.integers(1, 1000))
def test_on_a_cpu_no_more_than_asked_for_and_no_tensor_too_large(largest: int, most: int) -> None:
    chunk = cpu_chunk(largest, most)
    assert 1 <= chunk <= min(most, MOST_ON_CPU)
    assert chunk <= 4 or chunk * largest <= 28 * 2**20
    assert chunk >= cpu_chunk(largest + 1, most)


@pytest.mark.parametrize(("side", "expected"), [(64, 64), (128, 16), (224, 4)])
def test_a_larger_image_makes_a_smaller_chunk(side: int, expected: int) -> None:
    net = load_backbone("efficientnet-lite0").fresh(3)
    predictor = MeasuredPredictor(Predictor(net), classes=3, device="cpu", chunk=128, example=images(1, side))
    assert predictor.chunk_of("forward") == predictor.chunk_of("gradient") == expected
    assert predictor.note.endswith(f"; {expected} images a pass")


def test_the_largest_tensor_is_of_one_image_whatever_the_example() -> None:
    net = load_backbone("small-cnn").fresh(3)
    one, many = (prepare(net, images(n, 32).float() / 255).largest_bytes for n in (1, 7))
    assert one == many >= 3 * 32 * 32 * 4


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1))
def test_on_a_gpu_doubling_stops_where_it_no_longer_pays(most: int, saturated: int, overhead: float) -> None:
    asked: list[int] = []

    def seconds_of(n: int) -> float:
        asked.append(n)
        return overhead + max(n, saturated)

    chunk = best_chunk(seconds_of, most)
    assert chunk <= most
    assert max(asked) <= most
    assert len(asked) == len(set(asked))
    # One step further would have made an image less than 5 % cheaper.
    further = min(2 * chunk, most)
    assert further == chunk or seconds_of(further) / further > 0.95 * seconds_of(chunk) / chunk


def test_on_a_gpu_short_memory_ends_the_search() -> None:
    assert best_chunk(lambda n: None if n > 40 else 1.0, most=128) == 32
    assert best_chunk(lambda n: None, most=128) == 8
    assert best_chunk(lambda n: None, most=1) == 1


def test_networks_that_are_built_alike_are_tried_once() -> None:
    asked: list[int] = []

    def seconds_of(n: int) -> float:
        asked.append(n)
        return 1.0

    first, second, other = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 5)
    assert remembered_chunk(first, "a test", 64, seconds_of) == 64
    n = len(asked)
    assert remembered_chunk(second, "a test", 64, seconds_of) == 64
    assert len(asked) == n
    remembered_chunk(other, "a test", 64, seconds_of)
    remembered_chunk(first, "another question", 64, seconds_of)
    assert len(asked) == 3 * n
