"""A hub copy of a task to the folders that its reader expects, every stored byte as it was.

::

    <out>/<task>/conversion.json                      what was converted, and from what
    <out>/<task>/<domain>/<class>/<file>              the stored bytes, under their stored name or their row's number
    <out>/<task>/.<domain>.converting-<identity>/     a domain that is not finished

Whatever stops a conversion, the same one goes on where it was: finished domains stay, unfinished ones are checked.
Encoding a JPEG again would be a distribution shift of its own, so nothing is decoded.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from tlbench.data.conversion.copies import Copy, open_copy
from tlbench.data.conversion.facts import Facts, read_facts, read_label_names
from tlbench.data.conversion.report import REPORT, Origin, check_unreported, finished, read_report, write_report
from tlbench.data.conversion.result import CONVERSION_VERSION, Columns, Conversion, ConvertedDomain
from tlbench.data.conversion.stored_format import file_name, format_of
from tlbench.data.conversion.stored_image import IMAGES_A_BATCH, StoredImage, stored_images
from tlbench.data.conversion.writing import writing
from tlbench.data.counts import variant_of
from tlbench.errors import DataError, UnknownNameError, UsageError, listed, nearest
from tlbench.seeds import digest
from tlbench.suites.spec import DomainSpec, HubCopy, Suite, TaskSpec

_READERS = ("domainbed", "folder")

Progress = Callable[[str, int, int], None]


def convert(
    suite: Suite,
    task: str,
    out: Path,
    *,
    source: str | Path | None = None,
    columns: Columns | None = None,
    label_names: Path | None = None,
    revision: str | None = None,
    download: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write a copy with columns of images, domains and labels as ``<task>/<domain>/<class>/<file>``.

    All splits of the copy are joined. Domains appear one by one, each by a rename once it is whole. Where the same
    conversion was stopped before, its finished domains are skipped, and what it had written of the others is
    checked byte by byte and used.

    Parameters
    ----------
    suite : Suite
    task : str
    out : Path
        The data root to be: the task's folder is made below it.
    source : str or Path, optional
        As ``open_copy`` takes it; by default the suite's hub copy, if that is on this machine.
    columns : Columns, optional
        Over the suite's.
    label_names : Path, optional
        A file with the names of the label numbers, one a line, of a copy that does not name them.
    revision : str, optional
    download : bool
        Fetch a hub data set; without it the network is not touched.
    progress : callable, optional
        Given the task, how many rows are done, and how many there are.

    Raises
    ------
    UnknownNameError
        If the suite has no such task.
    UsageError
        If the task does not lie in class folders, has no hub copy and no source is given, or another process
        is converting it.
    DataError
        If the copy cannot be read, a row has no image, domain or class, or a domain's folder holds something that
        this very conversion did not make.
    StoreError
        If the disk is full, or the folder cannot be written.
    """
    spec = convertible(suite, task, from_hub=source is None)
    place = _below(out, spec.path or "", task)
    targets = {name: _below(place, own.path or name, f"{task}/{name}") for name, own in spec.domains.items()}
    with writing(place):
        # Before anything is downloaded or read; who made what is there is known only after.
        check_unreported(targets.values(), read_report(place))
    hub = spec.hub or HubCopy(name="")
    given = columns or Columns()
    hub = hub.model_copy(
        update={
            "image": given.image or hub.image,
            "label": given.label or hub.label,
            "domain_column": given.domain or hub.domain_column,
        }
    )
    names = read_label_names(label_names, spec.classes or ()) if label_names else None
    copy = open_copy(source if source is not None else hub.name, revision=revision, download=download)
    facts = read_facts(copy, task, spec, hub, names)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    with _alone(place):
        return _Writer(task, spec, place, targets, copy, facts, hub).write(progress)


