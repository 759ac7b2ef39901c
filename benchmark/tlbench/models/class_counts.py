"""Counts by class and bin, gathered where the probabilities are: almost all of them lie in the lowest bin."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.binning import ClassBins, Closed, bin_index


@final
class ClassCounts:
    """Counts by class and bin of one batch, which may come in consecutive pieces.

    The probabilities of an image sum to one, so that at most ``bins`` of them lie above the lowest bin. Only these are
    looked up and brought to the CPU; the lowest bin is what is left. On the CPU the result has the bits of
    ``binning.class_bins`` on the whole batch, however it is cut.

    Parameters
    ----------
    classes, bins : int
    closed : {"left", "right"}
        The side on which a bin contains its edge.
    """

    def __init__(self, classes: int, *, bins: int, closed: Closed) -> None:
        self._classes, self._bins, self._closed = classes, bins, closed
        self._images = 0
        self._low = np.zeros(classes)
        self._class_of: list[NDArray[np.int64]] = []
        self._above: list[NDArray[np.float64]] = []
        self._true: list[NDArray[np.int64]] = []
        self._of_true: list[NDArray[np.float64]] = []

    def add(self, probabilities: Tensor, true: Tensor) -> None:
        """Add a piece: probabilities, float64, shape (n, classes), which are overwritten, and classes, shape (n,)."""
        if not len(true):
            return
        self._images += len(true)
        self._true.append(true.cpu().numpy())
        self._of_true.append(probabilities.gather(1, true[:, None])[:, 0].cpu().numpy())
        flat = probabilities.view(-1)
        if self._bins > 1:
            places = self._above_the_lowest(flat)
            self._class_of.append((places % self._classes).cpu().numpy())
            self._above.append(flat[places].cpu().numpy())
            flat[places] = 0.0  # adds nothing to the lowest bin
        self._low = self._with_rows(probabilities)

    def finish(self) -> ClassBins:
        """Return the counts of all that was added."""
        class_of, above = _joined(self._class_of, np.int64), _joined(self._above, np.float64)
        true, of_true = _joined(self._true, np.int64), _joined(self._of_true, np.float64)
        cells = class_of * self._bins + self._bin_of(above)
        count = self._table(np.bincount(cells, minlength=self._size))
        # Counting nothing with weights gives integers.
        probability = self._table(np.bincount(cells, weights=above, minlength=self._size)).astype(np.float64)
        count[:, 0] = self._images - count.sum(axis=1)
        probability[:, 0] = self._low
        positive = np.bincount(true * self._bins + self._bin_of(of_true), minlength=self._size)
        return ClassBins(count.astype(np.int64), probability, self._table(positive).astype(np.int64))

    @property
    def _size(self) -> int:
        return self._classes * self._bins

    def _above_the_lowest(self, flat: Tensor) -> Tensor:
        edge = 1.0 / self._bins
        outside = flat >= edge if self._closed == "left" else flat > edge
        if outside.device.type == "cpu":
            return torch.from_numpy(np.flatnonzero(outside.numpy()))  # a third of the time of torch's
        return outside.nonzero()[:, 0]

    def _with_rows(self, probabilities: Tensor) -> NDArray[np.float64]:
        if probabilities.device.type != "cpu":
            return np.asarray(self._low + probabilities.sum(0).cpu().numpy())
        rows = probabilities.numpy()
        # NumPy adds row after row, as counting image after image would: the same bits, however the batch is cut.
        rows[0] += self._low
        return np.asarray(np.add.reduce(rows, axis=0))

    def _bin_of(self, probabilities: NDArray[np.float64]) -> NDArray[np.intp]:
        return bin_index(probabilities, bins=self._bins, closed=self._closed)

    def _table(self, counts: NDArray[Any]) -> NDArray[Any]:
        return counts.reshape(self._classes, self._bins)


def _joined(pieces: list[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(pieces) if pieces else np.zeros(0, kind)
