"""DomainBed's folders, ``<task>/<domain>/<class>/<file>``, or a hub copy of the same task in their place."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from tlbench.data.digests import NotRememberedError, UndecidedError, only_remembered
from tlbench.data.domain import Listing
from tlbench.data.readers.address import Address
from tlbench.data.readers.folder import (
    class_folders,
    domain_folder,
    files_of,
    folder_listing,
    images_by_class,
    pattern_of,
)
from tlbench.data.readers.rows import BY_FILE_NAME, BY_ROW_NUMBER
from tlbench.data.readers.spelling import canonical, same_classes
from tlbench.data.readers.strays import holds_files, is_stray
from tlbench.data.remembered import recall, remember
from tlbench.errors import DataError, UsageError, listed
from tlbench.seeds import digest

_SHOWN = 5
_CONVERSION = "conversion.json"  # beside the domains that `tlbench data convert` wrote


def read_domainbed(address: Address) -> Listing:
    """Return the listing of a domain of a task in DomainBed's layout.

    Class folders must be those of the suite, none missing and none more; folders of classes and of the domain
    may be spelled otherwise (``Real_World``, ``alarm clock``), and those without a file are ignored. Images are
    called after the suite's classes, because copies differ in their spelling and all randomness follows names;
    the order of the classes is that of the suite's names sorted, which are the folder names of the archives that
    the 2022 study split. Files beside domains and classes are ignored.

    Where the task's folder holds a data set saved with ``save_to_disk``, or Parquet files, instead of domains,
    it is read as the hub copy of the suite, labels by the names of classes; never one domain from folders and
    another from the copy.

    Options: ``exclude``, a file in the task's folder with one ``<domain>/<class>/<file>`` a line: these are left
    out; without the file nothing is, and the listing's hint says so. ``pattern``, a regular expression searched
    in ``<class>/<file>`` whose named groups become columns; a name that does not fit stands for itself.
    ``unreadable``, how many images may be undecodable: they are listed, and marked.

    Raises
    ------
    DataError
        If the folder is missing, its classes are not the suite's, a class has no image, or more images than
        allowed cannot be decoded.
    UndecidedError
        If images would have to be decoded inside ``remembered_only``.
    """
    address.check_options("exclude", "pattern", "unreadable")
    root = domain_folder(address)
    if root is None or (not holds_files(root) and _copy_in(address.place) is not None):
        listing = _from_copy(address)
    else:
        listing = _from_folders(address, root)
    listing, idle = _without_excluded(listing, address)
    listing = replace(listing, columns={**listing.columns, **_columns(address, listing.names)})
    listing = _with_unreadable(listing, address)
    return replace(listing, hint=exclusion_hint(address) or idle)


def exclusion_hint(address: Address) -> str:
    """Return what to say where the list of images to leave out is not there, empty where it is, or none is named."""
    file = _exclusions(address)
    if file is None or file.exists():
        return ""
    return (
        f"{file} is not there, so the images that it names (DomainBed's misc/{file.name}) were not left out: "
        f"put it into {file.parent}"
    )


def _from_folders(address: Address, root: Path) -> Listing:
    files = files_of(address, root)
    found = class_folders(address, root, files)
    found = _without_empty(found, files, address.classes or found)
    classes = address.classes or tuple(found)
    folders = same_classes(address.where, root, classes, found)
    listing = folder_listing(address, root, classes, images_by_class(address, root, files, folders), columns={})
    return replace(listing, note=_note_of_conversion(address.place))


def _without_empty(found: Sequence[str], files: Mapping[str, Sequence[str]], classes: Sequence[str]) -> list[str]:
    """Return the class folders without those that hold no file: these are no class too many, or one spelled twice.

    The only folder of a class of the suite stays, to be told as empty.
    """
    full = {folder.split("/", 1)[0] for folder, own in files.items() if own}
    lacking = {canonical(name) for name in classes} - {canonical(name) for name in full}
    return [name for name in found if name in full or canonical(name) in lacking]


def _note_of_conversion(place: Path) -> str:
    """Return what file names of converted folders are worth, as `tlbench data convert` wrote it down beside them."""
    try:
        told = json.loads((place / _CONVERSION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # nobody converted these
    known = {"members": BY_FILE_NAME, "counts": BY_ROW_NUMBER}
    return known.get(str(told.get("reproduces")), "") if isinstance(told, dict) else ""


def _from_copy(address: Address) -> Listing:
    """Return the listing of a hub copy in the task's folder, its classes by name and named as the suite does."""
    place, hub = address.place, address.hub
    copy = _copy_in(place)
    if copy is None:
        raise address.missing(address.inside(place, address.entry), "a folder of class folders")
    _refuse_mixed(address, copy)
    saved = copy.suffix == ".json"
    names = (hub.image, hub.label, hub.domain_column) if hub else ("image", "label", "domain")
    keys = ("image", "label", "domain_column" if saved else "domain")
    inner = replace(address, classes=None, options=dict(zip(keys, names, strict=True)))
    if saved:
        from tlbench.data.readers.hub import read_hub

        listing = read_hub(inner)
    else:
        from tlbench.data.readers.parquet import read_parquet

        listing = read_parquet(inner)
    # Facts of the copy, such as its own split, are not the task's.
    listing = replace(listing, columns={})
    return listing if address.classes is None else _in_the_suites_words(listing, address, address.classes)


