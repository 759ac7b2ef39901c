"""Which files a small copy of a suite's data holds: DomainBed's folders and the WILDS archives, as they lie on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import PurePosixPath
from types import MappingProxyType

from tlbench.data.readers.address import Option
from tlbench.data.rehearsal.synthetic import Format, Motif
from tlbench.data.rehearsal.wilds_tables import WILDS_TABLES, Amounts
from tlbench.errors import SuiteError, UsageError, listed, nearest
from tlbench.suites.spec import Suite, TaskSpec

FOLDER_READERS = ("folder", "domainbed")
COPIED_READERS = (*FOLDER_READERS, "wilds")
NO_COPY_READERS = ("embedded",)

_SIDE = 64
_MADE_UP_CLASSES = ("first", "second", "third", "fourth")
_TESTED = 16
"""Images that a measured part should hold where there are few classes."""


@dataclass(frozen=True)
class MadeUpImage:
    """An image file of a copy.

    Attributes
    ----------
    path : str
        Below the piece's folder.
    motif : Motif or None
        None for a file that no reader can open.
    """

    path: str
    motif: Motif | None
    side: int = _SIDE
    grey: bool = False

    @property
    def form(self) -> Format:
        """Format of the file, by its suffix."""
        return "PNG" if self.path.endswith(".png") else "JPEG"


@dataclass(frozen=True)
class Piece:
    """A folder that appears whole: a domain of a DomainBed task, or a WILDS archive.

    Attributes
    ----------
    task : str
    folder : str
        Below the data root.
    images : tuple of MadeUpImage
    texts : mapping of path to text
        Tables and other files below the folder.
    beside : mapping of path to text
        Plain files beside the folder, as some archives have them.
    """

    task: str
    folder: str
    images: tuple[MadeUpImage, ...]
    texts: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> int:
        """Files in the folder and beside it."""
        return len(self.images) + len(self.texts) + len(self.beside)

    @property
    def folders(self) -> set[str]:
        """Folders that the images need, below the piece's folder."""
        return {str(PurePosixPath(image.path).parent) for image in self.images}


def pieces_of(suite: Suite, per_class: int) -> tuple[Piece, ...]:
    """Return what a small copy of a suite's data consists of.

    Parameters
    ----------
    suite : Suite
    per_class : int
        Images a class of a DomainBed domain, and training images a class of a WILDS task.

    Raises
    ------
    UsageError
        If a task's reader has no folders to be written, or its files' names must fit a pattern that is not known.
    SuiteError
        If a path or a class name leads out of the data root.
    """
    pieces: list[Piece] = []
    for task, spec in suite.tasks.items():
        if spec.reader in NO_COPY_READERS:
            continue
        if spec.reader not in COPIED_READERS:
            raise UsageError(
                f"task '{task}' is read by '{spec.reader}', which a rehearsal does not write; expected "
                f"{listed(COPIED_READERS)} (data of {listed(NO_COPY_READERS)} need no copy)"
            )
        pieces += [_wilds_piece(task, spec, per_class)] if spec.reader == "wilds" else _folders(task, spec, per_class)
    seen: dict[str, str] = {}
    for piece in pieces:
        if piece.folder in seen:
            raise SuiteError(f"tasks '{seen[piece.folder]}' and '{piece.task}' share the folder '{piece.folder}'")
        seen[piece.folder] = piece.task
    return tuple(pieces)


def classes_of(spec: TaskSpec) -> tuple[str, ...]:
    """Return a task's classes: the suite's, or where it finds them in the data, those that it names, or made-up ones.

    >>> classes_of(TaskSpec(reader="folder", domains=["a", "b"]))
    ('first', 'second', 'third', 'fourth')
    """
    if spec.classes is not None:
        return spec.classes
    named = {name for domain in spec.domains.values() for name in domain.classes or ()}
    named |= {name for pair in (() if spec.pairs == "all" else spec.pairs) for name in pair.classes or ()}
    return tuple(sorted(named)) or _MADE_UP_CLASSES


@dataclass(frozen=True)
class _Numbered:
    """An image of a folder: its class, and its number within the class and within the domain."""

    domain: str
    kind: str
    label: int
    of_class: int
    of_domain: int


def _sviro(one: _Numbered) -> str:
    # One photograph of the rear seat is cut into three, which land in the folders of what sits there.
    scene, seat = divmod(one.of_domain, 3)
    return f"{one.domain}_train_imageID_{scene}_seatPosition_{seat}_GT_{one.kind}.png"


def _pacs(one: _Numbered) -> str:
    return f"{one.of_domain + 1}.png" if one.domain == "sketch" else f"pic_{one.of_class + 1:03d}.jpg"


def _domain_net(one: _Numbered) -> str:
    if one.domain == "quickdraw":
        return f"{4503626191994880 + one.of_domain}.png"
    return f"{one.domain}_{one.label + 1:03d}_{one.of_class + 1:06d}.jpg"


def _office_home(one: _Numbered) -> str:
    return f"{one.of_class + 1:05d}.jpg"


def _terra_incognita(one: _Numbered) -> str:
    return f"{0x586EA000 + one.of_domain:08x}-23d2-11e8-a6a3-ec086b02610b.jpg"


def _plain(one: _Numbered) -> str:
    return f"img_{one.of_class + 1:05d}.jpg"


@dataclass(frozen=True)
class _Folders:
    """How one of DomainBed's tasks is kept: names of files, their mode, plain files beside the domains."""

    names: Callable[[_Numbered], str] = _plain
    grey: bool = False
    beside: Mapping[str, str] = field(default_factory=dict)


