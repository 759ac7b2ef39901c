"""Do models that are better where they were trained do better elsewhere, and is there a pair where they do worse?"""

from __future__ import annotations

import itertools
from functools import lru_cache
from math import factorial
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from tlbench.analysis.answer import Answer, unanswered
from tlbench.analysis.clustered import (
    DRAWS,
    PAIR,
    Draws,
    Floats,
    Statistic,
    Weights,
    correlation,
    over_pairs,
    pairs_table,
    spearman,
    tasks_table,
    too_few,
)
from tlbench.seeds import derive

SIGNIFICANCE: Final = 0.05
_ALL_ORDERS: Final = 8  # clusters up to which every order is counted: 40,320
_RANDOM_ORDERS: Final = 99_999


def correlations(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A1: correlate ID-test and OOD-test accuracy over the runs of every pair.

    Parameters
    ----------
    runs : DataFrame
        As from ``tidy_runs``.
    draws : int
        Bootstrap draws.

    Returns
    -------
    Answer
        ``tasks``: the mean over pairs of every task of ``spearman``, ``pearson`` and ``probit`` (Pearson on the probit
        scale), with ``_low`` and ``_high``. ``pairs``: the same for every pair, with ``reason`` where there is none.
    """
    title = "How closely does OOD accuracy follow ID accuracy?"
    drawn = Draws.of(runs, draws)
    needs = ["id_accuracy", "ood_accuracy"]
    found = {
        "spearman": over_pairs(runs, spearman(*needs), drawn, needs=needs),
        "pearson": over_pairs(runs, pearson(*needs), drawn, needs=needs),
        "probit": over_pairs(runs, pearson("id_probit", "ood_probit"), drawn, needs=["id_probit", "ood_probit"]),
    }
    ranks = found["spearman"]
    if not ranks.any:
        return unanswered("A1", title, ranks.reason)
    pairs = pairs_table(found)
    told = pairs[pairs["reason"] == ""].sort_values("spearman", kind="stable")
    least, most = told.iloc[0], told.iloc[-1]
    sentence = (
        f"OOD accuracy follows ID accuracy with a mean Spearman correlation of {ranks.overall} over {len(told)} pairs, "
        f"from {least['spearman']:.2f} ({least['source']} to {least['target']}) "
        f"to {most['spearman']:.2f} ({most['source']} to {most['target']})."
    )
    return Answer("A1", title, {"tasks": tasks_table(found), "pairs": pairs}, sentence)


def negative_pairs(runs: pd.DataFrame) -> Answer:
    """A2: count the pairs on which better ID accuracy goes with significantly worse OOD accuracy.

    The test permutes models, not runs: Spearman's correlation of the clusters' mean accuracies against all their orders
    (99,999 random ones beyond eight clusters), one-sided. Holm's procedure holds the chance of a single false alarm
    among all pairs at 5 %.

    Returns
    -------
    Answer
        ``pairs``: ``clusters``, ``spearman`` between clusters, ``p``, ``adjusted_p``, ``negative``, ``reason``.
        Too small where not even the most negative order of the clusters would be significant.

    References
    ----------
    Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    title = "Is there a pair of domains on which better ID accuracy goes with worse OOD accuracy?"
    rows = []
    for key, group in runs.dropna(subset=["id_accuracy", "ood_accuracy"]).groupby(list(PAIR), sort=True):
        means = group.groupby("cluster", sort=True)[["id_accuracy", "ood_accuracy"]].mean()
        value, p, least = np.nan, np.nan, np.nan
        reason = too_few(len(means))
        if not reason:
            first, second = (rankdata(means[name].round(12)) for name in means)
            if min(np.ptp(first), np.ptp(second)) == 0:
                reason = "a measure is the same for all models"
            else:
                value, p, least = _permuted(first, second)
        rows.append((*key, len(means), value, p, least, reason))
    pairs = pd.DataFrame(rows, columns=[*PAIR, "clusters", "spearman", "p", "least_p", "reason"])
    tested = pairs["reason"] == ""
    if not tested.any():
        reasons = pairs["reason"].value_counts()
        return unanswered("A2", title, str(reasons.index[0]) if len(reasons) else "there are no runs")
    pairs["adjusted_p"] = np.nan
    pairs.loc[tested, "adjusted_p"] = holm(pairs.loc[tested, "p"].to_numpy(np.float64))
    reach = float(pairs["least_p"].min()) * int(tested.sum())
    if reach > SIGNIFICANCE:
        return unanswered(
            "A2",
            title,
            f"with {int(pairs['clusters'].max())} (method, backbone) clusters and {int(tested.sum())} pairs even "
            f"opposite orders would have an adjusted p of {reach:.2f}",
        )
    # Ties of a missing p compare as False.
    pairs["negative"] = pairs["adjusted_p"] < SIGNIFICANCE
    count, worst = int(pairs["negative"].sum()), pairs.sort_values(["spearman", *PAIR], kind="stable").iloc[0]
    sentence = (
        f"On {count} of {int(tested.sum())} pairs is the correlation of ID and OOD accuracy between models "
        f"significantly negative (permutation of models, Holm, 5 %); the lowest is {worst['spearman']:.2f}, "
        f"{worst['source']} to {worst['target']}, adjusted p {worst['adjusted_p']:.2g}."
    )
    columns = [*PAIR, "clusters", "spearman", "p", "adjusted_p", "negative", "reason"]
    return Answer("A2", title, {"pairs": pairs[columns]}, sentence)


def pearson(first: str, second: str) -> Statistic:
    """Return the statistic "Pearson's correlation of two columns"."""

    def statistic(runs: pd.DataFrame, weights: Weights) -> Floats:
        return correlation(runs[first].to_numpy(np.float64), runs[second].to_numpy(np.float64), weights)

    return statistic


def holm(p: Floats) -> Floats:
    """Return p values adjusted by Holm's procedure.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    stepped = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return adjusted


def _permuted(first: Floats, second: Floats) -> tuple[float, float, float]:
    """Return Spearman's correlation of ranks, its one-sided p (for a negative one), and the least that p can be."""
    a, b = (ranks - ranks.mean() for ranks in (first, second))
    size = float(np.sqrt((a @ a) * (b @ b)))
    value = float(a @ b) / size
    orders = _orders(len(a))
    products = b[orders] @ a / size
    # The most negative order is the one that is opposite, as far as ties let it.
    opposite = float(np.sort(a) @ np.sort(b)[::-1]) / size
    exact = len(a) <= _ALL_ORDERS
    counts = [int((products <= bound + 1e-9).sum()) for bound in (value, opposite)]
    p, least = (count / len(orders) if exact else (count + 1) / (len(orders) + 1) for count in counts)
    return value, p, least


@lru_cache(maxsize=8)
def _orders(k: int) -> NDArray[np.int64]:
    if k <= _ALL_ORDERS:
        orders = np.fromiter(itertools.chain.from_iterable(itertools.permutations(range(k))), np.int64)
        return orders.reshape(factorial(k), k)
    rng = np.random.default_rng(derive("orders", k))
    return rng.permuted(np.tile(np.arange(k), (_RANDOM_ORDERS, 1)), axis=1)
