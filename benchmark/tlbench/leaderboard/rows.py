"""One row of a board by its name, and which images it had right: from its predictions, else from its outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from tlbench.errors import StoreError, UnknownNameError, UsageError, listed, nearest
from tlbench.leaderboard.board import pretraining
from tlbench.leaderboard.images import lock_path, with_images
from tlbench.leaderboard.tables import load_predictions, load_scored
from tlbench.records.damage import survey
from tlbench.records.lock import read_lock
from tlbench.records.outcomes import unpacked
from tlbench.records.published import PublishedModel
from tlbench.suites.spec import Suite

_OWN: Final = (
    "origin", "model", "variant", "headline", "settings_hash", "backbone", "weights_hash", "protocol", "shots",
    "precision",
)  # fmt: skip
_MEASURED: Final = [
    "measurement_id", *_OWN, "deterministic", "task", "source", "target", "role", "seed", "condition", "split_hash",
]  # fmt: skip
_PLACES: Final = ("published", "local")


@dataclass(frozen=True)
class NamedRow:
    """What makes a row of a board, and what a reader of a comparison must know of it.

    Attributes
    ----------
    name : str
        Of the row; a variant that is not the ranked one is ``model/variant``.
    origin : {"published", "local"}
    model, variant : str
    headline : bool
        Whether the variant is the one that is ranked.
    settings_hash, backbone, weights_hash, protocol, shots, precision : str
    control : bool
    """

    name: str
    origin: str
    model: str
    variant: str
    headline: bool
    settings_hash: str
    backbone: str
    weights_hash: str
    protocol: str
    shots: str
    precision: str
    control: bool

    @property
    def pretraining(self) -> str:
        """The data that its weights were pretrained on, as far as its records tell."""
        return pretraining(self.backbone, self.weights_hash)

    def of(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table that are its own."""
        mine = np.ones(len(frame), dtype=np.bool_)
        for column in _OWN:
            mine &= (frame[column] == getattr(self, column)).to_numpy(dtype=np.bool_)
        return frame[mine]


def rows_of_board(
    suite: Suite, *, run_dir: Path, published: bool = True, results: Path | None = None
) -> tuple[list[NamedRow], list[str]]:
    """Return every row of a suite's board, and in words what was left out; errors as for ``load_results``."""
    records = load_scored(suite, {("clean", "accuracy")}, run_dir=run_dir, published=published, results=results)
    own = records[[*_OWN, "control"]].drop_duplicates(list(_OWN))
    own = own.astype({name: "str" for name in _OWN if name != "headline"}).sort_values(list(_OWN))
    rows = []
    for values in own.to_dict("records"):
        model, variant, headline = str(values["model"]), str(values["variant"]), bool(values["headline"])
        texts = {name: str(values[name]) for name in _OWN if name not in ("model", "variant", "headline")}
        name = model if headline else f"{model}/{variant}"
        rows.append(
            NamedRow(
                name=name, model=model, variant=variant, headline=headline, control=bool(values["control"]), **texts
            )
        )
    return rows, list(records.attrs.get("notes", []))


def row_named(
    name: str, rows: Sequence[NamedRow], suite: Suite, *, shots: str | None = None, notes: Sequence[str] = ()
) -> NamedRow:
    """Return the row that a name means.

    Parameters
    ----------
    name : str
        As on the board; ``published:NAME`` and ``local:NAME`` tell rows of one name apart.
    rows : sequence of NamedRow
    suite : Suite
    shots : str, optional
        Needed where there are rows of several.
    notes : sequence of str
        What was left out, for who looks for it.

    Raises
    ------
    UnknownNameError
        If there is no such row; the message has the nearest name.
    UsageError
        If there are several; the message lists them.
    """
    place, _, rest = name.partition(":")
    origin, bare = (place, rest) if place in _PLACES and rest else (None, name)
    of_name = [row for row in rows if row.name == bare]
    found = [row for row in of_name if origin in (None, row.origin) and shots in (None, row.shots)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"'{name}': expected one row of suite '{suite.name}', got {len(found)}: {listed(map(_told, found))}; "
            f"{_way_out(found)}"
        )
    if of_name:
        raise UnknownNameError(
            f"suite '{suite.name}' has no row {name!r}"
            + (f" of {shots} images a class" if shots not in (None, "full") else " of all images" if shots else "")
            + f"; there is {listed(map(_told, of_name))}"
        )
    names = sorted({row.name for row in rows})
    hint = nearest(bare, names) or (f"; there are {listed(names)}" if names else "; nothing has been measured yet")
    raise UnknownNameError("; ".join([f"suite '{suite.name}' has no row {bare!r}{hint}", *notes]))


def _told(row: NamedRow) -> str:
    shots = "" if row.shots == "full" else f", {row.shots} images a class"
    return f"{row.origin}:{row.name} ({row.backbone}, {row.protocol}{shots}, settings {row.settings_hash[:8]})"


