"""A copy of a data set with a column of images, opened to be read a few rows at a time, as it is stored.

A copy is a folder written by ``save_to_disk``, Parquet files (what a hub snapshot is), or a hub data set in the
local cache. Nothing is decoded, and no more than one batch of images is held.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tlbench.data.readers.parquet import class_names_in
from tlbench.errors import DataError, UsageError, listed, nearest
from tlbench.seeds import digest

FACTS_A_BATCH = 8192
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_SHARD = re.compile(r"(?P<stem>.*)-(?P<place>\d{5})-of-(?P<of>\d{5})\.parquet")
_BUFFER_BYTES = 2**20


class Part(Protocol):
    """A file or a split of a copy: some of its rows, in stored order."""

    @property
    def name(self) -> str:
        """What a message calls it."""

    @property
    def place(self) -> str:
        """What a message calls it where nothing else says of which copy it is: a file by its path."""

    @property
    def folder(self) -> Path | None:
        """Where relative paths of images start, if they may."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def schema(self) -> pa.Schema:
        """Columns and their stored types."""

    def class_names(self, column: str) -> list[str] | None:
        """Return the names of a column's numbers, if the copy carries them."""

    def batches(self, columns: Sequence[str], size: int, *, path_of: str | None = None) -> Iterator[Any]:
        """Yield tables of some columns, and of the stored path alone of the column ``path_of``."""


@dataclass(frozen=True)
class Copy:
    """A copy of a data set.

    Attributes
    ----------
    kind : {"saved", "parquet", "hub"}
    name : str
        The folder, file or hub name that was asked for.
    revision : str or None
        The hub's commit, where it is known.
    fingerprint : str
        Changes with the stored rows.
    parts : tuple of Part
        In the order of their names, so that a row has the same number however the copy is stored.
    """

    kind: Literal["saved", "parquet", "hub"]
    name: str
    revision: str | None
    fingerprint: str
    parts: tuple[Part, ...]

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    def where(self, row: int) -> str:
        """Return what a message calls a row, counted from 0 over all parts: its part, and its number in there."""
        own = row
        for part in self.parts:
            if own < part.rows:
                return f"{part.place}, row {own} of 0 to {part.rows - 1}"
            own -= part.rows
        raise ValueError(f"expected a row below {self.rows}, got {row}")

    def require(self, column: str, option: str) -> None:
        """Raise DataError unless every part has a column; ``option`` is the way to name another."""
        for part in self.parts:
            if column not in part.schema.names:
                found = part.schema.names
                raise DataError(
                    f"{part.place}: has no column '{column}', only {listed(found)}{nearest(column, found)} "
                    f"({option} names another)"
                )

    def places_of(self, column: str) -> list[str]:
        """Return where the images of a column of paths lie: what they hold is not in the fingerprint."""
        kinds = [part.schema.field(column).type for part in self.parts]
        if not any(pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in kinds):
            return []
        return sorted({str(part.folder.resolve()) for part in self.parts if part.folder is not None})


def open_copy(source: str | Path, *, revision: str | None = None, download: bool = False) -> Copy:
    """Open a copy of a data set.

    Parameters
    ----------
    source : str or Path
        A folder written by ``save_to_disk``, a Parquet file or folder of them, or a hub name ``owner/name``.
    revision : str, optional
        Branch, tag or commit of a hub data set.
    download : bool
        Fetch a hub data set. Without it the network is not touched.

    Raises
    ------
    DataError
        If there is no such copy on this machine, it is not whole, or it cannot be read.
    UsageError
        If a folder is given with what only a hub data set has.
    """
    if not str(source).strip():
        raise UsageError("--from: expected a folder, a file or a hub name, got an empty word")
    place = Path(source).expanduser()
    if not _there(place):
        if isinstance(source, str) and _HUB_NAME.fullmatch(source):
            return _from_hub(source, revision, download)
        raise DataError(f"{source}: no such folder or file, and not a hub name 'owner/name' either (--from)")
    if revision is not None or download:
        option = "--revision" if revision is not None else "--download"
        raise UsageError(f"{source} is a folder or file on this machine: {option} is for hub data sets")
    if place.is_dir() and any((place / name).is_file() for name in ("dataset_dict.json", "state.json")):
        return _saved(place, str(source))
    parts = _parquet_parts(place, str(source))
    if not parts:
        raise DataError(
            f"{source}: expected Parquet files or a data set saved with save_to_disk, found neither; --from names the "
            f"folder that holds them"
        )
    return Copy("parquet", str(source), None, _fingerprint(parts), parts)


