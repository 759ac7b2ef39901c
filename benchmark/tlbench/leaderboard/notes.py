"""What a reader of a board must know before its numbers."""

from __future__ import annotations

from typing import Final

import pandas as pd

from tlbench.leaderboard.forms import Form
from tlbench.metrics.catalogue import METRICS
from tlbench.suites.spec import Suite


def notes_of(records: pd.DataFrame, frame: pd.DataFrame, suite: Suite, metric: str, ranking: Form) -> list[str]:
    """Return what records were left out and what they lack; the frame is the board's, with its intervals."""
    notes = []
    if not METRICS[metric].proper:
        notes.append(
            f"'{metric}' makes no ranks: a prediction that ignores the images can win it; rows are sorted, not ranked"
        )
    scored = frame[frame["score"].notna()]
    if len(scored) and scored[["standard_error", "measurement_low"]].isna().all(axis=None):
        lacking = _without_error(records, ranking)
        places = f" ({', '.join(lacking)})" if lacking else ""
        notes.append(f"no standard error: some cells{places} have too few clusters of images for one")
    others = records[~(records["seed"].isin(list(suite.protocol.seeds)) | records["deterministic"].astype(bool))]
    for model, seeds in others.groupby("model", observed=True)["seed"]:
        told = ", ".join(str(seed) for seed in sorted(set(map(int, seeds))))
        notes.append(
            f"left out: seed {told} of {model}, for the suite's are {', '.join(map(str, suite.protocol.seeds))}"
        )
    return [*notes, *records.attrs.get("notes", [])]


def data_notes(fits: pd.DataFrame) -> list[str]:
    """Return which models were run on other data than the suite counts: known variants, splits by row number."""
    told: dict[str, list[str]] = {}
    for row in fits[fits["data_notes"] != ""].drop_duplicates(["model", "data_notes"]).itertuples():
        for note in str(row.data_notes).split("; "):
            if not note.endswith(_AS_PUBLISHED) and str(row.model) not in told.setdefault(note, []):
                told[note].append(str(row.model))
    return [f"{note} (in {', '.join(models)})" for note, models in told.items() if models]


_AS_PUBLISHED: Final = "members by file name"
"""The end of a note that says the best that can be said of a copy."""


def _without_error(records: pd.DataFrame, ranking: Form) -> list[str]:
    """Return the targets whose records have a value and no standard error."""
    metrics, roles = set(ranking.terms["metric"]), set(ranking.terms["role"])
    used = records[records["metric"].isin(metrics) & records["role"].isin(roles) & (records["status"] == "ok")]
    return sorted(set(used.loc[used["standard_error"].isna(), "target"]))
