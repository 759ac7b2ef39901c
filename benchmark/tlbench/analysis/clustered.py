"""Statistics of runs that are not independent: models are drawn again, whole, and every pair of domains sees one draw.

Runs of one method on one backbone (its seeds, augmentations, learning rates) move together; they make a cluster. A
bootstrap draws clusters, and a draw is a weight for every run. All pairs share their draws, so that differences and
means over pairs carry what a model does to all of them at once. Pairs and tasks are not drawn: what is found holds for
these pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.analysis.answer import Estimate, estimate, named
from tlbench.metrics.uncertainty import LEAST_CLUSTERS
from tlbench.seeds import derive

Floats = NDArray[np.float64]
PAIR: Final = ("task", "source", "target")
DRAWS: Final = 2000
CLUSTER_WORDS: Final = "(method, backbone) clusters"


@dataclass(frozen=True)
class Weights:
    """How much every run counts in every draw: as often as its cluster was drawn.

    Attributes
    ----------
    counts : float array, shape (draws + 1, clusters)
    code : int array, shape (runs,)
        Every run's cluster.
    """

    counts: Floats
    code: NDArray[np.int64]

    @cached_property
    def rows(self) -> Floats:
        """Weights of runs, shape (draws + 1, runs)."""
        return np.asarray(self.counts[:, self.code])

    @cached_property
    def total(self) -> Floats:
        """Sums over runs, shape (draws + 1,)."""
        return np.asarray(self.counts @ np.bincount(self.code, minlength=self.counts.shape[1]).astype(np.float64))


Statistic = Callable[[pd.DataFrame, Weights], Floats]
"""From the runs of one pair, and their weights, to a value for every draw, shape (draws + 1,)."""


@dataclass(frozen=True)
class Draws:
    """Bootstrap draws of clusters.

    Attributes
    ----------
    clusters : array of str, sorted
    counts : float array, shape (draws + 1, clusters)
        How often a draw has each; the first row is all ones, the runs as they are.
    """

    clusters: NDArray[np.object_]
    counts: Floats

    @classmethod
    def of(cls, runs: pd.DataFrame, draws: int = DRAWS) -> Draws:
        """Return draws that are named by the clusters: equal ones give equal draws, whatever the order of rows."""
        names = np.array(sorted(set(runs["cluster"])), dtype=object)
        rng = np.random.default_rng(derive("analysis", *names))
        k = len(names)
        drawn = rng.multinomial(k, np.full(k, 1 / k), size=draws) if k else np.empty((draws, 0))
        return cls(names, np.vstack([np.ones((1, k)), drawn]).astype(np.float64))

    def weights(self, runs: pd.DataFrame) -> Weights:
        """Return the weights of runs of these clusters."""
        own, code = np.unique(runs["cluster"].to_numpy(object), return_inverse=True)
        return Weights(self.counts[:, np.searchsorted(self.clusters, own)], code)


@dataclass(frozen=True)
class Sampled:
    """A statistic of every pair under every draw.

    Attributes
    ----------
    pairs : DataFrame
        ``task``, ``source``, ``target``, ``runs``, ``clusters`` and ``reason``, which says why a pair has no value.
    samples : float array, shape (draws + 1, pairs)
        NaN where there is none.
    """

    pairs: pd.DataFrame
    samples: Floats

    @property
    def any(self) -> bool:
        """Whether a single pair has a value."""
        return bool((self.pairs["reason"] == "").any())

    @property
    def clusters(self) -> int:
        """Return the clusters of the pair that has fewest, among those with a value."""
        return int(self.pairs.loc[self.pairs["reason"] == "", "clusters"].min()) if self.any else 0

    @property
    def reason(self) -> str:
        """Return why no pair has a value, as most of them say it."""
        told = self.pairs.loc[self.pairs["reason"] != "", "reason"]
        return str(told.value_counts().index[0]) if len(told) else "there are no runs"

    def of_pair(self, column: int) -> Estimate:
        """Return one pair's value."""
        return estimate(self.samples[:, column], int(self.pairs["clusters"].iloc[column]))

    def over_tasks(self, tasks: Sequence[str] | None = None) -> Floats:
        """Return, shape (draws + 1,), the mean over tasks of the mean over their pairs that have a value."""
        task_of = self.pairs["task"].to_numpy(object)
        chosen = tasks if tasks is not None else sorted(set(task_of))
        means = [mean_known(self.samples[:, task_of == task]) for task in chosen]
        return mean_known(np.column_stack(means)) if means else np.full(len(self.samples), np.nan)

    def of_task(self, task: str) -> Estimate:
        """Return the mean over the pairs of a task."""
        return estimate(self.over_tasks([task]), self.clusters)

    @property
    def overall(self) -> Estimate:
        """Return the mean over tasks."""
        return estimate(self.over_tasks(), self.clusters)

    @property
    def tasks(self) -> list[str]:
        """Return the tasks that have a value, sorted."""
        return sorted(set(self.pairs.loc[self.pairs["reason"] == "", "task"]))

    def minus(self, other: Sampled) -> Sampled:
        """Return the difference of two statistics of the same pairs, draw by draw."""
        reason = self.pairs["reason"].where(self.pairs["reason"] != "", other.pairs["reason"])
        return Sampled(self.pairs.assign(reason=reason), self.samples - other.samples)

    def averaged(self) -> Sampled:
        """Return the mean over what a pair has several of, such as second domains."""
        keys = list(PAIR)
        groups = self.pairs.groupby(keys, sort=True)
        number = groups.ngroup().to_numpy()
        columns = [mean_known(self.samples[:, number == pair]) for pair in range(groups.ngroups)]
        pairs = groups.agg(runs=("runs", "max"), clusters=("clusters", "min"), reason=("reason", "min")).reset_index()
        return Sampled(pairs, np.column_stack(columns) if columns else self.samples)


