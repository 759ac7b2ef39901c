"""Published results: tables that anyone may have written, held to their schema and to a size before they are believed.

::

    <results>/<suite>/<model>/
        records.parquet, fits.parquet, outcomes.parquet, card.toml
        predictions.parquet, class_bins.parquet, audits.parquet     here where small, else where submission.json says
        plugin.py                     source of a user's plug-in
        submission.json               hashes and sizes, and addresses of what lies elsewhere
        verification.json             what the board's own checks found
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, get_args
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tlbench.errors import StoreError
from tlbench.records.compact import with_derivable
from tlbench.records.files import read_table
from tlbench.records.inventory import Inventory, read_inventory
from tlbench.records.outcomes import make_outcomes
from tlbench.records.record import Status
from tlbench.records.schema import AUDITS, CLASS_BINS, FITS, OUTCOMES, PREDICTIONS, RECORDS

MAX_FILE_BYTES: Final = 64_000_000
MAX_PREDICTIONS_BYTES: Final = 1_000_000_000
"""Predictions of a suite of 172 pairs do not fit into git; they are fetched to be verified."""
MAX_UNPACKED_BYTES: Final = 2_000_000_000
"""A Parquet file of a few kilobytes can claim any number of rows; what it unpacks to is checked before it is read."""

PUBLISHED_TABLES: Final = {
    "records": RECORDS,
    "fits": FITS,
    "predictions": PREDICTIONS,
    "class_bins": CLASS_BINS,
    "audits": AUDITS,
    "outcomes": OUTCOMES,
}
LATER_TABLES: Final = ("audits", "outcomes")
"""Tables that came after results were published: no audits are none, and outcomes follow from the predictions."""


@dataclass(frozen=True)
class PublishedModel:
    """One model's folder below the published results.

    Attributes
    ----------
    folder : Path
    suite, model : str
    """

    folder: Path
    suite: str
    model: str

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Return a table: ``records``, ``fits``, ``class_bins``, ``audits``, ``outcomes``, or ``predictions``, whole.

        Some columns of the first two, the checked ones among them, may be had alone: their texts are then codes.
        Outcomes that were not published are made from the predictions.

        Raises
        ------
        StoreError
            If the file is missing, a link, too large, not of the written schema, or names another suite or model; or
            if it lies elsewhere, which the message says.
        """
        path = self.folder / f"{name}.parquet"
        if not path.exists() and not path.is_symlink():
            self._check_not_elsewhere(path)
            if name == "outcomes":
                return make_outcomes(self.table("records"), self.table("predictions"))
            if name in LATER_TABLES:
                return PUBLISHED_TABLES[name].empty_table()
        check_size(path, name)
        if columns is None:
            _check_texts(path, PUBLISHED_TABLES[name])
        table = read_table(path, PUBLISHED_TABLES[name], columns, coded=columns is not None)
        if name in ("records", "fits"):
            _check_values(path, table, "suite", {self.suite})
            _check_values(path, table, "model", {self.model})
            _check_values(path, table, "status", set(get_args(Status)))
        return with_derivable(table) if name == "predictions" and columns is None else table

    def inventory(self) -> Inventory | None:
        """Return what the folder says that it holds; None for one that was published before there were inventories.

        Raises
        ------
        StoreError
            If the file is no inventory, or names another suite or model.
        """
        inventory = read_inventory(self.folder)
        if inventory is not None and (inventory.suite, inventory.model) != (self.suite, self.model):
            raise StoreError(
                f"{self.folder}: expected the inventory of '{self.model}' on suite '{self.suite}', "
                f"got one of {inventory.model!r} on {inventory.suite!r}"
            )
        return inventory

    def _check_not_elsewhere(self, path: Path) -> None:
        inventory = read_inventory(self.folder)
        placed = inventory.elsewhere.get(path.name) if inventory else None
        if placed is not None:
            raise StoreError(
                f"{path}: not in this folder, for it is large ({placed.bytes:,} bytes): download it from {placed.url!r}"
            )


