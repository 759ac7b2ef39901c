"""Small facts about data folders that are slow to find out, kept as files between runs."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from tlbench.seeds import digest


def recall(folder: Path | None, kind: str, *key: str) -> Any:
    """Return what was remembered, None where there is nothing, or nothing that can be read.

    Parameters
    ----------
    folder : Path or None
        None remembers nothing.
    kind : str
        A word for the kind of fact; the start of the file's name.
    *key : str
        What the fact is about.
    """
    if folder is None:
        return None
    try:
        held = json.loads(_file(folder, kind, key).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # finding it out again is always right
    return held["fact"] if isinstance(held, dict) and held.get("key") == list(key) and "fact" in held else None


def remember(folder: Path | None, fact: Any, kind: str, *key: str) -> None:
    """Write a JSON value down, by an atomic rename; where nothing can be written, nothing is remembered."""
    if folder is None:
        return
    # Remembering only saves time: a folder that cannot be written is reported by the cache of images.
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        file = _file(folder, kind, key)
        handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=folder)
        try:
            with open(handle, "w", encoding="utf-8") as stream:
                json.dump({"key": list(key), "fact": fact}, stream, separators=(",", ":"))
            Path(temporary).replace(file)
        finally:
            Path(temporary).unlink(missing_ok=True)


def _file(folder: Path, kind: str, key: tuple[str, ...]) -> Path:
    return folder / f"{kind}-{digest(*key)[:24]}.json"
