"""Published results: tables that anyone may have written, held to their schema and to a size before they are believed.

::

    <results>/<suite>/<model>/
        records.parquet, fits.parquet, predictions.parquet, class_bins.parquet, audits.parquet
        card.toml
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, get_args
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tlbench.errors import StoreError
from tlbench.records.compact import with_derivable
from tlbench.records.record import Status
from tlbench.records.schema import AUDITS, CLASS_BINS, FITS, PREDICTIONS, RECORDS
from tlbench.records.store import read_table

MAX_FILE_BYTES: Final = 64_000_000
MAX_UNPACKED_BYTES: Final = 2_000_000_000
"""A Parquet file of a few kilobytes can claim any number of rows; what it unpacks to is checked before it is read."""

PUBLISHED_TABLES: Final = {
    "records": RECORDS,
    "fits": FITS,
    "predictions": PREDICTIONS,
    "class_bins": CLASS_BINS,
    "audits": AUDITS,
}
LATER_TABLES: Final = ("audits",)
"""Tables that came after results were published: a folder without one is as good as one with none of its rows."""


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
        """Return a table: ``records``, ``fits``, ``class_bins``, ``audits``, or ``predictions``, whole again.

        Some columns of the first two, the checked ones among them, may be had alone: their texts are then codes.

        Raises
        ------
        StoreError
            If the file is missing, a link, too large, not of the written schema, or names another suite or model.
        """
        path = self.folder / f"{name}.parquet"
        if name in LATER_TABLES and not path.exists() and not path.is_symlink():
            return PUBLISHED_TABLES[name].empty_table()
        _check_size(path)
        table = read_table(path, PUBLISHED_TABLES[name], columns, coded=columns is not None)
        if name in ("records", "fits"):
            _check_values(path, table, "suite", {self.suite})
            _check_values(path, table, "model", {self.model})
            _check_values(path, table, "status", set(get_args(Status)))
        return with_derivable(table) if name == "predictions" else table


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


def _check_size(path: Path) -> None:
    if path.is_symlink() or path.parent.is_symlink():
        raise StoreError(f"{path}: expected a file of this folder, got a link")
    if not path.is_file():
        raise StoreError(f"{path}: expected a Parquet file, found nothing")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise StoreError(f"{path}: expected at most {MAX_FILE_BYTES:,} bytes, got {size:,}")
    try:
        metadata = pq.read_metadata(path)
        unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
    # Run lengths: a page of a few bytes may stand for any number of rows, so rows are counted too.
    unpacked = max(unpacked, metadata.num_rows * metadata.num_columns)
    if unpacked > MAX_UNPACKED_BYTES:
        raise StoreError(f"{path}: expected at most {MAX_UNPACKED_BYTES:,} bytes when unpacked, got {unpacked:,}")


def _check_values(path: Path, table: pa.Table, column: str, allowed: Iterable[str]) -> None:
    strange = set(pc.unique(table[column]).to_pylist()) - set(allowed)
    if strange:
        wanted = " or ".join(repr(value) for value in sorted(allowed))
        raise StoreError(f"{path}: column '{column}': expected {wanted}, got {sorted(strange)[0]!r}")
