"""What systems and archivers leave among data, and is none of them."""

from __future__ import annotations

import os
from pathlib import Path

LEFT_BEHIND = frozenset(
    {
        "@eaDir",
        "#recycle",
        "#snapshot",
        "$RECYCLE.BIN",
        "System Volume Information",
        "__MACOSX",
        "lost+found",
    }
)
"""Folders of network disks, archivers and file systems; some hold thumbnails, which would pass for images."""


def is_stray(name: str) -> bool:
    """Return whether a folder or file of this name is passed over.

    >>> is_stray("@eaDir"), is_stray(".ipynb_checkpoints"), is_stray("photo")
    (True, True, False)
    """
    return name.startswith(".") or name in LEFT_BEHIND


def holds_files(folder: Path) -> bool:
    """Return whether there is a file in a folder or below it; stops at the first."""
    for at, below, files in os.walk(folder):
        below[:] = [name for name in below if not is_stray(name)]
        # A link to a folder is not followed here, for it may lead back: it counts as if it led to files.
        if any(not is_stray(name) for name in files) or any(os.path.islink(os.path.join(at, name)) for name in below):
            return True
    return False


def parquet_below(folder: Path) -> list[Path]:
    """Return the Parquet files in a folder and below it, sorted."""
    return sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(is_stray(part) for part in path.relative_to(folder).parts) and path.is_file()
    )