def convertible(suite: Suite, task: str, *, from_hub: bool) -> TaskSpec:
    """Return a task whose data can lie in class folders and, where asked for, are on the hub.

    Raises
    ------
    UnknownNameError
        If the suite has no such task.
    UsageError
        If its reader takes no class folders, or it names no classes or no hub copy.
    DataError
        If a class cannot be the name of a folder.
    """
    if task not in suite.tasks:
        raise UnknownNameError(
            f"suite '{suite.name}' has no task '{task}', only {listed(suite.tasks)}{nearest(task, suite.tasks)}"
        )
    spec = suite.tasks[task]
    if spec.reader not in _READERS:
        way_out = f"; it is to be had as {' '.join(spec.obtain.split())}" if spec.obtain else ""
        raise UsageError(f"task '{task}' is read by '{spec.reader}', which does not take class folders{way_out}")
    if not spec.classes:
        raise UsageError(f"task '{task}' of suite '{suite.name}' names no classes: folders could be called anything")
    for kind in spec.classes:
        if not kind or kind.startswith(".") or "/" in kind or not kind.isprintable():
            raise DataError(f"task '{task}': class {kind!r} cannot be the name of a folder")
    if from_hub and not (spec.hub and spec.hub.name):
        raise UsageError(f"task '{task}' of suite '{suite.name}' names no hub copy: give one with --from")
    return spec


