"""Random resized crops of whole pictures: torchvision's boxes and pixels, one generator, any number of threads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import resized_crop as torchvisions

from tlbench.data.originals import Originals
from tlbench.errors import DataError
from tlbench.methods.crops import box_of, crops, resized_crop


def picture(place: int, height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(place).integers(0, 256, (height, width, 3), dtype=np.uint8)


def taken(n: int, seed: int, *, views: int = 1, size: int = 16) -> list[list[torch.Tensor]]:
    places = np.arange(n)
    batches = [places[start : start + 3] for start in range(0, n, 3)]
    rng = torch.Generator().manual_seed(seed)
    return list(crops(Originals.of(picture, places), batches, size, rng, views=views))


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (224, 224), (64, 640)])
def test_boxes_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    height, width = shape
    n = 4000
    draws = np.random.default_rng(0).random((n, 22))
    ours = np.array([box_of(own, height, width) for own in draws], dtype=float)
    torch.manual_seed(0)
    image = torch.zeros(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(n)], dtype=float)
    for mine, other in zip(ours.T, theirs.T, strict=True):
        error = math.hypot(mine.std(), other.std()) / math.sqrt(n)
        assert abs(mine.mean() - other.mean()) <= 4 * error + 1e-9
        assert abs(mine.std() - other.std()) <= 0.06 * other.std() + 1e-9


@given(st.integers(1, 700), st.integers(1, 700), st.integers(0, 2**32 - 1))
def test_a_box_lies_within_the_picture(height: int, width: int, seed: int) -> None:
    top, left, tall, wide = box_of(np.random.default_rng(seed).random(22), height, width)
    assert 0 <= top <= top + tall <= height
    assert 0 <= left <= left + wide <= width
    assert tall >= 1
    assert wide >= 1


def test_pixels_are_torchvisions() -> None:
    pixels = picture(1, 90, 130)
    box = (7, 11, 50, 71)
    theirs = torchvisions(Image.fromarray(pixels), *box, [32, 32], InterpolationMode.BILINEAR)
    assert np.array_equal(resized_crop(pixels, box, 32), np.asarray(theirs))


def test_equal_seeds_give_equal_pixels_whatever_the_threads_do() -> None:
    for first, second in zip(taken(10, 5), taken(10, 5), strict=True):
        assert torch.equal(first[0], second[0])
    assert not torch.equal(taken(10, 5)[0][0], taken(10, 6)[0][0])


def test_every_image_of_every_batch_is_there_and_views_differ() -> None:
    batches = taken(7, 0, views=2)
    assert [len(views[0]) for views in batches] == [3, 3, 1]
    assert all(views[0].shape[1:] == (3, 16, 16) and views[0].dtype == torch.uint8 for views in batches)
    assert not torch.equal(batches[0][0], batches[0][1])


def test_an_image_that_cannot_be_decoded_is_told_and_not_swallowed() -> None:
    def broken(place: int) -> np.ndarray:
        raise DataError(f"image {place} cannot be decoded")

    with pytest.raises(DataError, match="image 2"):
        list(crops(Originals.of(broken, np.array([2])), [np.array([0])], 16, torch.Generator()))


def test_originals_of_several_listings_stay_apart() -> None:
    joined = Originals.joined(
        [Originals.of(lambda i: picture(i), np.array([4, 2])), Originals.of(lambda i: picture(100 + i), np.array([1]))]
    )
    assert joined is not None
    assert [int(joined.load(i)[0, 0, 0]) for i in range(3)] == [int(picture(p)[0, 0, 0]) for p in (4, 2, 101)]
    assert np.array_equal(joined.take(np.array([2])).load(0), picture(101))
    assert Originals.joined([joined, None]) is None
