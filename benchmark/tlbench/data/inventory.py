"""What is there of a suite's data: told from folders and names, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tlbench.data.cache import Progress
from tlbench.data.counts import variant_of
from tlbench.data.digests import UndecidedError, remembered_only
from tlbench.data.prepare import SuiteData
from tlbench.data.readers.catalogue import IN_FOLDERS
from tlbench.data.rehearsal.rehearse import is_rehearsal
from tlbench.errors import DataError, UsageError, listed, nearest
from tlbench.suites.load import find_suite, is_file_reference, load_suite
from tlbench.suites.spec import DomainSpec, Suite

State = Literal["present", "differs", "incomplete", "missing"]
_NEEDS_NO_ROOT = frozenset({"embedded"})


@dataclass(frozen=True)
class DataPlace:
    """A suite, and the folder that its data are looked for in.

    Attributes
    ----------
    suite : Suite
    root : Path
    cache : Path or None
        By default ``TLBENCH_CACHE``, else the user's cache folder.
    """

    suite: Suite
    root: Path
    cache: Path | None = None

    def open(self, progress: Progress | None = None) -> SuiteData:
        """Return the suite's data, of which nothing has been read yet."""
        return SuiteData(self.suite, data_root=self.root, cache=self.cache, progress=progress)

    def chosen(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """Return the named tasks in the suite's order, all where none is named.

        Raises
        ------
        UsageError
            If the suite has no such task.
        """
        for name in tasks:
            if name not in self.suite.tasks:
                hint = nearest(name, self.suite.tasks) or f"; its tasks are {listed(self.suite.tasks)}"
                raise UsageError(f"--task {name}: suite '{self.suite.name}' has no such task{hint}")
        return tuple(name for name in self.suite.tasks if not tasks or name in tasks)

    def here(self, tasks: Sequence[str]) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the chosen tasks that have data, and for the others where these were looked for.

        Raises
        ------
        UsageError
            If the suite has no such task.
        DataError
            If a named task has no data, or none of the suite's has.
        """
        chosen = self.chosen(tasks)
        absent = {name: place for name, place in self.open().missing().items() if name in chosen}
        for name in absent if tasks or len(absent) == len(chosen) else ():
            obtain = f"; to be had: {self.suite.tasks[name].obtain}" if self.suite.tasks[name].obtain else ""
            root = "" if "--data-root" in absent[name] else " (--data-root sets the root)"
            raise DataError(f"{name}: {absent[name]}{root}{obtain}")
        return tuple(name for name in chosen if name not in absent), absent


@dataclass(frozen=True)
class DomainState:
    """What is there of a domain.

    Attributes
    ----------
    domain : str
    images : int or None
        Found, without those that the suite lets be dropped; None where they cannot be listed. Files, where
        ``undecided``.
    expected : int or None
        None where the suite declares no counts.
    variant : str or None
        The other known version of the data that these seem to be.
    used : int
        Images that the suite's parts hold, after their caps.
    prepared : int
        How many of these are in the cache.
    problem : str
        Why the images cannot be listed.
    undecided : int
        So many of the found files the suite lets be dropped as unreadable, and nobody has looked yet which.
    """

    domain: str
    images: int | None
    expected: int | None
    variant: str | None = None
    used: int = 0
    prepared: int = 0
    problem: str = ""
    undecided: int = 0

    @property
    def differs(self) -> bool:
        """Whether these cannot be the declared images, by their number."""
        if self.images is None or self.expected is None or self.variant is not None:
            return False
        return not 0 <= self.images - self.expected <= self.undecided


@dataclass(frozen=True)
class TaskState:
    """What is there of a task, and where the rest is to be had.

    Attributes
    ----------
    task : str
    state : {"present", "differs", "incomplete", "missing"}
        ``"differs"``: other numbers of images than declared; ``"incomplete"``: domains that cannot be read
        or split.
    looked_for : Path
    domains : tuple of DomainState
    obtain, size, licence : str
    hint : str
        Where the data seem to be instead, should they be missing.
    """

    task: str
    state: State
    looked_for: Path
    domains: tuple[DomainState, ...]
    obtain: str
    size: str
    licence: str
    hint: str = ""

    @property
    def images(self) -> int | None:
        """Images found in all domains that can be listed."""
        found = [own.images for own in self.domains if own.images is not None]
        return sum(found) if found else None

    @property
    def expected(self) -> int | None:
        """Images declared for all domains."""
        declared = [own.expected for own in self.domains if own.expected is not None]
        return sum(declared) if len(declared) == len(self.domains) else None

    @property
    def prepared(self) -> int:
        """Images in the cache."""
        return sum(own.prepared for own in self.domains)


@dataclass(frozen=True)
class Inventory:
    """What is there of a suite's data.

    Attributes
    ----------
    place : DataPlace
    tasks : tuple of TaskState
    """

    place: DataPlace
    tasks: tuple[TaskState, ...]

    @property
    def pairs(self) -> int:
        """Pairs of the suite that can be run on these data."""
        usable = {own.task for own in self.tasks if own.state == "present"}
        return sum(pair.task in usable for pair in self.place.suite.pairs)


def find_data(suite: str | Path | Suite, data_root: str | Path | None = None) -> DataPlace:
    """Return a suite with its data root: the one given, or the folder of the user's suite file.

    Raises
    ------
    UsageError
        If there is no such folder, or one of our suites needs a root that nobody named.
    DataError
        If the folder holds made-up data, and the suite is of real ones.
    """
    read = suite if isinstance(suite, Suite) else load_suite(suite)
    if data_root is not None:
        root = Path(data_root)
        if not root.is_dir():
            raise UsageError(f"--data-root {root}: expected a folder, found {'a file' if root.exists() else 'nothing'}")
        rehearsal = is_rehearsal(root)
        if rehearsal is not None and not read.synthetic:
            raise DataError(f"{root}: these are made-up data, to rehearse with; their own suite is --suite {rehearsal}")
        return DataPlace(read, root)
    if isinstance(suite, Suite):
        return DataPlace(read, Path())
    folders = [task.path for task in read.tasks.values() if task.reader not in _NEEDS_NO_ROOT and task.path]
    if folders and not is_file_reference(suite):
        shown = f"{listed(folders[:3])}{', ...' if len(folders) > 3 else ''}"
        raise UsageError(f"suite '{read.name}' reads data of yours: --data-root names the folder that holds {shown}")
    return DataPlace(read, find_suite(suite).parent)


def take_inventory(
    place: DataPlace, tasks: Sequence[str] = (), *, looking: Callable[[str], None] | None = None
) -> Inventory:
    """Return what is there of every task; lists names, decodes nothing.

    Parameters
    ----------
    place : DataPlace
    tasks : sequence of str
        By default all.
    looking : callable, optional
        Given ``"task/domain"`` before it is looked at.
    """
    chosen = place.chosen(tasks)
    absent = place.open().missing()
    return Inventory(place, tuple(_task_state(place, task, task in absent, looking) for task in chosen))


def _task_state(place: DataPlace, task: str, absent: bool, looking: Callable[[str], None] | None) -> TaskState:
    spec = place.suite.tasks[task]
    # One task at a time: the names of a million files are not kept.
    data = place.open()
    domains = tuple(_domain_state(data, task, domain, absent, looking) for domain in spec.domains)
    looked_for = place.root / (spec.path or "")
    return TaskState(
        task,
        _state_of(domains, absent or _nothing_of(place, task)),
        looked_for,
        domains,
        obtain=spec.obtain,
        size=spec.size,
        licence=spec.licence,
        hint=data.hint_at(task) if absent else "",
    )


def _domain_state(
    data: SuiteData, task: str, domain: str, absent: bool, looking: Callable[[str], None] | None
) -> DomainState:
    spec = data.suite.tasks[task].domains[domain]
    expected = None if spec.counts is None else spec.counts.all
    if absent:
        return DomainState(domain, None, expected)
    if looking is not None:
        looking(f"{task}/{domain}")
    try:
        with remembered_only():
            listing = data.own(task, domain)
    except UndecidedError as found:
        variant = _possible_variant(spec, found)
        return DomainState(domain, found.images, expected, variant, undecided=found.allowed)
    except DataError as problem:
        return DomainState(domain, None, expected, problem=str(problem))
    images = len(listing) - len(listing.unreadable)
    try:
        used, prepared = len(data.used(task, domain)), data.done(task, domain)
    except DataError as problem:
        return DomainState(domain, images, expected, problem=str(problem))
    return DomainState(domain, images, expected, variant_of(spec, images), used, prepared)


def _possible_variant(spec: DomainSpec, found: UndecidedError) -> str | None:
    """Return the known version that the found files can be, should some of them be unreadable."""
    numbers = range(found.images, found.images - found.allowed - 1, -1)
    if spec.counts is not None and spec.counts.all in numbers:
        return None
    return next((name for n in numbers if (name := variant_of(spec, n)) is not None), None)


def _nothing_of(place: DataPlace, task: str) -> bool:
    """Return whether a task without a folder of its own has no domain's folder either."""
    spec = place.suite.tasks[task]
    if spec.path or spec.reader not in IN_FOLDERS:
        return False
    return not any((place.root / (own.path or domain)).exists() for domain, own in spec.domains.items())


def _state_of(domains: Sequence[DomainState], nothing: bool) -> State:
    lacking = [own for own in domains if own.images is None or own.problem]
    if lacking:
        return "missing" if nothing and len(lacking) == len(domains) else "incomplete"
    return "differs" if any(own.differs for own in domains) else "present"