def over_pairs(
    runs: pd.DataFrame, statistic: Statistic, draws: Draws, *, needs: Sequence[str], by: Sequence[str] = PAIR
) -> Sampled:
    """Return a statistic of every pair of domains under every draw.

    Parameters
    ----------
    runs : DataFrame
        With the columns of ``by`` and ``needs``, and ``cluster``.
    statistic : function
    draws : Draws
    needs : sequence of str
        What the statistic reads. Runs that lack one of these are left out.
    by : sequence of str
        What makes a pair.

    Returns
    -------
    Sampled
        Pairs in sorted order. One with fewer than five clusters, or without spread, has no value but a reason.
    """
    known = runs[list(dict.fromkeys([*by, "cluster", *needs]))].dropna(subset=list(needs))
    groups = {tuple(map(str, key)): rows for key, rows in known.groupby(list(by), sort=True)}
    rows, samples = [], []
    for key in sorted({*zip(*(runs[name].astype("str") for name in by), strict=True)}):
        kept = groups.get(key, known.iloc[:0])
        clusters = int(kept["cluster"].nunique())
        reason = too_few(clusters)
        column = np.full(len(draws.counts), np.nan)
        if not reason:
            column = statistic(kept, draws.weights(kept))
            reason = "" if np.isfinite(column[0]) else "a measure is the same for all runs"
        rows.append((*key, len(kept), clusters, reason))
        samples.append(np.where(reason == "", column, np.nan))
    pairs = pd.DataFrame(rows, columns=[*by, "runs", "clusters", "reason"])
    return Sampled(pairs, np.column_stack(samples) if samples else np.empty((len(draws.counts), 0)))


def too_few(clusters: int) -> str:
    """Return why that many clusters have no interval, or nothing."""
    return "" if clusters >= LEAST_CLUSTERS else f"{clusters} {CLUSTER_WORDS}, at least {LEAST_CLUSTERS} are needed"


def pairs_table(statistics: dict[str, Sampled]) -> pd.DataFrame:
    """Return one row a pair: its columns, every statistic with ``_low`` and ``_high``, and ``reason`` last."""
    first = next(iter(statistics.values())).pairs
    rows = [named({name: found.of_pair(column) for name, found in statistics.items()}) for column in range(len(first))]
    values = pd.DataFrame(rows, index=first.index).astype("float64")
    return pd.concat([first.drop(columns="reason"), values, first[["reason"]]], axis=1)


def tasks_table(statistics: dict[str, Sampled]) -> pd.DataFrame:
    """Return one row a task, the mean over its pairs, and where there are several one named ``(all)``."""
    first = next(iter(statistics.values()))
    rows = [
        {
            "task": task,
            "pairs": int(((first.pairs["task"] == task) & (first.pairs["reason"] == "")).sum()),
            **named({name: found.of_task(task) for name, found in statistics.items()}),
        }
        for task in first.tasks
    ]
    if len(first.tasks) > 1:
        everything = named({name: found.overall for name, found in statistics.items()})
        rows.append({"task": "(all)", "pairs": int((first.pairs["reason"] == "").sum()), **everything})
    return pd.DataFrame(rows)


