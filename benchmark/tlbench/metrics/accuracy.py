"""Accuracy and the proper scores: is the prediction right, and was the truth given its due probability?"""

from __future__ import annotations

import numpy as np

from tlbench.metrics.columns import Booleans, Column, Floats, Integers, images_in

_FEW = 10_000  # classes for which counting all numbers up to the largest costs nothing


def accuracy(correct: Booleans) -> float:
    """Return the share of images whose predicted class is the true one.

    Parameters
    ----------
    correct : bool array, shape (n,)
        Whether the predicted class is the true one.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Raises
    ------
    ValueError
        If there are no images.

    Examples
    --------
    >>> accuracy(np.array([True, True, True, False]))
    0.75
    """
    images_in(correct=correct)
    return float(np.mean(correct, dtype=np.float64))


def top_k_accuracy(rank: Integers, *, k: int, classes: int) -> float:
    """Return the share of images whose true class is among the ``k`` classes with the largest logits.

    Parameters
    ----------
    rank : int array, shape (n,)
        Rank of the true class among the logits, 0 for the largest, ties in argmax's order.
    k : int
        How many guesses an image has.
    classes : int
        Number of classes of the task.

    Returns
    -------
    float
        Top-k accuracy in [0, 1]; trivially 1 where ``k`` equals ``classes``.

    Raises
    ------
    ValueError
        If there are no images, a rank lies outside [0, classes), or ``k`` lies outside [1, classes]: with fewer
        classes than guesses the measure is undefined, as it is in the protocol of Wenzel et al. (2022).

    Examples
    --------
    >>> top_k_accuracy(np.array([0, 2, 4, 5]), k=5, classes=7)
    0.75
    """
    images_in(rank=rank)
    if not 1 <= k <= classes:
        raise ValueError(f"top-{k} accuracy is undefined for {classes} classes")
    if rank.min() < 0 or rank.max() >= classes:
        raise ValueError(f"expected ranks from 0 to {classes - 1}, got {rank.min()} to {rank.max()}")
    return float(np.mean(rank < k, dtype=np.float64))


def _counts(label: Integers, predicted: Integers) -> tuple[Integers, Integers, Integers]:
    """Count the labels, the predictions and the hits of every class that occurs among either, shape (present,)."""
    images_in(label=label, predicted=predicted)
    true, guess, classes = class_codes(label, predicted)
    labelled, guessed = np.bincount(true, minlength=classes), np.bincount(guess, minlength=classes)
    hits = np.bincount(true[true == guess], minlength=classes)
    occurs = (labelled > 0) | (guessed > 0)
    return labelled[occurs], guessed[occurs], hits[occurs]


def class_codes(label: Integers, predicted: Integers) -> tuple[Integers, Integers, int]:
    """Return labels and predictions as codes that keep the order of the classes, and how many codes there may be."""
    lowest, highest = min(label.min(), predicted.min()), max(label.max(), predicted.max())
    if lowest >= 0 and highest < _FEW:
        return label, predicted, int(highest) + 1  # they are codes, and sorting them takes longer than all the rest
    present, code = np.unique(np.concatenate([label, predicted]), return_inverse=True)
    return code[: len(label)], code[len(label) :], len(present)


def balanced_accuracy(label: Integers, predicted: Integers) -> float:
    """Return the mean, over the classes that occur among the labels, of the share of a class that is recognised.

    Parameters
    ----------
    label, predicted : int array, shape (n,)
        True and predicted class.

    Returns
    -------
    float
        Balanced accuracy in [0, 1]; a constant prediction scores one over the number of classes present.

    Raises
    ------
    ValueError
        If there are no images, or the two arrays differ in length.

    References
    ----------
    Brodersen et al. (2010), "The Balanced Accuracy and Its Posterior Distribution".

    Examples
    --------
    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    0.5
    """
    labelled, _, hits = _counts(label, predicted)
    return float(np.mean(hits[labelled > 0] / labelled[labelled > 0]))


def macro_f1(label: Integers, predicted: Integers) -> float:
    """Return the mean F1 of the classes that occur among the labels or the predictions.

    Parameters
    ----------
    label, predicted : int array, shape (n,)
        True and predicted class.

    Returns
    -------
    float
        Macro-averaged F1 in [0, 1]. A class that is predicted but never true, or true but never predicted, counts
        as 0; a class that is neither does not count.

    Raises
    ------
    ValueError
        If there are no images, or the two arrays differ in length.

    References
    ----------
    Opitz and Burst (2019), "Macro F1 and Macro F1": this is their averaged F1.

    Examples
    --------
    >>> macro_f1(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))
    0.5555555555555555
    """
    labelled, guessed, hits = _counts(label, predicted)
    return float(np.mean(2 * hits / (labelled + guessed)))


def worst_group_accuracy(correct: Booleans, group: Column) -> float:
    """Return the accuracy on the group of images where it is lowest.

    Parameters
    ----------
    correct : bool array, shape (n,)
        Whether the predicted class is the true one.
    group : array, shape (n,)
        The group of every image (a region, a hospital), as integers or strings.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Raises
    ------
    ValueError
        If there are no images, or the two arrays differ in length.

    References
    ----------
    Sagawa et al. (2020), "Distributionally Robust Neural Networks for Group Shifts".

    Examples
    --------
    >>> worst_group_accuracy(np.array([True, True, True, False]), np.array(["asia", "asia", "africa", "africa"]))
    0.5
    """
    images_in(correct=correct, group=group)
    _, code = np.unique(group, return_inverse=True)
    return float(np.min(np.bincount(code, weights=correct) / np.bincount(code)))


def negative_log_likelihood(log_likelihood: Floats) -> float:
    """Return the mean negative log-likelihood (NLL) of the true classes.

    Parameters
    ----------
    log_likelihood : float array, shape (n,)
        Natural logarithm of the probability given to the true class; minus infinity where it is zero.

    Returns
    -------
    float
        NLL in nats, at least 0; infinite as soon as one true class has probability zero, and never clipped.

    Raises
    ------
    ValueError
        If there are no images, or a value is NaN.

    Examples
    --------
    >>> negative_log_likelihood(np.log([0.5, 0.5]))
    0.6931471805599453
    """
    images_in(log_likelihood=log_likelihood)
    # Zero plus: a certain and right predictor scores 0.0, not -0.0.
    return 0.0 - float(np.mean(log_likelihood, dtype=np.float64))


def infinite_count(log_likelihood: Floats) -> int:
    """Return on how many images the true class was given probability zero, each of which makes the NLL infinite.

    Raises
    ------
    ValueError
        If there are no images, or a value is NaN.

    Examples
    --------
    >>> infinite_count(np.array([-0.5, -np.inf, 0.0]))
    1
    """
    images_in(log_likelihood=log_likelihood)
    return int(np.isneginf(log_likelihood).sum())


def brier_score(brier: Floats) -> float:
    """Return the mean multi-class Brier score.

    Parameters
    ----------
    brier : float array, shape (n,)
        Sum over the classes of the squared difference between probability and one-hot truth, in [0, 2].

    Returns
    -------
    float
        Brier score in [0, 2]; for two classes it is twice the binary score.

    Raises
    ------
    ValueError
        If there are no images, or a value is NaN.

    References
    ----------
    Brier (1950), "Verification of Forecasts Expressed in Terms of Probability".

    Examples
    --------
    >>> brier_score(np.array([0.0, 2.0]))
    1.0
    """
    images_in(brier=brier)
    return float(np.mean(brier, dtype=np.float64))