_KNOWN: Mapping[str, _Folders] = MappingProxyType(
    {
        "domain_net": _Folders(_domain_net),
        "office_home": _Folders(_office_home, beside={"imagelist.txt": "made up by tlbench\n"}),
        "PACS": _Folders(_pacs),
        "sviro": _Folders(_sviro, grey=True),
        "terra_incognita": _Folders(_terra_incognita),
    }
)


def _folders(task: str, spec: TaskSpec, per_class: int) -> Iterator[Piece]:
    """Yield a task's domains, each a folder of class folders."""
    root = _below(task, "path", spec.path or "")
    kept = _KNOWN.get(PurePosixPath(root).name, _Folders())
    classes = classes_of(spec)
    doubles: list[str] = []
    for number, (domain, own) in enumerate(spec.domains.items()):
        options = {**spec.options, **own.options}
        entry = _below(task, f"domain '{domain}': path", own.path or domain)
        images: list[MadeUpImage] = []
        for kind in own.classes or classes:
            label = classes.index(kind)
            folder = _class_folder(task, kind)
            for of_class in range(per_class):
                path = f"{folder}/{kept.names(_Numbered(domain, kind, label, of_class, len(images)))}"
                images.append(MadeUpImage(path, Motif(label, domain, path), grey=kept.grey))
        _check_pattern(task, spec, options, images[0].path)
        images += _unreadable(images, int(options.get("unreadable", 0)))
        if "exclude" in spec.options:
            double = MadeUpImage(_beside_it(images[0].path, "double"), images[0].motif, grey=kept.grey)
            images.append(double)
            doubles.append(f"{entry}/{double.path}")
        beside = {}
        if number == len(spec.domains) - 1:
            # With the last domain, when all that the lists name is there.
            beside = {f"{root}/{name}" if root else name: text for name, text in kept.beside.items()}
            if doubles:
                name = _below(task, "option 'exclude'", str(spec.options["exclude"]))
                beside[f"{root}/{name}" if root else name] = "".join(f"{path}\n" for path in doubles)
        yield Piece(task, f"{root}/{entry}" if root else entry, tuple(images), beside=beside)


def _check_pattern(task: str, spec: TaskSpec, options: Mapping[str, Option], path: str) -> None:
    """Refuse a pattern that the made-up names do not fit, where the reader needs a fit."""
    pattern = str(options.get("pattern", ""))
    try:
        fits = spec.reader != "folder" or re.search(pattern, path) is not None
    except re.error as error:
        raise UsageError(f"task '{task}': pattern '{pattern}' is not a regular expression ({error})") from None
    if not fits:
        raise UsageError(
            f"task '{task}': made-up files are called '{path}', which does not fit the pattern '{pattern}'; "
            "rehearse a copy of the suite without the pattern"
        )


def _unreadable(images: list[MadeUpImage], most: int) -> list[MadeUpImage]:
    """Return a file that cannot be opened, where the suite says that the originals have some."""
    # One shows it; the published rule takes them all from validation, which is small.
    return [MadeUpImage(_beside_it(images[0].path, "broken"), None)] if most else []


def _beside_it(path: str, mark: str) -> str:
    place = PurePosixPath(path)
    return str(place.with_name(f"{place.stem}_{mark}{place.suffix}"))


def _wilds_piece(task: str, spec: TaskSpec, per_class: int) -> Piece:
    """Return a WILDS archive: one folder for the training part and the shifted one."""
    dataset = str(spec.options.get("dataset", ""))
    if dataset not in WILDS_TABLES:
        raise UsageError(
            f"task '{task}': option 'dataset': expected {listed(WILDS_TABLES)}, got '{dataset}'"
            f"{nearest(dataset, WILDS_TABLES)}"
        )
    folder = _below(task, "path", spec.path or "")
    if not folder:
        raise UsageError(f"task '{task}': a rehearsal needs its 'path', such as {dataset}_v1.0")
    classes = classes_of(spec)
    made = WILDS_TABLES[dataset](classes, _amounts(len(classes), per_class))
    release = f"RELEASE_v{PurePosixPath(folder).name.rpartition('_v')[2] or made.version}.txt"
    images = tuple(
        MadeUpImage(row.path, Motif(row.label, row.style, row.path), side=96 if dataset == "camelyon17" else _SIDE)
        for row in made.images
    )
    return Piece(task, folder, images, {**made.tables, release: "made up by tlbench\n"})


def _amounts(classes: int, per_class: int) -> Amounts:
    return Amounts(
        train=per_class,
        # Enough that, in halves, both parts have an image of every class.
        halved=max(2, ceil(2 * _TESTED / classes)),
        measured=max(1, ceil(_TESTED / classes)),
        unused=_TESTED // 2,
    )


def _below(task: str, what: str, path: str) -> str:
    """Return a path of the suite, which must stay below the data root: it is written to."""
    parts = PurePosixPath(path).parts
    if PurePosixPath(path).is_absolute() or ".." in parts or (parts and parts[0].startswith(".")):
        raise SuiteError(f"task '{task}': {what} '{path}' leads out of the data root; name a path below it")
    return str(PurePosixPath(path)) if parts else ""


def _class_folder(task: str, kind: str) -> str:
    if not kind or "/" in kind or kind.startswith(".") or "\0" in kind:
        raise SuiteError(f"task '{task}': class '{kind}' cannot be a folder's name")
    return kind