def _copy_in(place: Path) -> Path | None:
    """Return the file that shows a hub copy in a folder: of ``save_to_disk``, or the first Parquet file."""
    for name in ("dataset_dict.json", "state.json"):
        if (place / name).is_file():
            return place / name
    # Not deeper: below lie a million images, where these are folders.
    found = (file for depth in ("*.parquet", "*/*.parquet") for file in place.glob(depth))
    return next((file for file in found if not any(map(is_stray, file.relative_to(place).parts))), None)


def _refuse_mixed(address: Address, copy: Path) -> None:
    """Raise DataError where other domains of the task lie in folders: these would be of another source."""
    for other in address.others:
        folder = domain_folder(replace(address, domain=other, entry=other))
        if folder is not None and any(entry.is_dir() and not is_stray(entry.name) for entry in folder.iterdir()):
            raise DataError(
                f"{address.where}: there is no folder of this domain, but {folder} of another one, and {copy} of a hub "
                f"copy: one task is not read from two sources; get the missing folder (`tlbench data convert` "
                f"writes all of a copy's), or move the folders away"
            )


def _in_the_suites_words(listing: Listing, address: Address, classes: tuple[str, ...]) -> Listing:
    if _are_numbers(listing.classes) and not _are_numbers(classes):
        raise DataError(
            f"{address.where}: the labels in {address.place} are numbers ({', '.join(listing.classes[:_SHOWN])}, ...) "
            f"without the names of their classes, expected names such as '{classes[0]}': another order of labels "
            f"cannot be excluded; write folders of them with `tlbench data convert --task {address.task} --from "
            f"{address.place} --names FILE`, where FILE names them in the copy's order, one a line"
        )
    spelled = same_classes(address.where, address.place, classes, listing.classes)
    suites = {data: suite for suite, data in spelled.items()}
    position = {name: place for place, name in enumerate(classes)}
    own = [listing.classes[label] for label in listing.labels]
    names = tuple(f"{suites[kind]}{name.removeprefix(kind)}" for kind, name in zip(own, listing.names, strict=True))
    labels = np.array([position[suites[kind]] for kind in own], dtype=np.int64)
    return replace(
        listing,
        names=names,
        labels=labels,
        classes=classes,
        fingerprint=lambda: digest(list(names), labels.tolist(), list(classes), listing.fingerprint()),
    )


