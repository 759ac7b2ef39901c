"""WILDS data sets as their archives unpack: the official splits from the CSV files, without the package ``wilds``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tlbench.data.decode import decode
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.data.readers.instead import way_out
from tlbench.data.readers.scan import scanned
from tlbench.data.readers.wilds_layouts import LAYOUTS, Layout, Row, rows_of_table
from tlbench.errors import DataError, UsageError, listed, nearest
from tlbench.seeds import digest

_SHOWN = 3
_NUMBERED = re.compile(r"rgb_img_(\d+)\.png")


def read_wilds(address: Address) -> Listing:
    """Return the listing of a WILDS data set's domain ``id`` or ``ood_test``, in the order of its CSV file.

    The task's path is the unpacked archive, its release file included. The column ``part`` says train, val and
    test; where WILDS has one set for validation and test in distribution, ``val+test``, to be cut in halves.
    ``ood_test`` is test alone; the official out-of-distribution validation set belongs to neither domain. Other
    columns are facts of the image, such as hospital, region, location or experiment. An image is called by its
    path below the task's folder. A class may be without images: labels are the data set's own.

    Images of FMoW are called by the number of their row, so a row too few or too many gives every later image
    another's label. The numbers of the rows are therefore held against those of the images. That two rows have
    changed places cannot be told from numbers, nor from the columns that are read: the suite's hash of members,
    once somebody has confirmed it on the original data, is the guard against that.

    Options: ``dataset``, one of ``camelyon17``, ``fmow``, ``iwildcam``, ``rxrx1``.

    Raises
    ------
    UsageError
        If the option names none of them, or the suite names no classes.
    DataError
        If the release file, the CSV, a column of it or an image is missing, a value is none that the official
        release has, two rows name one image, or rows and images are not numbered alike. What concerns the task
        as a whole is told of the task, not of the domain.
    """
    address.check_options("dataset")
    named = address.text("dataset", "")
    if named not in LAYOUTS:
        raise UsageError(
            f"{address.where}: the reader 'wilds' needs the option dataset, one of {listed(LAYOUTS)}, got '{named}'"
            f"{nearest(named, LAYOUTS)}"
        )
    if address.classes is None:
        raise UsageError(f"{address.where}: the reader 'wilds' needs the task's classes in label order")
    layout, root = LAYOUTS[named], address.place
    if address.entry not in layout.domains:
        raise DataError(
            f"{address.where}: a WILDS data set has the domains {listed(layout.domains)}, got '{address.entry}'"
            f"{nearest(address.entry, layout.domains)}"
        )
    _check_release(address, layout)
    parts = layout.domains[address.entry]
    rows: list[tuple[Row, int]] = []
    label_of = _labeller(address.classes, by_name=layout.labels_are_names)
    sequences: list[bool] = []
    for where, row in rows_of_table(address, layout):
        sequences.append(row.sequence)
        if row.official in parts:
            rows.append((row, label_of(row, where)))
    table = root / layout.table
    if not sequences:
        raise DataError(f"{address.task}: {table} has no row below its header; the file is cut off: get it again")
    if not rows:
        raise DataError(
            f"{address.where}: none of the {len(sequences)} rows of {table} is of this domain; get it again"
        )
    images = _images(address, root / layout.folder)
    if layout.numbered_by_row:
        _check_numbering(address, table, images, sequences)
    _check_present(address, root, [row.name for row, _ in rows], images)
    return _listing(address, layout, root, rows)


def _listing(address: Address, layout: Layout, root: Path, rows: Sequence[tuple[Row, int]]) -> Listing:
    parts, classes = layout.domains[address.entry], address.classes or ()
    names = tuple(row.name for row, _ in rows)
    labels = [label for _, label in rows]
    columns = {"part": tuple(parts[row.official] for row, _ in rows)}
    for place, fact in enumerate(layout.facts):
        columns[fact] = tuple(row.facts[place] for row, _ in rows)

    files = [root / name for name in names]
    return Listing(
        names=names,
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        load=lambda place: decode(files[place], str(files[place])),
        fingerprint=lambda: digest(list(names), labels, list(classes), address.stored(root, files)),
        columns=columns,
        contents=lambda places: digest(address.stored(root, [files[i] for i in places])),
    )


def _check_release(address: Address, layout: Layout) -> None:
    place = address.place
    if not place.is_dir():
        raise address.missing(place, "the folder of an unpacked WILDS archive", shared=True)
    expected = place / f"RELEASE_v{layout.version}.txt"
    if expected.is_file():
        return
    found = sorted(path.name for path in place.glob("RELEASE_v*.txt"))
    if found:
        raise DataError(
            f"{address.task}: expected version {layout.version} of the archive in {place}, found {listed(found)}; get "
            f"version {layout.version}"
        )
    hint = way_out(expected, address.base, "file") or (
        f"; WILDS takes the data for whole only with it: unpack version {layout.version} again, or make an empty one "
        f"if you know that this is all of that version"
    )
    raise DataError(
        f"{address.task}: expected an unpacked archive with its release file {expected.name} in {place}, found no "
        f"release file{hint}"
    )


def _labeller(classes: tuple[str, ...], *, by_name: bool) -> Callable[[Row, str], int]:
    position = {name: place for place, name in enumerate(classes)}

    def by_number(row: Row, where: str) -> int:
        if not row.label.isdecimal() or int(row.label) >= len(classes):
            raise DataError(f"{where}: expected a label of 0 to {len(classes) - 1}, got '{row.label}'")
        return int(row.label)

    def by_word(row: Row, where: str) -> int:
        if row.label not in position:
            raise DataError(
                f"{where}: '{row.label}' is none of the suite's {len(classes)} classes{nearest(row.label, classes)}"
            )
        return position[row.label]

    return by_word if by_name else by_number


def _images(address: Address, folder: Path) -> Mapping[str, Sequence[str]]:
    if not folder.is_dir():
        raise address.missing(folder, "the folder of images", shared=True)
    try:
        return scanned(folder, address.digests.folder)
    except OSError as error:
        raise DataError(f"{address.task}: {error.filename} cannot be read ({error.strerror})") from error


def _check_numbering(
    address: Address, table: Path, images: Mapping[str, Sequence[str]], sequences: Sequence[bool]
) -> None:
    """Raise DataError unless the images are those of all rows, or of all but sequences.

    Any other pattern means that the file was filtered before its rows were counted, or that images are missing.
    """
    there = {int(match[1]) for name in images[""] if (match := _NUMBERED.fullmatch(name))}
    every = set(range(len(sequences)))
    without = {number for number in every if sequences[number]}
    if there in (every, every - without):
        return
    lacking, strange = min(every - without - there, default=None), min(there - every, default=None)
    pictured, bare = there & without, without - there
    told = []
    if lacking is not None:
        told.append(f"row {lacking} (the first is 0) has no image {_numbered(lacking)}")
    if strange is not None:
        told.append(f"{_numbered(strange)} is the image of no row")
    if pictured and bare:
        told.append(f"of the rows 'seq', {min(pictured)} has an image and {min(bare)} has none")
    whole = strange is None and not (pictured and bare)
    raise DataError(
        f"{address.task}: {table} has {len(every)} rows, {len(without)} of them 'seq', and {address.place / 'images'} "
        f"has {len(there)} images, but {', and '.join(told)}; "
        + (
            "unpack the archive again"
            if whole
            else "images are numbered by the rows of the complete file, so this one was filtered, or the archive was "
            "unpacked in part: get the original"
        )
    )


def _numbered(number: int) -> str:
    return f"rgb_img_{number}.png"


def _check_present(address: Address, root: Path, names: Sequence[str], images: Mapping[str, Sequence[str]]) -> None:
    # Folders are few and files are many: a set a folder, not a path a file.
    held = {folder: set(files) for folder, files in images.items()}
    none: set[str] = set()
    absent = [name for name in names if _leaf(name) not in held.get(_below(name), none)]
    if absent:
        raise DataError(
            f"{address.where}: {len(absent)} of {len(names)} images that the CSV names are not in {root}, "
            f"such as {listed(absent[:_SHOWN])}; unpack the archive again"
        )


def _leaf(name: str) -> str:
    return name.rsplit("/", 1)[1]


def _below(name: str) -> str:
    """Return the folder of an image below the folder of all images."""
    return name.split("/", 1)[1].rpartition("/")[0]
