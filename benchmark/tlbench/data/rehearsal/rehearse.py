"""A small made-up copy of a suite's data, laid out as the originals are, and the suite to run on it.

::

    <out>/<task's path>/...             folders, tables and release files, as `tlbench data status` expects them
    <out>/rehearsal.json                says that the data are made up; written last
    <out>/<suite>-rehearsal.toml        the same tasks, pairs and conditions, small
    <out>/.rehearsal/                   while it is being made: half-written folders
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from tlbench import __version__
from tlbench.data.readers.catalogue import read_domain
from tlbench.data.rehearsal.layouts import NO_COPY_READERS, MadeUpImage, Piece, classes_of, pieces_of
from tlbench.data.rehearsal.synthetic import Painter, stored
from tlbench.data.splits import split_places
from tlbench.errors import DataError, UsageError
from tlbench.records.files import explained, write_text
from tlbench.seeds import digest
from tlbench.suites.spec import Counts, SplitSpec, Suite, TaskSpec

LEAST_PER_CLASS = 10
"""With fewer, the published rule leaves a class without a validation or test image."""
NOTE = "rehearsal.json"

_UNFINISHED = ".rehearsal"
_LAYOUT_VERSION = 1
_SIZE = 64
_TRAIN_PER_CLASS = 10
_MEASURED = 16
_DISTURBED = 4
_BLOCK_BYTES = 4096  # what a disk gives to a small file or a folder, and more than most of these files fill

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class RehearsalSummary:
    """What a rehearsal's folder holds.

    Attributes
    ----------
    folder, suite_file : Path
    suite : Suite
        As it stands in the file.
    files, file_bytes : int
        Of the copy, without the two files that tlbench adds.
    tasks_without_copy : tuple of str
        Tasks whose data need none.
    seconds : float
    """

    folder: Path
    suite_file: Path
    suite: Suite
    files: int
    file_bytes: int
    tasks_without_copy: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class RehearsalSize:
    """What a rehearsal will write: files, and about how many bytes of disk."""

    files: int
    disk_bytes: int


def rehearsal_size(suite: Suite, out: Path, per_class: int) -> RehearsalSize:
    """Return how much a rehearsal writes; takes and refuses what ``rehearse`` does, and writes nothing."""
    pieces, _ = _planned(suite, out, per_class)
    files = sum(piece.files for piece in pieces)
    return RehearsalSize(files, _BLOCK_BYTES * (files + sum(len(piece.folders) + 1 for piece in pieces)))


def rehearse(suite: Suite, out: Path, per_class: int, progress: Progress | None = None) -> RehearsalSummary:
    """Write a made-up copy of a suite's data, and the suite to run on it.

    Every folder appears whole, by one rename: after a kill, the same call finishes what is missing.

    Parameters
    ----------
    suite : Suite
    out : Path
        A folder that is new, empty, or holds a rehearsal of the same suite and size.
    per_class : int
        Images a class: of every DomainBed domain, and of a WILDS task's training part.
    progress : callable, optional
        Given how many files are written, and how many there are.

    Raises
    ------
    UsageError
        If there are fewer than ten images a class, the suite is a rehearsal already or its data need no copy, or the
        folder holds something else.
    SuiteError
        If a path of the suite leads out of the folder.
    StoreError
        If the folder cannot be written, or the disk is full.
    """
    started = time.monotonic()
    pieces, identity = _planned(suite, out, per_class)
    tell = _Counter(progress, sum(piece.files for piece in pieces))
    with explained(out):
        unfinished = out / _UNFINISHED
        unfinished.mkdir(parents=True, exist_ok=True)
        write_text(unfinished / NOTE, json.dumps({"identity": identity}))
        for piece in pieces:
            if not (out / piece.folder).exists():
                _write(piece, out, unfinished, tell)
            tell.finished(piece.files)
        made = rehearsal_suite(suite, out)
        suite_file = out / f"{made.name}.toml"
        write_text(suite_file, suite_text(made))
        files, file_bytes = _measured(out, pieces)
        write_text(out / NOTE, json.dumps(_note(suite, made, per_class, identity, files, file_bytes), indent=1) + "\n")
        shutil.rmtree(unfinished)
    without = tuple(task for task, spec in suite.tasks.items() if spec.reader in NO_COPY_READERS)
    return RehearsalSummary(out, suite_file, made, files, file_bytes, without, time.monotonic() - started)


def is_rehearsal(root: Path) -> Path | None:
    """Return the suite file to use where a data root holds made-up data, None where it does not.

    Raises
    ------
    DataError
        If the rehearsal was never finished, or its note is damaged.
    """
    if (root / _UNFINISHED / NOTE).is_file():
        raise DataError(f"{root}: holds an unfinished rehearsal; give the same `tlbench data rehearse` again")
    note = _read_note(root / NOTE)
    return None if note is None else root / f"{note.get('suite_file')}"


def rehearsal_suite(suite: Suite, root: Path) -> Suite:
    """Return the suite to run on a rehearsal: all of the original's shape, and as little work as shows it.

    Parameters
    ----------
    suite : Suite
    root : Path
        The folder of the copy, read for the counts of its parts.

    Raises
    ------
    DataError
        If the copy is not there, or not whole.
    """
    document = suite.model_dump(mode="json", exclude={"assumed"})
    document |= {
        "name": f"{suite.name[:70]}-rehearsal",
        "title": f"Made-up data in the shape of {suite.name}",
        "description": f"Rehearses {suite.name} version {suite.version} on made-up images, to try a machine or a "
        "plug-in before the data are there. Its numbers mean nothing, and no board takes them.",
        "synthetic": True,
    }
    document["tasks"] = {task: _small_task(suite, task, root) for task in suite.tasks}
    document["conditions"] = [_small_condition(condition) for condition in document["conditions"]]
    document["protocol"] = _small_protocol(document["protocol"])
    return Suite.model_validate(document)


def suite_text(suite: Suite) -> str:
    """Return a suite as the text of its file, every class written out, without what stands at its default."""
    document = suite.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    if "conditions" in document:
        for written, condition in zip(document["conditions"], suite.conditions, strict=True):
            written["kind"] = condition.kind  # tells conditions apart, at its default or not
    document["tasks"] = document.pop("tasks")  # at the end, for they are long
    opening = "# Made by `tlbench data rehearse`: made-up data, to try things with. Its numbers mean nothing.\n\n"
    return opening + tomli_w.dumps(document, multiline_strings=False)


class _Counter:
    """Tells how many files of all are written, folder by folder and within one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._before = progress, total, 0

    def within(self, files: int) -> None:
        """Tell of files of a folder that is being written."""
        if self._progress is not None:
            self._progress(self._before + files, self._total)

    def finished(self, files: int) -> None:
        """Tell of a whole folder."""
        self.within(files)
        self._before += files


