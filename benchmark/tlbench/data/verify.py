"""Whether a suite's data are what it says: numbers, classes, members, and every image readable."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from tlbench.data.cache import Progress
from tlbench.data.counts import Counted, count_domain
from tlbench.data.domain import Listing
from tlbench.data.inventory import DataPlace
from tlbench.data.prepare import SuiteData
from tlbench.data.splits import members_hash
from tlbench.errors import DataError

Members = Literal["confirmed", "differs", "not confirmed"]
_AT_ONCE = 256
MOST_UNREADABLE = 10_000
"""So many unreadable images of a domain are named; more are counted."""


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded."""

    name: str
    reason: str


@dataclass(frozen=True)
class VerifiedDomain:
    """What a look at one domain found.

    Attributes
    ----------
    counted : Counted
        Images of every part, as declared and as found.
    members : str
        Hash of names, labels and parts.
    confirmed : {"confirmed", "differs", "not confirmed"}
        Whether it is the hash that somebody has confirmed on the original data; ``"not confirmed"`` where nobody has.
    note : str
        What the reader says about these images.
    allowed : tuple of str
        Unreadable images that the suite lets be dropped.
    decoded : int
        Images that were tried.
    unreadable : tuple of Unreadable
        At most ``MOST_UNREADABLE``.
    unreadable_count : int
    """

    counted: Counted
    members: str
    confirmed: Members
    note: str = ""
    allowed: tuple[str, ...] = ()
    decoded: int = 0
    unreadable: tuple[Unreadable, ...] = ()
    unreadable_count: int = 0

    @property
    def name(self) -> str:
        """``"task/domain"``."""
        return f"{self.counted.task}/{self.counted.domain}"


@dataclass(frozen=True)
class Verification:
    """What a look at a suite's data found.

    Attributes
    ----------
    place : DataPlace
    domains : tuple of VerifiedDomain
        Those that could be listed.
    problems : tuple of str
        Why others could not, and what else is not as the suite says.
    missing : dict of str to str
        Tasks that are not there, and where they were looked for.
    deep : bool
        Whether every image was decoded; never where numbers differ.
    """

    place: DataPlace
    domains: tuple[VerifiedDomain, ...]
    problems: tuple[str, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    deep: bool = False

    @property
    def differing(self) -> tuple[Counted, ...]:
        """Domains with other numbers of images than declared."""
        return tuple(own.counted for own in self.domains if not own.counted.right)

    @property
    def images(self) -> int:
        """Images that could be listed, those that may be unreadable included."""
        return sum(own.counted.found.all + len(own.allowed) for own in self.domains)

    @property
    def strangers(self) -> tuple[VerifiedDomain, ...]:
        """Domains with other members than those confirmed."""
        return tuple(own for own in self.domains if own.confirmed == "differs")

    @property
    def unreadable(self) -> int:
        """Images that cannot be decoded."""
        return sum(own.unreadable_count for own in self.domains)

    @property
    def right(self) -> bool:
        """Whether all that was looked at is as the suite says."""
        return not (self.problems or self.differing or self.strangers or self.unreadable)


def verify(place: DataPlace, tasks: Sequence[str] = (), *, progress: Progress | None = None) -> Verification:
    """Hold a suite's data against what it says of them; decodes nothing.

    Parameters
    ----------
    place : DataPlace
    tasks : sequence of str
        By default all that are there.
    progress : callable, optional
        See ``SuiteData``: some readers have to read files.

    Raises
    ------
    UsageError
        If the suite has no such task.
    DataError
        If a named task is not there, or none is.
    """
    here, missing = place.here(tasks)
    domains: list[VerifiedDomain] = []
    problems: list[str] = []
    for task in here:
        # One task at a time: the names of a million files are not kept.
        found, wrong = _listed_task(place.open(progress), task)
        domains += found
        problems += wrong
    return Verification(place, tuple(domains), tuple(problems), missing)


def decode_all(found: Verification, progress: Progress | None = None) -> Verification:
    """Return the same, with every image decoded; where numbers differ, nothing is.

    Parameters
    ----------
    found : Verification
    progress : callable, optional
        Given ``"task/domain"``, the images tried and the images in all.
    """
    if found.differing:
        return found
    decoded: list[VerifiedDomain] = []
    for task in dict.fromkeys(own.counted.task for own in found.domains):
        data = found.place.open()
        decoded += [_decoded(data, own, progress) for own in found.domains if own.counted.task == task]
    return replace(found, domains=tuple(decoded), deep=True)


def _listed_task(data: SuiteData, task: str) -> tuple[list[VerifiedDomain], list[str]]:
    found: list[VerifiedDomain] = []
    problems: list[str] = []
    for domain in data.suite.tasks[task].domains:
        try:
            found.append(_listed(data, task, domain))
        except DataError as problem:
            problems.append(str(problem))
    if not problems and all(own.counted.right for own in found):
        try:
            data.check([task])
        except DataError as problem:
            problems.append(str(problem))
    return found, list(dict.fromkeys(problems))


def _listed(data: SuiteData, task: str, domain: str) -> VerifiedDomain:
    spec, listing = data.suite.tasks[task].domains[domain], data.own(task, domain)
    counted = count_domain(data, task, domain)
    members = members_hash(listing.names, listing.labels, data.whole(task, domain))
    confirmed: Members = "not confirmed"
    # A known variant has members of its own, which the hash of these is not.
    if spec.members is not None and counted.variant is None:
        confirmed = "confirmed" if members == spec.members else "differs"
    allowed = tuple(listing.names[place] for place in sorted(listing.unreadable))
    return VerifiedDomain(counted, members, confirmed, listing.note, allowed)


def _decoded(data: SuiteData, own: VerifiedDomain, progress: Progress | None) -> VerifiedDomain:
    listing = data.own(own.counted.task, own.counted.domain)
    named: list[Unreadable] = []
    count = 0
    for done, unreadable in enumerate(_tried(listing), 1):
        if unreadable is not None:
            count += 1
            if len(named) < MOST_UNREADABLE:
                named.append(unreadable)
        if progress is not None:
            progress(own.name, done, len(listing))
    return replace(own, decoded=len(listing), unreadable=tuple(named), unreadable_count=count)


def _tried(listing: Listing) -> Iterator[Unreadable | None]:
    """Yield for every image whether it cannot be decoded, tried by every core."""

    def attempt(place: int) -> Unreadable | None:
        if place in listing.unreadable:
            return None
        try:
            listing.load(place)
        except DataError as problem:
            return Unreadable(listing.names[place], str(problem))
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(listing), _AT_ONCE):
            yield from pool.map(attempt, range(start, min(start + _AT_ONCE, len(listing))))
