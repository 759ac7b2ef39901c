"""Images in Parquet files, as the Hugging Face hub keeps them: one file or folder a domain, or one for the task."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tlbench.data.decode import decode
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.data.readers.rows import as_text, leaves_of, part_named, rows_listing
from tlbench.data.readers.strays import parquet_below
from tlbench.errors import DataError
from tlbench.seeds import digest

_PLAIN = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)


def read_parquet(address: Address) -> Listing:
    """Return the listing of a domain kept in Parquet.

    The task's path is one file, or a folder with ``<domain>.parquet`` or ``<domain>/*.parquet`` for every
    domain, or, with the option ``domain``, a folder of files for all domains. Images are binary, or structs of
    bytes and path; labels are class names, or numbers named by the file's Hugging Face metadata. Other plain
    columns become columns of the listing; one called ``part``, or named by the option, is the data's own split.
    An image is called by its class and its stored file name where those tell the images apart, else by its
    class and the number of its row.

    Options: ``image``, ``label``, ``domain``, ``part`` name columns; ``label_names`` lists class names in the
    order of their numbers, separated by commas.

    Raises
    ------
    DataError
        If files or columns are missing, or no row belongs to the domain.
    """
    address.check_options("image", "label", "domain", "part", "label_names")
    image, label = address.text("image", "image"), address.text("label", "label")
    by = str(address.options["domain"]) if "domain" in address.options else None
    rows = _Rows(_files(address, shared=by is not None), image, address)
    for name in (image, label, *([by] if by else [])):
        rows.require(name)
    facts = rows.facts()
    for name in (label, *([by] if by else [])):
        if name not in facts:
            raise DataError(
                f"{address.where}: column '{name}' of {rows.path_of(0)} holds {rows.schema.field(name).type}, expected "
                f"names or whole numbers"
            )
    kept = list(range(len(facts[label])))
    if by is not None:
        values = _spoken(facts[by], rows.class_names(by))
        meant = address.meant(values)
        kept = [row for row, value in enumerate(values) if value in meant]
        if not kept:
            raise address.no_such_value(by, values)
    class_names = str(address.options["label_names"]).split(",") if "label_names" in address.options else None
    labels = [facts[label][row] for row in kept]
    files = rows.stored_names()
    leaves, note = leaves_of(labels, [files[row] for row in kept], kept)
    part = address.text("part", "part")
    columns = {name: [values[row] for row in kept] for name, values in facts.items() if name not in (label, by, part)}
    if part in facts:
        columns["part"] = [part_named(as_text(facts[part][row])) or facts[part][row] for row in kept]
    return rows_listing(
        address,
        labels=labels,
        class_names=class_names or rows.class_names(label),
        leaves=leaves,
        columns=columns,
        load=lambda place: rows.load(kept[place]),
        content=rows.content,
        row_named=lambda place: rows.named(kept[place]),
        note=note,
    )


class _Rows:
    """The rows of some Parquet files; images are read a row group at a time, when asked for."""

    def __init__(self, paths: Sequence[Path], image: str, address: Address) -> None:
        self._paths, self._image, self._address = paths, image, address
        self._files = []
        for path in paths:
            with self._readable(path):
                self._files.append(pq.ParquetFile(path))
        self.schema: pa.Schema = self._files[0].schema_arrow
        self._groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.num_row_groups)]
        sizes = [self._files[f].metadata.row_group(g).num_rows for f, g in self._groups]
        self._starts = np.cumsum([0, *sizes])
        self._lock = threading.Lock()
        self._held: tuple[int, pa.ChunkedArray] | None = None

    def require(self, name: str) -> None:
        for path, file in zip(self._paths, self._files, strict=True):
            if name not in file.schema_arrow.names:
                raise self._address.no_column(path, name, file.schema_arrow.names)

    def facts(self) -> dict[str, list[Any]]:
        """Return every plain column that all files have."""
        names = [
            field.name
            for field in self.schema
            if any(is_kind(field.type) for is_kind in _PLAIN)
            and all(field.name in file.schema_arrow.names for file in self._files)
        ]
        read = self._read(names)
        return {name: [value for table in read for value in table.column(name).to_pylist()] for name in names}

    def stored_names(self) -> list[str]:
        """Return the file name stored with every image, empty where there is none."""
        kind = self.schema.field(self._image).type
        if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0:
            return [""] * int(self._starts[-1])
        read = self._read([f"{self._image}.path"])
        paths = [row["path"] if row else None for table in read for row in table.column(self._image).to_pylist()]
        return [PurePosixPath(path).name if path else "" for path in paths]

    def class_names(self, column: str) -> list[str] | None:
        """Return the class names that the Hugging Face metadata give to a column of numbers."""
        return class_names_in(self.schema.metadata or {}, column)

    def load(self, row: int) -> NDArray[np.uint8]:
        group, where = self._group_of(row), self.named(row)
        # Rows are asked for in stored order, by several threads: one row group at a time is held for all of them.
        with self._lock:
            if self._held is None or self._held[0] != group:
                file, number = self._groups[group]
                with self._readable(self._paths[file]):
                    table = self._files[file].read_row_group(number, columns=[self._image], use_threads=False)
                self._held = (group, table.column(self._image))
            value = self._held[1][row - int(self._starts[group])].as_py()
        stored = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(stored, bytes):
            raise DataError(
                f"{where}: expected the bytes of an image in column '{self._image}', got none; get this file again"
            )
        return decode(stored, where)

    def content(self) -> str:
        root = self._paths[0].parent
        return digest(self._image, self._address.digests.of(root, self._paths))

    def path_of(self, row: int) -> Path:
        """Return the file that holds a row."""
        return self._paths[self._groups[self._group_of(row)][0]] if self._groups else self._paths[0]

    def named(self, row: int) -> str:
        """Return a row's file and its number in there."""
        return f"{self.path_of(row)}, row {row - self._first_row(self._group_of(row))}"

    def _read(self, columns: Sequence[str]) -> list[pa.Table]:
        tables = []
        for path, file in zip(self._paths, self._files, strict=True):
            with self._readable(path):
                tables.append(file.read(columns=columns))
        return tables

    @contextlib.contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        """Raise DataError with the name of a file that cannot be read."""
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise DataError(
                f"{self._address.where}: {path} is not a readable Parquet file ({_first_line(error)}); get it again"
            ) from error

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self._starts, row, side="right")) - 1

    def _first_row(self, group: int) -> int:
        return int(self._starts[next(g for g, at in enumerate(self._groups) if at[0] == self._groups[group][0])])


def class_names_in(metadata: Mapping[bytes, bytes], column: str) -> list[str] | None:
    """Return the names that a schema's Hugging Face metadata give to a column's numbers, if any."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        names = features[column]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return [str(name) for name in names] if isinstance(names, list) else None


def _spoken(values: Sequence[Any], names: Sequence[str] | None) -> list[str]:
    if names is None:
        return [as_text(value) for value in values]
    return [names[value] if isinstance(value, int) and 0 <= value < len(names) else as_text(value) for value in values]


def _files(address: Address, *, shared: bool) -> list[Path]:
    place = address.place
    if place.is_file():
        return [place]
    if shared:
        found = parquet_below(place) if place.is_dir() else []
        if not found:
            raise address.missing(place / "*.parquet" if place.is_dir() else place, "Parquet files", kind="file")
        return found
    folder = address.inside(place, address.entry)
    single = folder if folder.is_file() else folder.with_name(f"{folder.name}.parquet")
    if single.is_file():
        return [single]
    found = parquet_below(folder) if folder.is_dir() else []
    if not found:
        raise address.missing(folder / "*.parquet" if folder.is_dir() else single, "a Parquet file", kind="file")
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
