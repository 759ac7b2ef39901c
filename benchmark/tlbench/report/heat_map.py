"""A measure pair by pair: sources down, targets across, a source's own images on the diagonal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tlbench.metrics.catalogue import METRICS
from tlbench.report.cells import Numbers, form_or_none, weighed
from tlbench.suites.spec import Role, Suite

SHADES: Final = 10
"""Shades run from 0, the palest, to this."""

_ROLES: Final[tuple[Role, ...]] = ("id-test", "ood-test")
MEASURES: Final = (
    "accuracy", "balanced_accuracy", "macro_f1", "worst_group_accuracy", "nll", "brier", "ece", "ece_scaled",
    "nll_scaled", "mean_robust_accuracy", "mean_corruption_accuracy", "mean_consistency", "demographic_disparity",
)  # fmt: skip
"""Measures that have a heat map where the suite measures them and the row has one number at least."""


@dataclass(frozen=True)
class HeatCell:
    """One number of a heat map.

    Attributes
    ----------
    value : float or None
        Mean over the seeds there are; None where there is no number.
    shade : int or None
        From 0 to ``SHADES``, growing with the value; None where there is none.
    inside : bool
        Whether it was measured on the source's own images.
    partial : int
        How many seeds it rests on, where they are fewer than there should be; else 0.
    """

    value: float | None
    shade: int | None
    inside: bool
    partial: int = 0


@dataclass(frozen=True)
class HeatMap:
    """A measure of one task, pair by pair.

    Attributes
    ----------
    task, metric, unit : str
    higher_is_better : bool
    sources : tuple of str
        Rows.
    targets : tuple of str
        Columns; a source that is no target, such as several domains together, has its own images in the column ``""``.
    cells : mapping from (source, target) to HeatCell
        What is no pair of the suite is not there.
    top : float
        The value of the darkest shade.
    """

    task: str
    metric: str
    unit: str
    higher_is_better: bool
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    cells: Mapping[tuple[str, str], HeatCell]
    top: float


def heat_maps(numbers: Numbers, suite: Suite, seeds: int) -> dict[str, list[HeatMap]]:
    """Return a row's heat maps: by measure, one a task.

    Parameters
    ----------
    numbers : mapping
        As from ``numbers_of``.
    suite : Suite
    seeds : int
        How many seeds a cell should have.

    Returns
    -------
    dict from str to list of HeatMap
        A measure or task without a single number is not there.
    """
    maps = {metric: _of_measure(numbers, suite, metric, seeds) for metric in MEASURES}
    return {metric: found for metric, found in maps.items() if found}


def _of_measure(numbers: Numbers, suite: Suite, metric: str, seeds: int) -> list[HeatMap]:
    found: dict[tuple[str, str, str], tuple[float, int]] = {}
    for role in _ROLES:
        wanted = form_or_none(suite, metric, role)
        if wanted is None:
            continue
        for (task, source, target), total in weighed(numbers, wanted.terms, ["task", "source", "target"]).items():
            if total.value is not None and total.value == total.value:
                found[task, source, "" if role == "id-test" else target] = (total.value, total.seeds)
    top = _top(metric, [value for value, _ in found.values()])
    maps = [_of_task(found, suite, metric, task, seeds, top) for task in suite.tasks]
    return [one for one in maps if any(cell.value is not None for cell in one.cells.values())]


def _of_task(
    numbers: Mapping[tuple[str, str, str], tuple[float, int]],
    suite: Suite,
    metric: str,
    task: str,
    seeds: int,
    top: float,
) -> HeatMap:
    pairs = suite.pairs_of(task)
    sources = tuple(dict.fromkeys(pair.source for pair in pairs))
    targets = tuple(
        dict.fromkeys([*(s for s in sources if any(p.target == s for p in pairs)), *(p.target for p in pairs)])
    )
    places = [(pair.source, pair.target, False) for pair in pairs]
    places += [(source, source if source in targets else "", True) for source in sources]
    cells = {}
    for source, target, inside in places:
        value, found = numbers.get((task, source, "" if inside else target), (None, 0))
        shade = None if value is None else shade_of(value, top)
        cells[source, target] = HeatCell(value, shade, inside, found if value is not None and found < seeds else 0)
    alone = ("",) if any(target == "" for _, target in cells) else ()
    info = METRICS[metric]
    return HeatMap(task, metric, info.unit, info.higher_is_better, sources, (*targets, *alone), cells, top)


def shade_of(value: float, top: float) -> int:
    """Return the shade of a value.

    >>> shade_of(0.0, 1.0), shade_of(0.5, 1.0), shade_of(1.0, 1.0), shade_of(float("inf"), 2.0)
    (0, 5, 10, 10)
    """
    share = value / top if math.isfinite(value) else 1.0
    return max(0, min(SHADES, math.floor(share * SHADES + 0.5)))


def _top(metric: str, values: list[float]) -> float:
    """Return the value of the darkest shade: 1 where higher is better, so that pages compare, else the worst one."""
    if METRICS[metric].unit == "fraction" and METRICS[metric].higher_is_better:
        return 1.0
    return max((value for value in values if math.isfinite(value) and value > 0), default=1.0)
