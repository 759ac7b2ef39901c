"""Tables of conditions: corruption type by severity, transform by step, measure by seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tlbench.leaderboard.forms import Form
from tlbench.metrics.catalogue import METRICS
from tlbench.report.cells import Numbers, form_or_none, numbers_of, weighed
from tlbench.report.heat_map import shade_of
from tlbench.suites.spec import Role, Suite

SEED_MEASURES: Final[tuple[tuple[str, Role | None], ...]] = (
    ("accuracy", "id-test"),
    ("accuracy", "ood-test"),
    ("nll", "id-test"),
    ("nll", "ood-test"),
    ("brier", "ood-test"),
    ("ece", "id-test"),
    ("ece", "ood-test"),
    ("ece_scaled", "ood-test"),
    ("mean_corruption_accuracy", None),
    ("mean_robust_accuracy", None),
    ("mean_consistency", None),
    ("demographic_disparity", None),
)
"""Measures and roles of the table of seeds; None is where a board takes it."""


@dataclass(frozen=True)
class Grid:
    """A measure under several conditions, at several strengths.

    Attributes
    ----------
    metric : str
    role : str
    strengths : tuple of float
    rows : tuple of (name, values, mean)
        A value a strength, None where it is not measured or not complete; the mean is over a condition's own strengths.
    mean : float or None
        Plain mean of the rows' means, as on the board.
    """

    metric: str
    role: Role
    strengths: tuple[float, ...]
    rows: tuple[tuple[str, tuple[float | None, ...], float | None], ...]
    mean: float | None

    def shade(self, value: float | None) -> int | None:
        """Return the shade of a value, as in a heat map of rates."""
        return None if value is None else shade_of(value, 1.0)


def grids(numbers: Numbers, suite: Suite, metric: str) -> list[Grid]:
    """Return a measure of conditions on every role where there is one number at least.

    Parameters
    ----------
    numbers : mapping
        As from ``numbers_of``.
    suite : Suite
    metric : str
        ``"corruption_accuracy"`` or ``"consistency"``.

    Returns
    -------
    list of Grid
        Every value is the suite's plain mean of tasks, a task's of its pairs or, on ID-test, of its sources.
    """
    found = []
    roles: tuple[Role, ...] = ("id-test", "ood-test")
    for role in roles:
        wanted = form_or_none(suite, metric, role)
        grid = None if wanted is None else _grid(numbers, wanted, metric, role)
        if grid is not None:
            found.append(grid)
    return found


def _grid(numbers: Numbers, wanted: Form, metric: str, role: Role) -> Grid | None:
    values = {setting: total.value for (setting,), total in weighed(numbers, wanted.terms, ["setting"]).items()}
    if all(value is None for value in values.values()):
        return None
    names: dict[str, dict[float, float | None]] = {}
    for setting, value in values.items():
        name, strength, *_ = setting.split("|")
        names.setdefault(name, {})[float(strength)] = value
    strengths = tuple(sorted({strength for row in names.values() for strength in row}))
    rows = tuple(
        (name, tuple(row.get(strength) for strength in strengths), _mean(list(row.values())))
        for name, row in names.items()
    )
    return Grid(metric, role, strengths, rows, _mean([mean for *_, mean in rows]))


def steps_of(several: list[Grid]) -> list[tuple[str, float, list[float | None]]]:
    """Return grids of several roles as one list: condition, strength, and a value of each grid."""
    tables = [
        {
            (name, step): value
            for name, values, _ in grid.rows
            for step, value in zip(grid.strengths, values, strict=True)
        }
        for grid in several
    ]
    places = dict.fromkeys(place for table in tables for place, value in table.items() if value is not None)
    return [(name, step, [table.get((name, step)) for table in tables]) for name, step in places]


@dataclass(frozen=True)
class SeedLine:
    """One measure, seed by seed.

    Attributes
    ----------
    metric, unit : str
    role : str or None
    values : tuple of float or None
        One a seed; None where a number is missing.
    mean, sd : float or None
        The mean over the seeds there are, and their standard deviation.
    """

    metric: str
    unit: str
    role: Role | None
    values: tuple[float | None, ...]
    mean: float | None
    sd: float | None


def by_seed(values: pd.DataFrame, suite: Suite) -> tuple[tuple[int, ...], list[SeedLine]]:
    """Return a row's measures, seed by seed; what no seed has is left out.

    Parameters
    ----------
    values : DataFrame
        As from ``seed_values``.
    suite : Suite

    Returns
    -------
    tuple of seeds and list of SeedLine
    """
    seeds = tuple(sorted({int(seed) for seed in values["seed"]}))
    tables = [numbers_of(values[values["seed"] == seed].assign(seeds=1)) for seed in seeds]
    lines = []
    for metric, role in SEED_MEASURES:
        found = form_or_none(suite, metric, role)
        if found is None:
            continue
        sums = tuple(weighed(table, found.terms)[()].value for table in tables)
        there = np.array([value for value in sums if value is not None])
        if len(there):
            sd = float(there.std(ddof=1)) if len(there) > 1 and np.isfinite(there).all() else None
            lines.append(SeedLine(metric, METRICS[metric].unit, found.role, sums, float(there.mean()), sd))
    return seeds, lines


def _mean(values: list[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there and len(there) == len(values) else None