class _Writer:
    """One conversion under way."""

    def __init__(
        self,
        task: str,
        spec: TaskSpec,
        place: Path,
        targets: Mapping[str, Path],
        copy: Copy,
        facts: Facts,
        columns: HubCopy,
    ) -> None:
        self._task, self._spec, self._place, self._copy, self._facts = task, spec, place, copy, facts
        self._targets, self._image = targets, columns.image
        self._names, self._classes = tuple(spec.domains), spec.classes or ()
        self._rows = {name: int((facts.domains == i).sum()) for i, name in enumerate(spec.domains)}
        # Equal identities write equal files, so that the work of one can be used by another.
        identity = digest(
            CONVERSION_VERSION,
            copy.fingerprint,
            columns.image,
            list(self._classes),
            [[name, rows] for name, rows in self._rows.items()],
            digest(facts.domains.tolist(), facts.labels.tolist()),
            facts.names is not None,
            *copy.places_of(columns.image),
        )
        at = f" at {copy.revision}" if copy.revision else ""
        named = Columns(columns.image, columns.label, columns.domain_column)
        self._origin = Origin(f"{copy.name}{at}", copy.fingerprint, named, identity)
        self._done: dict[str, ConvertedDomain] = {}
        self._formats: dict[str, Counter[str]] = {name: Counter() for name in spec.domains}

    def write(self, progress: Progress | None) -> Conversion:
        files = {name: self._files(name) for name in self._names}
        with writing(self._place):
            report = read_report(self._place)
            self._done.update(finished(self._targets, files, self._origin, report))
        pending = [name for name in self._names if name not in self._done and self._rows[name]]
        for name in pending:
            self._prepare(name)
        for name in self._names:
            if not self._rows[name]:
                self._done[name] = self._converted(name)
        left = {name: self._rows[name] for name in pending}
        row, tell = 0, progress or _silent
        for part in self._copy.parts:
            wanted = np.isin(self._facts.domains[row : row + part.rows], [self._names.index(name) for name in pending])
            for stored in stored_images(part, self._image, row) if wanted.any() else ():
                name = self._names[self._facts.domains[stored.row]]
                if name in left:
                    self._formats[name][self._store(name, stored)] += 1
                    left[name] -= 1
                    if not left[name]:
                        self._publish(name)
                if stored.row % IMAGES_A_BATCH == 0:
                    tell(self._task, stored.row, self._copy.rows)
            row += part.rows
        tell(self._task, self._copy.rows, self._copy.rows)
        conversion = self._conversion()
        # Where nothing was left to do, nothing is written: the folder may be read-only by now.
        if pending or report is None or report.origin.identity != self._origin.identity:
            self._write_report(conversion)
        return conversion

    def _files(self, name: str) -> dict[str, int]:
        """Return how many files every class of a domain gets."""
        labels = self._facts.labels[self._facts.domains == self._names.index(name)]
        return {self._classes[label]: int(n) for label, n in zip(*np.unique(labels, return_counts=True), strict=True)}

    def _store(self, name: str, stored: StoredImage) -> str:
        """Write one image into its domain's unfinished folder and return its format."""
        where = self._copy.where(stored.row)
        data = stored.content(where)
        kind = format_of(data)
        stem = self._facts.names[stored.row] if self._facts.names is not None else f"{stored.row:08d}"
        leaf = file_name(stem, kind, stored.path)
        if leaf is None:
            raise DataError(
                f"{where}: expected an image in column '{self._image}', found {len(data)} bytes of no known kind and "
                f"no file name; get the copy again, or leave this row out of it (--image names another column)"
            )
        file = self._unfinished(name) / self._classes[self._facts.labels[stored.row]] / leaf
        with writing(file):
            # After an interruption most files are there: whole, or cut short where it happened.
            if not (file.is_file() and file.stat().st_size == len(data) and file.read_bytes() == data):
                file.write_bytes(data)
        return kind

    def _unfinished(self, name: str) -> Path:
        target = self._targets[name]
        return target.with_name(f".{target.name}.converting-{self._origin.identity[:16]}")

    def _prepare(self, name: str) -> None:
        """Make a domain's unfinished folder; those of other copies are of no use any more."""
        own, target = self._unfinished(name), self._targets[name]
        with writing(own):
            for other in list(target.parent.iterdir()) if target.parent.is_dir() else ():
                if other.name.startswith(f".{target.name}.converting-") and other != own:
                    shutil.rmtree(other)
            for kind in self._files(name):
                (own / kind).mkdir(parents=True, exist_ok=True)

    def _publish(self, name: str) -> None:
        unfinished, target = self._unfinished(name), self._targets[name]
        held = sum(len(files) for _, _, files in os.walk(unfinished))
        if held != self._rows[name]:
            raise DataError(
                f"{unfinished}: expected {self._rows[name]} files, one a row of {self._task}/{name}, found {held}; "
                f"remove that folder and give the same command again"
            )
        # First the report, then the rename: a folder that is there is in the report.
        self._done[name] = self._converted(name)
        self._write_report(self._conversion())
        with writing(target):
            unfinished.rename(target)

    def _write_report(self, conversion: Conversion) -> None:
        with writing(self._place / REPORT):
            write_report(conversion, self._origin)

    def _converted(self, name: str) -> ConvertedDomain:
        own, rows = self._spec.domains[name], self._rows[name]
        formats = dict(sorted(self._formats[name].items()))
        expected = _expected(own, self._spec)
        variant = None if rows == expected else variant_of(own, rows)
        return ConvertedDomain(name, own.path or name, rows, expected, variant, formats)

    def _conversion(self) -> Conversion:
        return Conversion(
            task=self._task,
            folder=self._place,
            kind=self._copy.kind,
            source=self._copy.name,
            revision=self._copy.revision,
            fingerprint=self._copy.fingerprint,
            stored_names=self._facts.names is not None,
            reason=self._facts.reason,
            domains=tuple(self._done[name] for name in self._names if name in self._done),
        )


def _below(folder: Path, path: str, where: str) -> Path:
    """Return a path of the suite below a folder; a suite is somebody's file and writes nowhere else."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise DataError(f"{where}: path '{path}' of the suite leads out of {folder}; name a path below it there")
    return folder / path


def _expected(own: DomainSpec, spec: TaskSpec) -> int | None:
    """Return how many files a domain should have: images that nobody can decode are files too."""
    if own.counts is None:
        return None
    return own.counts.all + int(own.options.get("unreadable", spec.options.get("unreadable", 0)))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself, so that no file of ours stays behind."""
    with writing(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"{folder}: another process is converting into this folder; wait for it, or name another --out"
            ) from error
        yield
    finally:
        os.close(handle)


def _silent(label: str, done: int, total: int) -> None:
    """Show nothing."""
