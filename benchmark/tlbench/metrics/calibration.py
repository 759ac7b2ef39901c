"""Calibration: does a confidence of 0.8 come true eight times in ten?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tlbench.binning import ClassBins as ClassBins
from tlbench.binning import Closed as Closed
from tlbench.binning import bin_index as bin_index
from tlbench.binning import class_bins as class_bins
from tlbench.metrics.columns import Booleans, Column, Floats, Integers, images_in


def expected_calibration_error(
    confidence: Floats, correct: Booleans, *, bins: int = 15, closed: Closed = "right"
) -> float:
    """Expected calibration error (ECE) of the top-1 prediction.

    Parameters
    ----------
    confidence : float array, shape (n,)
        Probability given to the predicted class, in [0, 1].
    correct : bool array, shape (n,)
        Whether the predicted class is the true one.
    bins : int
        Number of equal-width confidence bins over [0, 1].
    closed : {"left", "right"}
        The side on which a bin contains its edge; Wenzel et al. (2022) use "left", netcal "right".

    Returns
    -------
    float
        ECE in [0, 1], a fraction and not a percentage; 0 is perfectly calibrated.

    Raises
    ------
    ValueError
        If there are no images, the two arrays differ in length, or a confidence is NaN or outside [0, 1].

    References
    ----------
    Guo et al. (2017), "On Calibration of Modern Neural Networks", equation 3.

    Examples
    --------
    >>> expected_calibration_error(np.full(4, 0.75), np.array([True, True, True, False]))
    0.0
    """
    n = images_in(confidence=confidence, correct=correct)
    bin_of = bin_index(confidence, bins=bins, closed=closed)
    # |sum of (confidence - correct)| in a bin is already its gap times its count.
    gaps = np.bincount(bin_of, weights=confidence.astype(np.float64) - correct, minlength=bins)
    return float(np.abs(gaps).sum() / n)


def adaptive_calibration_error(confidence: Floats, correct: Booleans, *, bins: int = 15) -> float:
    """Calibration error of the top-1 prediction over bins of equal mass.

    The images are laid side by side in order of confidence, each as wide as any other, and the line is cut into
    ``bins`` pieces of equal length. A cut inside an image gives each side its part of it. Images of equal confidence
    are one block in which correctness is spread evenly, so their order cannot matter. The result is the mean over
    the pieces of \\|mean confidence - accuracy\\|. Where ``bins`` divides n and no confidence occurs twice, this is
    the usual calibration error over quantile bins.

    Parameters
    ----------
    confidence : float array, shape (n,)
        Probability given to the predicted class, in [0, 1].
    correct : bool array, shape (n,)
        Whether the predicted class is the true one.
    bins : int
        Number of bins of equal mass.

    Returns
    -------
    float
        Calibration error in [0, 1]; 0 is perfectly calibrated.

    Raises
    ------
    ValueError
        If there are no images, the two arrays differ in length, or a confidence is NaN or outside [0, 1].

    References
    ----------
    Nguyen and O'Connor (2015), "Posterior Calibration and Exploratory Analysis for Natural Language Processing
    Models"; Nixon et al. (2019), "Measuring Calibration in Deep Learning", who apply it to every class.

    Examples
    --------
    >>> adaptive_calibration_error(np.array([0.25, 0.25, 0.75, 0.75]), np.array([True, False, True, False]), bins=2)
    0.25
    """
    images_in(confidence=confidence, correct=correct)
    bin_index(confidence, bins=bins, closed="right")  # for its checks: the same confidences are refused
    value, block, width = np.unique(confidence.astype(np.float64), return_inverse=True, return_counts=True)
    return equal_mass_error(value, width, np.bincount(block, weights=correct), bins)


def equal_mass_error(value: Floats, width: Integers, hits: Column, bins: int) -> float:
    """Return the calibration error over ``bins`` bins of equal mass.

    Parameters
    ----------
    value : float array, shape (m,)
        Every confidence that occurs, ascending.
    width : int array, shape (m,)
        Its images.
    hits : array, shape (m,)
        How many of them are right.
    bins : int
    """
    n = int(width.sum())
    gap = value * width - hits
    reached = np.concatenate([[0], np.cumsum(width)])
    gap_so_far = np.concatenate([[0.0], np.cumsum(gap)])
    cuts = np.arange(bins + 1) * n / bins
    return float(np.abs(np.diff(np.interp(cuts, reached, gap_so_far))).sum() / n)


@dataclass(frozen=True)
class ReliabilityDiagram:
    """What a reliability diagram draws.

    Attributes
    ----------
    edges : float array, shape (bins + 1,)
        Edges of the bins, from 0 to 1.
    count : int array, shape (bins,)
        Images in every bin.
    confidence, accuracy : float array, shape (bins,)
        Mean confidence and accuracy in every bin, NaN where it is empty.
    """

    edges: NDArray[np.float64]
    count: Integers
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def reliability_diagram(
    confidence: Floats, correct: Booleans, *, bins: int = 15, closed: Closed = "right"
) -> ReliabilityDiagram:
    """Return accuracy against confidence, bin by bin; arguments and errors as for ``expected_calibration_error``.

    References
    ----------
    Niculescu-Mizil and Caruana (2005), "Predicting Good Probabilities with Supervised Learning".

    Examples
    --------
    >>> reliability_diagram(np.array([0.6, 0.8, 1.0]), np.array([True, False, True]), bins=2).accuracy.round(3).tolist()
    [nan, 0.667]
    """
    images_in(confidence=confidence, correct=correct)
    bin_of = bin_index(confidence, bins=bins, closed=closed)
    count = np.bincount(bin_of, minlength=bins)
    some = np.where(count > 0, count, np.nan)
    return ReliabilityDiagram(
        edges=np.arange(bins + 1) / bins,
        count=count,
        confidence=np.bincount(bin_of, weights=confidence, minlength=bins) / some,
        accuracy=np.bincount(bin_of, weights=correct, minlength=bins) / some,
    )


def expected_ece_if_calibrated(confidence: Floats, *, bins: int = 15, closed: Closed = "right") -> float:
    """Return the ECE to expect of a perfectly calibrated model that has these confidences.

    ECE is never zero on finitely many images. If every prediction comes true with exactly its confidence, the number
    of hits in a bin is a sum of independent Bernoulli variables; this is the expectation of the ECE over their
    outcomes, exact up to rounding (below 1e-12), with no simulation. An ECE near it is no sign of miscalibration.

    Parameters
    ----------
    confidence : float array, shape (n,)
        Probability given to the predicted class, in [0, 1].
    bins : int
        Number of equal-width confidence bins over [0, 1].
    closed : {"left", "right"}
        The side on which a bin contains its edge.

    Returns
    -------
    float
        Expected ECE in [0, 1]; it falls as one over the square root of n.

    Raises
    ------
    ValueError
        If there are no images, or a confidence is NaN or outside [0, 1].

    References
    ----------
    Vaicenavicius et al. (2019), "Evaluating Model Calibration in Classification": consistency resampling, of which
    this is the limit of infinitely many draws.

    Examples
    --------
    >>> expected_ece_if_calibrated(np.array([0.5]))
    0.5
    """
    n = images_in(confidence=confidence)
    bin_of = bin_index(confidence, bins=bins, closed=closed)
    probability = np.minimum(confidence.astype(np.float64), 1.0)
    deviation = sum(_mean_absolute_deviation(probability[bin_of == b]) for b in np.unique(bin_of))
    return float(deviation / n)


def _mean_absolute_deviation(probability: NDArray[np.float64]) -> float:
    """Return the mean of |hits - expected hits| for independent Bernoulli variables, shape (m,), m at least 1."""
    rows = 1 << (len(probability) - 1).bit_length()
    padded = np.zeros(rows)
    padded[: len(probability)] = probability
    # A row is the distribution of the hits among some images; neighbours are convolved until one row is left.
    mass = np.stack([1.0 - padded, padded], axis=1)
    while len(mass) > 1:
        length = 2 * mass.shape[1]
        spectrum = np.fft.rfft(mass, n=length, axis=1)
        mass = np.fft.irfft(spectrum[0::2] * spectrum[1::2], n=length, axis=1)
    distance = np.abs(np.arange(mass.shape[1]) - probability.sum())
    # Bernstein's inequality: less than 1e-24 of the mass lies further out, where the transform leaves only rounding.
    spread = np.sqrt((probability * (1.0 - probability)).sum())
    near = distance <= 12.0 * spread + 40.0
    return max(0.0, float((mass[0, near] * distance[near]).sum()))


def class_wise_calibration_error(counts: ClassBins) -> float:
    """Class-wise ECE: the mean over classes of the ECE of "the image is of this class".

    Parameters
    ----------
    counts : ClassBins
        Counts by class and bin; their bins and closed side are those of the measure.

    Returns
    -------
    float
        Class-wise ECE in [0, 1]. It shrinks with the number of classes, since most probabilities are then near 0.

    Raises
    ------
    ValueError
        If there are no images, the classes differ in their number of images, or the table holds a NaN.

    References
    ----------
    Kull et al. (2019), "Beyond Temperature Scaling", equation 4.

    Examples
    --------
    >>> class_wise_calibration_error(class_bins(np.array([[0.5, 0.5], [0.5, 0.5]]), np.array([0, 1])))
    0.0
    """
    images = counts.count.sum(axis=1)
    if len(images) == 0 or images[0] == 0 or (images != images[0]).any():
        raise ValueError(f"expected the same images for every class and at least one, got {np.unique(images).tolist()}")
    if np.isnan(counts.probability).any():
        raise ValueError("probability: the table of class-by-bin counts holds a NaN")
    return float(np.abs(counts.probability - counts.positive).sum() / images.sum())