def _are_numbers(names: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?\d+", name) for name in names)


def _exclusions(address: Address) -> Path | None:
    named = address.options.get("exclude")
    return None if named is None else address.inside(address.place, str(named))


def _without_excluded(listing: Listing, address: Address) -> tuple[Listing, str]:
    """Return the listing without the images that a file names, and what to say should that be of no effect."""
    file = _exclusions(address)
    if file is None or not file.exists():
        return listing, ""
    domain = canonical(address.entry)
    out = {image for of, image in _read_exclusions(address, file) if of == domain}
    kept = np.array([i for i, name in enumerate(listing.names) if _spelled(name) not in out], dtype=np.int64)
    if len(kept) == len(listing):
        return listing, f"no line of {file} names an image of this domain"
    contents = listing.contents
    rest = listing.some(kept)
    return rest if contents is None else replace(rest, contents=lambda places: contents(kept[places])), ""


def _read_exclusions(address: Address, file: Path) -> set[tuple[str, tuple[str, str]]]:
    """Return what the file names: domain, and class and file in it.

    Its mistakes are told of the task, for every domain reads it.
    """
    again = f"get DomainBed's misc/{file.name} again, as text"
    if file.is_dir():
        raise DataError(f"{address.task}: expected a list of images at {file}, found a folder; {again}")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{address.task}: {file} cannot be read ({error}); {again}") from error
    named = set()
    for number, line in enumerate(lines, 1):
        path = line.strip().replace("\\", "/").removeprefix("./").removeprefix(f"{address.place.name}/")
        if not path:
            continue
        parts = path.split("/", 2)
        if len(parts) < 3:
            raise DataError(
                f"{address.task}: {file}, line {number}: expected <domain>/<class>/<file>, got '{path[:60]}'; {again}"
            )
        named.add((canonical(parts[0]), (canonical(parts[1]), parts[2])))
    if not {of for of, _ in named} & {canonical(domain) for domain in (address.entry, *address.others)}:
        raise DataError(f"{address.task}: no line of {file} names an image of this task; {again}, or remove it")
    return named


def _spelled(name: str) -> tuple[str, str]:
    kind, _, file = name.partition("/")
    return canonical(kind), file


def _columns(address: Address, names: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the groups of the pattern; an image whose name does not fit is a unit of its own."""
    pattern = pattern_of(address)
    if pattern is None:
        return {}
    matches = [pattern.search(name) for name in names]
    return {
        group: tuple((m[group] if m else None) or name for m, name in zip(matches, names, strict=True))
        for group in pattern.groupindex
    }


def _with_unreadable(listing: Listing, address: Address) -> Listing:
    """Mark the images that cannot be decoded, where the suite allows for some."""
    most = address.options.get("unreadable", 0)
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise UsageError(f"{address.where}: unreadable is a number of images, got '{most}'")
    if not most:
        return listing
    places = _undecodable(listing, address, most)
    if len(places) > most:
        shown = listed([listing.names[place] for place in places[:_SHOWN]])
        raise DataError(
            f"{address.where}: expected at most {most} unreadable images in {address.place}, found {len(places)}, "
            f"such as {shown}; get these files again"
        )
    if not places:
        return listing
    return replace(
        listing, unreadable=frozenset(places), fingerprint=lambda: digest(listing.fingerprint(), "without", places)
    )


def _undecodable(listing: Listing, address: Address, most: int) -> list[int]:
    """Return the places of images that cannot be decoded; every image is tried once, for as long as none changes."""
    undecided = UndecidedError(address.where, len(listing), most)
    try:
        # The fingerprint is itself remembered by the files' sizes and times of change.
        key = listing.fingerprint()
    except NotRememberedError:
        raise undecided from None
    held = recall(address.digests.folder, "unreadable-1", key)
    if isinstance(held, list) and all(isinstance(place, int) and 0 <= place < len(listing) for place in held):
        return held
    if only_remembered():
        raise undecided
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        decodes = list(pool.map(lambda place: _decodes(listing, place), range(len(listing))))
    places = [place for place, whole in enumerate(decodes) if not whole]
    remember(address.digests.folder, places, "unreadable-1", key)
    return places


def _decodes(listing: Listing, place: int) -> bool:
    try:
        listing.load(place)
    except DataError:
        return False
    return True
