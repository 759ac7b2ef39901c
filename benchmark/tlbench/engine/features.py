"""Pooled features that the fits of one process share: on disk, read as they are needed, gone with the process."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from tlbench.data.cache import ImageCache
from tlbench.records.files import explained

MOST_BYTES = 8 * 2**30

Key = tuple[str, str, str]
"""The backbone's weights, the split, and the views of its images; an empty string for the images as they are."""
Piece = tuple[Tensor, Tensor]
"""Rows, int64, shape (m,), and their features, float32, shape (m, width), on the CPU."""


@final
class FeatureCache:
    """Features in files of this process alone, the oldest forgotten before they fill the disk.

    Kept for the process and no longer: features depend on the device, the threads and the version of torch in their
    last bits, and a cost that another run has paid would not be a cost. A file has no name, so that the system frees
    it even where the process is killed, and nobody else can read or change it.

    Parameters
    ----------
    folder : Path, optional
        By default the folder of the image cache.
    most_bytes : int
        The newest entry is kept whatever its size.
    """

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self._folder, self._most = folder, most_bytes
        self._kept: dict[Key, _Rows] = {}

    def __contains__(self, key: Key) -> bool:
        return key in self._kept

    def values(self, key: Key, rows: int, pieces: Callable[[], Iterable[Piece]]) -> Tensor:
        """Return the features under a key, written from pieces where they are not there.

        Parameters
        ----------
        key : Key
        rows : int
            Rows of all pieces together; every row comes once.
        pieces : callable
            Yields them in any order; only one is in memory at a time.

        Returns
        -------
        float32 tensor, shape (rows, width)
            Mapped copy-on-write: pages are read when they are used, and what a method changes nobody else sees.

        Raises
        ------
        StoreError
            If the folder cannot be written or its disk is full.
        ValueError
            If the pieces hold another number of rows.
        """
        if key not in self._kept:
            self._kept[key] = self._written(rows, pieces())
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._most:
                del self._kept[next(iter(self._kept))]
        return self._kept[key].mapped()

    def _written(self, rows: int, pieces: Iterable[Piece]) -> _Rows:
        kept, place, written = _Rows(None, (rows, 0)), torch.zeros(rows, 0), 0
        for at, features in pieces:
            if kept.descriptor is None:
                width = features.shape[1]
                kept = _Rows(self._file(rows * width * 4), (rows, width))
                place = kept.mapped(mmap.ACCESS_WRITE)
            place[at] = features
            written += len(at)
        if written != rows:
            raise ValueError(f"expected the features of {rows} images, got {written}")
        return kept

    def _file(self, size: int) -> int:
        folder = ImageCache().folder if self._folder is None else self._folder
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                # A disk that fills up under a memory map would kill the process without a word.
                if hasattr(os, "posix_fallocate"):  # macOS has none
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
                return os.dup(file.fileno())


class _Rows:
    """An open file without a name, or None where there is nothing to be kept, and the shape of what it holds."""

    def __init__(self, descriptor: int | None, shape: tuple[int, int]) -> None:
        self.descriptor, self.shape = descriptor, shape
        if descriptor is not None:
            weakref.finalize(self, os.close, descriptor)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * 4

    def mapped(self, access: int = mmap.ACCESS_COPY) -> Tensor:
        if self.descriptor is None:
            return torch.zeros(self.shape)
        pages = mmap.mmap(self.descriptor, self.nbytes, access=access)
        return torch.frombuffer(pages, dtype=torch.float32).view(self.shape)
