"""Images in folders: ``<path>/<domain>/<class>/<file>``, as DomainBed and torchvision's ImageFolder keep them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tlbench.data.decode import decode
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.data.readers.rows import check_all_found
from tlbench.errors import DataError, UsageError
from tlbench.seeds import digest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


def read_folder(address: Address) -> Listing:
    """Return the listing of a domain that is a folder of class folders.

    Classes are the sorted folders; files are listed in the order of torchvision's ImageFolder, nested ones
    included. Hidden entries, and files beside the class folders, are ignored. Where the suite names classes,
    other folders are left out. A blank and an underscore in the domain's folder are the same.

    Options: ``pattern``, a regular expression searched in ``<class>/<file>`` whose named groups become columns.

    Raises
    ------
    DataError
        If the folder is missing, has no class folders, a class folder has no image, or a file does not fit
        the pattern.
    """
    address.check_options("pattern")
    root = _domain_folder(address)
    with os.scandir(root) as entries:
        found = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not found:
        raise DataError(f"{address.where}: expected a folder a class in {root}, found none")
    classes = address.classes or tuple(found)
    check_all_found(address, classes, found)
    names: list[str] = []
    labels: list[int] = []
    position = {name: place for place, name in enumerate(classes)}
    for name in (name for name in found if name in position):
        files = list(_images(root / name))
        if not files:
            raise DataError(f"{address.where}: class folder {root / name} has no image ({', '.join(SUFFIXES)})")
        names += [path.relative_to(root).as_posix() for path in files]
        labels += [position[name]] * len(files)
    positions = np.array(labels, dtype=np.int64)

    def fingerprint() -> str:
        try:
            stored = address.digests.of(root, [root / name for name in names])
        except OSError as error:
            raise DataError(f"{address.where}: {error.filename} cannot be read ({error.strerror})") from error
        return digest(names, labels, list(classes), stored)

    return Listing(
        names=tuple(names),
        labels=positions,
        classes=classes,
        load=lambda place: decode(root / names[place], str(root / names[place])),
        fingerprint=fingerprint,
        columns=_columns(address, names),
    )


def _domain_folder(address: Address) -> Path:
    place = address.place
    folder = address.inside(place, address.entry)
    if folder.is_dir():
        return folder
    # OfficeHome's "Real World" circulates with a blank and with an underscore.
    if place.is_dir():
        for entry in sorted(place.iterdir()):
            if entry.is_dir() and entry.name.replace(" ", "_") == address.entry.replace(" ", "_"):
                return entry
    raise address.missing(folder, "a folder of class folders")


def _images(folder: Path) -> Iterator[Path]:
    """Yield image files in the order in which torchvision's ImageFolder walks them."""
    for root, folders, files in sorted(os.walk(folder, followlinks=True)):
        if any(part.startswith(".") for part in Path(root).relative_to(folder).parts):
            continue
        del folders
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield Path(root, name)


def _columns(address: Address, names: list[str]) -> dict[str, tuple[str, ...]]:
    text = address.options.get("pattern")
    if text is None:
        return {}
    try:
        pattern = re.compile(str(text))
    except re.error as error:
        raise UsageError(f"{address.where}: pattern '{text}' is not a regular expression ({error})") from error
    if not pattern.groupindex:
        raise UsageError(f"{address.where}: pattern '{text}' has no named group; write (?P<name>...)")
    matches = [pattern.search(name) for name in names]
    for name, match in zip(names, matches, strict=True):
        if match is None:
            raise DataError(f"{address.where}: file '{name}' does not fit the pattern '{text}'")
    return {group: tuple((m[group] or "") if m else "" for m in matches) for group in pattern.groupindex}