def _way_out(found: Sequence[NamedRow]) -> str:
    if len({row.origin for row in found}) == len(found):
        return "write " + " or ".join(f"{row.origin}:{row.name}" for row in found)
    if len({(row.origin, row.shots) for row in found}) == len(found):
        return "say --shots, and published: or local: before the name where that is not enough"
    return "two models stand under one name: evaluate one of them under another --name"


def load_row(
    suite: Suite, row: NamedRow, *, run_dir: Path, results: Path | None = None, lock: Path | None = None
) -> tuple[pd.DataFrame, bool]:
    """Return a row's predictions on clean images, and whether they are whole.

    Where predictions are not published with the records, they are made from the outcomes: the columns of places,
    images and clusters, and ``rank``, 0 where the image was right and 1 where it was not. Nothing else is known then.

    Raises
    ------
    StoreError
        If neither can be read.
    """
    published = row.origin == "published"
    if published:
        (place,) = [found for found in survey(suite.name, folder=results).sound if found.model == row.model]
        if not (place.folder / "predictions.parquet").exists():
            return _from_outcomes(suite, row, place, lock), False
    loaded = load_predictions(
        suite, row.model, run_dir=run_dir, published=published, results=results, condition="clean", lock=lock
    )
    return row.of(loaded), True


def _from_outcomes(suite: Suite, row: NamedRow, place: PublishedModel, lock: Path | None) -> pd.DataFrame:
    outcomes = unpacked(place.table("outcomes"))
    records: pd.DataFrame = place.table("records").to_pandas().assign(origin=row.origin)
    mine = (records["condition"] == "clean") & (records["suite_hash"] == suite.hash)
    measured = row.of(records[mine])[_MEASURED].drop_duplicates("measurement_id")
    there = measured[measured["measurement_id"].isin(list(outcomes))]
    if not len(there):
        raise StoreError(f"{place.folder}: expected outcomes of the clean sets, found none")
    bits = [outcomes[name] for name in there["measurement_id"]]
    rows = there.loc[there.index.repeat([len(own) for own in bits])].reset_index(drop=True)
    rows["id"] = np.concatenate([np.arange(len(own), dtype=np.int32) for own in bits])
    rows["rank"] = pd.array(np.where(np.concatenate(bits), 0, 1), dtype="Int32")
    return with_images(rows, suite, lock)


def class_names(suite: Suite, lock: Path | None = None) -> dict[str, tuple[str, ...]]:
    """Return the classes of every task in label order, as far as the suite or its lock tells them."""
    told = {task: spec.classes for task, spec in suite.tasks.items() if spec.classes}
    path = lock or lock_path(suite)
    if len(told) < len(suite.tasks) and path.is_file():
        told |= {m.task: m.classes for m in read_lock(path).values() if m.task not in told}
    return told


def told_apart(first: NamedRow, second: NamedRow) -> list[str]:
    """Return, in words, in what two rows differ that no board ranks together, and which of them is not ranked."""
    notes = []
    for column, words in (
        ("protocol", "protocol"),
        ("shots", "training images a class"),
        ("precision", "precision"),
        ("pretraining", "pretraining data"),
    ):
        ours, theirs = getattr(first, column), getattr(second, column)
        if ours != theirs:
            notes.append(f"not the same {words}: A {ours}, B {theirs}; no board ranks the two together")
    for letter, row in (("A", first), ("B", second)):
        if row.control:
            notes.append(f"{letter} is a control, a reference and never ranked")
        if not row.headline:
            notes.append(f"{letter} is a variant that was not named beforehand, and never ranked")
    return notes


def seeds_and_pairs(first: pd.DataFrame, second: pd.DataFrame, role: str) -> list[str]:
    """Return, in words, which seeds and pairs of two rows are not compared, for one of them lacks them."""
    notes = []
    own = [table[(table["role"] == role) & (table["condition"] == "clean")] for table in (first, second)]
    fixed = [bool(table["deterministic"].all()) for table in own]
    for letter, is_fixed in zip("AB", fixed, strict=True):
        if is_fixed:
            notes.append(f"{letter} is deterministic: its one fit stands for every seed")
    seeds = [set(map(int, table["seed"])) for table in own]
    if not any(fixed) and seeds[0] != seeds[1]:
        odd = ", ".join(map(str, sorted(seeds[0] ^ seeds[1])))
        notes.append(f"left out for only one of the two has it: seed {odd}")
    ours, theirs = (set(map(tuple, table[["task", "source", "target"]].drop_duplicates().to_numpy())) for table in own)
    for letter, alone in (("A", ours - theirs), ("B", theirs - ours)):
        if alone:
            pairs = f"{len(alone)} pairs are" if len(alone) > 1 else "one pair is"
            notes.append(f"{pairs} left out, measured of {letter} only")
    return notes
