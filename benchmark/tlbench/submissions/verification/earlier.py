"""How far the numbers are from those of an earlier version of the same model: for a person to judge."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from tlbench.errors import StoreError
from tlbench.records.published import PublishedModel, model_folder
from tlbench.submissions.verification.report import Check, Findings, not_checked
from tlbench.submissions.verification.submission import UNREADABLE, Submission

_KEY: Final = [
    "task", "source", "fit_target", "shots", "seed", "variant", "target", "role", "condition", "severity", "norm",
    "epsilon", "metric", "metric_version",
]  # fmt: skip
_TOLERANCE: Final = 1e-9


def check_earlier(submission: Submission, results: Path) -> Check:
    """Answer how many numbers differ from the published ones of the same model and version of the suite."""
    name, suite = "earlier version", submission.suite
    reason = submission.lacks("records")
    if reason:
        return not_checked(name, reason)
    folder = model_folder(results, suite.name, submission.model)
    if not (folder / "records.parquet").exists():
        return not_checked(name, f"'{submission.model}' has no published results")
    if folder.resolve() == submission.folder.resolve():
        return not_checked(name, "these are the published results")
    try:
        before = PublishedModel(folder, suite.name, submission.model).table("records").to_pandas()
    except (StoreError, *UNREADABLE) as problem:
        return not_checked(name, f"the published results cannot be read ({' '.join(str(problem).split())[:200]})")
    before = before[(before["suite_hash"] == suite.hash) & (before["status"] == "ok")]
    now = submission.records[submission.records["status"] == "ok"]
    if not len(before):
        return not_checked(name, "the published results are of another version of the suite")
    both = now[[*_KEY, "value"]].merge(before[[*_KEY, "value"]], on=_KEY, suffixes=("", "_before"))
    value, old = (both[column].to_numpy(dtype=np.float64) for column in ("value", "value_before"))
    with np.errstate(invalid="ignore"):
        apart = np.where(value == old, 0.0, np.abs(value - old))
    differs = ~(apart <= _TOLERANCE * np.maximum(1.0, np.abs(old)))
    found = Findings()
    if differs.any():
        worst = both.iloc[int(np.argmax(np.where(np.isnan(apart), np.inf, apart)))]
        found.warn(
            f"{int(differs.sum()):,} of {len(both):,} numbers differ from the published ones, most "
            f"{worst['task']}, {worst['source']} to {worst['target']}, {worst['condition']}, {worst['metric']}: "
            f"{worst['value_before']:.6g} then, {worst['value']:.6g} now"
        )
    alone = len(now) - len(both)
    done = f"{len(both):,} numbers are those published before" + (f", {alone:,} are new" if alone else "")
    return found.check(name, done)
