"""A model's many small files into one: nothing is lost, whoever else is at work and whenever this one is killed.

The merged file is written beside the others, made durable, and takes its name by one rename; only then do the small
files go, each out of sight by a rename of its own. A kill before leaves what was there; a kill after leaves some
measurements twice, which is what readers expect and what the next time clears.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tlbench.errors import StoreError
from tlbench.records.files import explained, read_table, sweep, temporary
from tlbench.records.merged import (
    MEASURED,
    MERGED_FILE,
    TABLES,
    Entry,
    Identity,
    Kind,
    Merged,
    identity_of,
    merged_of,
    write_merged,
)
from tlbench.records.store import ModelStore
from tlbench.seeds import digest

_KINDS: Final[tuple[Kind, ...]] = ("fit", "measurement")


@dataclass(frozen=True)
class Merging:
    """What became of a model's files.

    Attributes
    ----------
    suite, model : str
    state : {"merged", "nothing to do", "busy"}
        Busy: another process is merging this model.
    measurements, fits : int
        That went into the merged file now.
    left : int
        Measurements and fits that stay in files of their own: a process holds their fit, or they have files that
        tlbench does not know.
    files_before, files_after, bytes_before, bytes_after : int
        Of the model's measurements and fits.
    """

    suite: str
    model: str
    state: str
    measurements: int
    fits: int
    left: int
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class _Small:
    """A measurement's folder or a fit's file."""

    kind: Kind
    path: Path

    @property
    def id(self) -> str:
        return self.path.name if self.kind == "measurement" else self.path.stem

    @property
    def files(self) -> list[Path]:
        return sorted(self.path.iterdir()) if self.kind == "measurement" else [self.path]

    @property
    def is_known(self) -> bool:
        known = {f"{name}.parquet" for name in MEASURED}
        return self.kind == "fit" or {file.name for file in self.files} <= known

    def identities(self) -> dict[str, Identity | None]:
        return {file.name: identity_of(file) for file in self.files}

    def entry(self) -> Entry:
        """Return what the files hold; errors as for ``read_table``."""
        names = {"fits": self.path} if self.kind == "fit" else {file.stem: file for file in self.files}
        tables = {name: read_table(file, TABLES[name]) for name, file in names.items()}
        return Entry(self.kind, self.id, self.path.stat().st_mtime, tables)


def merge(models: ModelStore) -> Merging:
    """Put a model's measurements and the rows of its fits into one file.

    Evaluations may go on meanwhile: what they write stays in files of its own until the next time.

    Raises
    ------
    StoreError
        If a file is damaged, or the folder cannot be written; nothing has changed then.
    """
    store = models.store
    with store.lock(f"{digest(models.name)[:32]}.merge", wait=False) as held:
        if not held:
            return _told(models, "busy", (), _files(models))
        sweep(store.folder)
        before = _files(models)
        small = [own for own in _small(models) if own.is_known]
        if not small:
            return _told(models, "nothing to do", (), before)
        seen = _write(models, small)
        _remove(models, small, seen)
        return _told(models, "merged", small, before)


def _small(models: ModelStore) -> list[_Small]:
    fits = sorted(models.folder.glob("fits/[!.]*.parquet"))
    measurements = sorted(models.folder.glob("measurements/[!.]*/"))
    return [*(_Small("fit", path) for path in fits), *(_Small("measurement", path) for path in measurements)]


def _write(models: ModelStore, small: list[_Small]) -> dict[Path, dict[str, Identity | None]]:
    """Write the merged file and put it in place; return which files it was made from."""
    path = models.folder / MERGED_FILE
    seen: dict[Path, dict[str, Identity | None]] = {}
    rows: dict[tuple[Kind, str], dict[str, int]] = {}

    def entries() -> Iterator[Entry]:
        for own in small:
            seen[own.path] = own.identities()
            entry = own.entry()
            rows[entry.kind, entry.id] = {name: len(table) for name, table in entry.tables.items()}
            yield entry

    old = merged_of(models.folder)
    replaced: dict[Kind, set[str]] = {kind: {own.id for own in small if own.kind == kind} for kind in _KINDS}
    written = temporary(path)
    with explained(path):
        try:
            write_merged(written, old, entries(), replaced=replaced)
            _check(written, old, rows)
            _make_durable(written)
            written.replace(path)
            _make_durable(models.folder)
        finally:
            written.unlink(missing_ok=True)
    return seen


def _check(written: Path, old: Merged | None, rows: dict[tuple[Kind, str], dict[str, int]]) -> None:
    """Raise unless a merged file has every entry: the files that it was made from are about to go."""
    new = Merged(written)
    for kind in _KINDS:
        wanted = {name for own, name in rows if own == kind} | set(old.ids(kind) if old is not None else ())
        if set(new.ids(kind)) != wanted:
            raise StoreError(f"{written}: expected {len(wanted)} entries of kind '{kind}', got {len(new.ids(kind))}")
    found = new.lengths()
    for (kind, name), own in rows.items():
        if found[kind, name] != own:
            raise StoreError(f"{written}: {kind} {name}: expected tables of {own} rows, got {found[kind, name]}")


def _remove(models: ModelStore, small: list[_Small], seen: dict[Path, dict[str, Identity | None]]) -> None:
    """Remove what is in the merged file, unless it has been written again since it was read."""
    for own in small:
        if own.kind == "measurement":
            if own.identities() == seen[own.path]:
                with explained(own.path):
                    # Out of sight by a rename, so that nobody meets it half removed.
                    away = Path(tempfile.mkdtemp(prefix=temporary(own.path).name, dir=own.path.parent))
                    own.path.rename(away)
                    shutil.rmtree(away)
            continue
        # A row is written anew by whoever holds its fit.
        with models.store.lock(own.id, wait=False) as held, explained(own.path):
            if held and own.identities() == seen[own.path]:
                own.path.unlink()


def _make_durable(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(models: ModelStore) -> tuple[int, int]:
    """Return how many files hold a model's measurements and fits, and their bytes."""
    sizes = []
    for pattern in ("fits/[!.]*.parquet", "measurements/[!.]*/*", MERGED_FILE):
        for path in models.folder.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
    return len(sizes), sum(sizes)


def _told(models: ModelStore, state: str, small: list[_Small] | tuple[()], before: tuple[int, int]) -> Merging:
    kinds = [own.kind for own in small]
    after = _files(models)
    return Merging(
        suite=models.store.suite,
        model=models.name,
        state=state,
        measurements=kinds.count("measurement"),
        fits=kinds.count("fit"),
        left=len(_small(models)),
        files_before=before[0],
        files_after=after[0],
        bytes_before=before[1],
        bytes_after=after[1],
    )
