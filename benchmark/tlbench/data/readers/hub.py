"""Images of Hugging Face ``datasets``: a saved folder, or a hub data set that is already on this machine."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.data.decode import decode
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.data.readers.rows import as_text, leaves_of, part_named, rows_listing
from tlbench.errors import DataError, listed, nearest
from tlbench.seeds import digest

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PLAIN = ("string", "large_string", "bool")


def read_hub(address: Address) -> Listing:
    """Return the listing of a domain of a Hugging Face data set.

    The task's path is a folder written by ``save_to_disk``, or the name of a hub data set that is in the local
    cache; nothing is downloaded unless the option ``download`` is true. A domain is a split of that name, or,
    with the option ``domain_column``, the rows with that value in all splits together (or in the one that the
    option ``split`` names). Labels become class names, since copies number their classes differently. Images
    are called as in the Parquet reader; other plain columns become columns of the listing, and so does the
    data's own split, as ``part``, where a column chooses the domain.

    Options: ``image``, ``label``, ``domain_column``, ``split``, ``config``, ``revision``, ``download``.

    Raises
    ------
    DataError
        If the data set is not on this machine, or lacks the split, the column or the domain.
    """
    address.check_options("image", "label", "domain_column", "split", "config", "revision", "download")
    splits = _splits(address)
    by = str(address.options["domain_column"]) if "domain_column" in address.options else None
    wanted = [address.text("split", address.entry)] if by is None or "split" in address.options else list(splits)
    for name in wanted:
        if name not in splits:
            raise DataError(
                f"{address.where}: {address.path} has no split '{name}', only {listed(splits)}{nearest(name, splits)}"
            )
    rows = _Rows({name: splits[name] for name in wanted}, address)
    return rows.listing(by)


class _Rows:
    """The rows of some splits of one data set, one after the other."""

    def __init__(self, splits: dict[str, Any], address: Address) -> None:
        import datasets

        self._address, self._splits = address, splits
        # A saved folder by its place; a hub data set by its name.
        self._source = str(address.place) if address.path and address.place.is_dir() else address.path
        self._image, self._label = address.text("image", "image"), address.text("label", "label")
        self._starts = np.cumsum([0, *(len(split) for split in splits.values())])
        for name in (self._image, self._label):
            self._require(name)
        # Undecoded: the stored bytes are decoded as every other reader's are, and are not kept.
        self._images = [
            split.select_columns([self._image]).cast_column(self._image, datasets.Image(decode=False))
            for split in splits.values()
        ]

    def listing(self, by: str | None) -> Listing:
        """Return the listing of the rows whose value in column ``by`` is the domain, or of all."""
        kept = list(range(int(self._starts[-1])))
        if by is not None:
            self._require(by)
            values = [as_text(value) for value in self._values(by)]
            meant = self._address.meant(values)
            kept = [row for row in kept if values[row] in meant]
            if not kept:
                raise self._address.no_such_value(by, values)
        columns = {name: self._values(name) for name in self._plain() if name not in (self._label, by)}
        parts = [part_named(name) for name in self._splits]
        if by is not None and "part" not in columns and all(parts):
            sizes = np.diff(self._starts)
            columns["part"] = [part for part, n in zip(parts, sizes, strict=True) for _ in range(n)]
        every_label = self._values(self._label)
        labels = [every_label[row] for row in kept]
        files = self._stored_names()
        leaves, note = leaves_of(labels, [files[row] for row in kept], kept)
        spoken = [getattr(split.features[self._label], "names", None) or () for split in self._splits.values()]
        return rows_listing(
            self._address,
            labels=labels,
            class_names=list(dict.fromkeys(name for names in spoken for name in names)) or None,
            leaves=leaves,
            columns={name: [values[row] for row in kept] for name, values in columns.items()},
            load=lambda place: self._load(kept[place]),
            content=self._content,
            row_named=lambda place: self._row_named(kept[place]),
            note=note,
        )

    def _require(self, name: str) -> None:
        for split in self._splits.values():
            if name not in split.column_names:
                raise self._address.no_column(self._source, name, split.column_names)

    def _plain(self) -> list[str]:
        """Return the columns of text, whole numbers and classes that all splits have."""
        return [
            name
            for name in next(iter(self._splits.values())).column_names
            if all(name in split.column_names and _is_plain(split.features[name]) for split in self._splits.values())
        ]

    def _values(self, name: str) -> list[Any]:
        """Return a column of all rows, class numbers spoken as names."""
        values: list[Any] = []
        for split in self._splits.values():
            spoken = getattr(split.features[name], "names", None)
            own = split.select_columns([name]).with_format(None)[name][:]
            values += [spoken[v] if spoken and isinstance(v, int) and 0 <= v < len(spoken) else v for v in own]
        return values

    def _stored_names(self) -> list[str]:
        names = []
        for split in self._images:
            for chunk in split.with_format("arrow")[:][self._image].chunks:
                kind = chunk.type
                held = chunk.field("path").to_pylist() if kind.get_field_index("path") >= 0 else [None] * len(chunk)
                names += [PurePath(path).name if path else "" for path in held]
        return names

    def _load(self, row: int) -> NDArray[np.uint8]:
        number, own = self._at(row)
        where = self._row_named(row)
        stored = self._images[number][own][self._image]
        if stored is None or (stored.get("bytes") is None and stored.get("path") is None):
            raise DataError(f"{where}: has no image; get this copy again")
        return decode(stored["bytes"] if stored.get("bytes") is not None else Path(stored["path"]), where)

    def _at(self, row: int) -> tuple[int, int]:
        """Return the number of a row's split, and of the row in it."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return number, row - int(self._starts[number])

    def _row_named(self, row: int) -> str:
        number, own = self._at(row)
        return f"{self._source}, split {list(self._splits)[number]}, row {own}"

    def _content(self) -> str:
        """Return a hash of the Arrow files, and of image files that they only point to."""
        files = [Path(file["filename"]) for split in self._splits.values() for file in split.cache_files]
        if not files or not all(len(split.cache_files) for split in self._splits.values()):
            raise DataError(f"{self._address.where}: {self._address.path} is not stored in files on this machine")
        known = self._address.digests.of(files[0].parent, files)
        first = self._images[0][0][self._image] if len(self._images[0]) else None
        if first and first.get("bytes") is None:
            held = [
                Path(self._images[s][i][self._image]["path"])
                for s in range(len(self._images))
                for i in range(len(self._images[s]))
            ]
            known += self._address.digests.of(files[0].parent / "images", held)
        return digest(self._image, known)


