"""One file a model: all its measurements and the rows of its fits, where each had a folder or a file of its own.

A row is a measurement or a fit, and a column is one of its tables: a list of that table's rows, null where it has no
such table. Any reader of Parquet opens the file, and one table of all measurements is read without the others.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tlbench.errors import StoreError
from tlbench.records.schema import AUDITS, CLASS_BINS, FITS, LATER, PREDICTIONS, RECORDS, SCHEMA_VERSION

MERGED_FILE: Final = "merged.parquet"
MEASURED: Final[Mapping[str, pa.Schema]] = {
    "records": RECORDS,
    "predictions": PREDICTIONS,
    "class_bins": CLASS_BINS,
    "audits": AUDITS,
}
"""The tables of a measurement."""
TABLES: Final[Mapping[str, pa.Schema]] = {**MEASURED, "fits": FITS}

Kind = Literal["measurement", "fit"]
Identity = tuple[int, int, int]

# A reader unpacks a row group at a time: many rows of predictions for speed, not so many that memory is felt.
_GROUP_ROWS: Final = 500_000
_BATCH: Final = 64
_KEY: Final = ["kind", "id", "written"]


def _listed(schema: pa.Schema) -> pa.DataType:
    return pa.list_(pa.field("element", pa.struct([field.remove_metadata() for field in schema]), nullable=False))


SCHEMA: Final = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("written", pa.float64(), nullable=False),
        *(pa.field(name, _listed(schema)) for name, schema in TABLES.items()),
    ],
    metadata={"tlbench_schema": str(SCHEMA_VERSION)},
)


@dataclass(frozen=True)
class Entry:
    """A measurement or a fit.

    Attributes
    ----------
    kind : {"measurement", "fit"}
    id : str
    written : float
        When it was stored, in seconds since 1970.
    tables : mapping from a name of ``TABLES`` to pa.Table
    """

    kind: Kind
    id: str
    written: float
    tables: Mapping[str, pa.Table]


class Merged:
    """A merged file, as it is now: another one may take its place, this one stays readable.

    Parameters
    ----------
    path : Path

    Raises
    ------
    StoreError
        If the file is damaged, or of another schema version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._recent: tuple[object, pa.Table] | None = None
        try:
            self._file = pq.ParquetFile(path)
            version = (self._file.schema_arrow.metadata or {}).get(b"tlbench_schema", b"").decode()
            if version != str(SCHEMA_VERSION):
                raise StoreError(f"{path}: expected schema version {SCHEMA_VERSION}, got {version or 'none'}")
            keys = self._file.read(columns=_KEY)
        except FileNotFoundError:
            raise
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            raise StoreError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]})") from None
        self._ids: list[str] = keys.column("id").to_pylist()
        self._written: list[float] = keys.column("written").to_pylist()
        kinds = keys.column("kind").to_pylist()
        self._rows: dict[Kind, dict[str, int]] = {"measurement": {}, "fit": {}}
        for row, (kind, name) in enumerate(zip(kinds, self._ids, strict=True)):
            self._rows[kind][name] = row
        metadata = self._file.metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        self._starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def ids(self, kind: Kind) -> Collection[str]:
        """Return the ids of all measurements, or of all fits."""
        return self._rows[kind].keys()

    def written(self, kind: Kind, name: str) -> float:
        """Return when an entry was stored, in seconds since 1970."""
        return self._written[self._rows[kind][name]]

    def names(self, kind: Kind, name: str) -> list[str]:
        """Return which tables an entry has; none where it is not there."""
        row = self._rows[kind].get(name)
        if row is None:
            return []
        group, place = self._place(row)
        tables = tuple(MEASURED) if kind == "measurement" else ("fits",)
        # The narrowest column of each is enough to tell a null from a list.
        return [table for table in tables if self._group(group, table, [TABLES[table].names[0]])[place].is_valid]

    def lengths(self) -> dict[tuple[Kind, str], dict[str, int]]:
        """Return how many rows each table of every entry has; tables that an entry lacks are not there."""
        found: dict[tuple[Kind, str], dict[str, int]] = {
            (kind, name): {} for kind, rows in self._rows.items() for name in rows
        }
        by_row = {row: (kind, name) for kind, rows in self._rows.items() for name, row in rows.items()}
        for table, schema in TABLES.items():
            for group, start in enumerate(self._starts[:-1]):
                lists = self._group(group, table, [schema.names[0]])
                for place, n in enumerate(pc.list_value_length(lists).to_pylist()):
                    if n is not None:
                        found[by_row[int(start) + place]][table] = n
        return found

    def read(self, kind: Kind, name: str, table: str, columns: Sequence[str] | None = None) -> pa.Table | None:
        """Return one table of an entry, None where it has none."""
        row = self._rows[kind].get(name)
        if row is None:
            return None
        group, place = self._place(row)
        chosen = list(TABLES[table].names if columns is None else columns)
        lists = self._group(group, table, chosen)
        return _flat(self._path, lists.slice(place, 1), table, chosen) if lists[place].is_valid else None

    def table(self, name: str, *, without: Collection[str] = ()) -> pa.Table:
        """Return one table of all entries but some."""
        left_out = set(without)
        found = [TABLES[name].empty_table()]
        for group, (start, end) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            lists = self._file.read_row_group(group, columns=[name]).column(name)
            if left_out:
                lists = lists.filter(pa.array([own not in left_out for own in self._ids[start:end]]))
            found.append(_flat(self._path, lists, name, TABLES[name].names))
        return pa.concat_tables(found)

    def pieces(self, without: Mapping[Kind, Collection[str]]) -> Iterator[pa.Table]:
        """Yield the file's rows but some, as they are written."""
        for group, start in enumerate(self._starts[:-1]):
            rows = self._file.read_row_group(group)
            kinds = rows.column("kind").to_pylist()
            ids = self._ids[start : start + len(rows)]
            kept = [own not in without[kind] for kind, own in zip(kinds, ids, strict=True)]
            columns = {
                name: _as_now(self._path, rows, name) if name in TABLES else rows.column(name) for name in SCHEMA.names
            }
            yield pa.table(columns, schema=SCHEMA).filter(pa.array(kept, pa.bool_()))

    def _place(self, row: int) -> tuple[int, int]:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        return group, row - int(self._starts[group])

    def _group(self, group: int, table: str, columns: Sequence[str]) -> pa.ChunkedArray:
        """Return the lists of a row group; the last one is kept, for who reads one entry reads its neighbour next."""
        key = (group, table, tuple(columns))
        with self._lock:
            if self._recent is None or self._recent[0] != key:
                leaves = [f"{table}.list.element.{column}" for column in columns]
                self._recent = (key, self._file.read_row_group(group, columns=leaves).column(table))
            return self._recent[1]


