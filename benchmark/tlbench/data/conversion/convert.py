"""A hub copy of a task to the folders that its reader expects, every stored byte as it was.

::

    <out>/<task>/conversion.json                      what was converted, and from what
    <out>/<task>/<domain>/<class>/<file>              the stored bytes, under their stored name or their row's number
    <out>/<task>/.<domain>.converting-<identity>/     a domain that is not finished

Encoding a JPEG again would be a distribution shift of its own, so nothing is decoded.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from tlbench.data.conversion.copies import IMAGES_A_BATCH, Copy, StoredImage, open_copy, stored_images
from tlbench.data.conversion.facts import Facts, read_facts, read_label_names
from tlbench.data.conversion.result import CONVERSION_VERSION, Columns, Conversion, ConvertedDomain
from tlbench.data.conversion.stored_format import file_name, format_of
from tlbench.data.counts import variant_of
from tlbench.errors import DataError, StoreError, UnknownNameError, UsageError, listed, nearest
from tlbench.seeds import digest
from tlbench.suites.spec import DomainSpec, HubCopy, Suite, TaskSpec

REPORT = "conversion.json"
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
    resume: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write a copy with columns of images, domains and labels as ``<task>/<domain>/<class>/<file>``.

    All splits of the copy are joined. Domains appear one by one, each by a rename once it is whole; what an
    interrupted conversion had written of the others is checked byte by byte and used.

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
        A file with the names of the copy's label numbers, one a line.
    revision : str, optional
    download : bool
        Fetch a hub data set; without it the network is not touched.
    resume : bool
        Skip domains that a conversion of the same copy has finished.
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
        If the copy cannot be read, a row has no image, domain or class, or a domain's folder is already there.
    """
    spec = _task(suite, task)
    place = _below(out, spec.path or "", task)
    targets = {name: _below(place, own.path or name, f"{task}/{name}") for name, own in spec.domains.items()}
    if not resume:
        _check_free(targets.values())
    hub = spec.hub or HubCopy(name="")
    given = columns or Columns()
    hub = hub.model_copy(
        update={
            "image": given.image or hub.image,
            "label": given.label or hub.label,
            "domain_column": given.domain or hub.domain_column,
        }
    )
    if source is None and not hub.name:
        raise UsageError(f"task '{task}' of suite '{suite.name}' names no hub copy: give one with --from")
    names = read_label_names(label_names, spec.classes or ()) if label_names else None
    copy = open_copy(source if source is not None else hub.name, revision=revision, download=download)
    facts = read_facts(copy, spec, hub, names)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(f"{place}: expected a folder to write into, found a file in its way") from error
    with _alone(place):
        return _Writer(task, spec, place, targets, copy, facts, hub.image).write(resume=resume, progress=progress)


