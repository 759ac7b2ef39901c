"""What a single table can be asked: rows that are there twice, numbers that cannot be, fits that do not fit."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.metrics.catalogue import METRICS
from tlbench.submissions.verification.images import Images
from tlbench.submissions.verification.measured import Measurements, Rows
from tlbench.submissions.verification.report import Check, Findings
from tlbench.suites.spec import Clean

_RECORD: Final = ["measurement_id", "severity", "norm", "epsilon", "metric"]
_FIT: Final = [
    "suite", "suite_version", "suite_hash", "task", "source", "fit_target", "shots", "seed", "model", "method",
    "settings", "settings_hash", "backbone", "weights_hash", "protocol", "deterministic", "control",
]  # fmt: skip
_MEASUREMENT: Final = [
    "fit_id", "variant", "headline", "target", "role", "split_hash", "condition", "precision",
]  # fmt: skip
_ROUNDING: Final = 1e-6
_MOST: Final = {"fraction": 1.0, "score": 2.0}
"""The largest value of a bounded metric, by unit; the smallest is 0 for every metric that a record carries."""


def check_duplicates(measured: Measurements) -> Check:
    """Answer whether any row is there twice."""
    found, submission = Findings(), measured.submission
    for name, frame, keys in (
        ("records", submission.records, _RECORD),
        ("fits", submission.fits, ["fit_id"]),
    ):
        twice = frame.duplicated(keys)
        if twice.any():
            first = frame[twice].iloc[0]
            found.add(f"{name}: {_words(first, keys)} is there twice", int(twice.sum()))
    for name, rows, names in (
        ("predictions", measured.predictions, ["id"]),
        ("class_bins", measured.class_bins, ["scaled", "class", "bin"]),
        ("audits", measured.audits, ["id", "epsilon"]),
    ):
        same = np.diff(rows.group_of_row) == 0
        for key in names:
            same &= rows.columns[key][1:] == rows.columns[key][:-1]
        if same.any():
            row = int(np.flatnonzero(same)[0]) + 1
            where = ", ".join(f"{key} {rows.columns[key][row]}" for key in names)
            found.add(f"{name}: {_group_words(measured, rows, row)}, {where} is there twice", int(same.sum()))
    if "outcomes" in submission.tables:
        ids = submission.tables["outcomes"].column("measurement_id").to_pandas()
        if ids.duplicated().any():
            found.add("outcomes: a measurement is there twice", int(ids.duplicated().sum()))
    unread = [submission.lacks(name) for name in ("records", "fits", "predictions", "class_bins")]
    reasons = "; ".join(dict.fromkeys(filter(None, unread)))
    return found.check("duplicates", "no row is there twice", reasons)


def check_fits(measured: Measurements) -> Check:
    """Answer whether records and fits tell the same of every fit, and of one version of the model."""
    found, submission = Findings(), measured.submission
    reason = submission.lacks("records", "fits")
    records, fits = submission.records, submission.fits
    for name, frame in (("records", records), ("fits", fits)):
        for column in ("settings_hash", "weights_hash", "precision", "method", "backbone", "protocol"):
            values = frame[column].drop_duplicates()
            if len(values) > 1:
                found.add(f"{name}: {len(values)} values of {column} under one name, expected one")
    own = fits.drop_duplicates("fit_id").set_index("fit_id")
    unknown = set(records["fit_id"]) - set(own.index)
    if unknown and not reason:
        # A fit that failed, or was not run, has records that say so and no row of its own.
        measured_of = records[records["fit_id"].isin(unknown) & records["status"].isin(["ok"])]
        if len(measured_of):
            count = measured_of["fit_id"].nunique()
            found.add(f"records: fit {measured_of['fit_id'].iloc[0][:12]} is not among the fits", count)
    idle = set(own.index) - set(records["fit_id"])
    if idle and not reason:
        found.add(f"fits: fit {min(idle)[:12]} has no records", len(idle))
    known = records[records["fit_id"].isin(own.index)]
    for column in _FIT if not reason else ():
        told = own[column].reindex(known["fit_id"]).to_numpy()
        differs = ~_equal(known[column].to_numpy(), told)
        if differs.any():
            row = known[differs].iloc[0]
            found.add(
                f"fit {row['fit_id'][:12]}: {column} {row[column]!r} in the records, "
                f"{own.loc[row['fit_id'], column]!r} in the fits",
                int(known[differs]["fit_id"].nunique()),
            )
    for column in _MEASUREMENT:
        first = measured.facts[column].to_numpy()[measured.records["measurement"].to_numpy()]
        differs = ~_equal(records[column].to_numpy(), first)
        if differs.any():
            number = int(measured.records["measurement"].to_numpy()[differs][0])
            found.add(f"{measured.place(number)}: records of one measurement differ in {column}", int(differs.sum()))
    twice = fits.duplicated(["task", "source", "fit_target", "shots", "seed"])
    if twice.any():
        row = fits[twice].iloc[0]
        found.add(f"fits: {row['task']}, {row['source']}, seed {row['seed']} was fitted twice", int(twice.sum()))
    return found.check("fits", f"{len(own):,} fits of one version of the model, the same in fits and records", reason)


def check_ranges(measured: Measurements, images: Images) -> Check:
    """Answer whether a number is one that can be: no sentinel, no value outside its metric's or column's range."""
    found, submission = Findings(), measured.submission
    _records_in_range(measured, found)
    _predictions_in_range(measured, images, found)
    _not_suspicious(measured, found)
    fits = submission.fits
    for name in ("seconds", "forward_passes", "peak_memory_bytes", "images_seen", "parameters_trained"):
        wrong = ~(np.isfinite(fits[name].to_numpy(dtype=np.float64)) & (fits[name] >= 0).to_numpy())
        if wrong.any():
            found.add(f"fits: {name} {fits[name][wrong].iloc[0]}, expected a number of at least 0", int(wrong.sum()))
    done = f"{len(submission.records):,} records and {len(measured.predictions):,} predictions, each in its range"
    return found.check("ranges", done, submission.lacks("records") or submission.lacks("predictions"))


def _records_in_range(measured: Measurements, found: Findings) -> None:
    records = measured.records
    ok = (records["status"] == "ok").to_numpy()
    value, error = (records[name].to_numpy(dtype=np.float64) for name in ("value", "standard_error"))
    metrics, code = np.unique(records["metric"].to_numpy(dtype=object), return_inverse=True)
    infos = [METRICS.get(name) for name in metrics]
    most = np.array([np.inf if i is None else _MOST.get(i.unit, np.inf) for i in infos] or [0.0])[code]
    finite = np.array([i is not None and not i.unbounded for i in infos] or [False])[code]
    whole = np.array([i is not None and i.unit == "count" for i in infos] or [False])[code]
    with np.errstate(invalid="ignore"):
        wrong = {
            "no value, expected a number": ok & np.isnan(value),
            "a value outside its range": ok & ((value < -1e-12) | (value > most + 1e-9)),
            "an infinite value": ok & np.isinf(value) & finite,
            "a value that is no whole number": ok & whole & (value != np.rint(value)),
            "a value, expected none": ~ok & ~np.isnan(value),
            "a standard error, expected none": ~ok & ~np.isnan(error),
            "a standard error that is negative or infinite": (error < 0) | np.isinf(error),
            "no images": ok & (records["n"].to_numpy() <= 0),
            "a negative number of images": records["n"].to_numpy() < 0,
        }
    for what, rows in wrong.items():
        if rows.any():
            row = records[rows].iloc[0]
            place = measured.place(int(row["measurement"]))
            number = row["standard_error"] if "error" in what else row["n"] if "images" in what else row["value"]
            found.add(f"{place}, {row['metric']} ({row['status']}): {number} is {what}", int(rows.sum()))


def _predictions_in_range(measured: Measurements, images: Images, found: Findings) -> None:
    rows = measured.predictions
    if not len(rows):
        return
    counts = [
        images.classes(measured.fact(number, "task")) if number >= 0 else None for number in rows.measurement.tolist()
    ]
    classes = np.array([np.inf if count is None else count for count in counts])[rows.group_of_row]
    strange = rows.measurement[rows.group_of_row] < 0
    if strange.any():
        found.add("predictions: rows of a measurement that no record names", int(strange.sum()))
    columns = rows.columns
    bounds: dict[str, tuple[float, Any]] = {
        "label": (0, classes - 1),
        "predicted": (0, classes - 1),
        "rank": (0, classes - 1),
        "confidence": (0.0, 1 + _ROUNDING),
        "confidence_scaled": (0.0, 1 + _ROUNDING),
        "log_likelihood": (-np.inf, _ROUNDING),
        "log_likelihood_scaled": (-np.inf, _ROUNDING),
        "brier": (0.0, 2 + _ROUNDING),
        "brier_scaled": (0.0, 2 + _ROUNDING),
        "scale_derivative": (-np.inf, np.inf),
        "breaking_epsilon": (0.0, np.inf),
    }
    for name, (low, high) in bounds.items():
        valid = rows.valid.get(name)
        wrong = ~((columns[name] >= low) & (columns[name] <= high))
        wrong = wrong if valid is None else wrong & valid
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            place = _group_words(measured, rows, row)
            found.add(f"{place}, id {columns['id'][row]}: {name} {columns[name][row]}", int(wrong.sum()))
        if valid is not None:
            size = np.diff(rows.starts)
            partly = (rows.present[name] > 0) & (rows.present[name] < size)
            if partly.any():
                row = int(rows.starts[np.flatnonzero(partly)[0]])
                found.add(
                    f"{_group_words(measured, rows, row)}: {name} is there for some images only", int(partly.sum())
                )


def _not_suspicious(measured: Measurements, found: Findings) -> None:
    """Warn of what a real model hardly does: one class for every image, equal predictions with different seeds."""
    rows = measured.predictions
    same: dict[tuple[object, ...], tuple[int, int]] = {}
    for number, groups in rows.groups_of.items():
        if not isinstance(measured.conditions[number], Clean) or measured.fact(number, "control"):
            continue
        part = rows.part(groups[0])
        predicted, label = rows.columns["predicted"][part], rows.columns["label"][part]
        if len(label) > 1 and (predicted == predicted[0]).all() and (label != label[0]).any():
            found.warn(f"{measured.place(number)}: every image is given class {predicted[0]}")
        if measured.fact(number, "deterministic"):
            continue
        content = hash((rows.columns["log_likelihood"][part].tobytes(), predicted.tobytes()))
        where = tuple(measured.fact(number, name) for name in ("task", "source", "target", "role", "shots", "variant"))
        twin, seed = same.setdefault((content, len(label), *where), (number, measured.fact(number, "seed")))
        if seed != measured.fact(number, "seed"):
            found.warn(f"{measured.place(number)}: the same predictions as with seed {measured.fact(twin, 'seed')}")


def _equal(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((one == other) | (pd.isna(one) & pd.isna(other)), dtype=bool)


def _words(row: pd.Series, keys: list[str]) -> str:
    return ", ".join(f"{key} {str(row[key])[:40]}" for key in keys if pd.notna(row[key]))


def _group_words(measured: Measurements, rows: Rows, row: int) -> str:
    number = int(rows.measurement[rows.group_of_row[row]])
    return "an unknown measurement" if number < 0 else measured.place(number)
