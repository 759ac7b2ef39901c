"""The measures that stand beside a score: each a board's column, ranked by none."""

from __future__ import annotations

from typing import Final

from tlbench.errors import UsageError
from tlbench.leaderboard.aggregate import Score, score_rows
from tlbench.leaderboard.forms import form
from tlbench.leaderboard.prepared import Prepared, Row
from tlbench.suites.spec import Role, Suite

FORMS: Final[tuple[tuple[str, str, Role | None], ...]] = (
    ("id_accuracy", "accuracy", "id-test"),
    ("ood_accuracy", "accuracy", "ood-test"),
    ("accuracy_gap", "accuracy_gap", None),
    ("nll", "nll", None),
    ("brier", "brier", None),
    ("ece", "ece", None),
    ("ece_scaled", "ece_scaled", None),
    ("mean_corruption_accuracy", "mean_corruption_accuracy", None),
    ("mean_robust_accuracy", "mean_robust_accuracy", None),
    ("mean_consistency", "mean_consistency", None),
    ("demographic_disparity", "demographic_disparity", None),
)
"""Columns that stand beside the score: name, metric and role."""

BESIDE: Final = (*(name for name, _, _ in FORMS), "fit_seconds")


def scores_beside(prepared: Prepared, suite: Suite, seeds: tuple[int, ...]) -> dict[str, dict[Row, Score]]:
    """Return the scores of every row by column; none where the suite does not measure it."""
    tables: dict[str, dict[Row, Score]] = {}
    for column, metric, role in FORMS:
        try:
            wanted = form(suite, metric, role)
        except UsageError:
            tables[column] = {}  # this suite does not measure it
        else:
            tables[column] = score_rows(prepared, wanted, seeds)
    return tables


def of_same_seeds(beside: Score | None, score: Score) -> float | None:
    """Return a measure that stands beside the score, unless it rests on other seeds than the score does."""
    if beside is None or beside.value is None or (score.value is not None and beside.ran != score.ran):
        return None
    return beside.value
