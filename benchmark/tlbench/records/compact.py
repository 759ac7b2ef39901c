"""Tables as small as Parquet makes them without losing a bit: what goes into git is written this way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tlbench.records.store import explained

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


def _encoding(kind: pa.DataType, counts_up: bool) -> str | None:
    """Return a Parquet encoding; None for a dictionary."""
    if counts_up:
        return "DELTA_BINARY_PACKED"
    if pa.types.is_floating(kind) or pa.types.is_int32(kind):
        # Sign and exponent of a float, and the three empty bytes of a class, are put side by side.
        return "BYTE_STREAM_SPLIT"
    return None
