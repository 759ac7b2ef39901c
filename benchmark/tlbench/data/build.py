"""A suite's images put into the cache before a run: how many bytes that takes, then domain after domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlbench.data.cache import ImageCache, Progress
from tlbench.data.counts import Counted, count_domain, refuse_other_counts
from tlbench.data.inventory import DataPlace
from tlbench.data.sizes import in_gigabytes
from tlbench.errors import DataError, StoreError


@dataclass(frozen=True)
class DomainToBuild:
    """A domain whose images are to be in the cache, and how many of them are."""

    task: str
    domain: str
    images: int
    done: int

    @property
    def name(self) -> str:
        """``"task/domain"``."""
        return f"{self.task}/{self.domain}"


@dataclass(frozen=True)
class Preparation:
    """What is to be put into the cache.

    Attributes
    ----------
    place : DataPlace
    folder : Path
        The cache.
    domains : tuple of DomainToBuild
    bytes : int
        What is left to be written.
    free_bytes : int
    notes : tuple of str
        On domains that are another known version of the data.
    missing : mapping of str to str
        Tasks that are not there, and where they were looked for.
    problems : mapping of str to str
        Tasks that are there and cannot be prepared, and why.
    """

    place: DataPlace
    folder: Path
    domains: tuple[DomainToBuild, ...]
    bytes: int
    free_bytes: int
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Images that are left to be prepared."""
        return sum(own.images - own.done for own in self.domains)


def plan_preparation(place: DataPlace, tasks: Sequence[str] = (), *, progress: Progress | None = None) -> Preparation:
    """Return what the cache lacks; decodes nothing.

    Parameters
    ----------
    place : DataPlace
    tasks : sequence of str
        By default all that are there.
    progress : callable, optional

    Raises
    ------
    UsageError
        If the suite has no such task.
    DataError
        If a named task is not there, or none is; if domains of a task do not hold the declared images.
    """
    here, missing = place.here(tasks)
    cache, size = ImageCache(place.cache), place.suite.protocol.image_size
    domains: list[DomainToBuild] = []
    counted: list[Counted] = []
    problems: dict[str, str] = {}
    for task in here:
        data, names = place.open(progress), place.suite.tasks[task].domains
        try:
            own = [count_domain(data, task, domain) for domain in names]
            if all(one.right for one in own):
                data.check([task])
        except DataError as problem:
            problems[task] = str(problem)
            continue
        counted += own
        domains += [DomainToBuild(task, d, len(data.used(task, d)), data.done(task, d)) for d in names]
    notes = refuse_other_counts(counted, place.suite.name)
    if problems and not domains:
        raise DataError(next(iter(problems.values())))
    left = sum(cache.bytes_of(own.images - own.done, size) for own in domains)
    return Preparation(place, cache.folder, tuple(domains), left, cache.free_bytes(), tuple(notes), missing, problems)


def build(
    preparation: Preparation,
    *,
    progress: Progress | None = None,
) -> None:
    """Put the images of every domain into the cache; a killed build goes on where it stopped.

    Parameters
    ----------
    preparation : Preparation
    progress : callable, optional
        See ``SuiteData``.

    Raises
    ------
    StoreError
        If the images do not fit, before the first of them.
    DataError
        If an image cannot be decoded.
    """
    if preparation.bytes > preparation.free_bytes:
        raise StoreError(
            f"{preparation.folder}: the images need {in_gigabytes(preparation.bytes)}, "
            f"{in_gigabytes(preparation.free_bytes)} are free; set TLBENCH_CACHE to a folder on a larger disk, "
            f"or prepare fewer tasks with --task"
        )
    for task in dict.fromkeys(own.task for own in preparation.domains):
        data = preparation.place.open(progress)
        for own in preparation.domains:
            if own.task == task:
                data.build(task, own.domain)