def published_folder() -> Path:
    """Return the folder of published results: packaged with tlbench, or the checkout's ``results/``.

    Where there is neither, the packaged place is returned, and nothing is found in it.
    """
    package = Path(str(files("tlbench")))
    packaged = package / "results_published"
    checkout = package.parents[1] / "results"
    # A site-packages folder has no suites/ beside a results/ that happens to lie above it.
    if not packaged.is_dir() and checkout.is_dir() and (package.parents[1] / "suites").is_dir():
        return checkout
    return packaged


def published_models(suite: str | None = None, *, folder: Path | None = None) -> tuple[PublishedModel, ...]:
    """Return every published model, by suite and name.

    Parameters
    ----------
    suite : str, optional
        One suite's; by default all suites'.
    folder : Path, optional
        By default the ``published_folder``.
    """
    root = published_folder() if folder is None else folder
    found = []
    for path in sorted(root.glob("*/*/records.parquet")):
        place = path.parent
        if place.name.startswith(".") or (suite is not None and place.parent.name != suite):
            continue
        found.append(PublishedModel(place, place.parent.name, unquote(place.name)))
    return tuple(found)


def model_folder(root: Path, suite: str, model: str) -> Path:
    """Return where a model's results are published; its name is quoted and cannot leave the suite's folder."""
    name = quote(model, safe="()=,.+-_ ")
    # quote leaves dots alone, and a folder that starts with one is hidden or somebody else's.
    return root / suite / (f"%2E{name[1:]}" if name.startswith(".") else name)


def check_size(path: Path, name: str) -> None:
    """Raise ``StoreError`` where the file of a table is missing, a link, damaged, or larger than one can be."""
    most = MAX_PREDICTIONS_BYTES if name == "predictions" else MAX_FILE_BYTES
    if path.is_symlink() or path.parent.is_symlink():
        raise StoreError(f"{path}: expected a file of this folder, got a link")
    if not path.is_file():
        raise StoreError(f"{path}: expected a Parquet file, found nothing")
    size = path.stat().st_size
    if size > most:
        raise StoreError(f"{path}: expected at most {most:,} bytes, got {size:,}")
    try:
        metadata = pq.read_metadata(path)
        unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    # Run lengths: a page of a few bytes may stand for any number of rows, so rows are counted too.
    unpacked = max(unpacked, metadata.num_rows * metadata.num_columns)
    if unpacked > MAX_UNPACKED_BYTES:
        raise StoreError(f"{path}: expected at most {MAX_UNPACKED_BYTES:,} bytes when unpacked, got {unpacked:,}")


def _check_texts(path: Path, schema: pa.Schema) -> None:
    """Raise where texts take far more room than their codes: a word of a megabyte may stand in a million rows."""
    texts = {field.name for field in schema if field.type in (pa.string(), pa.binary())}
    try:
        there = [name for name in pq.read_schema(path).names if name in texts]
        with pq.ParquetFile(path, read_dictionary=there) as file:
            table = file.read(columns=there)
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    unpacked = sum(_text_bytes(chunk) for column in table.columns for chunk in column.chunks)
    if unpacked > MAX_UNPACKED_BYTES:
        raise StoreError(f"{path}: expected at most {MAX_UNPACKED_BYTES:,} bytes when unpacked, got {unpacked:,}")


def _text_bytes(chunk: pa.Array) -> int:
    if not pa.types.is_dictionary(chunk.type):
        return int(chunk.nbytes)
    lengths = pc.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False)
    counts = np.bincount(chunk.indices.drop_null().to_numpy(), minlength=len(lengths))
    return int((lengths.astype(np.int64) * counts).sum())


def _check_values(path: Path, table: pa.Table, column: str, allowed: Iterable[str]) -> None:
    strange = set(pc.unique(table[column]).to_pylist()) - set(allowed)
    if strange:
        wanted = " or ".join(repr(value) for value in sorted(allowed))
        raise StoreError(f"{path}: column '{column}': expected {wanted}, got {sorted(strange)[0]!r}")