def _is_plain(feature: Any) -> bool:
    kind = getattr(feature, "dtype", None)
    return hasattr(feature, "names") or (isinstance(kind, str) and (kind in _PLAIN or kind.startswith(("int", "uint"))))


def _splits(address: Address) -> dict[str, Any]:
    """Return the splits of the data set by name."""
    import datasets

    if address.path and (place := address.place).is_dir():
        try:
            found = datasets.load_from_disk(str(place))
        except (FileNotFoundError, OSError, ValueError) as error:
            raise DataError(
                f"{address.where}: {place} is not a data set saved with save_to_disk ({_first_line(error)}); "
                f"for a folder of Parquet files use the reader 'parquet'"
            ) from error
    else:
        found = _from_hub(address)
    if isinstance(found, datasets.Dataset):
        return {str(found.split or address.entry): found}
    return dict(found)


def _from_hub(address: Address) -> Any:
    import datasets

    name = address.path
    if not _HUB_NAME.fullmatch(name):
        raise DataError(f"{address.where}: expected a saved folder or a hub name 'owner/name', got '{name}'")
    config = str(address.options["config"]) if "config" in address.options else None
    revision = str(address.options["revision"]) if "revision" in address.options else None
    if address.options.get("download") is True:
        return datasets.load_dataset(name, config, revision=revision)
    with offline():
        try:
            return datasets.load_dataset(name, config, revision=revision)
        except Exception as error:
            # Of the many kinds of error in there, all mean that the local cache cannot serve this data set.
            raise DataError(
                f"{address.where}: hub data set '{name}' is not on this machine ({_first_line(error)}); set the option "
                f"download = true, or save it with datasets' save_to_disk below {address.base}"
            ) from error


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep ``datasets`` from the network: it reads the environment once, when imported, which may be long past."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE, datasets.config.HF_DATASETS_OFFLINE
    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE, datasets.config.HF_DATASETS_OFFLINE = before


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
