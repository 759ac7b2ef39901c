"""Whether everything that the suite asks for is there, on the images that it asks for."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tlbench.records.manifest import Manifest
from tlbench.submissions.completeness import incompleteness
from tlbench.submissions.verification.images import Images
from tlbench.submissions.verification.measured import Measurements, Rows, strengths_of
from tlbench.submissions.verification.report import Check, Findings
from tlbench.suites.spec import Attack


def check_complete(measured: Measurements, *, allow_incomplete: bool) -> Check:
    """Answer whether every pair, condition, setting and seed of the suite is there, and nothing else."""
    found, records = Findings(), measured.records
    reason = measured.submission.lacks("records")
    if not reason:
        problem = incompleteness(measured.submission.records, measured.suite)
        inventory = measured.submission.inventory
        declared = inventory is not None and inventory.incomplete
        if problem and (allow_incomplete or declared):
            found.warn(f"{problem}; the row is not ranked")
        elif problem:
            found.add(problem)
        strange = _strange_places(measured)
        if strange:
            found.add(f"{measured.place(strange[0])}: the suite has no such set or condition", len(strange))
        unknown = (records["setting"] == -2).to_numpy() & ~np.isin(records["measurement"].to_numpy(), strange)
        if unknown.any():
            row = records[unknown].iloc[0]
            given = f"severity {row['severity']:g}, epsilon {row['epsilon']:g}"
            found.add(f"{measured.place(int(row['measurement']))}: {given} is no setting of it", int(unknown.sum()))
        _check_settings(measured, found)
    return found.check("completeness", f"{len(measured):,} measurements, all that the suite asks for", reason)


def check_images(measured: Measurements, images: Images) -> Check:
    """Answer whether every measurement rests on the images of its split, once each and with their labels."""
    found, rows, submission = Findings(), measured.predictions, measured.submission
    known_sets = 0
    unlocked: set[str] = set()
    labels_of: dict[str, np.ndarray] = {}
    for group, number in enumerate(rows.measurement.tolist()):
        condition = measured.conditions[number] if number >= 0 else None
        if condition is None:
            continue
        part = rows.part(group)
        ids, labels = rows.columns["id"][part], rows.columns["label"][part]
        if not np.array_equal(ids, np.arange(len(ids))):
            found.add(f"{measured.place(number)}: expected every id from 0 to {len(ids) - 1} once")
            continue
        task, source, target, role, split = (
            str(measured.fact(number, name)) for name in ("task", "source", "target", "role", "split_hash")
        )
        manifest = images.of(task, source, target, role, condition)
        if manifest is not None:
            known_sets += 1
            _check_manifest(measured, number, manifest, labels, found)
            continue
        unlocked.add(f"{task}/{target}")
        # Without a manifest the sets can still be held against each other.
        known = labels_of.setdefault(split, labels)
        if not np.array_equal(known, labels):
            found.add(f"{measured.place(number)}: other labels than another measurement of the same split")
    _check_audits(measured, rows, found)
    reason = submission.lacks("records") or submission.lacks("predictions")
    if not reason and unlocked:
        first = f"such as {min(unlocked)}" if len(unlocked) > 1 else min(unlocked)
        reason = (
            f"no manifest of {len(unlocked)} sets, {first}: "
            + ("they are in no lock" if images.locked else "the suite has no lock")
            + "; their ids are whole, and their labels agree with each other"
        )
    done = f"{known_sets:,} sets with the ids and labels of their manifests" if known_sets else ""
    return found.check("images", done, reason)


def _strange_places(measured: Measurements) -> list[int]:
    """Return the measurements of sets or conditions that the suite does not have."""
    suite = measured.suite
    known = set()
    for task in suite.tasks:
        for pair in suite.pairs_of(task):
            known |= {(task, pair.source, pair.source, role) for role in ("id-val", "id-test")}
            known.add((task, pair.source, pair.target, "ood-test"))
    strange = []
    for number, condition in enumerate(measured.conditions):
        place = tuple(measured.fact(number, name) for name in ("task", "source", "target", "role"))
        if condition is None or place not in known or place[3] not in condition.roles:
            strange.append(number)
    return strange


def _check_settings(measured: Measurements, found: Findings) -> None:
    """Note measurements that lack a severity, step or epsilon of the suite."""
    pairs = measured.records.loc[measured.records["setting"] >= 0, ["measurement", "setting"]].drop_duplicates()
    count = pd.Series(0, index=range(len(measured))).add(pairs["measurement"].value_counts(), fill_value=0)
    for number, condition in enumerate(measured.conditions):
        if condition is not None and count[number] < len(strengths_of(condition)):
            found.add(f"{measured.place(number)}: {int(count[number])} of {len(strengths_of(condition))} settings")


def _check_manifest(
    measured: Measurements, number: int, manifest: Manifest, labels: np.ndarray, found: Findings
) -> None:
    place = measured.place(number)
    split = str(measured.fact(number, "split_hash"))
    if split != manifest.hash:
        found.add(f"{place}: split {split[:12]}, the manifest is {manifest.hash[:12]}")
    if len(labels) != len(manifest):
        found.add(f"{place}: {len(labels):,} images, the manifest has {len(manifest):,}")
    elif not np.array_equal(labels, manifest.labels):
        wrong = np.flatnonzero(labels != manifest.labels)
        first = int(wrong[0])
        found.add(
            f"{place}, id {first}: label {labels[first]}, the manifest has {manifest.labels[first]} "
            f"({len(wrong)} labels differ)"
        )


def _check_audits(measured: Measurements, rows: Rows, found: Findings) -> None:
    """Note audited verdicts of images that were not attacked, or of what is no attack."""
    audits = measured.audits
    for number, groups in audits.groups_of.items():
        own = rows.groups_of.get(number, [])
        ids = audits.columns["id"][audits.part(groups[0])]
        attacked = rows.columns["id"][rows.part(own[0])] if own else np.zeros(0, dtype=np.int32)
        if not isinstance(measured.conditions[number], Attack) or not np.isin(ids, attacked).all():
            found.add(f"{measured.place(number)}: audited verdicts of images that were not attacked")
