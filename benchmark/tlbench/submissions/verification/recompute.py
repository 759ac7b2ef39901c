"""Every number again, from the stored predictions, by the functions that the engine calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tlbench.binning import ClassBins
from tlbench.metrics.evaluate import MetricValue, measure_attack, measure_audit, measure_clean, measure_images
from tlbench.submissions.verification.images import Images
from tlbench.submissions.verification.measured import (
    WHOLE,
    Columns,
    Condition,
    Measurements,
    Rows,
    scaled_of,
    strengths_of,
)
from tlbench.suites.spec import Attack, Clean, Transform

Key = tuple[int, int, str]
"""Measurement, setting and metric."""
MOST_CLASSES: Final = 100_000


@dataclass(frozen=True)
class Recomputed:
    """What follows from the predictions.

    Attributes
    ----------
    values : dict from (measurement, setting, metric) to MetricValue
    problems : dict of int to str
        Measurements whose predictions allow no computation, and why.
    no_units : set of (int, str)
        Measurements whose ``cluster`` or ``group`` the suite names and no manifest here tells.
    """

    values: dict[Key, MetricValue]
    problems: dict[int, str]
    no_units: set[tuple[int, str]]


def recompute(measured: Measurements, images: Images) -> Recomputed:
    """Compute every number of every measurement that has predictions.

    Parameters
    ----------
    measured : Measurements
    images : Images

    Returns
    -------
    Recomputed
        The settings are those of the suite: predictions of another severity are a problem of their measurement, and
        so are a column that is null in some rows and not in all, a label that is no class, and whatever else the
        functions of the metrics refuse.
    """
    found = Recomputed({}, {}, set())
    for number in measured.predictions.groups_of:
        condition = measured.conditions[number]
        if condition is None or measured.fact(number, "task") not in measured.suite.tasks:
            found.problems[number] = "the suite has no such condition or task"
            continue
        try:
            with np.errstate(all="ignore"):
                for setting, metric, value in _numbers(measured, images, number, condition, found):
                    found.values[number, setting, metric] = value
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError) as problem:
            found.problems[number] = " ".join(str(problem).split())[:300]
    return found


def class_count(measured: Measurements, images: Images, number: int, columns: Columns) -> int:
    """Return how many classes the task of a measurement has; of the data's own classes, how many are seen.

    Raises
    ------
    ValueError
        If a label, prediction or rank is none of them, or there are more than can be.
    """
    known = images.classes(measured.fact(number, "task"))
    names = [name for name in ("label", "predicted", "rank") if name in columns]
    for name in names:
        # Counting classes takes as much memory as the largest of them is large.
        low, high, most = columns[name].min(), columns[name].max(), MOST_CLASSES if known is None else known
        if low < 0 or high >= most:
            raise ValueError(f"{name}: expected 0 to {most - 1}, got {low if low < 0 else high}")
    if known is not None:
        return known
    seen = [int(columns[name].max()) for name in names]
    for group in measured.class_bins.groups_of.get(number, []):
        seen.append(int(measured.class_bins.columns["class"][measured.class_bins.part(group)].max()))
    classes = max(seen) + 1
    if not 1 <= classes <= MOST_CLASSES:
        raise ValueError(f"expected at most {MOST_CLASSES:,} classes, got class {classes - 1}")
    return classes


def table_of(bins: Rows, part: slice, *, classes: int, count: int) -> ClassBins:
    """Return stored counts by class and bin as a table of shape (classes, bins).

    Raises
    ------
    ValueError
        If a class or a bin is not one of them.
    """
    of_class, of_bin = bins.columns["class"][part], bins.columns["bin"][part]
    for name, places, most in (("class", of_class, classes), ("bin", of_bin, count)):
        if len(places) and not (places.min() >= 0 and places.max() < most):
            raise ValueError(f"class bins: expected a {name} below {most}, got {places.min()} to {places.max()}")
    shape = (classes, count)
    table = ClassBins(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))
    table.count[of_class, of_bin] = bins.columns["n"][part]
    table.probability[of_class, of_bin] = bins.columns["probability"][part]
    table.positive[of_class, of_bin] = bins.columns["positives"][part]
    return table


def _numbers(
    measured: Measurements, images: Images, number: int, condition: Condition, found: Recomputed
) -> Iterator[tuple[int, str, MetricValue]]:
    """Yield setting, metric and value of one measurement."""
    options: dict[str, Any] = {"bins": measured.suite.metrics.ece_bins, "closed": measured.suite.metrics.ece_closed}
    for setting, group in _groups(measured, number, condition):
        columns = measured.predictions.columns_of(group)
        seen = {**columns, **_units(measured, images, number, condition, columns["id"], found)}
        classes = class_count(measured, images, number, columns)
        if isinstance(condition, Clean):
            tables = _class_bins(measured, images, number, columns)
            values = measure_clean(
                seen,
                classes=classes,
                class_bins=tables.get(False),
                class_bins_scaled=tables.get(True),
                **options,
            )
            yield from ((setting, metric, value) for metric, value in values.items())
        elif isinstance(condition, Attack):
            curve = measure_attack(seen, epsilons=condition.radii)
            places: dict[float | None, int] = {radius: place for place, radius in enumerate(condition.radii)}
            for (metric, epsilon), value in curve.items():
                yield (WHOLE if epsilon is None else places[epsilon]), metric, value
            for audited in measured.audits.groups_of.get(number, []):
                verdicts = measured.audits.columns_of(audited)
                units = _units(measured, images, number, condition, verdicts["id"], found)
                yield WHOLE, "audit_reversals", measure_audit({**verdicts, **units})
        else:
            if isinstance(condition, Transform):
                predicted = _predicted_clean(measured, number, columns["id"])
                seen = seen if predicted is None else {**seen, "predicted_clean": predicted}
            values = measure_images(seen, **options)
            yield from ((setting, metric, value) for metric, value in values.items())


def _groups(measured: Measurements, number: int, condition: Condition) -> Iterator[tuple[int, int]]:
    """Yield the number of a setting and the group of its predictions."""
    rows = measured.predictions
    # The tables store a severity as float32, which 0.9 is not.
    stored = [-np.inf if step is None else float(np.float32(step)) for step in strengths_of(condition)]
    for group in rows.groups_of[number]:
        severity = float(rows.severity[group])
        if isinstance(condition, Attack):
            if severity != -np.inf:
                raise ValueError(f"expected attacked images without a severity, got {severity:g}")
            yield WHOLE, group
        elif severity in stored:
            yield stored.index(severity), group
        else:
            raise ValueError(f"predictions of severity {severity:g}, which the suite does not have")


def _units(
    measured: Measurements, images: Images, number: int, condition: Condition, ids: NDArray[Any], found: Recomputed
) -> Columns:
    """Return the clusters and groups of images; what the suite names and nobody here can tell is noted."""
    task, source, target, role = (str(measured.fact(number, name)) for name in ("task", "source", "target", "role"))
    manifest = images.of(task, source, target, role, condition)
    units: Columns = {}
    for kind in ("cluster", "group"):
        if manifest is None or manifest.hash != measured.fact(number, "split_hash"):
            if images.declares(kind, task, source, target, role):
                found.no_units.add((number, kind))
            continue
        codes = images.units(manifest, kind)
        if codes is not None:
            if len(ids) and not (ids.min() >= 0 and ids.max() < len(codes)):
                raise ValueError(f"expected ids below {len(codes)}, got {ids.min()} to {ids.max()}")
            units[kind] = codes[ids]
    return units


def _class_bins(measured: Measurements, images: Images, number: int, columns: Columns) -> dict[bool, ClassBins]:
    tables = {}
    for group in measured.class_bins.groups_of.get(number, []):
        classes = class_count(measured, images, number, columns)
        for scaled, part in scaled_of(measured.class_bins, group).items():
            tables[scaled] = table_of(measured.class_bins, part, classes=classes, count=measured.suite.metrics.ece_bins)
    return tables


def _predicted_clean(measured: Measurements, number: int, ids: NDArray[Any]) -> NDArray[Any] | None:
    """Return the classes predicted for the same images as they are; None where nobody measured these."""
    clean = measured.clean_of.get(measured.set_of(number))
    groups = [] if clean is None else measured.predictions.groups_of.get(clean, [])
    if not groups:
        return None
    columns = measured.predictions.columns_of(groups[0])
    place = np.searchsorted(columns["id"], ids)
    if len(ids) and (place.max() >= len(columns["id"]) or (columns["id"][place] != ids).any()):
        raise ValueError("some images have no clean prediction to be compared with")
    return columns["predicted"][place]
