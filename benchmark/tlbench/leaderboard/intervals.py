"""The measurement bootstrap of a board: other images and other seeds, the same ones for every row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from tlbench.leaderboard.measured import Measured, Part
from tlbench.leaderboard.prepared import Row
from tlbench.metrics.resampling import KNOWN_DEGREES, drawn_shares, pooled_degrees, resampled_means

DRAWS: Final = 2000


@dataclass(frozen=True)
class Resampled:
    """Scores as they might have come out.

    Attributes
    ----------
    rows : tuple of Row
        Those whose images are there.
    values : float array, shape (rows,)
    samples : float array, shape (draws, rows)
    influence : tuple of float arrays, shape (rows, units) each
        How far every unit of a margin moves the scores: of images, or of the seeds of a source.
    """

    rows: tuple[Row, ...]
    values: NDArray[np.float64]
    samples: NDArray[np.float64]
    influence: tuple[NDArray[np.float64], ...]

    def intervals(self, *, level: float = 0.95) -> dict[Row, tuple[float, float]]:
        """Return the confidence interval of every row, by Student's t with the bootstrap's standard error."""
        if not self.rows:
            return {}
        variances = np.array([_spread(moved) for moved in self.influence])
        degrees = pooled_degrees(variances, self._degrees) if len(variances) else np.array(KNOWN_DEGREES)
        quantile = stdtrit(np.broadcast_to(degrees, self.values.shape), (1 + level) / 2)
        margin = quantile * self.samples.std(axis=0, ddof=1)
        low, high = self.values - margin, self.values + margin
        return {row: (float(low[at]), float(high[at])) for at, row in enumerate(self.rows)}

    def of(self, rows: Sequence[Row]) -> Resampled:
        """Return some of the rows, in this order."""
        at = [self.rows.index(row) for row in rows]
        return Resampled(
            tuple(rows), self.values[at], self.samples[:, at], tuple(moved[at] for moved in self.influence)
        )

    def degrees_of_differences(self) -> NDArray[np.float64]:
        """Return the degrees of freedom of the standard error of every difference, shape (rows, rows)."""
        variances = []
        for moved in self.influence:
            product = moved @ moved.T
            own = np.diag(product)
            k = moved.shape[1]
            variances.append(np.maximum(own[:, None] + own[None, :] - 2 * product, 0.0) * k / (k - 1))
        if not variances:
            return np.full((len(self.rows),) * 2, KNOWN_DEGREES)
        return pooled_degrees(np.array(variances), self._degrees)

    @property
    def _degrees(self) -> NDArray[np.float64]:
        return np.array([moved.shape[1] - 1.0 for moved in self.influence])


def resample(
    measured: Measured, scores: Mapping[Row, float], seeds_of: Mapping[Row, tuple[int, ...]], *, draws: int = DRAWS
) -> Resampled:
    """Draw images and seeds again.

    Parameters
    ----------
    measured : Measured
    scores : mapping from Row to float
        As the records have them. A row whose images say otherwise, or are not all there, is left out.
    seeds_of : mapping from Row to tuple of int
        The seeds on which each score rests; one, for a deterministic method.
    draws : int
        Named by what is drawn: equal ones give equal numbers, whoever else takes part.

    Returns
    -------
    Resampled
    """
    rows = tuple(row for row, score in scores.items() if _is_whole(measured.parts, row, seeds_of[row], score))
    place = {row: number for number, row in enumerate(rows)}
    samples = np.zeros((draws, len(rows)))
    images: dict[tuple[str, ...], tuple[NDArray[np.float64], NDArray[np.int64]]] = {}
    fits: dict[tuple[str, tuple[str, str], int], NDArray[np.float64]] = {}
    for part in measured.parts:
        shares = part.units.margin.shares(draws)
        strata = part.units.margin.strata
        moved = images.setdefault(part.units.margin.name, (np.zeros((len(rows), len(strata))), strata))[0]
        for seeds in sorted({seeds_of[row] for row in part.sums if row in place}):
            own = [row for row in part.sums if row in place and seeds_of[row] == seeds]
            at = [place[row] for row in own]
            sums = np.array([[part.sums[row][seed] for seed in seeds] for row in own])
            drawn = drawn_shares(len(seeds), draws, ("fits", *part.source))
            samples[:, at] += resampled_means(shares, drawn, sums, part.units.sizes)
            moved[at] += _moved_by_images(sums, part)
            if len(seeds) > 1:
                by_seed = sums.sum(axis=2) / part.units.sizes.sum()
                margin = fits.setdefault(("fits", part.source, len(seeds)), np.zeros((len(rows), len(seeds))))
                margin[at] += (by_seed - by_seed.mean(axis=1, keepdims=True)) / len(seeds)
    influence = [own for moved, strata in images.values() for own in _by_stratum(moved, strata)]
    return Resampled(
        rows,
        np.array([scores[row] for row in rows], dtype=np.float64),
        samples,
        tuple(moved for moved in (*influence, *fits.values()) if moved.shape[1] > 1),
    )


def from_standard_error(value: float, error: float | None, *, level: float = 0.95) -> tuple[float, float]:
    """Return the interval of a score whose images nobody has published, from the recorded bound of its error."""
    if error is None or not math.isfinite(error) or not math.isfinite(value):
        return float("nan"), float("nan")
    margin = float(ndtri((1 + level) / 2)) * error
    return value - margin, value + margin


def _is_whole(parts: Sequence[Part], row: Row, seeds: tuple[int, ...], score: float) -> bool:
    """Whether a row's images are all there, and give the score that its records have."""
    if not math.isfinite(score):
        return False
    total = 0.0
    for part in parts:
        own = part.sums.get(row)
        if own is None:
            continue
        if any(seed not in own or not np.isfinite(own[seed]).all() for seed in seeds):
            return False
        total += sum(float(own[seed].sum()) for seed in seeds) / len(seeds) / float(part.units.sizes.sum())
    return abs(total - score) <= 1e-6 * max(1.0, abs(score))


def _moved_by_images(sums: NDArray[np.float64], part: Part) -> NDArray[np.float64]:
    """Return how far every unit moves the mean of its set, shape (rows, units)."""
    sizes = part.units.sizes
    mean = sums.mean(axis=1)
    return np.asarray((mean - mean.sum(axis=1, keepdims=True) / sizes.sum() * sizes) / sizes.sum())


def _by_stratum(moved: NDArray[np.float64], strata: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Return the influence of each stratum's units, about their mean where there are several strata."""
    if strata.max() == 0:
        return [moved]
    own = [moved[:, strata == stratum] for stratum in range(int(strata.max()) + 1)]
    return [part - part.mean(axis=1, keepdims=True) for part in own]


def _spread(moved: NDArray[np.float64]) -> NDArray[np.float64]:
    k = moved.shape[1]
    return np.asarray((moved**2).sum(axis=1) * k / (k - 1))
