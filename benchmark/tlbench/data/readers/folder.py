"""Images in folders: ``<path>/<domain>/<class>/<file>``, as DomainBed and torchvision's ImageFolder keep them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tlbench.data.decode import decode
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.data.readers.rows import check_all_found
from tlbench.data.readers.scan import scanned
from tlbench.data.readers.spelling import canonical
from tlbench.data.readers.strays import holds_files
from tlbench.errors import DataError, UsageError
from tlbench.seeds import digest

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")


def read_folder(address: Address) -> Listing:
    """Return the listing of a domain that is a folder of class folders.

    Classes are the sorted folders; files are listed in the order of torchvision's ImageFolder, nested ones
    included. Hidden entries, what systems leave behind, and files beside the class folders are ignored. Where the
    suite names classes, other folders are left out. A blank and an underscore in the domain's folder are the same,
    and so are small and capital letters.

    Options: ``pattern``, a regular expression searched in ``<class>/<file>`` whose named groups become columns.

    Raises
    ------
    DataError
        If the folder is missing, has no class folders, a class folder has no image, or a file does not fit
        the pattern.
    """
    address.check_options("pattern")
    root = domain_folder(address)
    if root is None:
        raise address.missing(address.inside(address.place, address.entry), "a folder of class folders")
    files = files_of(address, root)
    found = class_folders(address, root, files)
    classes = address.classes or tuple(found)
    check_all_found(address, classes, found)
    names = images_by_class(address, root, files, {name: name for name in classes})
    return folder_listing(address, root, classes, names, columns=_strict_columns(address, list(names)))


def domain_folder(address: Address) -> Path | None:
    """Return the folder of the domain, its name spelled as in the suite or otherwise; None where there is none.

    Raises
    ------
    DataError
        If two folders with files are spellings of the name, and neither is the suite's.
    """
    place = address.place
    folder = address.inside(place, address.entry)
    exact = folder.is_dir()
    if exact and holds_files(folder):
        return folder
    # OfficeHome's "Real World" circulates with a blank and with an underscore.
    alike = [
        entry
        for entry in (sorted(place.iterdir()) if place.is_dir() else ())
        if canonical(entry.name) == canonical(address.entry) and entry.name != folder.name and entry.is_dir()
    ]
    full = [entry for entry in alike if holds_files(entry)]
    if len(full) > 1:
        raise DataError(
            f"{address.where}: expected one folder '{address.entry}' in {place}, found {full[0].name!r} and "
            f"{full[1].name!r}; remove one"
        )
    return next(iter([*full, *([folder] if exact else []), *alike]), None)


def files_of(address: Address, root: Path) -> Mapping[str, Sequence[str]]:
    """Return the files under a folder, by folder; see ``scan.scanned``."""
    try:
        return scanned(root, address.digests.folder)
    except OSError as error:
        raise DataError(f"{address.where}: {error.filename} cannot be read ({error.strerror})") from error


def class_folders(address: Address, root: Path, files: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the folders at the top of a domain, sorted.

    Raises
    ------
    DataError
        If there is none.
    """
    found = sorted({folder.split("/", 1)[0] for folder in files if folder})
    if not found:
        held = f"{len(files.get('', ()))} files" if files.get("") else "nothing"
        raise DataError(
            f"{address.where}: expected one folder for every class in {root}, found {held}; get the whole data set"
        )
    return found


def images_by_class(
    address: Address, root: Path, files: Mapping[str, Sequence[str]], folders: Mapping[str, str]
) -> dict[str, str]:
    """Return the image files of some class folders: name in the listing to path below ``root``.

    Parameters
    ----------
    address : Address
    root : Path
    files : mapping
        As of ``scan.scanned``.
    folders : mapping of str to str
        The folder of every class. Classes come sorted by name, files in the order in which torchvision's
        ImageFolder walks them, and a name says the class, not its folder.

    Raises
    ------
    DataError
        If a class has no image.
    """
    below: dict[str, list[str]] = {}
    for folder in sorted(files):
        below.setdefault(folder.split("/", 1)[0], []).append(folder)
    names: dict[str, str] = {}
    for name, top in sorted(folders.items()):
        own = {f"{name}{path.removeprefix(top)}": path for path in _images(files, below.get(top, ()))}
        if not own:
            raise DataError(
                f"{address.where}: class folder {root / top} has no image ({', '.join(SUFFIXES)}); get the whole data "
                f"set, or remove the folder if it is no class"
            )
        names |= own
    return names


def folder_listing(
    address: Address,
    root: Path,
    classes: tuple[str, ...],
    paths: Mapping[str, str],
    *,
    columns: Mapping[str, tuple[str, ...]],
) -> Listing:
    """Return the listing of image files called ``<class>/<file>``.

    Parameters
    ----------
    address : Address
    root : Path
    classes : tuple of str
    paths : mapping of str to str
        Path below ``root`` of every image, by its name.
    columns : mapping of str to tuple of str
    """
    names, files = tuple(paths), [root / path for path in paths.values()]
    position = {name: place for place, name in enumerate(classes)}
    labels = [position[name.split("/", 1)[0]] for name in names]

    return Listing(
        names=names,
        labels=np.array(labels, dtype=np.int64),
        classes=classes,
        load=lambda place: decode(files[place], str(files[place])),
        fingerprint=lambda: digest(list(names), labels, list(classes), address.stored(root, files)),
        columns=columns,
        contents=lambda places: digest(address.stored(root, [files[i] for i in places])),
    )


def pattern_of(address: Address) -> re.Pattern[str] | None:
    """Return the option ``pattern``, None where it is not set.

    Raises
    ------
    UsageError
        If it is not a regular expression with a named group.
    """
    text = address.options.get("pattern")
    if text is None:
        return None
    try:
        pattern = re.compile(str(text))
    except re.error as error:
        raise UsageError(f"{address.where}: pattern '{text}' is not a regular expression ({error})") from error
    if not pattern.groupindex:
        raise UsageError(f"{address.where}: pattern '{text}' has no named group; write (?P<name>...)")
    return pattern


def _images(files: Mapping[str, Sequence[str]], folders: Sequence[str]) -> Iterator[str]:
    for folder in folders:
        for name in files[folder]:
            if name.lower().endswith(SUFFIXES):
                yield f"{folder}/{name}"


def _strict_columns(address: Address, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    pattern = pattern_of(address)
    if pattern is None:
        return {}
    matches = [pattern.search(name) for name in names]
    for name, match in zip(names, matches, strict=True):
        if match is None:
            raise DataError(f"{address.where}: file '{name}' does not fit the pattern '{pattern.pattern}'")
    return {group: tuple((m[group] or "") if m else "" for m in matches) for group in pattern.groupindex}