def _planned(suite: Suite, out: Path, per_class: int) -> tuple[tuple[Piece, ...], str]:
    """Return what is to be written, and what tells this rehearsal from others, after all that can be checked before."""
    _check(suite, per_class)
    pieces = pieces_of(suite, per_class)
    identity = digest("rehearsal", _LAYOUT_VERSION, suite.hash, per_class)
    _check_folder(out, identity)
    return pieces, identity


def _check(suite: Suite, per_class: int) -> None:
    if per_class < LEAST_PER_CLASS:
        raise UsageError(
            f"--per-class {per_class}: expected at least {LEAST_PER_CLASS}, or classes would be without a validation "
            "or test image"
        )
    if suite.synthetic:
        raise UsageError(f"suite '{suite.name}' is made up already; rehearse the suite that it was made from")
    if all(spec.reader in NO_COPY_READERS for spec in suite.tasks.values()):
        raise UsageError(
            f"suite '{suite.name}' needs no copy: its data come with tlbench; `tlbench evaluate --suite {suite.name} "
            "--model linear-probe` runs as it is"
        )


def _check_folder(out: Path, identity: str) -> None:
    """Refuse a folder that holds anything but this rehearsal, finished or not."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"--out {out}: expected a folder, found a file")
    if not any(out.iterdir()):
        return
    for note in (out / NOTE, out / _UNFINISHED / NOTE):
        found = _read_note(note)
        if found is not None and found.get("identity") == identity:
            return
        if found is not None:
            raise UsageError(
                f"--out {out}: holds another rehearsal (of another suite, number of images or version of tlbench); "
                "name a new folder"
            )
    raise UsageError(f"--out {out}: expected a new or empty folder, found {min(out.iterdir()).name} in it")


def _read_note(path: Path) -> Mapping[str, Any] | None:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); make the rehearsal again in a new folder") from None
    if not isinstance(note, dict) or "identity" not in note:
        raise DataError(f"{path}: is not the note of a rehearsal; make it again in a new folder")
    return note


def _write(piece: Piece, out: Path, unfinished: Path, tell: _Counter) -> None:
    """Write a folder beside its place, and move it there once it is whole."""
    half = unfinished / digest(piece.folder)[:16]
    shutil.rmtree(half, ignore_errors=True)
    for folder in sorted(piece.folders):
        (half / folder).mkdir(parents=True, exist_ok=True)
    painter = Painter(piece.task)

    def one(image: MadeUpImage) -> None:
        (half / image.path).write_bytes(_bytes_of(painter, image))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, _ in enumerate(pool.map(one, piece.images), 1):
            if number % 64 == 0:
                tell.within(number)
    for path, text in piece.texts.items():
        (half / path).write_text(text, encoding="utf-8")
    for path, text in piece.beside.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        write_text(out / path, text)
    place = out / piece.folder
    place.parent.mkdir(parents=True, exist_ok=True)
    half.rename(place)


def _bytes_of(painter: Painter, image: MadeUpImage) -> bytes:
    if image.motif is None:
        return b"made up, and meant to be unreadable\n"
    return stored(painter.pixels(image.motif, image.side), image.form, grey=image.grey)


def _measured(out: Path, pieces: Sequence[Piece]) -> tuple[int, int]:
    """Return the number of files of a copy, and their bytes."""
    places = [
        place
        for piece in pieces
        for place in (
            *(out / piece.folder / image.path for image in piece.images),
            *(out / piece.folder / path for path in piece.texts),
            *(out / path for path in piece.beside),
        )
    ]
    return len(places), sum(place.stat().st_size for place in places)


def _small_task(suite: Suite, task: str, root: Path) -> dict[str, Any]:
    spec = suite.tasks[task]
    small = spec.model_dump(mode="json", exclude={"licence", "citation", "obtain", "size", "hub"})
    small["title"] = f"made up, in the shape of {task}"
    small["classes"] = list(classes_of(spec))
    if spec.classes is None:
        small["hierarchy"] = None  # of classes that only the data tell, and here they are made up
    for domain in spec.domains:
        own = small["domains"][domain]
        own |= {"variants": {}, "members": None}
        if spec.reader not in NO_COPY_READERS:
            own["counts"] = _counts(suite, spec, task, domain, root).model_dump()
    if spec.split is not None:
        small["split"] = _small_split(small["split"])
    return small


def _counts(suite: Suite, spec: TaskSpec, task: str, domain: str, root: Path) -> Counts:
    """Return how many images the parts of a domain of the copy hold before any cap, by reading it."""
    listing = read_domain(spec, task, domain, root)
    rule: SplitSpec = suite.split_of(task)
    parts = split_places(listing, rule, spec.domains[domain].split, task=task, domain=domain, capped=False)
    return Counts(train=len(parts["train"]), val=len(parts["val"]), test=len(parts["test"]))


def _small_split(split: Mapping[str, Any]) -> dict[str, Any]:
    most = {"max_train_per_class": _TRAIN_PER_CLASS, "max_val": _MEASURED, "max_test": _MEASURED}
    return {**split, **{key: min(split[key] or cap, cap) for key, cap in most.items()}}


def _small_condition(condition: Mapping[str, Any]) -> dict[str, Any]:
    small = dict(condition)
    if condition["kind"] != "clean":
        small["max_images"] = min(condition["max_images"] or _DISTURBED, _DISTURBED)
    if condition["kind"] == "corruption":
        small["table"] = _SIZE
    return small


def _small_protocol(protocol: Mapping[str, Any]) -> dict[str, Any]:
    grid = protocol["grid"]
    return {
        **protocol,
        "image_size": _SIZE,
        "backbone": "small-cnn",
        "seeds": protocol["seeds"][:1],
        "shots": _small_shots(protocol["shots"]),
        "split": _small_split(protocol["split"]),
        "recipe": {**protocol["recipe"], "epochs": 1},
        "grid": {
            **grid,
            # Two numbers of epochs, so that there is something to select.
            "epochs": [1, 2] if len(grid["epochs"]) > 1 else [1] * len(grid["epochs"]),
            "backbone": ["small-cnn"] if grid["backbone"] else [],
            "shots": _small_shots(grid["shots"]),
        },
    }


def _small_shots(shots: list[str | int]) -> list[str | int]:
    return list(dict.fromkeys(shot if isinstance(shot, str) else min(shot, _TRAIN_PER_CLASS) for shot in shots))


def _note(suite: Suite, made: Suite, per_class: int, identity: str, files: int, file_bytes: int) -> dict[str, Any]:
    return {
        "synthetic": True,
        "made_by": f"tlbench {__version__}, tlbench data rehearse --per-class {per_class}",
        "suite": suite.name,
        "suite_version": suite.version,
        "suite_hash": suite.hash,
        "suite_file": f"{made.name}.toml",
        "per_class": per_class,
        "files": files,
        "bytes": file_bytes,
        "identity": identity,
        "domains": {
            f"{task}/{domain}": own.counts.model_dump()
            for task, spec in made.tasks.items()
            for domain, own in spec.domains.items()
            if own.counts is not None
        },
    }
