"""Once ID accuracy is known, what does another number add to the prediction of OOD accuracy?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from scipy.special import ndtri
from scipy.stats import rankdata
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold

from tlbench.analysis.answer import Answer, Estimate, named, unanswered
from tlbench.analysis.clustered import (
    DRAWS,
    PAIR,
    Draws,
    Floats,
    Sampled,
    Statistic,
    Weights,
    over_pairs,
    partial_spearman,
    weighted_mean,
)
from tlbench.analysis.predictors import TARGET, with_second
from tlbench.analysis.runs import measured_on, oriented

GIVEN: Final = "id_accuracy"
FOLDS: Final = 10
LEAST_REGRESSED: Final = 10
"""Clusters of a regression; partial correlations need five, as all else."""


def added_value(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A6: what every other ID measure adds to ID accuracy.

    Two numbers a measure, both means over tasks of the mean over their pairs. ``partial``: Spearman's correlation of
    the measure (turned so that higher is better) with OOD accuracy, that of both with ID accuracy taken out. ``gain``:
    how much more of the variance of OOD accuracy a linear regression on ID accuracy and the measure explains than one
    on ID accuracy alone, for clusters that it was not fitted to (ten folds of whole clusters), all three as normal
    scores within a pair. A gain below zero is one of over-fitting. Its interval draws the clusters that are predicted
    again; regressions are not fitted again. With fewer than ten clusters there is no gain.

    Returns
    -------
    Answer
        ``measures``: one row a measure, and ``tasks``: one a task and measure, with ``partial``, ``gain`` and ``base``,
        the share of variance that ID accuracy alone explains.
    """
    title = "What do other ID measures add once ID accuracy is known?"
    measures = [name for name in measured_on(runs, "id") if name != "accuracy"]
    if not measures:
        return unanswered("A6", title, "the runs have no ID measure beside accuracy")
    found = _added(runs, [f"id_{name}" for name in measures], draws)
    told = {name: parts for name, parts in found.items() if parts["partial"].any}
    if not told:
        return unanswered("A6", title, next(iter(found.values()))["partial"].reason)
    summary = _table(told, None)
    most = summary.iloc[int(summary["partial"].abs().argmax())]
    parts = told[f"id_{most['measure']}"]
    sentence = (
        f"At equal ID accuracy {most['measure']} goes with OOD accuracy most closely, partial Spearman correlation "
        f"{parts['partial'].overall}; {_gains(summary, parts)}."
    )
    tasks = next(iter(told.values()))["partial"].tasks
    by_task = pd.concat([_table(told, task).assign(task=task) for task in tasks], ignore_index=True)
    by_task = by_task[["task", *summary.columns]]
    return Answer("A6", title, {"measures": summary, "tasks": by_task}, sentence)


