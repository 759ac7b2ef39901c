"""Which bin of [0, 1] a probability falls into, and counts by class and bin: one rule for measuring and reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Closed = Literal["left", "right"]
Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def bin_index(probability: Floats, *, bins: int, closed: Closed) -> NDArray[np.intp]:
    """Return the equal-width bin over [0, 1] in which every probability lies.

    An edge is ``m / bins`` rounded once, to the precision of the probabilities. So 0.3, be it the nearest float32 or
    the nearest float64, lies exactly on the third edge of ten, where ``3 * 0.1`` or ``np.linspace`` would miss it.

    Parameters
    ----------
    probability : float array, any shape
        Probabilities in [0, 1]; a rounding error above 1 is tolerated.
    bins : int
        Number of bins.
    closed : {"left", "right"}
        The side on which a bin contains its edge. The outermost bins contain 0 and 1 on either side.

    Returns
    -------
    int array, the same shape
        Bins from 0 to ``bins - 1``.

    Raises
    ------
    ValueError
        If a probability is NaN or outside [0, 1], ``bins`` is below 1, or ``closed`` is no side.

    Examples
    --------
    >>> bin_index(np.array([0.0, 0.3, 0.7, 1.0]), bins=10, closed="left").tolist()
    [0, 3, 7, 9]
    >>> bin_index(np.array([0.0, 0.3, 0.7, 1.0]), bins=10, closed="right").tolist()
    [0, 2, 6, 9]
    """
    if bins < 1:
        raise ValueError(f"expected at least one bin, got {bins}")
    if closed not in get_args(Closed):
        raise ValueError(f"closed: expected 'left' or 'right', got {closed!r}")
    if not np.issubdtype(probability.dtype, np.floating):
        probability = probability.astype(np.float64)
    # "Not all inside" rather than "any outside", so that a NaN is caught too.
    if not ((probability >= 0) & (probability <= 1 + 1e-6)).all():
        raise ValueError("expected probabilities in [0, 1], got a value outside or a NaN")
    edges = (np.arange(1, bins) / bins).astype(probability.dtype)
    return np.searchsorted(edges, probability, side="right" if closed == "left" else "left")


@dataclass(frozen=True)
class ClassBins:
    """Counts by class and bin of the probabilities that a set of images gave to every class.

    Attributes
    ----------
    count : array, shape (classes, bins)
        How many images gave the class a probability in the bin.
    probability : float array, shape (classes, bins)
        The sum of these probabilities.
    positive : array, shape (classes, bins)
        How many of these images are of the class.
    """

    count: NDArray[np.int64]
    probability: NDArray[np.float64]
    positive: NDArray[np.int64]

    def __post_init__(self) -> None:
        shapes = {np.shape(self.count), np.shape(self.probability), np.shape(self.positive)}
        if len(shapes) != 1 or np.ndim(self.count) != 2:
            raise ValueError(f"expected three tables of one shape (classes, bins), got {sorted(shapes)}")

    def __add__(self, other: ClassBins) -> ClassBins:
        """Return the table of the images of both, so that a large set can be counted in chunks."""
        if np.shape(self.count) != np.shape(other.count):
            raise ValueError(f"cannot add tables of shape {np.shape(self.count)} and {np.shape(other.count)}")
        return ClassBins(self.count + other.count, self.probability + other.probability, self.positive + other.positive)


def class_bins(probabilities: Floats, label: Integers, *, bins: int = 15, closed: Closed = "right") -> ClassBins:
    """Count probabilities by class and bin, for ``class_wise_calibration_error``.

    Parameters
    ----------
    probabilities : float array, shape (n, classes)
        Probability of every class, in [0, 1].
    label : int array, shape (n,)
        True class, from 0 to ``classes - 1``.
    bins : int
        Number of equal-width bins over [0, 1].
    closed : {"left", "right"}
        The side on which a bin contains its edge.

    Returns
    -------
    ClassBins
        Tables of shape (classes, bins); those of two chunks of images can be added.

    Raises
    ------
    ValueError
        If the shapes do not fit, a probability is NaN or outside [0, 1], or a label is no class.
    """
    if probabilities.ndim != 2 or label.shape != probabilities.shape[:1]:
        raise ValueError(f"expected (n, classes) and (n,), got {probabilities.shape} and {label.shape}")
    n, classes = probabilities.shape
    if n and not (label.min() >= 0 and label.max() < classes):
        raise ValueError(f"expected labels from 0 to {classes - 1}, got {label.min()} to {label.max()}")
    cell = bin_index(probabilities, bins=bins, closed=closed) + np.arange(classes) * bins
    size = classes * bins

    def table(counts: NDArray[np.generic]) -> NDArray[np.generic]:
        return counts.reshape(classes, bins)

    return ClassBins(
        count=table(np.bincount(cell.ravel(), minlength=size)).astype(np.int64),
        probability=table(np.bincount(cell.ravel(), weights=probabilities.ravel(), minlength=size)).astype(np.float64),
        positive=table(np.bincount(cell[np.arange(n), label], minlength=size)).astype(np.int64),
    )
