"""What a pull request does to the published results, read from Git's lists as data: nothing of it is checked out.

A submission may write the known files of its own folder and nothing else: no links, no programs, no other places, and
never ``verification.json``, which is the board's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from tlbench.errors import listed, nearest
from tlbench.records.inventory import SUBMITTED, VERIFICATION
from tlbench.records.published import model_folder
from tlbench.suites.spec import NAME

RESULTS: Final = "results"
MAX_FOLDER_BYTES: Final = 20_000_000
MAX_REQUEST_BYTES: Final = 100_000_000
"""Of all folders that one pull request touches."""

_FILE: Final = "100644"
_MODES: Final = {"120000": "a link", "160000": "another repository", "100755": "a program", "040000": "a folder"}
_LONGEST_PART: Final = 200


@dataclass(frozen=True)
class Change:
    """One path of a difference.

    Attributes
    ----------
    status : str
        ``"A"``, ``"M"``, ``"D"`` or ``"T"``.
    mode : str
        Git's mode of the new file.
    path : str
    """

    status: str
    mode: str
    path: str


@dataclass(frozen=True)
class Entry:
    """One file of a tree.

    Attributes
    ----------
    mode, path : str
    blob : str
        Git's name for the content.
    size : int
        Bytes.
    """

    mode: str
    path: str
    blob: str
    size: int


@dataclass(frozen=True, order=True)
class Touched:
    """A submission that a pull request writes.

    Attributes
    ----------
    suite, model : str
    path : str
        ``results/<suite>/<model>``, the model's name quoted.
    """

    suite: str
    model: str
    path: str


def read_changes(raw: bytes) -> list[Change]:
    """Return the changes of ``git diff --raw -z --no-renames --no-abbrev``.

    Raises
    ------
    ValueError
        If it is not of this form.
    """
    parts = raw.split(b"\0")[:-1]
    if len(parts) % 2:
        raise ValueError("expected a line and a path for every change")
    changes = []
    for line, path in zip(parts[::2], parts[1::2], strict=True):
        fields = line.decode("ascii").removeprefix(":").split(" ")
        if len(fields) != 5:
            raise ValueError(f"expected two modes, two blobs and a status, got {line!r}")
        changes.append(Change(fields[4][:1], fields[1], _decoded(path)))
    return changes


def read_tree(raw: bytes) -> list[Entry]:
    """Return the files of ``git ls-tree -r -z -l``.

    Raises
    ------
    ValueError
        If it is not of this form.
    """
    entries = []
    for line in raw.split(b"\0")[:-1]:
        facts, tab, path = line.partition(b"\t")
        fields = facts.decode("ascii").split()
        if not tab or len(fields) != 4:
            raise ValueError(f"expected a mode, a type, a blob, a size and a path, got {line!r}")
        # A link to another repository has no size.
        entries.append(Entry(fields[0], _decoded(path), fields[2], int(fields[3]) if fields[3].isdigit() else 0))
    return entries


def touched(changes: Iterable[Change]) -> tuple[list[Touched], list[str]]:
    """Return which submissions changes write, and what is wrong with them.

    Parameters
    ----------
    changes : iterable of Change

    Returns
    -------
    list of Touched
        By suite and model; those that are wholly removed are among them.
    list of str
        One line a problem; with any, nothing of the pull request is to be used.
    """
    found, problems = set(), []
    for change in changes:
        place, problem = _place(change.path)
        if place is not None:
            found.add(place)
            name = change.path.rpartition("/")[2]
            if change.status != "D":
                problem = _file_problem(name, change.mode, change.path)
        if problem:
            problems.append(problem)
    return sorted(found), problems


def tree_problems(place: Touched, entries: Sequence[Entry], beside: Iterable[str] = ()) -> list[str]:
    """Return what is wrong with a submission's whole folder as the pull request leaves it.

    Parameters
    ----------
    place : Touched
    entries : sequence of Entry
        Every file of the folder.
    beside : iterable of str
        Names of all folders of the suite, of which no two may differ in case alone.
    """
    if not entries:
        return [f"{place.path}: is removed; results are withdrawn by a maintainer, ask for it in an issue"]
    problems = []
    for entry in entries:
        folder, _, name = entry.path.rpartition("/")
        if folder != place.path:
            problems.append(f"{_shown(entry.path)}: expected a file of {_shown(place.path)}, got a folder in it")
        elif name != VERIFICATION:
            problem = _file_problem(name, entry.mode, entry.path)
            problems += [problem] if problem else []
    size = sum(entry.size for entry in entries)
    if size > MAX_FOLDER_BYTES:
        problems.append(f"{_shown(place.path)}: expected at most {MAX_FOLDER_BYTES:,} bytes, got {size:,}")
    own = place.path.rpartition("/")[2]
    others = [name for name in beside if name != own and name.casefold() == own.casefold()]
    if others:
        problems.append(f"{_shown(place.path)}: there is {_shown(others[0])} already; some disks keep only one of them")
    return problems


def _place(path: str) -> tuple[Touched | None, str]:
    """Return the submission that a path belongs to, or why it belongs to none."""
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return None, f"{_shown(path)}: expected a plain path, got one that climbs"
    if not path.isprintable() or "\\" in path or any(len(part) > _LONGEST_PART for part in parts):
        return None, f"{_shown(path)}: expected a short path of printable letters"
    if len(parts) != 4 or parts[0] != RESULTS:
        return None, (
            f"{_shown(path)}: expected {RESULTS}/<suite>/<model>/<file> and nothing else; "
            "changes of anything else are a pull request of their own"
        )
    suite, folder = parts[1], parts[2]
    model = unquote(folder)
    if not re.match(NAME, suite):
        return None, f"{_shown(path)}: expected the name of a suite, got {_shown(suite)}"
    if not model.isprintable() or model_folder(Path(RESULTS), suite, model).name != folder:
        return None, f"{_shown(path)}: expected the folder that tlbench submit gives a model"
    return Touched(suite, model, "/".join(parts[:3])), ""


def _file_problem(name: str, mode: str, path: str) -> str:
    if name == VERIFICATION:
        return f"{_shown(path)}: is written by the board alone; leave it out"
    if name not in SUBMITTED:
        hint = nearest(name, SUBMITTED) or f"; known are {listed(SUBMITTED)}"
        return f"{_shown(path)}: expected a file of a submission{hint}"
    if mode != _FILE:
        return f"{_shown(path)}: expected a plain file, got {_MODES.get(mode, f'mode {mode}')}"
    return ""


def _decoded(path: bytes) -> str:
    # What is not UTF-8 becomes lone surrogates, which are not printable.
    return path.decode("utf-8", "surrogateescape")


def _shown(text: str) -> str:
    return ascii(text[:300])
