"""Every row's score on one task alone: the board's own weighted sums, cut to a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tlbench.errors import UsageError
from tlbench.leaderboard.aggregate import Score, score_rows
from tlbench.leaderboard.costs import costs, fit_row
from tlbench.leaderboard.forms import Form, form
from tlbench.leaderboard.prepared import Row, prepare
from tlbench.report.content import Content
from tlbench.suites.spec import Role, Suite

BESIDE: Final[Mapping[str, tuple[str, Role | None]]] = {
    "id_accuracy": ("accuracy", "id-test"),
    "ood_accuracy": ("accuracy", "ood-test"),
    "accuracy_gap": ("accuracy_gap", None),
    "nll": ("nll", None),
    "brier": ("brier", None),
    "ece": ("ece", None),
    "ece_scaled": ("ece_scaled", None),
    "mean_robust_accuracy": ("mean_robust_accuracy", None),
    "mean_corruption_accuracy": ("mean_corruption_accuracy", None),
    "mean_consistency": ("mean_consistency", None),
    "demographic_disparity": ("demographic_disparity", None),
}
"""Metric and role of the board's columns beside the score."""


def task_scores(content: Content) -> dict[str, dict[str, dict[Row, Score]]]:
    """Return scores by task, by metric of a board or column beside it, and by row.

    A task's score is the mean over its pairs of the mean over seeds, as in the board's own mean over tasks. What a
    suite does not measure is left out.
    """
    suite = content.suite
    prepared = prepare(content.records, suite.protocol.seeds)
    wanted = {**{metric: (metric, None) for metric in content.boards}, **BESIDE}
    found: dict[str, dict[str, dict[Row, Score]]] = {task: {} for task in suite.tasks}
    for key, (metric, role) in wanted.items():
        try:
            whole = form(suite, metric, role)
        except UsageError:
            continue
        for task in suite.tasks:
            part = _of_task(whole, task, suite)
            if part is not None:
                found[task][key] = score_rows(prepared, part, suite.protocol.seeds)
    return found


def task_seconds(content: Content) -> dict[str, dict[Row, float]]:
    """Return the mean duration of a fit by task, and by row without its name (``fit_row``)."""
    seconds: dict[str, dict[Row, float]] = {}
    for task in content.suite.tasks:
        table = costs(content.fits[content.fits["task"] == task], content.suite.protocol.seeds)
        rows = table.index.to_frame(index=False).astype("str").itertuples(index=False, name=None)
        seconds[task] = dict(zip(rows, table["fit_seconds"].tolist(), strict=True))
    return seconds


def seconds_of(seconds: Mapping[Row, float], row: Row) -> float | None:
    """Return the duration of a row's fits, None where there is none."""
    return seconds.get(fit_row(row))


def _of_task(whole: Form, task: str, suite: Suite) -> Form | None:
    terms = whole.terms[whole.terms["task"] == task]
    if not len(terms):
        return None
    tasks = len({pair.task for pair in suite.pairs})
    return replace(whole, terms=terms.assign(weight=terms["weight"] * tasks).reset_index(drop=True))