def mean_known(values: Floats) -> Floats:
    """Return the mean along the last axis of the values that are there; NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def weighted_mean(values: Floats, weights: Weights) -> Floats:
    """Return the mean of values, shape (runs,), in every draw; NaN where all weigh nothing."""
    sums = weights.counts @ np.bincount(weights.code, weights=values, minlength=weights.counts.shape[1])
    return np.where(weights.total > 0, sums / np.where(weights.total > 0, weights.total, 1.0), np.nan)


def weighted_ranks(values: Floats, weights: Weights) -> Floats:
    """Return the midrank of every value in every draw, as if each stood there as often as it weighs.

    Parameters
    ----------
    values : float array, shape (runs,)
        Infinite ones rank first and last.
    weights : Weights

    Returns
    -------
    float array, shape (draws + 1, runs)

    Examples
    --------
    >>> weights = Weights(np.array([[1.0, 1.0], [1.0, 2.0]]), np.array([0, 1, 1]))
    >>> weighted_ranks(np.array([3.0, 1.0, 3.0]), weights)
    array([[2.5, 1. , 2.5],
           [4. , 1.5, 4. ]])
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    place = np.empty(len(values), dtype=np.int64)
    place[order] = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(values)]))
    # How many runs of every cluster have each value: what is smaller counts whole, what is equal by half.
    members = np.zeros((len(starts), weights.counts.shape[1]))
    np.add.at(members, (place, weights.code), 1.0)
    before = np.cumsum(members, axis=0) - members / 2
    return np.asarray((weights.counts @ before.T + 0.5)[:, place])


def correlation(first: Floats, second: Floats, weights: Weights) -> Floats:
    """Return Pearson's correlation in every draw; NaN where one of the two has no spread.

    Parameters
    ----------
    first, second : float arrays, shape (runs,) or (draws + 1, runs)
    weights : Weights
    """
    total = np.where(weights.total > 0, weights.total, 1.0)
    shape = weights.rows.shape
    parts = [np.broadcast_to(part - part.mean(axis=-1, keepdims=True), shape) for part in (first, second)]
    weighed = [weights.rows * part for part in parts]
    means = [part.sum(axis=1) / total for part in weighed]
    a, b, together = (
        np.einsum("dr,dr->d", weighed[i], parts[j]) / total - means[i] * means[j] for i, j in ((0, 0), (1, 1), (0, 1))
    )
    # What is equal for all runs of a draw is so up to rounding only, once means have been taken from it.
    least = [
        np.maximum(1e-12 * (part**2).max(axis=1), 1e-20 * np.max(given**2, axis=-1))
        for part, given in zip(parts, (first, second), strict=True)
    ]
    spread = (a > least[0]) & (b > least[1])
    size = np.sqrt(np.where(spread, a * b, 1.0))
    return np.where(spread, np.clip(together / size, -1.0, 1.0), np.nan)


def spearman(first: str, second: str) -> Statistic:
    """Return the statistic "Spearman's correlation of two columns"."""

    def statistic(runs: pd.DataFrame, weights: Weights) -> Floats:
        ranks = [weighted_ranks(runs[name].to_numpy(np.float64), weights) for name in (first, second)]
        return correlation(ranks[0], ranks[1], weights)

    return statistic


def partial_spearman(first: str, second: str, given: str) -> Statistic:
    """Return the statistic "Spearman's correlation of two columns once a third is known"."""

    def statistic(runs: pd.DataFrame, weights: Weights) -> Floats:
        a, b, c = (weighted_ranks(runs[name].to_numpy(np.float64), weights) for name in (first, second, given))
        together = correlation(a, b, weights)
        own, other = correlation(a, c, weights), correlation(b, c, weights)
        rest = (1 - own**2) * (1 - other**2)
        # Where the third says all there is to know, nothing is left to correlate.
        known = rest > 1e-12
        return np.where(known, (together - own * other) / np.sqrt(np.where(known, rest, 1.0)), np.nan)

    return statistic


def mean_of(column: str) -> Statistic:
    """Return the statistic "mean of a column"."""
    return lambda runs, weights: weighted_mean(runs[column].to_numpy(np.float64), weights)
