"""Other images and other seeds: the draws of a bootstrap of two crossed margins, shared by all that are compared.

A number that was measured has two margins that could have come out otherwise: units of images (clusters, or single
images) and fits, one a seed. Both are drawn again (Owen's pigeonhole bootstrap). The draws of a margin are named, so
that whatever rests on the same images or seeds shares them, and what an image does to two models cancels between them.

References
----------
Owen (2007), "The pigeonhole bootstrap"; McCarthy and Snowden (1985), "The bootstrap and finite population sampling",
for k - 1 draws; Satterthwaite (1946), "An approximate distribution of estimates of variance components".
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.seeds import derive

KNOWN_DEGREES = 1e9  # from here on, t is the normal distribution


@lru_cache(maxsize=64)
def drawn_shares(units: int, draws: int, name: tuple[str, ...]) -> NDArray[np.float32]:
    """Return each unit's share of every draw, shape (draws, units); kept, for a page compares dozens of models.

    Parameters
    ----------
    units : int
        At least 1. The only unit of a margin is drawn always.
    draws : int
    name : tuple of str
        Equal names give equal draws.
    """
    if units == 1:
        return np.ones((draws, 1), np.float32)
    rng = np.random.default_rng(derive("paired", *name))
    # k - 1 draws of k: the variance of the mean of k draws would be short by (k - 1)/k, a third for three seeds.
    counts = rng.multinomial(units - 1, np.full(units, 1 / units), size=draws)
    shares = (counts / (units - 1)).astype(np.float32)
    shares.flags.writeable = False
    return shares


def resampled_means(
    images: NDArray[np.float32], fits: NDArray[np.float32], sums: NDArray[np.floating[Any]], sizes: NDArray[Any]
) -> NDArray[np.floating[Any]]:
    """Return the mean over images and seeds in every draw.

    Parameters
    ----------
    images : float array, shape (draws, units)
        Shares of the units of images, as from `drawn_shares`.
    fits : float array, shape (draws, seeds)
        Shares of the seeds.
    sums : float array, shape (..., seeds, units)
        Sum over each unit's images of what is averaged.
    sizes : array, shape (units,)
        Images of each unit.

    Returns
    -------
    float array, shape (draws, ...)
    """
    seeds, units = sums.shape[-2:]
    totals = (images @ sums.reshape(-1, units).T.astype(np.float32)).reshape(len(images), -1, seeds)
    means = (fits[:, None, :] * totals).sum(axis=2) / (images @ sizes.astype(np.float32))[:, None]
    return np.asarray(means.reshape(len(images), *sums.shape[:-2]))


def pooled_degrees(variances: NDArray[np.float64], degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the degrees of freedom of a sum of estimated variances, by Satterthwaite's rule.

    Parameters
    ----------
    variances : float array, shape (margins, ...)
        Estimates, at least 0.
    degrees : float array, shape (margins,)
        Their own degrees of freedom.

    Returns
    -------
    float array, shape (...)
        At most ``KNOWN_DEGREES``, which also stands where nothing varies.

    Examples
    --------
    >>> float(pooled_degrees(np.array([2.0, 2.0]), np.array([3.0, 3.0])))
    6.0
    """
    own = degrees.reshape(-1, *(1,) * (variances.ndim - 1))
    parts, total = np.sum(variances**2 / own, axis=0), np.sum(variances, axis=0) ** 2
    # Nothing varies, or so little that its square is nothing: zero over zero.
    known = np.broadcast_to(KNOWN_DEGREES, np.shape(total)).copy()
    return np.asarray(np.minimum(np.divide(total, parts, out=known, where=parts > 0), KNOWN_DEGREES))