def corruption_value(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A7: what mean corruption accuracy on ID images adds to ID accuracy, beside what a real second OOD domain adds.

    Returns
    -------
    Answer
        ``predictors``: ``partial``, ``gain`` and ``base`` as for A6, of ``mean_corruption_accuracy`` and, where tasks
        have a third domain, ``second_accuracy``. The latter is a mean over second domains, on the same pairs.
    """
    title = "Does accuracy under corruptions stand in for real OOD data?"
    name = "id_mean_corruption_accuracy"
    if "mean_corruption_accuracy" not in measured_on(runs, "id"):
        return unanswered("A7", title, "the suite measures no corruptions, or few runs have all of them")
    found = _added(runs, [name], draws)
    if not found[name]["partial"].any:
        return unanswered("A7", title, found[name]["partial"].reason)
    joined = with_second(runs)
    beside = ""
    if len(joined):
        real = _added(joined, ["second_accuracy"], draws, by=[*PAIR, "second"])["second_accuracy"]
        if real["partial"].any:
            found["second_accuracy"] = real
            beside = f"; that of accuracy on a second OOD domain is {real['partial'].overall}"
    summary = _table(found, None).rename(columns={"measure": "predictor"})
    own = found[name]
    sentence = (
        f"Given ID accuracy, mean corruption accuracy has a partial Spearman correlation of {own['partial'].overall} "
        f"with OOD accuracy{_gain_of(own)}{beside}."
    )
    return Answer("A7", title, {"predictors": summary}, sentence)


def adversarial_value(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A10: whether robustness to attacks goes with OOD accuracy, at equal ID accuracy.

    Returns
    -------
    Answer
        ``tasks``: ``partial``, ``gain`` and ``base`` of mean robust accuracy on ID-test, as for A6; ``(all)`` is the
        mean over tasks.
    """
    title = "At equal ID accuracy, are models that withstand attacks better under natural shifts?"
    name = "id_mean_robust_accuracy"
    if "mean_robust_accuracy" not in measured_on(runs, "id"):
        return unanswered("A10", title, "the suite measures no attacks on ID-test, or few runs have all of them")
    found = _added(runs, [name], draws)
    partial = found[name]["partial"]
    if not partial.any:
        return unanswered("A10", title, partial.reason)
    parts = [_table(found, task).assign(task=task) for task in partial.tasks]
    if len(parts) > 1:
        parts.insert(0, _table(found, None).assign(task="(all)"))
    table = pd.concat(parts, ignore_index=True)
    table = table[["task", *(column for column in table if column not in ("task", "measure"))]]
    verdict = ("not told from zero", "above zero", "below zero")[partial.overall.sign]
    sentence = (
        f"At equal ID accuracy the Spearman correlation of mean robust accuracy with OOD accuracy is "
        f"{partial.overall}: {verdict}."
    )
    return Answer("A10", title, {"tasks": table}, sentence)


def _gain_of(parts: dict[str, Sampled]) -> str:
    gain = parts["gain"].overall
    return "" if np.isnan(gain.value) else f" and adds {gain} to the explained share of variance"


def _gains(summary: pd.DataFrame, parts: dict[str, Sampled]) -> str:
    if not summary["gain"].notna().any():
        return f"fewer than {LEAST_REGRESSED} (method, backbone) clusters are too few for a regression"
    best = summary.iloc[int(summary["gain"].argmax())]
    gain = Estimate(best["gain"], best["gain_low"], best["gain_high"])
    helps = [str(row["measure"]) for row in summary.to_dict("records") if row["gain_low"] > 0]
    clear = f"intervals are above zero for {', '.join(helps)}" if helps else "no measure's interval is above zero"
    return (
        f"to the share of variance that ID accuracy explains out of fold, {parts['base'].overall}, {best['measure']} "
        f"adds most, {gain}, and {clear}"
    )


def _added(
    runs: pd.DataFrame, columns: Sequence[str], draws: int, *, by: Sequence[str] = PAIR
) -> dict[str, dict[str, Sampled]]:
    """Return ``partial``, ``gain`` and ``base`` of every column."""
    turned, drawn = oriented(runs), Draws.of(runs, draws)
    needs = [*columns, GIVEN, TARGET]

    def sampled(statistic: Statistic) -> Sampled:
        return over_pairs(turned, statistic, drawn, needs=needs, by=by).averaged()

    base = sampled(lambda rows, weights: _explained(rows, weights, [GIVEN]))
    return {
        column: {
            "partial": sampled(partial_spearman(column, TARGET, GIVEN)),
            "gain": sampled(_both(column)).minus(base),
            "base": base,
        }
        for column in columns
    }


def _both(column: str) -> Statistic:
    return lambda rows, weights: _explained(rows, weights, [GIVEN, column])


def _explained(rows: pd.DataFrame, weights: Weights, columns: Sequence[str]) -> Floats:
    """Return the share of variance that is explained out of fold, under every row of weights; NaN with few clusters."""
    groups = rows["cluster"].to_numpy(str)
    clusters = len(set(groups))
    outcome = normal_scores(rows[TARGET].to_numpy(np.float64))
    # The variance is not drawn again: that of a few clusters would be small by chance, and its inverse large.
    whole = float(outcome.var())
    if clusters < LEAST_REGRESSED or whole == 0:
        return np.full(len(weights.counts), np.nan)
    inputs = np.column_stack([normal_scores(rows[name].to_numpy(np.float64)) for name in columns])
    predicted = np.empty(len(rows))
    for kept, left in GroupKFold(n_splits=min(FOLDS, clusters)).split(inputs, groups=groups):
        predicted[left] = LinearRegression().fit(inputs[kept], outcome[kept]).predict(inputs[left])
    return 1 - weighted_mean((outcome - predicted) ** 2, weights) / whole


def normal_scores(values: Floats) -> Floats:
    """Return values as normal quantiles of their ranks: any scale, and infinite values, become comparable.

    >>> normal_scores(np.array([10.0, np.inf, -3.0])).round(2).tolist()
    [0.0, 0.97, -0.97]
    """
    return np.asarray(ndtri((rankdata(values) - 0.5) / len(values)))


def _table(found: dict[str, dict[str, Sampled]], task: str | None) -> pd.DataFrame:
    rows = []
    for column, parts in found.items():
        means = {name: part.overall if task is None else part.of_task(task) for name, part in parts.items()}
        rows.append({"measure": column.removeprefix("id_"), **named(means)})
    return pd.DataFrame(rows)
