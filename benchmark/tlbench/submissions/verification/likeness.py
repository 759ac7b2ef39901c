"""Whether a submission can be taken for a published row, by its name or by what it predicts: for a person to judge."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from tlbench.errors import StoreError
from tlbench.records.damage import survey
from tlbench.records.inventory import known_fact
from tlbench.records.outcomes import make_outcomes
from tlbench.records.published import PublishedModel
from tlbench.seeds import digest
from tlbench.submissions.names import mistaken_for
from tlbench.submissions.verification.report import Check, Findings, not_checked
from tlbench.submissions.verification.submission import Submission

_PLACE: Final = ["task", "source", "target", "role", "shots", "split_hash"]
_ROW: Final = ["suite", "model", "status", "measurement_id", "condition", "headline", "control", *_PLACE]
_FIT: Final = ["suite", "model", "status", "method", "settings", "plugin_source"]
_REMEMBERED: Final = 5_000  # rows


@dataclass(frozen=True)
class _Row:
    """What a row predicts on clean images, and what it is made of.

    Attributes
    ----------
    right : mapping from a set to the digests of what was right in it, of all seeds
    control : bool
    method : str
    settings : str
    registered : bool
        Whether its settings are those of a method of ours, and not the word of a plug-in.
    """

    right: Mapping[tuple[str, ...], frozenset[str]]
    control: bool
    method: str
    settings: str
    registered: bool


def check_name(submission: Submission, results: Path) -> Check:
    """Answer whether the model's name can be taken for that of another published row."""
    found = Findings()
    names = [one.model for one in survey(submission.suite.name, folder=results).sound]
    others = [name for name in names if name != submission.model]
    for other, why in mistaken_for(submission.model, others):
        found.warn(f"'{submission.model}' can be taken for the published row '{other}': {why}")
    return found.check("name", f"like none of {len(others)} published rows")


def check_other_rows(submission: Submission, results: Path) -> Check:
    """Answer whether another published row is right and wrong on the very same clean images.

    A calibrator changes no predicted class, so a row of ours and the row that it wraps are no find; nor are controls.
    """
    reason = submission.lacks("records", "fits")
    if reason:
        return not_checked("other rows", reason)
    own = _own(submission)
    if own is None or not own.right:
        return not_checked("other rows", "there are no outcomes of clean sets")
    found, held = Findings(), 0
    for other in survey(submission.suite.name, folder=results).sound:
        if other.model == submission.model:
            continue
        theirs = _published(other)
        if theirs is None:
            continue
        held += 1
        if own.right == theirs.right and not (own.control or theirs.control or _wraps(own, theirs)):
            found.warn(
                f"right and wrong on the same images as the published row '{other.model}', in all "
                f"{len(own.right)} clean sets: is it the same model under another name?"
            )
    return found.check("other rows", f"predicts unlike {held} published rows")


def _own(submission: Submission) -> _Row | None:
    tables = submission.tables
    try:
        if "outcomes" in tables:
            outcomes = tables["outcomes"]
        elif "predictions" in tables:
            outcomes = make_outcomes(tables["records"], tables["predictions"])
        else:
            return None
        return _row(tables["records"], tables["fits"], outcomes)
    except StoreError:
        return None  # the check of the outcomes says what is wrong with them


def _published(model: PublishedModel) -> _Row | None:
    """Return a published row; None where it has no outcomes of its own: to make them of predictions takes long."""
    paths = [model.folder / f"{name}.parquet" for name in ("records", "fits", "outcomes")]
    if not paths[-1].is_file():
        return None
    return _remembered(model, *(known_fact(path).sha256 for path in paths))


@lru_cache(maxsize=_REMEMBERED)
def _remembered(model: PublishedModel, *hashes: str) -> _Row | None:
    try:
        return _row(model.table("records", _ROW), model.table("fits", _FIT), model.table("outcomes"))
    except StoreError:
        return None


def _row(records: pa.Table, fits: pa.Table, outcomes: pa.Table) -> _Row | None:
    clean = records.select(_ROW[3:]).to_pandas().drop_duplicates("measurement_id")
    clean = clean[(clean["condition"] == "clean") & clean["headline"].astype(bool)]
    bits = dict(zip(*(outcomes.column(name).to_pylist() for name in ("measurement_id", "correct")), strict=True))
    right: dict[tuple[str, ...], set[str]] = {}
    for row in clean[clean["measurement_id"].isin(list(bits))].to_dict("records"):
        place = tuple(str(row[name]) for name in _PLACE)
        right.setdefault(place, set()).add(digest(bits[row["measurement_id"]].hex()))
    if not len(fits):
        return None
    first = {name: fits.column(name)[0].as_py() for name in _FIT[3:]}
    return _Row(
        {place: frozenset(digests) for place, digests in right.items()},
        bool(clean["control"].any()),
        str(first["method"]),
        str(first["settings"]),
        not first["plugin_source"],
    )


def _wraps(one: _Row, other: _Row) -> bool:
    """Return whether one of two rows is made of the other by a method of ours."""
    return any(
        outer.registered and (inner.method, _read(inner.settings)) in _parts(_read(outer.settings))
        for outer, inner in ((one, other), (other, one))
    )


def _parts(settings: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(settings, dict):
        if set(settings) == {"method", "settings"}:
            yield str(settings["method"]), settings["settings"]
        for value in settings.values():
            yield from _parts(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _parts(value)


def _read(settings: str) -> Any:
    try:
        return json.loads(settings)
    except (ValueError, RecursionError):
        return None
