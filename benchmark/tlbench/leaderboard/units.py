"""What is drawn again when images are: clusters, single images, or blocks of them, the same for all models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tlbench.leaderboard.images import locked_set
from tlbench.metrics.resampling import drawn_shares
from tlbench.metrics.uncertainty import LEAST_CLUSTERS
from tlbench.records.lock import Key
from tlbench.records.manifest import Manifest
from tlbench.seeds import derive
from tlbench.suites.spec import PART_OF_ROLE, Role, Suite

_WHOLE: Final[tuple[str, ...]] = ("",)
MOST_UNITS: Final = 400
"""More units than these are dealt into as many blocks: the standard error of 400 is itself known to a thirtieth."""


@dataclass(frozen=True)
class Place:
    """A set of images: a target in a role, as one split hash has it."""

    task: str
    source: str
    target: str
    role: Role
    split_hash: str


@dataclass(frozen=True, eq=False)
class Margin:
    """The units of a target's images, of which every set on this target draws.

    Attributes
    ----------
    name : tuple of str
        Sets of one name share their draws.
    strata : int array, shape (units,)
        Units of one stratum are drawn among themselves. There is one, unless clusters are too few to be drawn.
    names : tuple of str, one a stratum
    """

    name: tuple[str, ...]
    strata: NDArray[np.int64]
    names: tuple[str, ...]

    def shares(self, draws: int) -> NDArray[np.float32]:
        """Return each unit's share of every draw, shape (draws, units)."""
        if len(self.names) == 1:
            return drawn_shares(len(self.strata), draws, ("images", *self.name))
        shares = np.empty((draws, len(self.strata)), np.float32)
        for stratum, name in enumerate(self.names):
            own = np.flatnonzero(self.strata == stratum)
            part = np.float32(len(own) / len(self.strata))
            shares[:, own] = part * drawn_shares(len(own), draws, ("images", *self.name, name))
        return shares


@dataclass(frozen=True, eq=False)
class Units:
    """The images of one set, each in its unit of a margin.

    Attributes
    ----------
    margin : Margin
    unit_of : int array, shape (images,)
    """

    margin: Margin
    unit_of: NDArray[np.int64]

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Images of every unit, shape (units,)."""
        return np.asarray(np.bincount(self.unit_of, minlength=len(self.margin.strata)), dtype=np.int64)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of one value an image over every unit, shape (units,)."""
        return np.asarray(np.bincount(self.unit_of, weights=values, minlength=len(self.margin.strata)))


class Census:
    """The units of every set of a suite, found when they are asked for.

    Parameters
    ----------
    suite : Suite
    locked : mapping from (task, domain, part) to Manifest
        What the suite's lock holds; empty where there is none.
    """

    def __init__(self, suite: Suite, locked: Mapping[Key, Manifest]) -> None:
        self._suite, self._locked = suite, dict(locked)
        self._units: dict[tuple[Place, int], Units | None] = {}
        self._margins: dict[tuple[str, ...], tuple[Margin, Mapping[str, int]]] = {}
        self.few: dict[str, int] = {}
        """Targets of too few clusters to be drawn, and how many they have."""

    def units(self, place: Place, images: int) -> Units | None:
        """Return the units of a set of so many images; None where they have clusters and nobody says which."""
        key = (place, images)
        if key not in self._units:
            self._units[key] = self._found(place, images)
        return self._units[key]

    def _found(self, place: Place, images: int) -> Units | None:
        own = locked_set(self._locked, self._suite, place.task, place.source, place.target, place.role, images)
        if own is not None and own.hash == place.split_hash and len(own) == images:
            whole = self._locked[place.task, place.target, PART_OF_ROLE[place.role]]
            margin, unit_of = self._named(whole)
            return Units(margin, np.array([unit_of[name] for name in own.names], dtype=np.int64))
        if self._clustered(place):
            return None
        name: tuple[str, ...] = (place.task, place.target, place.split_hash)
        margin = Margin(name, np.zeros(min(images, MOST_UNITS), np.int64), ("",))
        return Units(margin, _dealt(images, name))

    def _named(self, whole: Manifest) -> tuple[Margin, Mapping[str, int]]:
        """Return the margin of a locked part, and the unit of each of its images by name."""
        name = (whole.task, whole.domain) if whole.part == "test" else (whole.task, whole.domain, whole.part)
        if name not in self._margins:
            clusters = whole.clusters
            distinct = sorted(set(clusters or ()))
            if clusters is not None and len(distinct) >= LEAST_CLUSTERS:
                block = _dealt(len(distinct), name)
                of_cluster = dict(zip(distinct, block.tolist(), strict=True))
                units = np.array([of_cluster[cluster] for cluster in clusters], dtype=np.int64)
                strata, names = np.zeros(int(block.max()) + 1, np.int64), _WHOLE
            else:
                if distinct:
                    self.few[whole.domain] = len(distinct)
                units, strata, names = _stratified(whole, distinct or [""])
            margin = Margin(name, strata, names)
            self._margins[name] = margin, dict(zip(whole.names, units.tolist(), strict=True))
        return self._margins[name]

    def _clustered(self, place: Place) -> bool:
        """Whether the suite says that a target's images have clusters."""
        task = self._suite.tasks[place.task]
        domains = [task.domains[name] for name in place.target.split("+") if name in task.domains]
        return bool(task.cluster) or any(domain.cluster for domain in domains)


def _stratified(whole: Manifest, clusters: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[str, ...]]:
    """Return units of single images within few clusters, or within none: of every image, with strata and their names.

    Images are numbered by name, so that a set's order moves no draw.
    """
    order = np.argsort(np.array(whole.names, dtype=object), kind="stable")
    of_image = np.array(whole.clusters or ("",) * len(whole), dtype=object)
    units = np.zeros(len(whole), np.int64)
    strata: list[int] = []
    for number, cluster in enumerate(clusters):
        own = order[of_image[order] == cluster]
        most = max(2, MOST_UNITS // len(clusters))
        block = _dealt(len(own), (whole.task, whole.domain, cluster), most)
        units[own] = len(strata) + block
        strata += [number] * (int(block.max()) + 1)
    return units, np.array(strata, dtype=np.int64), tuple(clusters)


def _dealt(units: int, name: tuple[str, ...], most: int = MOST_UNITS) -> NDArray[np.int64]:
    """Return the block of every unit, shape (units,), dealt at random where they are more than the most."""
    if units <= most:
        return np.arange(units)
    places = np.random.default_rng(derive("blocks", *name)).permutation(units)
    return np.asarray(places % most)
