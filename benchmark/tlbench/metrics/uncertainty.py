"""Standard errors: how far would a number move if other images, or other clusters of images, had been drawn?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tlbench.metrics.columns import Booleans, Column, Floats, images_in

LEAST_CLUSTERS = 5
MOST_BLOCKS = 50  # the standard error of a jackknife over 50 blocks is itself known to about a tenth


class NotEnoughClusters(ValueError):
    """Too few independent units for a standard error: the number stands, its error is not applicable."""


def _units(n: int, cluster: Column | None) -> tuple[NDArray[np.intp], int]:
    """Return the independent unit of every image, shape (n,), and how many there are."""
    if cluster is None:
        if n < 2:
            raise NotEnoughClusters(f"{n} image, a standard error needs at least 2")
        return np.arange(n), n
    names, unit_of = np.unique(cluster, return_inverse=True)
    if len(names) < LEAST_CLUSTERS:
        raise NotEnoughClusters(f"{len(names)} clusters, a standard error needs at least {LEAST_CLUSTERS}")
    return unit_of, len(names)


def standard_error_of_mean(values: Floats | Booleans, *, cluster: Column | None = None) -> float:
    """Return the standard error of the mean of one value per image.

    Parameters
    ----------
    values : float or bool array, shape (n,)
        One finite value per image.
    cluster : array, shape (n,), optional
        The unit that was drawn (a slide, a scene, a camera sequence), as integers or strings. Images of one cluster
        may depend on each other in any way. Without it every image is its own.

    Returns
    -------
    float
        The cluster-robust standard error with the small-sample factor G/(G - 1) for G clusters; without clusters this
        is the sample standard deviation over the square root of n.

    Raises
    ------
    NotEnoughClusters
        If there are fewer than five clusters or, without clusters, fewer than two images.
    ValueError
        If there are no images, a value is not finite, or the arrays differ in length.

    References
    ----------
    Liang and Zeger (1986), "Longitudinal Data Analysis Using Generalized Linear Models"; Cameron and Miller (2015),
    "A Practitioner's Guide to Cluster-Robust Inference".

    Examples
    --------
    >>> standard_error_of_mean(np.array([0.0, 1.0, 0.0, 1.0]))
    0.28867513459481287
    >>> standard_error_of_mean(np.array([0.0, 0.0, 1.0, 1.0]), cluster=np.array(["a", "a", "b", "b"]))
    Traceback (most recent call last):
    tlbench.metrics.uncertainty.NotEnoughClusters: 2 clusters, a standard error needs at least 5
    """
    n = images_in(values=values) if cluster is None else images_in(values=values, cluster=cluster)
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("values: an infinite value has no standard error")
    unit_of, units = _units(n, cluster)
    sums = np.bincount(unit_of, weights=values - values.mean(), minlength=units)
    return float(np.sqrt(units / (units - 1) * (sums**2).sum()) / n)


def jackknife_standard_error(
    statistic: Callable[[NDArray[np.intp]], float], n: int, *, cluster: Column | None = None
) -> float:
    """Return the delete-a-block jackknife standard error of any smooth statistic of the images.

    Parameters
    ----------
    statistic : function of an int array, shape (m,)
        The statistic of the images at these positions, m below ``n``.
    n : int
        Number of images.
    cluster : array, shape (n,), optional
        The unit that was drawn, as for ``standard_error_of_mean``; a cluster is never split.

    Returns
    -------
    float
        The standard error. Every cluster, or every image, is left out once. Beyond fifty of them they are dealt in
        turn, as one deals cards, to fifty blocks which are left out whole, so the cost is at most fifty statistics.

    Raises
    ------
    NotEnoughClusters
        If there are fewer than five clusters or, without clusters, fewer than two images.

    References
    ----------
    Kott (2001), "The Delete-a-Group Jackknife".

    Examples
    --------
    >>> values = np.array([0.0, 1.0, 0.0, 1.0])
    >>> round(jackknife_standard_error(lambda kept: values[kept].mean(), 4), 12)
    0.288675134595
    """
    block_of = jackknife_blocks(n, cluster=cluster)
    left_out = [statistic(np.flatnonzero(block_of != block)) for block in range(int(block_of.max()) + 1)]
    return standard_error_left_out(np.array(left_out))


def jackknife_blocks(n: int, *, cluster: Column | None = None) -> NDArray[np.intp]:
    """Return the block of every image, shape (n,); parameters and errors as for ``jackknife_standard_error``."""
    unit_of, units = _units(n, cluster)
    if len(unit_of) != n:
        raise ValueError(f"expected the cluster of {n} images, got {len(unit_of)}")
    return unit_of % min(units, MOST_BLOCKS)


def standard_error_left_out(without: Floats) -> float:
    """Return the jackknife standard error of a statistic from its values without each block, shape (blocks,)."""
    blocks = len(without)
    return float(np.sqrt((blocks - 1) / blocks * ((without - without.mean()) ** 2).sum()))
