"""Invariance: do predictions stay when only a nuisance changes?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from tlbench.metrics.columns import Booleans, Column, Floats, Integers, images_in


def consistency(predicted_clean: Integers, predicted_transformed: Integers) -> float:
    """Return the share of images whose predicted class survives a transform, be it right or wrong.

    Parameters
    ----------
    predicted_clean, predicted_transformed : int array, shape (n,)
        Class predicted for the same images, in the same order, as they are and transformed.

    Returns
    -------
    float
        Consistency in [0, 1]; a constant prediction scores 1.

    Raises
    ------
    ValueError
        If there are no images, or the two arrays differ in length.

    References
    ----------
    Zhang (2019), "Making Convolutional Networks Shift-Invariant Again".

    Examples
    --------
    >>> consistency(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]))
    0.75
    """
    images_in(predicted_clean=predicted_clean, predicted_transformed=predicted_transformed)
    return float(np.mean(predicted_clean == predicted_transformed, dtype=np.float64))


def mean_consistency(consistencies: ArrayLike) -> float:
    """Return the plain mean of the consistencies over the settings of the transforms, one number a setting.

    Raises
    ------
    ValueError
        If there are none, or one is NaN.

    Examples
    --------
    >>> mean_consistency([0.5, 1.0])
    0.75
    """
    values = np.asarray(consistencies, dtype=np.float64)
    images_in(consistencies=values)
    return float(values.mean())


def inferred_groups(scale_derivative: Floats) -> Booleans:
    """Split images into the two groups on which a shared scale of the logits is most at odds.

    Environment inference looks for weights q in [0, 1] of the images that maximise the squared derivatives, by a
    scale on the logits at 1, of the mean loss weighted by q and of the mean loss weighted by 1 - q. With g_i the
    derivative of one image's loss and A the mean of q_i g_i, the sum is A^2 + (mean(g) - A)^2, convex in A, so it is
    largest where A is: at q_i = 1 if g_i > 0 and 0 if g_i < 0, or at its complement. The published implementation
    approaches this by 10,000 unseeded steps of Adam.

    g_i is the mean logit under the model's own probabilities minus the logit of the true class. Where the prediction
    is right that logit is the largest and g_i is at most 0. The group of positive g_i is thus a subset of the errors,
    the confident ones: it is not all of them, and no feature of the image enters. Whoever computes g_i as the mean of
    the differences z_k - z_y, rather than as a difference of two sums, keeps this true in floating point.

    Parameters
    ----------
    scale_derivative : float array, shape (n,)
        Derivative g_i of the cross-entropy by a scale on the logits, at scale 1.

    Returns
    -------
    bool array, shape (n,)
        True where g_i is positive. A derivative of exactly 0 fits either group and goes with the negative ones.

    Raises
    ------
    ValueError
        If there are no images, or a derivative is NaN.

    References
    ----------
    Creager et al. (2021), "Environment Inference for Invariant Learning"; Wenzel et al. (2022), "Assaying
    Out-Of-Distribution Generalization in Transfer Learning".

    Examples
    --------
    >>> inferred_groups(np.array([0.5, -0.5, 0.0])).tolist()
    [True, False, False]
    """
    images_in(scale_derivative=scale_derivative)
    return np.asarray(scale_derivative > 0)


def total_variation(first: Floats, second: Floats) -> float:
    """Return the total variation distance of two distributions over the same classes.

    Parameters
    ----------
    first, second : float array, shape (classes,)
        Probabilities that sum to 1.

    Returns
    -------
    float
        Half the sum of the absolute differences, in [0, 1].

    Raises
    ------
    ValueError
        If the two differ in length, or hold a NaN.

    Examples
    --------
    >>> total_variation(np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    0.5
    """
    images_in(first=first, second=second)
    return float(0.5 * np.abs(first - second).sum())


def demographic_disparity(predicted: Integers, group: Column) -> float:
    """Return how far the predicted classes of the groups are from those of the whole set.

    Parameters
    ----------
    predicted : int array, shape (n,)
        Predicted class.
    group : array, shape (n,)
        Group of every image, given or from ``inferred_groups``; bool, integers or strings.

    Returns
    -------
    float
        Total variation between the predicted classes of a group and of all images, averaged over the groups with
        their sizes as weights; in [0, 1], lower is better. 0 for a single group and for a constant prediction.

    Raises
    ------
    ValueError
        If there are no images, or the two arrays differ in length.

    References
    ----------
    Wenzel et al. (2022), "Assaying Out-Of-Distribution Generalization in Transfer Learning".

    Examples
    --------
    >>> demographic_disparity(np.array([0, 1, 0, 1, 1]), np.array([True, True, False, False, False]))
    0.08
    """
    images_in(predicted=predicted, group=group)
    classes, class_of = np.unique(predicted, return_inverse=True)
    groups, group_of = np.unique(group, return_inverse=True)
    size = len(groups) * len(classes)
    counts = np.bincount(group_of * len(classes) + class_of, minlength=size).reshape(len(groups), len(classes))
    return disparity_of_counts(counts)


def disparity_of_counts(counts: Integers) -> float:
    """Return the demographic disparity of predictions counted by group and class, shape (groups, classes)."""
    n = counts.sum()
    of_all = counts.sum(axis=0) / n
    sizes = counts.sum(axis=1)
    return float(sum(m / n * total_variation(of_all, row / m) for m, row in zip(sizes, counts, strict=True)))
