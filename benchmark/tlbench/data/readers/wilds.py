"""WILDS data sets as their archives unpack: the official splits from the CSV files, without the package ``wilds``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tlbench.data.decode import decode
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
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

    Options: ``dataset``, one of ``camelyon17``, ``fmow``, ``iwildcam``, ``rxrx1``.

    Raises
    ------
    UsageError
        If the option names none of them, or the suite names no classes.
    DataError
        If the release file, the CSV, a column of it or an image is missing, or a value is none that the
        official release has.
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
    n = 0
    for where, row in rows_of_table(address, layout):
        n += 1
        if row.official in parts:
            rows.append((row, label_of(row, where)))
    images = _images(address, root / layout.folder)
    if layout.numbered_by_row:
        _check_numbering(address, images, n)
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
        raise address.missing(place, "the folder of an unpacked WILDS archive")
    expected = place / f"RELEASE_v{layout.version}.txt"
    if expected.is_file():
        return
    found = listed(sorted(path.name for path in place.glob("RELEASE_v*.txt"))) or "none"
    raise DataError(
        f"{address.where}: {place} is an unpacked archive without its release file: expected {expected.name}, found "
        f"{found}; WILDS takes the data for whole only with it: unpack version {layout.version} again, or put the "
        f"file there if you know that they are"
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
        raise address.missing(folder, "the folder of images")
    try:
        return scanned(folder, address.digests.folder)
    except OSError as error:
        raise DataError(f"{address.where}: {error.filename} cannot be read ({error.strerror})") from error


def _check_numbering(address: Address, images: Mapping[str, Sequence[str]], n: int) -> None:
    """Raise DataError where images have numbers beyond the CSV's rows: then rows were left out before counting."""
    numbers = [int(match[1]) for name in images[""] if (match := _NUMBERED.fullmatch(name))]
    if numbers and max(numbers) >= n:
        raise DataError(
            f"{address.where}: {address.place / 'rgb_metadata.csv'} has {n} rows, but {address.place / 'images'} holds "
            f"rgb_img_{max(numbers)}.png: images are numbered by the rows of the complete file, so this one was "
            f"filtered; get the original"
        )


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