@lru_cache(maxsize=16)
def _opened(path: Path, identity: Identity) -> Merged:
    return Merged(path)


def merged_of(folder: Path) -> Merged | None:
    """Return a model's merged file as it is now, None where there is none; errors as for `Merged`."""
    path = folder / MERGED_FILE
    while True:
        before = identity_of(path)
        if before is None:
            return None
        try:
            found = _opened(path, before)
        except FileNotFoundError:
            continue
        # Replaced between the look and the opening, what was opened is not what the name of the memory says.
        if identity_of(path) == before:
            return found
        _opened.cache_clear()


def identity_of(path: Path) -> Identity | None:
    """Return what changes whenever another file takes a file's place; None where there is none."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def write_merged(
    path: Path, old: Merged | None, entries: Iterable[Entry], *, replaced: Mapping[Kind, set[str]]
) -> None:
    """Write what an older merged file holds and some entries, in pieces: memory does not grow with the model.

    Parameters
    ----------
    path : Path
        That nobody reads yet.
    old : Merged or None
    entries : iterable of Entry
    replaced : mapping from a kind to ids
        Left out of the old file's.
    """
    leaves = [(f"{name}.list.element.{field.name}", field.type) for name, schema in TABLES.items() for field in schema]
    floats = [leaf for leaf, kind in leaves if pa.types.is_floating(kind)]
    with pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        compression_level=9,
        use_dictionary=[leaf for leaf, _ in leaves if leaf not in set(floats)],
        use_byte_stream_split=floats,
        write_statistics=False,
    ) as writer:
        waiting: list[pa.Table] = []
        for piece in _all_pieces(old, entries, replaced):
            waiting.append(piece)
            if sum(map(_weight, waiting)) >= _GROUP_ROWS:
                _write_group(writer, waiting)
                waiting = []
        if waiting:
            _write_group(writer, waiting)


def _all_pieces(old: Merged | None, entries: Iterable[Entry], replaced: Mapping[Kind, set[str]]) -> Iterator[pa.Table]:
    if old is not None:
        yield from old.pieces(replaced)
    batch: list[Entry] = []
    for entry in entries:
        batch.append(entry)
        if len(batch) == _BATCH:
            yield _piece(batch)
            batch = []
    if batch:
        yield _piece(batch)


def _write_group(writer: pq.ParquetWriter, pieces: Sequence[pa.Table]) -> None:
    group = pa.concat_tables(pieces).combine_chunks()
    if len(group):
        writer.write_table(group, row_group_size=len(group))


def _weight(piece: pa.Table) -> int:
    return max(int(pc.sum(pc.list_value_length(piece.column(name))).as_py() or 0) for name in TABLES)


def _piece(entries: Sequence[Entry]) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "kind": pa.array([entry.kind for entry in entries], pa.string()),
        "id": pa.array([entry.id for entry in entries], pa.string()),
        "written": pa.array([entry.written for entry in entries], pa.float64()),
    }
    for name, schema in TABLES.items():
        own = [entry.tables.get(name) for entry in entries]
        rows = pa.concat_tables([schema.empty_table(), *(table for table in own if table is not None)])
        columns[name] = _lists(rows, [None if table is None else len(table) for table in own], name)
    return pa.table(columns, schema=SCHEMA)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def _flat(path: Path, lists: pa.ChunkedArray, name: str, columns: Sequence[str]) -> pa.Table:
    """Return the rows of some lists as a table of the written schema."""
    wanted = pa.schema([TABLES[name].field(column) for column in columns], metadata=TABLES[name].metadata)
    flat = []
    for chunk in lists.chunks:
        elements = chunk.flatten()
        there = {field.name for field in elements.type}
        lacking = [column for column in columns if column not in there and column not in LATER]
        if lacking:
            raise StoreError(f"{path}: column '{name}.{lacking[0]}' is missing")
        arrays = [
            elements.field(field.name) if field.name in there else pa.array([LATER[field.name]] * len(elements))
            for field in wanted
        ]
        flat.append(pa.Table.from_arrays(arrays, names=wanted.names).cast(wanted))
    return pa.concat_tables([wanted.empty_table(), *flat])


def _as_now(path: Path, rows: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column of lists as it is written now: a file may be of before a table, or a column of one, came."""
    kind = SCHEMA.field(name).type
    if name not in rows.column_names:
        return pa.chunked_array([pa.nulls(len(rows), kind)])
    if rows.column(name).type == kind:
        return rows.column(name)
    lists = _flat(path, rows.column(name), name, TABLES[name].names)
    return pa.chunked_array([_lists(lists, pc.list_value_length(rows.column(name)).to_pylist(), name)])


def _lists(rows: pa.Table, lengths: Sequence[int | None], name: str) -> pa.ListArray:
    """Return rows cut into lists of some lengths, null where there is none."""
    elements = pa.StructArray.from_arrays(
        [_one_chunk(column) for column in rows.columns], fields=list(SCHEMA.field(name).type.value_type)
    )
    offsets = np.cumsum([0, *(length or 0 for length in lengths)])
    absent = pa.array([length is None for length in lengths], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), elements, type=SCHEMA.field(name).type, mask=absent)
