"""Robustness: how much of the accuracy is left under an attack or a corruption?

Every function of an attack reads one column, the breaking epsilon: the smallest epsilon that broke the image, infinite
where none did, and 0 where it was already wrong when clean. A curve over epsilons is therefore monotone by
construction. Epsilons are compared in float32, since an attack in float32 may well report the size that it used in
float32: 0.1/255 as a float64 is smaller than its float32 neighbour, and an image that was broken at exactly that size
would otherwise count as having survived it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tlbench.metrics.columns import Booleans, Floats, images_in


def survives(breaking_epsilon: Floats, epsilons: Sequence[float]) -> Booleans:
    """Return whether an image is right at an epsilon, shape (n, epsilons).

    Parameters
    ----------
    breaking_epsilon : float array, shape (n,)
        Smallest epsilon that broke the image; infinite where none did, 0 where it was wrong when clean.
    epsilons : floats
        Radii of the attack, at least 0, in units of the [0, 1] pixel range; an image survives an epsilon that is
        smaller than the one that broke it.

    Raises
    ------
    ValueError
        If there are no images or no epsilons, or one of either is NaN or negative.
    """
    images_in(breaking_epsilon=breaking_epsilon)
    sizes = np.asarray(epsilons, dtype=np.float32)
    if sizes.ndim != 1 or len(sizes) == 0 or not (sizes >= 0).all():
        raise ValueError(f"expected epsilons of at least 0, got {list(epsilons)}")
    if breaking_epsilon.min() < 0:
        raise ValueError(f"expected breaking epsilons of at least 0, got {breaking_epsilon.min()}")
    return np.asarray(breaking_epsilon.astype(np.float32)[:, None] > sizes)


def robust_accuracy(breaking_epsilon: Floats, epsilons: Sequence[float]) -> NDArray[np.float64]:
    """Return the share of all images that are right, even when attacked, at every epsilon.

    Parameters
    ----------
    breaking_epsilon : float array, shape (n,)
        Smallest epsilon that broke the image; infinite where none did, 0 where it was wrong when clean.
    epsilons : floats
        Radii of the attack, in units of the [0, 1] pixel range.

    Returns
    -------
    float array, shape (epsilons,)
        Robust accuracy in [0, 1]. Images that were wrong when clean count as failures.

    Raises
    ------
    ValueError
        If there are no images or no epsilons, or one of either is NaN or negative.

    References
    ----------
    Croce and Hein (2020), "Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
    Parameter-free Attacks".

    Examples
    --------
    >>> robust_accuracy(np.array([0.0, 0.1, 0.3, np.inf]), [0.05, 0.1, 0.2]).tolist()
    [0.75, 0.5, 0.5]
    """
    return np.asarray(survives(breaking_epsilon, epsilons).mean(axis=0), dtype=np.float64)


def robust_share(breaking_epsilon: Floats, epsilons: Sequence[float]) -> NDArray[np.float64]:
    """Return the share of the images that were right when clean which still are, at every epsilon.

    Arguments and errors are those of ``robust_accuracy``; besides, if no image was right when clean, the share is
    undefined and a ValueError.

    Examples
    --------
    >>> robust_share(np.array([0.0, 0.1, 0.3, np.inf]), [0.05, 0.1]).round(3).tolist()
    [1.0, 0.667]
    """
    return np.asarray(survives(_right_when_clean(breaking_epsilon), epsilons).mean(axis=0), dtype=np.float64)


def mean_robust_accuracy(breaking_epsilon: Floats, epsilons: Sequence[float]) -> float:
    """Return the plain mean of the robust accuracies over the epsilons; arguments as for ``robust_accuracy``.

    Examples
    --------
    >>> mean_robust_accuracy(np.array([0.0, 0.1, 0.3, np.inf]), [0.05, 0.1])
    0.625
    """
    return float(robust_accuracy(breaking_epsilon, epsilons).mean())


def median_breaking_epsilon(breaking_epsilon: Floats) -> float:
    """Return the smallest epsilon that broke at least half of the images that were right when clean.

    This is their lower median. It is infinite when more than half of them were never broken.

    Parameters
    ----------
    breaking_epsilon : float array, shape (n,)
        Smallest epsilon that broke the image; infinite where none did, 0 where it was wrong when clean.

    Returns
    -------
    float
        An epsilon in units of the [0, 1] pixel range, or infinity.

    Raises
    ------
    ValueError
        If no image was right when clean, or an epsilon is NaN or negative.

    Examples
    --------
    >>> median_breaking_epsilon(np.array([0.0, 0.1, 0.3, np.inf]))
    0.3
    """
    right = _right_when_clean(breaking_epsilon)
    return float(np.sort(right)[(len(right) - 1) // 2])


def _right_when_clean(breaking_epsilon: Floats) -> Floats:
    images_in(breaking_epsilon=breaking_epsilon)
    if breaking_epsilon.min() < 0:
        raise ValueError(f"expected breaking epsilons of at least 0, got {breaking_epsilon.min()}")
    right = breaking_epsilon[breaking_epsilon > 0]
    if len(right) == 0:
        raise ValueError(f"none of {len(breaking_epsilon)} images was right when clean")
    return right


def audit_reversals(implied: Booleans, found: Booleans) -> float:
    """Return the share of audited verdicts that an independent attack turned round.

    An attack over several epsilons is not run at all of them: an image that it broke at one counts as broken at the
    larger ones or, where it begins with the largest, an image that survives one counts as surviving the smaller ones.
    An audit attacks at such epsilons all the same. An image that survives there although it was broken in a smaller
    ball tells of masked gradients, or of a weak attack; one that breaks although it survived a larger ball tells that
    its robustness was overstated.

    Parameters
    ----------
    implied : bool array, shape (n,)
        Whether the image counts as surviving, one an audited verdict.
    found : bool array, shape (n,)
        Whether it survived when attacked.

    Returns
    -------
    float
        In [0, 1]; 0 where every verdict was confirmed.

    Raises
    ------
    ValueError
        If there are no verdicts, or the two arrays differ in length.

    Examples
    --------
    >>> audit_reversals(np.array([True, True, False, False]), np.array([True, False, False, False]))
    0.25
    """
    if len(implied) == 0 or len(implied) != len(found):
        raise ValueError(f"expected one outcome per audited verdict, got {len(found)} for {len(implied)}")
    return float(np.mean(implied != found))


def mean_corruption_accuracy(table: Mapping[str, ArrayLike]) -> float:
    """Return the mean over corruption types of the mean accuracy over severities.

    Parameters
    ----------
    table : mapping from a corruption type to floats
        Accuracy at every severity at which the type was measured.

    Returns
    -------
    float
        Accuracy in [0, 1]. Every type counts the same, however many severities it has.

    Raises
    ------
    ValueError
        If there are no types, or a type has no severities or a NaN among them.

    References
    ----------
    Hendrycks and Dietterich (2019), "Benchmarking Neural Network Robustness to Common Corruptions and
    Perturbations", without their division by the errors of AlexNet.

    Examples
    --------
    >>> mean_corruption_accuracy({"contrast": [0.5, 1.0], "fog": [0.25]})
    0.5
    """
    if not table:
        raise ValueError("expected the accuracies of at least one corruption type, got none")
    means = []
    for name, accuracies in table.items():
        values = np.asarray(accuracies, dtype=np.float64)
        images_in(**{name: values})
        means.append(values.mean())
    return float(np.mean(means))