def _there(place: Path) -> bool:
    """Return whether a copy is there; raise DataError where it may not be read."""
    try:
        if not place.exists():
            return False
        readable = os.access(place, os.R_OK | os.X_OK if place.is_dir() else os.R_OK)
    except PermissionError:
        readable = False
    if not readable:
        raise _forbidden(place)
    return True


def _forbidden(place: Path) -> DataError:
    return DataError(
        f"{place}: cannot be read (permission denied); change its permissions, or name another copy with --from"
    )


class _ParquetPart:
    """The rows of one Parquet file."""

    def __init__(self, path: Path, root: Path) -> None:
        self.path, self.folder = path, root
        self.name, self.place = path.relative_to(root).as_posix(), str(path)
        try:
            with pq.ParquetFile(path) as file:
                self.schema: pa.Schema = file.schema_arrow
                self.rows: int = file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, error) from error

    def class_names(self, column: str) -> list[str] | None:
        return class_names_in(self.schema.metadata or {}, column)

    def batches(self, columns: Sequence[str], size: int, *, path_of: str | None = None) -> Iterator[Any]:
        wanted = list(columns)
        if path_of is not None:
            kind = self.schema.field(path_of).type
            if not pa.types.is_struct(kind):
                wanted += [path_of] if pa.types.is_string(kind) or pa.types.is_large_string(kind) else []
            elif kind.get_field_index("path") >= 0:
                wanted.append(f"{path_of}.path")  # the leaf alone: no image is read
        # A row group may be the whole file: it is read through a small buffer, not at once.
        try:
            with pq.ParquetFile(self.path, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file:
                yield from file.iter_batches(size, columns=wanted, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, error) from error

    def footer(self) -> str:
        """Return a hash of the file's own index: offsets, sizes and statistics of everything in it."""
        with self.path.open("rb") as file:
            file.seek(-8, 2)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, 2)
            return hashlib.sha256(file.read(length)).hexdigest()


class _SavedPart:
    """The rows of one split that ``datasets`` has opened: memory maps, not memory."""

    def __init__(self, name: str, data: Any, copy: str) -> None:
        self.name, self.folder, self._data = name, None, data
        self.place = f"{copy}, split '{name}'"
        self.rows = len(data)
        self.schema: pa.Schema = data.features.arrow_schema

    def class_names(self, column: str) -> list[str] | None:
        names = getattr(self._data.features[column], "names", None)
        return [str(name) for name in names] if names else None

    def batches(self, columns: Sequence[str], size: int, *, path_of: str | None = None) -> Iterator[Any]:
        wanted = list(dict.fromkeys([*columns, *([path_of] if path_of else [])]))
        try:
            # In Arrow's format nothing is decoded.
            yield from self._data.select_columns(wanted).with_format("arrow").iter(size)
        except (pa.ArrowException, OSError) as error:
            raise _not_saved_whole(self.place, error) from error


def _saved(place: Path, name: str) -> Copy:
    import datasets

    try:
        found = datasets.load_from_disk(str(place))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _not_saved_whole(name, error) from error
    splits = _splits(found)
    return Copy("saved", name, None, _fingerprint_of_splits(splits), _saved_parts(splits, name))


