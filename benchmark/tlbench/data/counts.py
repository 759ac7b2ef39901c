"""Found numbers of images held against those that a suite declares, before anything is run on other data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tlbench.data.domain import Listing
from tlbench.data.prepare import SuiteData
from tlbench.errors import DataError
from tlbench.suites.spec import Counts, DomainSpec

_SHOWN = 40
HEADERS = ("domain", "expected", "found", "difference")


@dataclass(frozen=True)
class Counted:
    """The images of one domain, as they should be and as they are.

    Attributes
    ----------
    task, domain : str
    expected : Counts or None
        What the suite declares; None where it declares nothing.
    found : Counts
        Before any cap, without images that the suite lets be dropped.
    variant : str or None
        The other known version of the data that these are.
    cause : str
        What is the likely reason of a difference; empty where nothing is known.
    """

    task: str
    domain: str
    expected: Counts | None
    found: Counts
    variant: str | None = None
    cause: str = ""

    @property
    def right(self) -> bool:
        """Whether a run may use these data: as declared, a known variant, or nothing declared."""
        return self.expected is None or self.found == self.expected or self.variant is not None

    @property
    def note(self) -> str:
        """One line on a known variant; empty for data that are as declared."""
        if self.variant is None or self.expected is None:
            return ""
        return (
            f"{self.task}/{self.domain}: these are {self.variant} "
            f"({self.found.all:,} images; the suite counts {self.expected.all:,})"
        )


def check_counts(data: SuiteData, tasks: Iterable[str]) -> list[str]:
    """Hold the images of every domain against what the suite declares; decodes nothing.

    Parameters
    ----------
    data : SuiteData
    tasks : iterable of str
        Tasks whose data are there.

    Returns
    -------
    list of str
        A note for every domain that is another known version of the data.

    Raises
    ------
    DataError
        If any other domain differs: a table of all that do, each with the parts expected and found, and the likely
        causes.
    """
    suite = data.suite
    counted = [
        count_domain(data, task, domain)
        for task in tasks
        for domain, own in suite.tasks[task].domains.items()
        if own.counts is not None
    ]
    return refuse_other_counts(counted, suite.name)


def refuse_other_counts(counted: Sequence[Counted], suite: str) -> list[str]:
    """Return the notes on domains that are another known version of the data.

    Raises
    ------
    DataError
        If any other domain differs: a table of all that do.
    """
    wrong = [one for one in counted if not one.right]
    if wrong:
        raise DataError(_told(wrong, len(counted), suite))
    return [one.note for one in counted if one.note]


def count_domain(data: SuiteData, task: str, domain: str) -> Counted:
    """Return the images that a domain should have and those it has.

    Raises
    ------
    DataError
        If the domain cannot be listed or split.
    """
    spec = data.suite.tasks[task].domains[domain]
    found = Counts(**{part: len(places) for part, places in data.whole(task, domain).items()})
    counted = Counted(task, domain, spec.counts, found, _variant(spec, found))
    if counted.right or spec.counts is None:
        return counted
    cause = _cause(data.own(task, domain), spec.counts, found)
    return Counted(task, domain, spec.counts, found, None, cause)


def variant_of(spec: DomainSpec, images: int) -> str | None:
    """Return the name of the other known version of a domain that has this many images."""
    if spec.counts is not None and images == spec.counts.all:
        return None
    return next((name for name, n in spec.variants.items() if n == images), None)


def rows_of(wrong: Sequence[Counted]) -> list[tuple[str, str, str, str]]:
    """Return the rows of a table of differences, under ``HEADERS``."""
    return [
        (f"{one.task}/{one.domain}", _parts(one.expected), _parts(one.found), _difference(one.expected, one.found))
        for one in wrong
        if one.expected is not None
    ]


def causes_of(wrong: Sequence[Counted]) -> list[str]:
    """Return every likely cause once, with the domains that show it."""
    domains: dict[str, list[str]] = {}
    for one in wrong:
        if one.cause:
            domains.setdefault(one.cause, []).append(f"{one.task}/{one.domain}")
    return [f"{', '.join(names)}: {cause}" for cause, names in domains.items()]


def _variant(spec: DomainSpec, found: Counts) -> str | None:
    return None if spec.counts is None else variant_of(spec, found.all)


def _told(wrong: Sequence[Counted], n: int, suite: str) -> str:
    shown = [HEADERS, *rows_of(wrong[:_SHOWN])]
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in shown]
    if len(wrong) > _SHOWN:
        lines.append(f"... and {len(wrong) - _SHOWN} more")
    return (
        f"{len(wrong)} of {n} domains do not hold the images of suite '{suite}' (train/val/test below); stopped, since "
        "numbers from other data cannot be compared\n  " + "\n  ".join([*lines, *causes_of(wrong)])
    )


def _parts(counts: Counts | None) -> str:
    return "-" if counts is None else f"{counts.train}/{counts.val}/{counts.test}"


def _difference(expected: Counts | None, found: Counts) -> str:
    more = found.all - (0 if expected is None else expected.all)
    if not more:
        return "other parts"
    return f"{more:+,} image{'' if abs(more) == 1 else 's'}"


def _cause(listing: Listing, expected: Counts, found: Counts) -> str:
    """Return the likely reason of a difference: what the reader noted, or what the numbers show."""
    more = found.all - expected.all
    if more > 0 and listing.hint:
        return listing.hint
    if not more:
        return "as many images as expected, in other classes or parts: another version of the data"
    if found.all == 2 * expected.all:
        return "every image seems to be there twice"
    sizes = np.bincount(listing.labels, minlength=len(listing.classes))
    same = [name for name, n in zip(listing.classes, sizes, strict=True) if n == more]
    if more > 0 and len(same) == 1:
        return f"as many too many as class '{same[0]}' holds"
    return "an unfinished download or archive?" if more < 0 else ""
