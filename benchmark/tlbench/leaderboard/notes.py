"""What a reader of a board must know before its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from tlbench.leaderboard.costs import FIT_ROW
from tlbench.leaderboard.forms import Form
from tlbench.leaderboard.prepared import Row
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


def audit_notes(records: pd.DataFrame) -> list[str]:
    """Return whose attacks were audited and found wrong somewhere: their robustness is less sure than it looks."""
    audits = records[records["metric"].isin([AUDIT]) & (records["status"] == "ok") & records["headline"].astype(bool)]
    counted = audits.assign(turned=audits["value"] * audits["n"])
    sums = counted.groupby(["model", "origin"], observed=True, as_index=False)[["turned", "n"]].sum()
    return [
        f"{row.model} ({row.origin}): of {row.n:.0f} audited verdicts of its attacks {row.turned:.0f} turned out "
        "otherwise; its robustness is less sure than it looks"
        for row in sums[sums["turned"].round() > 0].itertuples()
    ]


def batch_sizes(fits: pd.DataFrame) -> dict[Row, list[int]]:
    """Return in batches of which sizes every row of a test-time method was measured, by the key of its fits.

    What such a method predicts depends on what stands beside an image: of batches of another size, it is another
    predictor. One run folder holds one size of a row; folders that were copied together, and rows of other people, may
    not.
    """
    seeing = fits["protocol"].map(lambda protocol: _TEST_TIME in str(protocol).split("+")).astype(bool)
    made = fits[seeing & (fits["status"] == "ok") & (fits["batch_size"] > 0)]
    by_row = made.groupby(list(FIT_ROW), observed=True)["batch_size"]
    return {tuple(map(str, row)): sorted(set(map(int, own))) for row, own in by_row}


def of_several_batches(sizes: list[int]) -> str:
    """Return why a row of test-time predictions in batches of these sizes is not ranked; empty where it may be."""
    if len(sizes) < 2:
        return ""
    told = " and ".join(map(str, sizes))
    return f"its predictions depend on their batch, and were made in batches of {told}: evaluate it in one size"


def batch_notes(sizes: Mapping[Row, list[int]]) -> list[str]:
    """Return which rows of test-time methods that are compared differ in the size of their batches."""
    sections: dict[tuple[str, str], dict[int, list[str]]] = {}
    for row, own in sizes.items():
        of = dict(zip(FIT_ROW, row, strict=True))
        if len(own) == 1:
            of_section = sections.setdefault((of["protocol"], of["shots"]), {})
            of_section.setdefault(own[0], []).append(f"{of['model']} ({of['origin']})")
    notes = []
    for (protocol, _), by_size in sections.items():
        if len(by_size) > 1:
            told = "; ".join(f"{', '.join(rows)} of {size}" for size, rows in sorted(by_size.items()))
            notes.append(f"{protocol}: predictions depend on their batch, and batches were not of one size: {told}")
    return notes


AUDIT: Final = "audit_reversals"
_TEST_TIME: Final = "test-time"
_AS_PUBLISHED: Final = "members by file name"
"""The end of a note that says the best that can be said of a copy."""


def _without_error(records: pd.DataFrame, ranking: Form) -> list[str]:
    """Return the targets whose records have a value and no standard error."""
    metrics, roles = set(ranking.terms["metric"]), set(ranking.terms["role"])
    used = records[records["metric"].isin(metrics) & records["role"].isin(roles) & (records["status"] == "ok")]
    return sorted(set(used.loc[used["standard_error"].isna(), "target"]))
