"""Images in their own size, decoded when they are asked for: what random crops are cut from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Load = Callable[[int], NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Originals:
    """Chosen images of one or several listings, as they are stored.

    The cache holds squares of one size, from which nothing outside the centre can be had; a published training crop is
    cut from the whole picture. Decoding costs milliseconds and no disk, and training at such sizes costs more.

    Attributes
    ----------
    loads : tuple of callable
        ``Listing.load`` of every listing.
    owners : int64 array, shape (n,)
        Which listing each image is of.
    places : int64 array, shape (n,)
        Its place there.
    """

    loads: tuple[Load, ...]
    owners: NDArray[np.int64]
    places: NDArray[np.int64]

    @staticmethod
    def of(load: Load, places: NDArray[np.int64]) -> Originals:
        """Return some images of one listing."""
        return Originals((load,), np.zeros(len(places), dtype=np.int64), np.asarray(places, dtype=np.int64))

    def __len__(self) -> int:
        return len(self.places)

    def load(self, place: int) -> NDArray[np.uint8]:
        """Return an image as uint8 RGB, shape (h, w, 3).

        Raises
        ------
        DataError
            If it cannot be decoded.
        """
        load: Load = self.loads[int(self.owners[place])]
        return load(int(self.places[place]))

    def take(self, places: NDArray[np.int64]) -> Originals:
        """Return some of the images."""
        return Originals(self.loads, self.owners[places], self.places[places])

    @staticmethod
    def joined(parts: Sequence[Originals | None]) -> Originals | None:
        """Return several sets of images one after the other; None where one of them has none."""
        present = [part for part in parts if part is not None]
        if len(present) < len(parts):
            return None
        starts = np.cumsum([0, *(len(part.loads) for part in present)])
        return Originals(
            tuple(load for part in present for load in part.loads),
            np.concatenate([part.owners + start for part, start in zip(present, starts[:-1], strict=True)]),
            np.concatenate([part.places for part in present]),
        )
