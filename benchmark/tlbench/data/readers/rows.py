"""Rows of a table (Parquet, hub, torchvision) to a listing: labels by name, names that stay, facts as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.errors import DataError, nearest
from tlbench.seeds import digest
from tlbench.suites.spec import Part

_PART_WORDS: Mapping[str, Part] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
BY_FILE_NAME = "members by file name"
BY_ROW_NUMBER = "members by row number: a split's counts are the published ones, its images are not"
_LEADING_NUMBER = re.compile(r"(\d+) - ")


def rows_listing(
    address: Address,
    *,
    labels: Sequence[object],
    class_names: Sequence[str] | None,
    leaves: Sequence[str],
    columns: Mapping[str, Sequence[object]],
    load: Callable[[int], NDArray[np.uint8]],
    content: Callable[[], str],
    row_named: Callable[[int], str],
    note: str = "",
) -> Listing:
    """Return the listing of a domain's rows, in their stored order.

    Parameters
    ----------
    address : Address
    labels : sequence, length n
        Class numbers or class names of the rows.
    class_names : sequence of str, or None
        Names of the class numbers; without them a number is named by its digits.
    leaves : sequence of str, length n
        A name for every row, unique within its class; an image is called ``<class>/<leaf>``, as in a folder.
    columns : mapping of str to sequence, length n
    load : callable
        Pixels of row ``i``.
    content : callable
        Hash of the stored images.
    row_named : callable
        The file of row ``i`` and its number in there, for a message.
    note : str

    Raises
    ------
    DataError
        If a row has no label, a label has no class name, or a class that the suite names has no row.
    """
    named = _named(labels, class_names, lambda row: f"{address.where}: {row_named(row)}")
    classes = _ordered(named, class_names)
    position = {name: place for place, name in enumerate(classes)}
    names = tuple(f"{name}/{leaf}" for name, leaf in zip(named, leaves, strict=True))
    positions = np.array([position[name] for name in named], dtype=np.int64)
    whole = Listing(
        names=names,
        labels=positions,
        classes=classes,
        load=load,
        fingerprint=lambda: digest(list(names), positions.tolist(), list(classes), content()),
        columns={name: tuple(as_text(value) for value in values) for name, values in columns.items()},
        note=note,
    )
    return restricted(whole, address)


def restricted(listing: Listing, address: Address) -> Listing:
    """Return the images of the classes that the suite names, labelled in its order; all where it names none.

    Raises
    ------
    DataError
        If a named class has no image.
    """
    if address.classes is None or address.classes == listing.classes:
        return listing
    classes = address.classes
    present = [listing.classes[label] for label in np.unique(listing.labels)]
    check_all_found(address, classes, present)
    position = {name: place for place, name in enumerate(classes)}
    moved = np.array([position.get(name, -1) for name in listing.classes], dtype=np.int64)[listing.labels]
    kept = np.flatnonzero(moved >= 0)
    names, labels = tuple(listing.names[i] for i in kept), moved[kept]
    return Listing(
        names=names,
        labels=labels,
        classes=classes,
        load=lambda place: listing.load(int(kept[place])),
        fingerprint=lambda: digest(list(names), labels.tolist(), list(classes), listing.fingerprint()),
        columns={name: tuple(values[i] for i in kept) for name, values in listing.columns.items()},
        note=listing.note,
    )


def check_all_found(address: Address, classes: Sequence[str], found: Sequence[str]) -> None:
    """Raise DataError for a class that the suite names and the data lack."""
    present = set(found)
    for name in classes:
        if name not in present:
            raise DataError(
                f"{address.where}: class '{name}' has no image{nearest(name, present)}; "
                f"a domain that lacks classes of its task says so with 'classes'"
            )


def part_named(word: str) -> Part | None:
    """Return the part that a data set's own word for it means.

    >>> part_named("validation"), part_named("extra")
    ('val', None)
    """
    return _PART_WORDS.get(word.lower())


def numbered(class_names: Sequence[str]) -> list[str]:
    """Return class names with torchvision's ``"3 - three"`` told as ``"3"``, so that digits are digits everywhere.

    >>> numbered(["0 - zero", "1 - one"]), numbered(["cat", "dog"])
    (['0', '1'], ['cat', 'dog'])
    """
    found = [_LEADING_NUMBER.match(name) for name in class_names]
    if all(match and match[1] == str(i) for i, match in enumerate(found)):
        return [str(i) for i in range(len(class_names))]
    return list(class_names)


def leaves_of(labels: Sequence[object], files: Sequence[str], rows: Sequence[int]) -> tuple[list[str], str]:
    """Return a name for every row and a note on it: its stored file name, or else the number of the row.

    Stored names are used where all rows have one and they tell the rows of every class apart.
    """
    if all(files) and len(set(zip(map(str, labels), files, strict=True))) == len(files):
        return list(files), BY_FILE_NAME
    return [f"{row:08d}" for row in rows], BY_ROW_NUMBER


def as_text(value: object) -> str:
    """Return a fact about an image as text; what is missing is empty."""
    return "" if value is None else str(value)


def _named(labels: Sequence[object], class_names: Sequence[str] | None, row_named: Callable[[int], str]) -> list[str]:
    """Return the class of every row by name."""
    named = []
    for row, label in enumerate(labels):
        if label is None:
            raise DataError(f"{row_named(row)} has no label")
        if class_names is None or isinstance(label, str):
            named.append(str(label))
            continue
        place = int(str(label))
        if not 0 <= place < len(class_names):
            raise DataError(f"{row_named(row)} has label {place}, expected 0 to {len(class_names) - 1}")
        named.append(class_names[place])
    return named


def _ordered(named: Sequence[str], class_names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the classes that occur: in the data's own order, else by number, else by name."""
    present = set(named)
    if class_names is not None:
        return tuple(name for name in class_names if name in present)
    if all(name.isdecimal() for name in present):
        return tuple(sorted(present, key=int))
    return tuple(sorted(present))
