"""What a submission holds and where the rest of it lies: ``submission.json``, every file with its hash and size."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tlbench.errors import StoreError, listed

INVENTORY: Final = "submission.json"
VERIFICATION: Final = "verification.json"
CARD: Final = "card.toml"
PLUGIN: Final = "plugin.py"
MAX_INVENTORY_BYTES: Final = 100_000

SETTLED_NANOSECONDS: Final = 2_000_000_000
"""A file that has been as it is for so long is known by its time and size."""

MOVABLE: Final = ("predictions.parquet", "class_bins.parquet", "audits.parquet")
"""Files that may lie elsewhere where they are large."""
ALWAYS: Final = ("records.parquet", "fits.parquet", "outcomes.parquet", CARD)
SUBMITTED: Final = (*ALWAYS, PLUGIN, *MOVABLE, INVENTORY)
"""Every file that a submitter may write; ``verification.json`` is the board's own."""

_CHUNK = 2**20


class Closed(BaseModel):
    """A JSON object that is frozen and closed to keys that nobody defined."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileFact(Closed):
    """A file's hash and size, and its address where it lies elsewhere."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0, le=2**50)

    @classmethod
    def of(cls, path: Path) -> Self:
        """Return the facts of a file that is here."""
        digest, size = hashlib.sha256(), 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return cls(sha256=digest.hexdigest(), bytes=size)


def known_fact(path: Path) -> FileFact:
    """Return the facts of a file that is here, hashed once for as long as it stays as it is."""
    stat = path.stat()
    if time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) < SETTLED_NANOSECONDS:
        return FileFact.of(path)  # clocks of disks are coarse: it may change again without another time
    return _remembered(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


@lru_cache(maxsize=100_000)
def _remembered(path: Path, *stamp: int) -> FileFact:
    return FileFact.of(path)


class PlacedFact(FileFact):
    """Facts of a file that lies at an address."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]


class Inventory(Closed):
    """The content of ``submission.json``.

    Attributes
    ----------
    files : mapping from name to FileFact
        In the folder, ``submission.json`` itself left out.
    elsewhere : mapping from name to PlacedFact
        Too large for the folder.
    incomplete : bool
        Whether it was submitted in the knowledge that measurements or seeds are missing; the row is not ranked then.
    """

    format: Literal[1] = 1
    suite: str = Field(min_length=1, max_length=80)
    suite_version: int
    suite_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    model: str = Field(min_length=1, max_length=300)
    tlbench_version: str = Field(max_length=80)
    files: Mapping[str, FileFact]
    elsewhere: Mapping[str, PlacedFact] = Field(default_factory=dict)
    incomplete: bool = False

    @model_validator(mode="after")
    def _known_files(self) -> Self:
        strange = [name for name in self.files if name not in SUBMITTED or name == INVENTORY]
        strange += [name for name in self.elsewhere if name not in MOVABLE]
        if strange:
            raise ValueError(f"expected files of a submission, got {strange[0]!r}")
        missing = [name for name in ALWAYS if name not in self.files]
        if missing:
            raise ValueError(f"expected {listed(ALWAYS)} among the files, '{missing[0]}' is missing")
        twice = sorted(set(self.files) & set(self.elsewhere))
        if twice:
            raise ValueError(f"'{twice[0]}' is here and elsewhere: expected one of them")
        return self

    def to_json(self) -> str:
        """Return the file's text, the same for the same content."""
        return json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def read_inventory(folder: Path) -> Inventory | None:
    """Return what a published folder says that it holds; None where it says nothing, as folders of before do.

    Raises
    ------
    StoreError
        If the file is a link, too large, or no inventory.
    """
    path = folder / INVENTORY
    if not path.exists() and not path.is_symlink():
        return None
    document = read_json(path, MAX_INVENTORY_BYTES)
    try:
        return Inventory.model_validate(document)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part)[:80] for part in first["loc"])
        told = first["msg"].removeprefix("Value error, ")
        raise StoreError(f"{path}: {f'{place}: ' if place else ''}{told}") from None


def read_json(path: Path, max_bytes: int) -> dict[str, Any]:
    """Return a JSON object from a file that anyone may have written.

    Raises
    ------
    StoreError
        If it is missing, a link, larger than that, or no JSON object.
    """
    if path.is_symlink() or not path.is_file():
        raise StoreError(f"{path}: expected a file, got {'a link' if path.is_symlink() else 'none'}")
    with path.open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise StoreError(f"{path}: expected at most {max_bytes:,} bytes, got more")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as problem:
        raise StoreError(f"{path}: expected JSON ({str(problem)[:100]})") from None
    if not isinstance(document, dict):
        raise StoreError(f"{path}: expected a JSON object, got {type(document).__name__}")
    return document
