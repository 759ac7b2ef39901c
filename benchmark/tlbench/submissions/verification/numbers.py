"""Stored numbers against recomputed ones: counts exactly, values and standard errors to 1e-9."""

from __future__ import annotations

from typing import Final

import numpy as np

from tlbench.metrics.catalogue import METRICS
from tlbench.submissions.verification.measured import Measurements
from tlbench.submissions.verification.recompute import Key, Recomputed
from tlbench.submissions.verification.report import Check, Findings

TOLERANCE: Final = 1e-9
_NONE: Final = 1e-12


def check_numbers(measured: Measurements, again: Recomputed) -> tuple[Check, Check, int]:
    """Answer whether every value, and every standard error, is the one that follows from the predictions.

    Returns
    -------
    tuple of Check, Check and int
        Of values with ``n`` and status, of standard errors, and how many values were recomputed.
    """
    values, errors = Findings(), Findings()
    reason = measured.submission.lacks("records") or measured.submission.lacks("predictions")
    if reason:
        return values.check("values", "", reason), errors.check("standard errors", "", reason), 0
    for number, problem in again.problems.items():
        values.add(f"{measured.place(number)}: cannot be recomputed: {problem}")
    names = ("measurement", "setting", "metric", "metric_version", "value", "standard_error", "n", "status")
    columns = [measured.records[name].tolist() for name in names]
    seen: set[Key] = set()
    done, untold, without_group = 0, 0, 0
    for number, setting, metric, version, value, error, n, status in zip(*columns, strict=True):
        key = (number, setting, metric)
        if key in seen or number in again.problems:
            continue  # told as a duplicate, or above
        seen.add(key)
        if number not in measured.predictions.groups_of:
            if status == "ok":
                values.add(f"{measured.place(number)}, {metric}: {value!r} without predictions")
            continue
        info, found = METRICS.get(metric), again.values.get(key)
        if info is not None and version != info.version:
            values.add(f"{_words(measured, key)}: version {version} of the metric, this tlbench has {info.version}")
            continue
        if found is None:
            # An audit in which no verdict was implied leaves no rows, and a record that says so.
            if not (metric == "audit_reversals" and status == "not_applicable"):
                values.add(f"{_words(measured, key)}: {value!r} does not follow from the predictions")
            continue
        if metric == "worst_group_accuracy" and (number, "group") in again.no_units:
            without_group += 1
            continue
        done += 1
        for what, stored, now in (("status", status, found.status), ("n", n, found.n)):
            if stored != now:
                values.add(f"{_words(measured, key)}: {what} {stored}, recomputed {now}")
        if not _same(value, found.value):
            values.add(f"{_words(measured, key)}: {value!r}, recomputed {found.value!r}")
        if (number, "cluster") in again.no_units:
            untold += 1
        elif not _same(error, found.standard_error):
            errors.add(f"{_words(measured, key)}: standard error {error!r}, recomputed {found.standard_error!r}")
    _missing(measured, again, seen, values)
    told = f"{done:,} numbers follow from {len(measured.predictions):,} predictions: counts exactly, floats to 1e-9"
    groups = f"{without_group} rest on groups that no manifest here tells" if without_group else ""
    clusters = f"{untold} rest on clusters that no manifest here tells" if untold else ""
    return (
        values.check("values", told, groups),
        errors.check("standard errors", f"{done - untold:,} follow to 1e-9", clusters),
        done,
    )


def _missing(measured: Measurements, again: Recomputed, seen: set[Key], values: Findings) -> None:
    """Note numbers that follow from the predictions and are not among the records."""
    known = set(measured.records["metric"])
    younger: set[str] = set()
    for key in again.values:
        if key in seen:
            continue
        if key[2] in known:
            values.add(f"{_words(measured, key)}: follows from the predictions, but there is no record of it")
        else:
            younger.add(key[2])
    for metric in sorted(younger):
        values.warn(f"there is no record of {metric}: it is younger than these results, or was left out")


def _same(stored: float | None, again: float | None) -> bool:
    if stored is None or np.isnan(stored):
        return again is None
    if again is None:
        return False
    if np.isinf(stored) or np.isinf(again):
        return bool(stored == again)
    return bool(abs(stored - again) <= TOLERANCE * abs(again) + _NONE)


def _words(measured: Measurements, key: Key) -> str:
    number, setting, metric = key
    rows = measured.records
    of_setting = rows[(rows["measurement"] == number) & (rows["setting"] == setting)]
    strength = ""
    if len(of_setting):
        severity, epsilon = of_setting["severity"].iloc[0], of_setting["epsilon"].iloc[0]
        if severity == severity:
            strength = f", at {severity:g}"
        elif epsilon == epsilon:
            strength = f", at {epsilon * 255:g}/255"
    return f"{measured.place(number)}{strength}, {metric}"
