"""Names of the files under a folder: a folder of a million files is walked once, and remembered."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlbench.data.readers.strays import is_stray
from tlbench.data.remembered import recall, remember

# A change within the resolution of a file system's clock leaves the time of change as it was.
_CLOCK_NS = 2 * 10**9
_KIND = "scan-2"  # raised whenever other names are left out


def scanned(root: Path, memory: Path | None) -> Mapping[str, tuple[str, ...]]:
    """Return the files under a folder: by folder, as a POSIX path below ``root`` ("" for itself), sorted.

    Links to folders are followed; entries whose name starts with a dot, and what systems leave behind (``strays``),
    are left out; a folder without files is there with none. What was found is remembered, and holds for as long as
    no folder under ``root`` has changed: a stat a folder, instead of an entry a file.

    Parameters
    ----------
    root : Path
    memory : Path or None
        The folder in which to remember; None remembers nothing.

    Raises
    ------
    OSError
        If a folder cannot be read.
    """
    key = str(root.absolute())
    held = _valid(recall(memory, _KIND, key), root)
    if held is not None:
        return held
    began = time.time_ns()
    changed: dict[str, int] = {}
    found: dict[str, tuple[str, ...]] = {}
    _walk(root, "", (), found, changed)
    found = {name: found[name] for name in sorted(found)}
    if max(changed.values()) < began - _CLOCK_NS:
        remember(memory, {name: [changed[name], files] for name, files in found.items()}, _KIND, key)
    return found


def _walk(
    folder: Path,
    name: str,
    above: tuple[tuple[int, int], ...],
    found: dict[str, tuple[str, ...]],
    changed: dict[str, int],
) -> None:
    state = folder.stat()
    own = (state.st_dev, state.st_ino)
    if own in above:
        return  # a link back to where we come from
    changed[name] = state.st_mtime_ns
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_stray(entry.name):
                (folders if entry.is_dir() else files).append(entry.name)
    found[name] = tuple(sorted(files))
    for below in folders:
        _walk(folder / below, f"{name}/{below}" if name else below, (*above, own), found, changed)


def _valid(held: Any, root: Path) -> dict[str, tuple[str, ...]] | None:
    """Return what is remembered if it is whole and no folder has changed since."""
    if not isinstance(held, dict) or not held:
        return None
    try:
        for name, (changed, _) in held.items():
            if (root / name if name else root).stat().st_mtime_ns != changed:
                return None
        return {name: tuple(files) for name, (_, files) in held.items() if _are_names(files)}
    except (OSError, ValueError, TypeError):
        return None


def _are_names(files: Any) -> bool:
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise TypeError("expected file names")
    return True
