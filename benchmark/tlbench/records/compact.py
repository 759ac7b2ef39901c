"""Tables as small as Parquet makes them without losing a bit: what goes into git is written this way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tlbench.records.files import explained
from tlbench.records.precision import as_stored

_LEVEL = 19
_PAGE_BYTES = 16 * 2**20  # one page a column: Zstandard sees all of it at once


def write_compact(path: Path, table: pa.Table, *, order: Sequence[str] = (), delta: Sequence[str] = ()) -> None:
    """Write a table sorted, each column in the encoding that makes it smallest.

    Parameters
    ----------
    path : Path
        In a folder that exists and that nobody else reads yet.
    table : pa.Table
    order : sequence of str
        Columns to sort by, nulls first.
    delta : sequence of str
        Integer columns that count up, stored as differences.
    """
    if order:
        table = table.sort_by([(name, "ascending", "at_start") for name in order])
    encodings = {name: _encoding(table.schema.field(name).type, name in delta) for name in table.column_names}
    with explained(path):
        pq.write_table(
            table.combine_chunks(),
            path,
            compression="zstd",
            compression_level=_LEVEL,
            use_dictionary=[name for name, encoding in encodings.items() if encoding is None],
            column_encoding={name: encoding for name, encoding in encodings.items() if encoding is not None},
            row_group_size=max(len(table), 1),
            data_page_size=_PAGE_BYTES,
            # Minima and maxima help who skips row groups; there is one.
            write_statistics=False,
        )


_DERIVED = (("confidence", "log_likelihood"), ("confidence_scaled", "log_likelihood_scaled"))


def without_derivable(predictions: pa.Table) -> pa.Table:
    """Return predictions whose confidence is null wherever it follows, to the last bit, from the log-likelihood.

    The predicted class of an image that is right is the true one, so its confidence is the exponential of the
    log-likelihood: a fifth of the bytes of a submission. ``with_derivable`` is the inverse.
    """
    table = predictions
    for name, source in _DERIVED:
        column = _floats(table, name)
        follows = _right(table) & (column == _derived(table, source))
        table = _with_column(table, name, column, np.isnan(column) | follows)
    return table


def with_derivable(table: pa.Table) -> pa.Table:
    """Return predictions with every confidence that ``without_derivable`` left out."""
    for name, source in _DERIVED:
        column, derived = _floats(table, name), _derived(table, source)
        restored = np.where(np.isnan(column) & _right(table), derived, column)
        table = _with_column(table, name, restored, np.isnan(restored))
    return table


def _floats(table: pa.Table, name: str) -> NDArray[np.float32]:
    floats: NDArray[np.float32] = table.column(name).to_numpy().astype(np.float32)
    return floats


def _right(table: pa.Table) -> NDArray[np.bool_]:
    return np.asarray(table.column("rank").to_numpy() == 0)


def _derived(table: pa.Table, source: str) -> NDArray[np.float32]:
    return as_stored(np.exp(_floats(table, source).astype(np.float64)))


def _with_column(table: pa.Table, name: str, values: NDArray[np.float32], null: NDArray[np.bool_]) -> pa.Table:
    place = table.schema.get_field_index(name)
    return table.set_column(place, table.schema.field(place), pa.array(values, pa.float32(), mask=null))


def _encoding(kind: pa.DataType, counts_up: bool) -> str | None:
    """Return a Parquet encoding; None for a dictionary."""
    if counts_up:
        return "DELTA_BINARY_PACKED"
    if pa.types.is_floating(kind) or pa.types.is_int32(kind):
        # Sign and exponent of a float, and the three empty bytes of a class, are put side by side.
        return "BYTE_STREAM_SPLIT"
    return None