class _Writer:
    """One conversion under way."""

    def __init__(
        self, task: str, spec: TaskSpec, place: Path, targets: Mapping[str, Path], copy: Copy, facts: Facts, image: str
    ) -> None:
        self._task, self._spec, self._place, self._copy, self._facts = task, spec, place, copy, facts
        self._targets, self._image = targets, image
        self._names, self._classes = tuple(spec.domains), spec.classes or ()
        self._rows = {name: int((facts.domains == i).sum()) for i, name in enumerate(spec.domains)}
        # Equal identities write equal files, so that unfinished work of one can be used by another.
        self._identity = digest(
            CONVERSION_VERSION,
            copy.fingerprint,
            image,
            list(self._classes),
            [[name, rows] for name, rows in self._rows.items()],
            digest(facts.domains.tolist(), facts.labels.tolist()),
            facts.names is not None,
        )
        self._done: dict[str, ConvertedDomain] = {}
        self._formats: dict[str, Counter[str]] = {name: Counter() for name in spec.domains}

    def write(self, *, resume: bool, progress: Progress | None) -> Conversion:
        finished = self._finished() if resume else {}
        _check_free(target for name, target in self._targets.items() if name not in finished)
        self._done.update(finished)
        pending = [name for name in self._names if name not in finished and self._rows[name]]
        for name in pending:
            self._prepare(name)
        for name in self._names:
            if not self._rows[name]:
                self._done[name] = self._converted(name)
        left = {name: self._rows[name] for name in pending}
        row, report = 0, progress or _silent
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
                    report(self._task, stored.row, self._copy.rows)
            row += part.rows
        report(self._task, self._copy.rows, self._copy.rows)
        conversion = self._conversion()
        self._write_report()
        return conversion

    def _store(self, name: str, stored: StoredImage) -> str:
        """Write one image into its domain's unfinished folder and return its format."""
        where = self._copy.where(stored.row)
        data = stored.content(where)
        kind = format_of(data)
        stem = self._facts.names[stored.row] if self._facts.names is not None else f"{stored.row:08d}"
        leaf = file_name(stem, kind, stored.path)
        if leaf is None:
            raise DataError(f"{where}: the {len(data)} bytes in column '{self._image}' are no known kind of image")
        file = self._unfinished(name) / self._classes[self._facts.labels[stored.row]] / leaf
        # After an interruption most files are there: whole, or cut short where it happened.
        if not (file.is_file() and file.stat().st_size == len(data) and file.read_bytes() == data):
            file.write_bytes(data)
        return kind

    def _unfinished(self, name: str) -> Path:
        target = self._targets[name]
        return target.with_name(f".{target.name}.converting-{self._identity[:16]}")

    def _prepare(self, name: str) -> None:
        """Make a domain's unfinished folder; those of other copies are of no use any more."""
        own, target = self._unfinished(name), self._targets[name]
        for other in list(target.parent.iterdir()) if target.parent.is_dir() else ():
            if other.name.startswith(f".{target.name}.converting-") and other != own:
                shutil.rmtree(other)
        present = np.unique(self._facts.labels[self._facts.domains == self._names.index(name)])
        for label in present:
            (own / self._classes[label]).mkdir(parents=True, exist_ok=True)

    def _publish(self, name: str) -> None:
        unfinished, target = self._unfinished(name), self._targets[name]
        held = _files_in(unfinished)
        if held != self._rows[name]:
            raise DataError(
                f"{self._task}/{name}: {self._rows[name]} rows gave {held} files in {unfinished}; remove that folder "
                f"and convert again"
            )
        # First the report, then the rename: a folder that is there is in the report.
        self._done[name] = self._converted(name)
        self._write_report()
        unfinished.rename(target)

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

    def _write_report(self) -> None:
        text = json.dumps({**self._conversion().document(), "identity": self._identity}, indent=2, ensure_ascii=False)
        fresh = self._place / f".{REPORT}.new"
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.rename(self._place / REPORT)

    def _finished(self) -> dict[str, ConvertedDomain]:
        """Return the domains that an earlier conversion of the same copy has finished."""
        path = self._place / REPORT
        if not path.is_file():
            return {}
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            domains = {one["domain"]: ConvertedDomain(**one) for one in told["domains"]}
            identity, source = told["identity"], told["source"]["name"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{path}: not the report of a conversion ({error}); remove it") from error
        if identity != self._identity:
            raise DataError(
                f"{path}: the folders here are from {source}, converted in another way or from another version; "
                f"--resume needs the same copy, columns and classes. Remove the folders, or convert to another --out"
            )
        return {
            name: one
            for name, one in domains.items()
            if name in self._targets and one.files and _files_in(self._targets[name]) == self._rows[name]
        }


def _task(suite: Suite, name: str) -> TaskSpec:
    if name not in suite.tasks:
        raise UnknownNameError(
            f"suite '{suite.name}' has no task '{name}', only {listed(suite.tasks)}{nearest(name, suite.tasks)}"
        )
    spec = suite.tasks[name]
    if spec.reader not in _READERS:
        way_out = f"; it is to be had as {' '.join(spec.obtain.split())}" if spec.obtain else ""
        raise UsageError(f"task '{name}' is read by '{spec.reader}', which does not take class folders{way_out}")
    if not spec.classes:
        raise UsageError(f"task '{name}' of suite '{suite.name}' names no classes: folders could be called anything")
    for kind in spec.classes:
        if not kind or kind.startswith(".") or "/" in kind or not kind.isprintable():
            raise DataError(f"task '{name}': class {kind!r} cannot be the name of a folder")
    return spec


def _below(folder: Path, path: str, where: str) -> Path:
    """Return a path of the suite below a folder; a suite is somebody's file and writes nowhere else."""
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise DataError(f"{where}: path '{path}' leads out of {folder}; name a path below it")
    return folder / path


def _check_free(targets: Iterable[Path]) -> None:
    """Raise DataError for a folder that holds something already."""
    for target in targets:
        if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
            raise DataError(
                f"{target}: already there and not empty; --resume goes on with a conversion of the same copy, "
                f"else remove it or name another --out"
            )


def _expected(own: DomainSpec, spec: TaskSpec) -> int | None:
    """Return how many files a domain should have: images that nobody can decode are files too."""
    if own.counts is None:
        return None
    return own.counts.all + int(own.options.get("unreadable", spec.options.get("unreadable", 0)))


def _files_in(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself, so that no file of ours stays behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"{folder}: another process is converting into this folder") from error
        yield
    finally:
        os.close(handle)


def _silent(label: str, done: int, total: int) -> None:
    """Show nothing."""
