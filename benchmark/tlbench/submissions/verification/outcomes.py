"""Whether the outcomes, a bit an image, are those of the predictions and of the accuracies on the records."""

from __future__ import annotations

import numpy as np

from tlbench.errors import StoreError
from tlbench.metrics.accuracy import accuracy
from tlbench.records.outcomes import unpacked
from tlbench.submissions.verification.images import Images
from tlbench.submissions.verification.measured import Measurements
from tlbench.submissions.verification.report import Check, Findings, not_checked

TOLERANCE = 1e-9


def check_outcomes(measured: Measurements, images: Images) -> Check:
    """Answer whether the outcomes are those of the predictions, where these are here, and give the accuracies."""
    submission = measured.submission
    if not submission.published:
        return not_checked("outcomes", "a run folder has none; they are made when it is submitted")
    reason = submission.lacks("records", "outcomes")
    if reason:
        return not_checked("outcomes", reason)
    found = Findings()
    try:
        bits = unpacked(submission.tables["outcomes"])
    except StoreError as problem:
        found.add(str(problem))
        return found.check("outcomes", "")
    split = dict(
        zip(*(submission.tables["outcomes"].column(name).to_pylist() for name in ("measurement_id", "split_hash")),
            strict=True)
    )  # fmt: skip
    numbers = {measured.ids[number]: number for number in measured.clean_of.values()}
    for name in bits:
        if name not in numbers:
            found.add(f"outcomes of measurement {name[:12]}, which is no clean one of the records")
    rows = measured.records
    accuracies = rows[(rows["metric"] == "accuracy") & (rows["status"] == "ok")].set_index("measurement_id")["value"]
    for name, number in numbers.items():
        place = measured.place(number)
        if name not in bits:
            if name in accuracies.index:
                found.add(f"{place}: an accuracy without outcomes")
            continue
        if split[name] != measured.fact(number, "split_hash"):
            found.add(f"{place}: outcomes of another split than the records")
        own = accuracies.get(name)
        stored = None if own is None else float(np.ravel(own)[0])
        if stored is None or not len(bits[name]) or abs(accuracy(bits[name]) - stored) > TOLERANCE:
            found.add(f"{place}: accuracy {stored}, the outcomes give {bits[name].mean() if len(bits[name]) else None}")
        _check_set(measured, images, number, bits[name], found)
    return found.check("outcomes", f"{len(bits):,} clean sets, {sum(map(len, bits.values())):,} images")


def _check_set(measured: Measurements, images: Images, number: int, bits: np.ndarray, found: Findings) -> None:
    condition, place = measured.conditions[number], measured.place(number)
    task, source, target, role = (str(measured.fact(number, name)) for name in ("task", "source", "target", "role"))
    manifest = images.of(task, source, target, role, condition) if condition is not None else None
    if manifest is not None and len(manifest) != len(bits):
        found.add(f"{place}: outcomes of {len(bits):,} images, the manifest has {len(manifest):,}")
    groups = measured.predictions.groups_of.get(number, [])
    if groups:
        part = measured.predictions.part(groups[0])
        if not np.array_equal(measured.predictions.columns["rank"][part] == 0, bits):
            found.add(f"{place}: outcomes that are not those of the predictions")
    elif not measured.submission.lacks("predictions"):
        found.add(f"{place}: outcomes without predictions")