def _from_hub(name: str, revision: str | None, download: bool) -> Copy:
    from huggingface_hub import snapshot_download

    try:
        # Parquet is read where the hub's cache has it: `datasets` would write a second copy of it all.
        folder = snapshot_download(
            name, repo_type="dataset", revision=revision, allow_patterns=["*.parquet"], local_files_only=not download
        )
    except Exception as error:
        # Of the many kinds of error in there, all mean that these files cannot be had.
        if download:
            raise DataError(f"hub data set '{name}' cannot be downloaded ({_first_line(error)})") from error
        parts: tuple[_ParquetPart, ...] = ()
    else:
        parts = _parquet_parts(Path(folder), name)
        if parts:
            return Copy("hub", name, Path(folder).name, _fingerprint(parts), parts)
    splits = _splits(_loaded(name, revision, download))
    return Copy("hub", name, revision, _fingerprint_of_splits(splits), _saved_parts(splits, name))


def _loaded(name: str, revision: str | None, download: bool) -> Any:
    """Return a hub data set that is not kept in Parquet, by way of ``datasets`` and its own cache."""
    import datasets

    from tlbench.data.readers.hub import offline

    if download:
        return datasets.load_dataset(name, revision=revision)
    with offline():
        try:
            return datasets.load_dataset(name, revision=revision)
        except Exception as error:
            at = f" at revision {revision}" if revision else ""
            raise DataError(
                f"hub data set '{name}'{at} is not on this machine ({_first_line(error)}); --download fetches it, "
                f"or --from names a folder that holds it"
            ) from error


def _parquet_parts(place: Path, name: str) -> tuple[_ParquetPart, ...]:
    root = place if place.is_dir() else place.parent
    found = sorted(root.rglob("*.parquet")) if place.is_dir() else [place]
    paths = [
        path
        for path in found
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]
    _check_whole([path.relative_to(root).as_posix() for path in paths] if place.is_dir() else [], name)
    return tuple(_ParquetPart(path, root) for path in paths)


def _check_whole(files: Sequence[str], name: str) -> None:
    """Raise DataError where files say that they are some of many and the others are not there."""
    matches = [match for file in files if (match := _SHARD.fullmatch(file))]
    held: dict[tuple[str, int], set[int]] = {}
    for match in matches:
        held.setdefault((match["stem"], int(match["of"])), set()).add(int(match["place"]))
    for (stem, of), places in held.items():
        missing = sorted(set(range(of)) - places)
        if missing:
            raise DataError(
                f"{name}: {stem}-{missing[0]:05d}-of-{of:05d}.parquet is not there ({len(missing)} of {of} files are "
                f"missing): fetch the copy again, or name another with --from"
            )


def _splits(found: Any) -> Mapping[str, Any]:
    import datasets

    return {str(found.split or "all"): found} if isinstance(found, datasets.Dataset) else dict(found)


def _saved_parts(splits: Mapping[str, Any], copy: str) -> tuple[_SavedPart, ...]:
    return tuple(_SavedPart(name, splits[name], copy) for name in sorted(splits))


def _unreadable(path: Path, error: Exception) -> DataError:
    if isinstance(error, PermissionError):
        return _forbidden(path)
    return DataError(
        f"{path}: not a readable Parquet file of {_size(path)} ({_first_line(error)}); get it again, or name another "
        f"copy with --from"
    )


def _size(path: Path) -> str:
    try:
        return f"{path.stat().st_size:,} bytes"
    except OSError:
        return "unknown size"


def _not_saved_whole(place: str, error: Exception) -> DataError:
    return DataError(
        f"{place}: a data set saved with save_to_disk that cannot be read ({_first_line(error)}); save or copy it "
        f"again, or name another with --from"
    )


def _fingerprint(parts: Sequence[_ParquetPart]) -> str:
    return digest([[part.name, part.path.stat().st_size, part.footer()] for part in parts])


def _fingerprint_of_splits(splits: Mapping[str, Any]) -> str:
    return digest([[name, len(splits[name]), splits[name]._fingerprint] for name in sorted(splits)])


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
