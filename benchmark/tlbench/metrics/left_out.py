"""Metrics of all images but one block, for every block: what a jackknife asks for, without doing the work fifty times.

Counts of the whole set less those of a block are the counts of the rest, and integers lose nothing. Every function here
returns, bit for bit, what the metric itself returns on the images that are kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tlbench.binning import Closed, bin_index
from tlbench.metrics.accuracy import class_codes
from tlbench.metrics.calibration import equal_mass_error
from tlbench.metrics.columns import Booleans, Column, Floats, Integers
from tlbench.metrics.invariance import disparity_of_counts

Blocks = NDArray[np.intp]
"""The block of every image, shape (n,), from 0; each holds some image, and none holds all."""
Values = NDArray[np.float64]


def balanced_accuracy_left_out(label: Integers, predicted: Integers, block: Blocks) -> Values:
    """Return the balanced accuracy without each block, shape (blocks,)."""
    labelled, _, hits = _class_counts(label, predicted, block)
    return np.array([np.mean(h[m > 0] / m[m > 0]) for m, h in zip(labelled, hits, strict=True)])


def macro_f1_left_out(label: Integers, predicted: Integers, block: Blocks) -> Values:
    """Return the macro F1 without each block, shape (blocks,)."""
    labelled, guessed, hits = _class_counts(label, predicted, block)
    counts = zip(labelled + guessed, hits, strict=True)
    return np.array([np.mean(2 * h[both > 0] / both[both > 0]) for both, h in counts])


def worst_group_accuracy_left_out(correct: Booleans, group: Column, block: Blocks) -> Values:
    """Return the worst group's accuracy without each block, shape (blocks,)."""
    names, code = np.unique(group, return_inverse=True)
    images, hits = _without(block, code, len(names)), _without(block[correct], code[correct], len(names), block)
    return np.array([np.min(h[n > 0] / n[n > 0]) for n, h in zip(images, hits, strict=True)])


def demographic_disparity_left_out(predicted: Integers, group: Booleans, block: Blocks) -> Values:
    """Return the demographic disparity of two groups without each block, shape (blocks,)."""
    classes, code = np.unique(predicted, return_inverse=True)
    tables = _without(block, group * len(classes) + code, 2 * len(classes)).reshape(-1, 2, len(classes))
    return np.array([disparity_of_counts(table[:, table.sum(0) > 0][table.sum(1) > 0]) for table in tables])


def expected_calibration_error_left_out(
    confidence: Floats, correct: Booleans, block: Blocks, *, bins: int, closed: Closed
) -> Values:
    """Return the ECE without each block, shape (blocks,)."""
    bin_of = bin_index(confidence, bins=bins, closed=closed)
    gap = confidence.astype(np.float64) - correct
    if _adds_exactly(gap):
        images = len(gap) - np.bincount(block)
        sums = np.bincount(block * bins + bin_of, weights=gap, minlength=len(images) * bins).reshape(-1, bins)
        return np.asarray(np.abs(sums.sum(axis=0) - sums).sum(axis=1) / images)
    errors = [
        np.abs(np.bincount(bin_of[kept], weights=gap[kept], minlength=bins)).sum() / len(kept)
        for kept in (np.flatnonzero(block != left) for left in range(int(block.max()) + 1))
    ]
    return np.array(errors)


def adaptive_calibration_error_left_out(confidence: Floats, correct: Booleans, block: Blocks, *, bins: int) -> Values:
    """Return the calibration error over bins of equal mass without each block, shape (blocks,)."""
    values, place = np.unique(confidence.astype(np.float64), return_inverse=True)
    width, hits = np.bincount(place), np.bincount(place, weights=correct)
    order = np.argsort(block, kind="stable")
    errors = []
    for mine in np.split(order, np.cumsum(np.bincount(block))[:-1]):
        # Hits are whole numbers, so that taking some away leaves what counting the others would give.
        wide = width - np.bincount(place[mine], minlength=len(values))
        right = hits - np.bincount(place[mine], weights=correct[mine], minlength=len(values))
        some = wide > 0
        errors.append(equal_mass_error(values[some], wide[some], right[some], bins))
    return np.array(errors)


def _adds_exactly(values: Values) -> bool:
    """Whether float64 sums of these values are exact in any order: as those of stored confidences are."""
    scaled = values * 2.0**32
    return len(values) < 2**20 and bool((np.abs(values) <= 1).all() and (scaled == np.rint(scaled)).all())


def _class_counts(label: Integers, predicted: Integers, block: Blocks) -> tuple[Integers, Integers, Integers]:
    """Return labels, predictions and hits by class without each block, each of shape (blocks, classes)."""
    true, guess, classes = class_codes(label, predicted)
    right = true == guess
    return (
        _without(block, true, classes),
        _without(block, guess, classes),
        _without(block[right], true[right], classes, block),
    )


def _without(block: Blocks, code: Integers, codes: int, of_all: Blocks | None = None) -> Integers:
    """Count codes without each block, shape (blocks, codes)."""
    blocks = int((block if of_all is None else of_all).max()) + 1
    counts = np.bincount(block * codes + code, minlength=blocks * codes).reshape(blocks, codes)
    return np.asarray(counts.sum(axis=0) - counts)
