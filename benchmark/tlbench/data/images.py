"""Images that stay on disk until they are asked for: some places of one or several memory maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray


class MappedImages:
    """Chosen images of read-only memory maps; behaves like a uint8 array of shape (n, h, w, 3).

    Indexing of any kind reads the images asked for, and only those, into an ordinary array. The training
    part of the largest domain would need 20 GB in memory.

    Parameters
    ----------
    maps : sequence of uint8 arrays, shape (n_k, h, w, 3)
    places : int64 array, shape (n,)
        Which images, counted through all maps in their order.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, maps: Sequence[NDArray[np.uint8]], places: NDArray[np.int64]) -> None:
        self._maps = tuple(maps)
        self._starts = np.cumsum([0, *(len(m) for m in self._maps)])
        self._places = np.asarray(places, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(n, h, w, 3)``."""
        height, width, channels = self._maps[0].shape[1:]
        return len(self), height, width, channels

    @property
    def nbytes(self) -> int:
        """Bytes that all of the images would take in memory."""
        return int(np.prod(self.shape))

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        wanted = self._places[first]
        if np.ndim(wanted) == 0:
            return np.asarray(self._read(np.asarray([wanted]))[(0, *rest)])
        read = self._read(wanted)
        return np.asarray(read[(slice(None), *rest)]) if rest else read

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("these images lie on disk; an array of them is always a copy")
        read = self._read(self._places)
        return read if dtype is None else read.astype(dtype, copy=False)

    def take(self, places: NDArray[np.int64]) -> MappedImages:
        """Return some of the images without reading them."""
        return MappedImages(self._maps, self._places[places])

    @staticmethod
    def joined(parts: Sequence[MappedImages]) -> MappedImages:
        """Return several sets of images one after the other without reading them."""
        starts = np.cumsum([0, *(sum(len(m) for m in part._maps) for part in parts)])
        places = [part._places + start for part, start in zip(parts, starts[:-1], strict=True)]
        return MappedImages([m for part in parts for m in part._maps], np.concatenate(places))

    def as_array(self) -> NDArray[np.uint8]:
        """Return itself, as what it stands in for: an array to whoever indexes it, measures it or converts it."""
        return cast("NDArray[np.uint8]", self)

    def _read(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        if len(self._maps) == 1:
            return np.asarray(self._maps[0][wanted])
        images = np.empty((len(wanted), *self._maps[0].shape[1:]), dtype=np.uint8)
        owner = np.searchsorted(self._starts, wanted, side="right") - 1
        for number, source in enumerate(self._maps):
            here = owner == number
            images[here] = source[wanted[here] - self._starts[number]]
        return images
