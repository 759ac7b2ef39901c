"""Whether the counts by class and bin belong to the predictions beside them.

A prediction tells two of an image's probabilities, that of its true and that of its predicted class; the counts have
all of them. Above one half only the predicted class can be, so there the counts follow from the predictions, and below
they are bounded by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tlbench.binning import ClassBins, Closed, bin_index
from tlbench.submissions.verification.images import Images
from tlbench.submissions.verification.measured import Columns, Measurements, scaled_of
from tlbench.submissions.verification.recompute import class_count, table_of
from tlbench.submissions.verification.report import Check, Findings
from tlbench.suites.spec import Clean

Counts = NDArray[np.int64]
_ROUNDING: Final = 2.0**-15
_SUM: Final = 1e-6
_SQUARES: Final = 2e-4


@dataclass(frozen=True)
class _Told:
    """How many images a class and bin hold for certain, and how many lie so near an edge that rounding decides."""

    certain: Counts
    unsure: Counts
    total: NDArray[np.float64]


def check_class_bins(measured: Measurements, images: Images) -> Check:
    """Answer whether the margins of the counts by class and bin are those of the predictions."""
    found = Findings()
    reason = measured.submission.lacks("records") or measured.submission.lacks("predictions", "class_bins")
    tables = 0
    for number, groups in measured.predictions.groups_of.items() if not reason else ():
        if not isinstance(measured.conditions[number], Clean):
            continue
        try:
            columns = measured.predictions.columns_of(groups[0])
            tables += _check_measurement(measured, images, number, columns, found)
        except (ValueError, IndexError, TypeError) as problem:
            found.add(f"{measured.place(number)}: {problem}")
    for number in measured.class_bins.groups_of if not reason else ():
        if number not in measured.predictions.groups_of or not isinstance(measured.conditions[number], Clean):
            found.add(f"{measured.place(number)}: counts without the predictions of a clean set")
    unknown = int((measured.class_bins.measurement < 0).sum())
    if unknown:
        found.add("class_bins: rows of a measurement that no record names", unknown)
    return found.check("class bins", f"{tables:,} tables with the margins of their predictions", reason)


def _check_measurement(measured: Measurements, images: Images, number: int, columns: Columns, found: Findings) -> int:
    metrics, place = measured.suite.metrics, measured.place(number)
    groups = measured.class_bins.groups_of.get(number, [])
    parts = scaled_of(measured.class_bins, groups[0]) if groups else {}
    for scaled, name in ((False, "confidence"), (True, "confidence_scaled")):
        if (name in columns) != (scaled in parts):
            found.add(f"{place}: {name} and the counts of it are not both there")
    classes = class_count(measured, images, number, columns)
    for scaled, part in parts.items():
        suffix = "_scaled" if scaled else ""
        if f"confidence{suffix}" not in columns:
            continue
        table = table_of(measured.class_bins, part, classes=classes, count=metrics.ece_bins)
        for problem in _problems(columns, table, suffix, metrics.ece_closed):
            found.add(f"{place}{', scaled' if scaled else ''}: {problem}")
    return len(parts)


def _problems(columns: Columns, table: ClassBins, suffix: str, closed: Closed) -> list[str]:
    """Return what the counts of one set contradict."""
    classes, bins = table.count.shape
    n, label = len(columns["label"]), columns["label"]
    low, high = np.arange(bins) / bins, (np.arange(bins) + 1) / bins
    mass = table.probability
    impossible = (
        (table.count < 0)
        | (table.positive < 0)
        | (table.positive > table.count)
        | ~(mass >= low * table.count - _SUM)
        | ~(mass <= high * table.count * (1 + _SUM) + _SUM)
    )
    if impossible.any():
        of_class, of_bin = np.argwhere(impossible)[0]
        return [
            f"class {of_class}, bin {of_bin}: {table.count[of_class, of_bin]} images with a probability of "
            f"{mass[of_class, of_bin]:.6g} together, {table.positive[of_class, of_bin]} of the class"
        ]
    problems = []
    sums = table.count.sum(axis=1)
    if (sums != n).any():
        worst = int(np.flatnonzero(sums != n)[0])
        problems.append(f"class {worst}: its bins hold {sums[worst]} images, the set has {n}")
    labelled = np.bincount(label, minlength=classes)
    positives = table.positive.sum(axis=1)
    if (positives != labelled).any():
        worst = int(np.flatnonzero(positives != labelled)[0])
        problems.append(f"class {worst}: {positives[worst]} images of it in the bins, {labelled[worst]} labels")
    if abs(mass.sum() - n) > _SUM * max(n, 1):
        problems.append(f"the probabilities add up to {mass.sum():.9g}, not to the number of images, {n}")
    return problems or _against_predictions(columns, table, suffix, closed)


def _against_predictions(columns: Columns, table: ClassBins, suffix: str, closed: Closed) -> list[str]:
    shape = table.count.shape
    confidence = columns[f"confidence{suffix}"].astype(np.float64)
    likelihood = columns[f"log_likelihood{suffix}"].astype(np.float64)
    true, wrong = np.exp(likelihood), columns["rank"] != 0
    loose = _ROUNDING * (1 + np.abs(np.where(np.isfinite(likelihood), likelihood, 0.0)))
    of_true = _told(columns["label"], true, loose, shape, closed)
    of_predicted = _told(columns["predicted"], confidence, np.maximum(loose * ~wrong, 4 * _ROUNDING), shape, closed)
    of_wrong = _told(columns["label"][wrong], true[wrong], loose[wrong], shape, closed)
    problems = []
    for words, counts, told, exact in (
        ("images of the class", table.positive, of_true, np.ones(shape[1], dtype=bool)),
        ("images", table.count, of_predicted, np.arange(shape[1]) / shape[1] >= 0.5),
    ):
        off = (counts < told.certain) | (exact & (counts > told.certain + told.unsure))
        problems += [_where(off, counts, told, words)] if off.any() else []
    both = _Told(of_predicted.certain + of_wrong.certain, of_predicted.unsure, of_predicted.total)
    off = table.count < both.certain
    problems += [_where(off, table.count, both, "images")] if off.any() else []
    upper = (np.arange(shape[1]) / shape[1] >= 0.5) & (of_predicted.unsure == 0)
    apart = np.abs(table.probability - of_predicted.total)
    off = upper & (apart > 4 * _ROUNDING * np.maximum(of_predicted.total, _SUM))
    if off.any():
        of_class, of_bin = np.argwhere(off)[0]
        problems.append(
            f"class {of_class}, bin {of_bin}: a probability of {table.probability[of_class, of_bin]:.6g} together, "
            f"the predictions give {of_predicted.total[of_class, of_bin]:.6g}"
        )
    return problems or _squares(columns, table, suffix, true)


def _squares(columns: Columns, table: ClassBins, suffix: str, true: NDArray[np.float64]) -> list[str]:
    """Hold the squared probabilities, which the Brier scores tell, against what the bins allow."""
    if f"brier{suffix}" not in columns:
        return []
    bins = table.count.shape[1]
    low, high = np.arange(bins) / bins, (np.arange(bins) + 1) / bins
    some = table.count > 0
    squares = float((columns[f"brier{suffix}"].astype(np.float64) + 2 * true - 1).sum())
    least = float((table.probability[some] ** 2 / table.count[some]).sum())
    most = float((table.probability * (low + high) - table.count * low * high).sum())
    slack = _SQUARES * len(true)
    if least - slack <= squares <= most + slack:
        return []
    return [f"the squared probabilities add up to {squares:.6g}, the bins allow {least:.6g} to {most:.6g}"]


def _told(
    of_class: NDArray[np.int32],
    probability: NDArray[np.float64],
    loose: NDArray[np.float64],
    shape: tuple[int, ...],
    closed: Closed,
) -> _Told:
    classes, bins = shape[0], shape[1]
    low, high = (
        of_class * bins + bin_index(np.clip(probability * (1 + sign * loose), 0, 1), bins=bins, closed=closed)
        for sign in (-1, 1)
    )

    def table(places: NDArray[np.int64], weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        counted = np.bincount(places, weights, minlength=classes * bins)
        return counted.reshape(classes, bins).astype(np.float64)

    sure = low == high
    unsure = table(low[~sure]) + table(high[~sure])
    return _Told(table(low[sure]).astype(np.int64), unsure.astype(np.int64), table(low[sure], probability[sure]))


def _where(off: NDArray[np.bool_], counts: Counts, told: _Told, words: str) -> str:
    of_class, of_bin = np.argwhere(off)[0]
    return (
        f"class {of_class}, bin {of_bin}: {counts[of_class, of_bin]} {words}, "
        f"the predictions give {told.certain[of_class, of_bin]}"
    )
