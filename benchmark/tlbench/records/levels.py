"""How far a submission has been verified: the level on its records, and the file that says so.

``verification.json`` is written by the board's own workflow and by nobody else. It names the files that were verified
by their hashes; one that does not fit the files beside it is ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, get_args

from tlbench.errors import StoreError
from tlbench.records.inventory import VERIFICATION, known_fact, read_inventory, read_json

Level = Literal["self-reported", "recomputed", "reproduced", "disputed"]
"""``self-reported``: nobody has looked. ``recomputed``: the arithmetic is right, every number follows from the stored
predictions; not that the model made them. ``reproduced``: a maintainer has made them again. ``disputed``: a maintainer
doubts them."""
BY_MAINTAINERS: Final[tuple[Level, ...]] = ("reproduced", "disputed")

FORMAT: Final = 1
_MAX_BYTES: Final = 1_000_000
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def level_of(folder: Path) -> Level:
    """Return the level of a published model.

    Parameters
    ----------
    folder : Path
        ``results/<suite>/<model>``.

    Returns
    -------
    str
        ``"self-reported"`` unless ``verification.json`` states another level, holds the hash of every file that is
        there, and all of them fit.
    """
    path = folder / VERIFICATION
    if not path.exists():
        return "self-reported"
    try:
        stated = read_json(path, _MAX_BYTES)
        level = next((known for known in get_args(Level) if known == stated.get("level")), None)
        if stated.get("format") != FORMAT or level is None or not _fits(folder, stated.get("files")):
            return "self-reported"
    except (StoreError, OSError):
        # What cannot be read vouches for nothing, and a board is not stopped by it.
        return "self-reported"
    found: Level = level
    return found


def _fits(folder: Path, files: object) -> bool:
    """Whether the files of a folder are, to the last byte, those that were verified, and no others."""
    if not isinstance(files, Mapping) or not {"records.parquet", "fits.parquet"} <= set(files):
        return False
    if not all(isinstance(sha256, str) and _SHA256.fullmatch(sha256) for sha256 in files.values()):
        return False
    there = {path.name for path in folder.iterdir()} - {VERIFICATION}
    if not there <= set(files):
        return False
    for name in there:
        path = folder / name
        if path.is_symlink() or not path.is_file() or known_fact(path).sha256 != files[name]:
            return False
    # Large predictions lie elsewhere: the inventory, whose own hash fits, must still name those that were verified.
    absent = {name: sha256 for name, sha256 in files.items() if name not in there}
    inventory = read_inventory(folder) if absent else None
    placed = inventory.elsewhere if inventory is not None else {}
    return all(name in placed and placed[name].sha256 == sha256 for name, sha256 in absent.items())
