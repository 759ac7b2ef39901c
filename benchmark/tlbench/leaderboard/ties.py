"""Which rows are told apart: paired, studentised differences, all pairs at once, and the groups that are left.

Two null distributions. Over tasks, the signs of a task's differences are flipped, those of all pairs together: if two
rows could be exchanged on every task, each pattern of signs was equally likely for them, whatever the tasks' means,
spreads and skewness; a difference counts if the largest of all studentised differences would seldom be as large
(single-step max-T). Where tasks are too few, the measurement bootstrap: other images and other seeds of the same pairs
of domains, and the least p of all pairs against its distribution, each pair with degrees of freedom and a scale of its
own. Either holds the chance of calling any difference real that is none at about 5 %, and ``docs/board.md`` says how
nearly.

References
----------
Westfall and Young (1993), "Resampling-Based Multiple Testing", for the single-step max-T; Romano (1990), "On the
Behavior of Randomization Tests Without a Group Invariance Assumption", for studentised sign flips.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from tlbench.seeds import derive

LEVEL: Final = 0.05
"""The chance that at least one difference of a section is called real although it is none."""
MOST_TASKS_ENUMERATED: Final = 13
"""Up to here every pattern of signs is gone through: 2^12 of them, for turning all signs changes nothing."""
_FLIPS: Final = 4096
_NOTHING: Final = 1e-12  # differences that sums of equal numbers in another order leave behind
_TRACE: Final = 1e-6  # of a number that was summed in single precision
_AT_ONCE: Final = 2**22  # numbers in a block of pairs


@dataclass(frozen=True)
class Compared:
    """Every pair of some rows.

    Attributes
    ----------
    first, second : int arrays, shape (pairs,)
        Which rows; the first comes before the second.
    difference : float array, shape (pairs,)
        First minus second.
    low, high : float arrays, shape (pairs,)
        Simultaneous 95 % interval; NaN where the data bound nothing.
    p, adjusted_p : float arrays, shape (pairs,)
        Of this pair alone, and of it as one of all.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    difference: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    p: NDArray[np.float64]
    adjusted_p: NDArray[np.float64]

    def above(self, rows: int) -> NDArray[np.bool_]:
        """Return whether the row i is larger than the row j, and told apart from it, shape (rows, rows)."""
        found = np.zeros((rows, rows), dtype=np.bool_)
        real = self.adjusted_p <= LEVEL
        found[self.first, self.second] = real & (self.difference > 0)
        found[self.second, self.first] = real & (self.difference < 0)
        return found


def compare_over_tasks(tasks: NDArray[np.float64]) -> Compared:
    """Compare rows by their scores on the tasks.

    Parameters
    ----------
    tasks : float array, shape (rows, tasks)

    Returns
    -------
    Compared
    """
    first, second = np.triu_indices(len(tasks), 1)
    n = tasks.shape[1]
    flips = _sign_patterns(n)
    total = np.zeros(len(first))
    size, own = np.zeros(len(first)), np.zeros(len(first))
    largest = np.zeros(len(flips))
    for block in _blocks(len(first), len(flips)):
        differences = tasks[first[block]] - tasks[second[block]]
        differences[np.abs(differences) < _NOTHING] = 0.0
        total[block], size[block] = differences.sum(axis=1), np.sqrt((differences**2).sum(axis=1))
        # Flips leave the sum of squares alone, so that Student's t grows with the sum over the root of it.
        flipped = np.abs(flips @ _over(differences, size[block][:, None]).T)
        own[block] = (flipped >= _over(np.abs(total[block]), size[block]) - _NOTHING).mean(axis=0)
        largest = np.maximum(largest, flipped.max(axis=1, initial=0.0))
    ratio = _over(np.abs(total), size)
    seldom = _share_at_least(largest, ratio)
    critical = np.sort(largest)[::-1][int(LEVEL * len(flips) + 1e-9)] if len(first) else 0.0
    difference = total / n
    spread = np.sqrt(np.maximum(size**2 - total**2 / n, 0.0) / (n - 1) / n)
    bound = n - critical**2
    margin = np.sqrt((n - 1) / bound) * critical * spread if bound > _NOTHING else np.full(len(first), np.nan)
    return Compared(first, second, difference, difference - margin, difference + margin, own, seldom)


