"""Published folders that cannot be read: left out of what is made of all of them, one by one and never in silence."""

from __future__ import annotations

import os
import shlex
import time
import tomllib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from tlbench.errors import LeftOutWarning, StoreError
from tlbench.records import published
from tlbench.records.inventory import (
    CARD,
    SETTLED_NANOSECONDS,
    SUBMITTED,
    VERIFICATION,
    FileFact,
    known_fact,
)
from tlbench.records.published import PUBLISHED_TABLES, PublishedModel, check_size
from tlbench.records.schema import LATER

MAX_CARD_BYTES: Final = 200_000
_CHECKED: Final = ["suite", "model", "status"]
_REMEMBERED: Final = 10_000  # folders
_Entry = tuple[str, int, int, int, int, int]
_UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError)


@dataclass(frozen=True)
class Damaged:
    """A published folder that cannot be used.

    Attributes
    ----------
    folder : Path
    suite, model : str
    problem : str
        What is wrong, in words, without the folder.
    """

    folder: Path
    suite: str
    model: str
    problem: str

    def note(self) -> str:
        """Return what the reader of a board must know: it stands on pages, where this machine's paths do not belong."""
        return f"the published results of '{self.model}' are damaged and left out: {self.problem}"

    def told(self) -> str:
        """Return where it lies, what is wrong and what to do about it."""
        way_out = f"tlbench verify {shlex.quote(str(self.folder))} tells all"
        return f"{self.folder}: {self.problem}; the row '{self.model}' is left out; {way_out}"


@dataclass(frozen=True)
class Survey:
    """The published folders of a suite, or of all.

    Attributes
    ----------
    sound : tuple of PublishedModel
    damaged : tuple of Damaged
    """

    sound: tuple[PublishedModel, ...]
    damaged: tuple[Damaged, ...]

    def warn(self) -> None:
        """Warn of every damaged folder, by ``LeftOutWarning``."""
        for found in self.damaged:
            warnings.warn(found.told(), LeftOutWarning, stacklevel=3)


def survey(suite: str | None = None, *, folder: Path | None = None) -> Survey:
    """Return which published models can be used, and which cannot, by suite and name.

    A folder is damaged if a table that it must hold is missing, unreadable, of another schema or of another model; if
    ``card.toml`` or ``submission.json`` cannot be read; or if a file is not the one that ``submission.json`` lists.
    What has been found of a folder is remembered for as long as its files stay as they are.

    Parameters
    ----------
    suite : str, optional
        One suite's; by default all suites'.
    folder : Path, optional
        By default the ``published_folder``.
    """
    root = published.published_folder() if folder is None else folder
    sound, damaged = [], []
    for place in sorted(root.glob("*/*/")):
        if place.name.startswith(".") or place.parent.name.startswith(".") or suite not in (None, place.parent.name):
            continue
        if not any(os.path.lexists(place / name) for name in (*SUBMITTED, VERIFICATION)):
            continue
        model = PublishedModel(place, place.parent.name, unquote(place.name))
        problem = damage_of(model)
        if problem:
            damaged.append(Damaged(place, model.suite, model.model, problem))
        else:
            sound.append(model)
    return Survey(tuple(sound), tuple(damaged))


def damage_of(model: PublishedModel) -> str:
    """Return why a published folder cannot be used, in words; empty where it can."""
    if model.folder.is_symlink():
        return "expected a folder, got a link"
    try:
        stamp = _stamp(model.folder)
        # Clocks of disks are coarse: what was written just now may change again without another time.
        settled = all(time.time_ns() - changed > SETTLED_NANOSECONDS for *_, changed, _ in stamp)
        return _damage(model, stamp) if settled else _damage.__wrapped__(model, stamp)
    except OSError as problem:
        return f"cannot be read ({problem.strerror or problem})"


def _stamp(folder: Path) -> tuple[_Entry, ...]:
    entries = []
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        stat = entry.stat(follow_symlinks=False)
        entries.append((entry.name, stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
    return tuple(entries)


@lru_cache(maxsize=_REMEMBERED)
def _damage(model: PublishedModel, stamp: tuple[_Entry, ...]) -> str:
    try:
        _check(model)
    except StoreError as problem:
        # On pages nobody needs to know where on this machine the folder lies.
        return " ".join(str(problem).replace(f"{model.folder}{os.sep}", "").replace(f"{model.folder}: ", "").split())
    except _UNREADABLE as problem:
        return f"cannot be read ({type(problem).__name__}: {' '.join(str(problem).split())[:200]})"
    return ""


def _check(model: PublishedModel) -> None:
    inventory = model.inventory()
    listed = inventory.files if inventory is not None else {}
    for name, fact in listed.items():
        _check_listed(model.folder / name, fact)
    for name, placed in inventory.elsewhere.items() if inventory is not None else ():
        if (model.folder / name).exists():
            _check_listed(model.folder / name, placed)
    for name, schema in PUBLISHED_TABLES.items():
        path = model.folder / f"{name}.parquet"
        must = name in ("records", "fits")
        if not must and not os.path.lexists(path):
            continue
        if inventory is None:
            # Nothing says what the bytes should be, so all of them are read.
            model.table(name)
            continue
        check_size(path, name)
        _check_columns(path, schema)
        if must:
            model.table(name, _CHECKED)
    _check_card(model.folder / CARD)


def _check_listed(path: Path, fact: FileFact) -> None:
    if path.is_symlink() or not path.is_file():
        raise StoreError(f"{path}: named in submission.json, and not in the folder")
    size = path.stat().st_size
    if size != fact.bytes:
        raise StoreError(f"{path}: expected {fact.bytes:,} bytes, as submission.json says, got {size:,}")
    if known_fact(path).sha256 != fact.sha256:
        raise StoreError(f"{path}: its bytes are not those whose hash submission.json states")


def _check_columns(path: Path, schema: pa.Schema) -> None:
    there = pq.read_schema(path)
    missing = [name for name in schema.names if name not in there.names and name not in LATER]
    if missing:
        raise StoreError(f"{path}: column '{missing[0]}' is missing")
    try:
        wanted = pa.schema([field for field in schema if field.name in there.names])
        there.empty_table().select(wanted.names).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise StoreError(f"{path}: columns are not of the written schema ({str(error).splitlines()[0]})") from None


def _check_card(path: Path) -> None:
    if not path.is_file():
        return  # folders of before inventories may lack one
    if path.stat().st_size > MAX_CARD_BYTES:
        raise StoreError(f"{path}: expected at most {MAX_CARD_BYTES:,} bytes, got {path.stat().st_size:,}")
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        raise StoreError(f"{path}: expected TOML ({(str(problem).splitlines() or ['nested too deeply'])[0]})") from None


def check_some_sound(damaged: Iterable[Damaged]) -> None:
    """Raise ``StoreError`` for a place where nothing but damaged folders was found; do nothing where there are none.

    Raises
    ------
    StoreError
        Naming the first of them.
    """
    found = list(damaged)
    if found:
        others = f"; so are {len(found) - 1} more" if len(found) > 1 else ""
        raise StoreError(
            f"{found[0].folder}: {found[0].problem}; the folder is damaged{others}, and nothing else is there; "
            f"tlbench verify {shlex.quote(str(found[0].folder))} tells all"
        )
