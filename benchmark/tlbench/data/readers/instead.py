"""What lies where a folder or a file was looked for, and what to do about it: the end of many a message."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from tlbench.data.readers.spelling import canonical
from tlbench.data.readers.strays import is_stray
from tlbench.errors import nearest

Kind = Literal["folder", "file"]
_ARCHIVE = re.compile(r"(.+?)\.(tar|tar\.\w+|tgz|tbz2?|txz|zip|rar|7z)", re.IGNORECASE)
_LOOKED_INTO = 50


def found_instead(path: Path, base: Path, kind: Kind, others: Collection[str] = ()) -> str:
    """Return what was found in place of a folder or file, with the likely way out.

    Parameters
    ----------
    path : Path
        What was looked for.
    base : Path
        The data root.
    kind : {"folder", "file"}
    others : collection of str
        Names that mean something else, such as the task's other domains: no misspellings of this one.

    Returns
    -------
    str
        To be read after "found"; such as ``"nothing; did you mean 'photo'?"``.
    """
    for place in (*reversed([above for above in path.parents if _is_below(above, base)]), path):
        if place.is_file() and (place != path or kind == "folder"):
            return f"a file at {place}" if place != path else "a file"
        if place.is_symlink() and not place.exists():
            return f"a link to nothing at {place}"
    if path.is_dir():
        return "a folder"
    hint = way_out(path, base, kind, others) or f"; the nearest folder that exists is {_existing(path)}"
    return f"nothing{hint}"


def way_out(path: Path, base: Path, kind: Kind, others: Collection[str] = ()) -> str:
    """Return where something that is not there seems to be, or what its name should be; empty where nobody knows.

    Parameters
    ----------
    path, base, kind, others
        As in ``found_instead``.
    """
    if path.exists():
        return ""
    existing = _existing(path)
    wanted = path.relative_to(existing).parts
    name, rest = wanted[0], Path(*wanted)
    entries = _entries(existing)
    folders = [entry for entry in entries if entry.is_dir()]
    for entry in entries:
        archive = _ARCHIVE.fullmatch(entry.name)
        if archive and canonical(archive[1]) in (canonical(name), canonical(existing.name)) and entry.is_file():
            return f"; {entry} is not unpacked: unpack it"
    choices = entries if kind == "file" else folders
    for entry in choices:
        if canonical(entry.name) == canonical(name):
            return f"; '{entry.name}' is there: rename it '{name}'"
    for folder in folders[:_LOOKED_INTO]:
        if (folder / rest).exists():
            if existing == base:
                return f"; it is in {folder}: use --data-root {folder}"
            return f"; it is in {folder}, one folder too deep: move what is in there to {existing}"
    above = base.absolute().parent
    if existing == base and (above / rest).exists():
        return f"; it is in {above}, so this data root is a folder too deep: use --data-root {above}"
    if existing == base and canonical(base.absolute().name) == canonical(name):
        return f"; the data root seems to be this folder itself: use --data-root {above}"
    names = [entry.name for entry in choices if entry.name not in others]
    for part in names:
        if canonical(name).endswith(f"_{canonical(part)}"):
            return f"; did you mean '{part}'?"
    return nearest(name, [other for other in names if _plausible(other, name)])


def _existing(path: Path) -> Path:
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def _plausible(found: str, wanted: str) -> bool:
    """Return whether one name can be a slip for the other: numbers are no spelling.

    >>> _plausible("location_43", "location_46"), _plausible("photos", "photo")
    (False, True)
    """
    return re.findall(r"\d+", found) == re.findall(r"\d+", wanted)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not is_stray(entry.name))
    except OSError:
        return []


def _is_below(place: Path, base: Path) -> bool:
    return place != base and place.is_relative_to(base)