def compare_over_draws(
    values: NDArray[np.float64], samples: NDArray[np.float64], degrees: NDArray[np.float64]
) -> Compared:
    """Compare rows by bootstrap samples that they share.

    Parameters
    ----------
    values : float array, shape (rows,)
    samples : float array, shape (draws, rows)
        The same draws for all rows.
    degrees : float array, shape (rows, rows)
        Degrees of freedom of the standard error of every difference.

    Returns
    -------
    Compared
        A standard error of few degrees of freedom makes Student's t, here one of each pair's own: in every draw the
        errors of the pairs are too small or too large independently, as those of rows with seeds of their own nearly
        are.
    """
    first, second = np.triu_indices(len(values), 1)
    draws = len(samples)
    rng = np.random.default_rng(derive("ties", draws))
    difference = values[first] - values[second]
    difference[np.abs(difference) < _NOTHING] = 0.0
    error = np.zeros(len(first))
    known = degrees[first, second]
    trace = _TRACE * np.maximum(1.0, np.abs(values))
    smallest = np.ones(draws)
    for block in _blocks(len(first), draws):
        moved = samples[:, first[block]] - samples[:, second[block]]
        spread = moved.std(axis=0, ddof=1)
        # Rows that are right on the same images differ by what is left of single-precision sums, and by nothing else.
        alike = spread <= np.maximum(trace[first[block]], trace[second[block]])
        error[block] = np.where(alike, 0.0, spread)
        centred = np.where(alike, 0.0, moved - moved.mean(axis=0))
        t = _over(centred, error[block]) / np.sqrt(_chi_squares(rng, draws, known[block]))
        smallest = np.minimum(smallest, (2 * stdtr(known[block], -np.abs(t))).min(axis=1, initial=1.0))
    own = 2 * stdtr(known, -_over(np.abs(difference), error))
    seldom = (1 + _share_at_least(-smallest, -own) * draws) / (1 + draws)
    critical = np.sort(smallest)[int(LEVEL * (draws + 1)) - 1]
    margin = -stdtrit(known, critical / 2) * error
    return Compared(first, second, difference, difference - margin, difference + margin, own, seldom)


def tie_groups(better: NDArray[np.bool_], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return every row's group, shape (rows,): 1 for the best row and all that are not told apart from it.

    Parameters
    ----------
    better : bool array, shape (rows, rows)
        Whether the row i is better than the row j and told apart from it.
    order : int array, shape (rows,)
        Rows, the best first. The next group is that of the best row that has none yet.
    """
    group = np.zeros(len(order), dtype=np.int64)
    number = 0
    for row in order:
        if group[row] == 0:
            number += 1
            group[(group == 0) & ~better[row]] = number
    return group


def rank_intervals(better: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the least and the greatest rank that a row may have, given who is told apart from it; shape (rows,)."""
    return 1 + better.sum(axis=0), len(better) - better.sum(axis=1)


def _sign_patterns(n: int) -> NDArray[np.float64]:
    """Return patterns of signs, the first of ones alone, shape (patterns, n)."""
    if n <= MOST_TASKS_ENUMERATED:
        bits = np.arange(2 ** (n - 1))[:, None] >> np.arange(n)
        return np.asarray(1.0 - 2.0 * (bits & 1))
    signs = 1.0 - 2.0 * np.random.default_rng(derive("flips", n)).integers(0, 2, (_FLIPS, n))
    signs[0] = 1.0
    return np.asarray(signs)


def _chi_squares(rng: np.random.Generator, draws: int, degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return chi-squared numbers over their degrees of freedom, shape (draws, pairs), by Wilson and Hilferty (1931)."""
    spread = 2 / (9 * degrees)
    root = 1 - spread + rng.standard_normal((draws, len(degrees)), dtype=np.float32) * np.sqrt(spread)
    return np.asarray(np.maximum(root, 0.01) ** 3)


def _over(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide, zero over zero being zero."""
    shape = np.broadcast_shapes(top.shape, bottom.shape)
    where = np.broadcast_to((bottom > 0) | (top != 0), shape)
    with np.errstate(divide="ignore"):
        return np.asarray(np.divide(top, bottom, out=np.zeros(shape), where=where))


def _share_at_least(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of numbers that are at least as large as each wanted one."""
    ordered = np.sort(found)
    return np.asarray((len(found) - np.searchsorted(ordered, wanted - _NOTHING, side="left")) / len(found))


def _blocks(pairs: int, draws: int) -> Iterator[slice]:
    width = max(1, _AT_ONCE // max(draws, 1))
    for start in range(0, pairs, width):
        yield slice(start, start + width)
