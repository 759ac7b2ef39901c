"""One pass over a split: which images, in which batches. Every view of data draws its order here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator


def one_pass(
    n: int, size: int, rng: Generator | None, *, drop_last: bool
) -> tuple[Iterator[NDArray[np.int64]], Generator]:
    """Return the places of every batch of one pass, and a generator for what is done to the images.

    The augmentation gets a generator of its own, so that the order of the images does not depend on it: methods that
    differ in their augmentation alone see the same images in the same order.

    Parameters
    ----------
    n : int
        Images of the split.
    size : int
        Images a batch.
    rng : Generator or None
        Shuffles the images; None for manifest order.
    drop_last : bool
        Leave out the last batch where it is smaller.
    """
    if size < 1:
        raise ValueError(f"expected a batch of at least one image, got {size}")
    pixels = torch.Generator()
    if rng is None:
        order = torch.arange(n)
    else:
        order = torch.randperm(n, generator=rng)
        pixels.manual_seed(int(torch.randint(2**62, (1,), generator=rng)))
    stop = n - n % size if drop_last else n
    return (order[start : min(start + size, stop)].numpy() for start in range(0, stop, size)), pixels


def steps_of(n: int, size: int, *, drop_last: bool) -> int:
    """Return the number of batches of one pass.

    >>> steps_of(10, 4, drop_last=False), steps_of(10, 4, drop_last=True)
    (3, 2)
    """
    return n // size if drop_last else -(-n // size)
