"""A suite's data, made ready: listed, split, resized and cached, and handed out by role."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlbench.data.cache import CachedImages, ImageCache, Progress
from tlbench.data.digests import NotRememberedError, remembered_only
from tlbench.data.domain import Listing, Split, first_per_class
from tlbench.data.images import MappedImages
from tlbench.data.originals import Originals
from tlbench.data.readers.catalogue import IN_FOLDERS, read_domain
from tlbench.data.readers.instead import way_out
from tlbench.data.splits import PARTS, fair_order, split_places
from tlbench.errors import DataError, UsageError, listed, nearest
from tlbench.records.manifest import Manifest
from tlbench.suites.spec import PART_OF_ROLE, Pair, Part, Role, Suite, TaskSpec

Places = NDArray[np.int64]


class SuiteData:
    """The listings and splits of a suite's domains; everything is read once and kept.

    Images stay in the cache on disk: a split's ``images`` read what is indexed, when it is indexed.

    Parameters
    ----------
    suite : Suite
    base : Path, optional
        Folder of the user's suite file: the data root, unless ``data_root`` is given; else the working folder.
    data_root : Path, optional
    cache : Path, optional
        By default ``TLBENCH_CACHE``, else the user's cache folder.
    progress : callable, optional
        Given ``"task/domain"``, the images done and the images in all, while a cache is built; and before that,
        with ``": reading"`` added, the files read and the files to read, where some have not been read before.
    """

    def __init__(
        self,
        suite: Suite,
        *,
        base: Path | None = None,
        data_root: Path | None = None,
        cache: Path | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.suite = suite
        self.root = data_root or base or Path()
        self._cache = ImageCache(cache)
        self._progress = progress
        self._read: dict[tuple[str, str], Listing] = {}
        self._classes: dict[str, tuple[str, ...]] = {}
        self._places: dict[tuple[str, str], dict[Part, Places]] = {}
        self._images: dict[tuple[str, str], CachedImages] = {}
        self._splits: dict[tuple[object, ...], Split] = {}

    def listing(self, task: str, domain: str) -> Listing:
        """Return a domain's images, labelled by the task's classes.

        Raises
        ------
        DataError
            If the data are not what the suite says.
        """
        own, classes = self.own(task, domain), self.classes(task)
        if own.classes == classes:
            return own
        position = {name: place for place, name in enumerate(classes)}
        moved = np.array([position[name] for name in own.classes], dtype=np.int64)
        return replace(own, labels=moved[own.labels], classes=classes)

    def classes(self, task: str) -> tuple[str, ...]:
        """Return the class names of a task in label order: as the suite lists them, or as its domains have them.

        Raises
        ------
        DataError
            If the classes of two domains differ and the suite does not declare which has a subset.
        """
        if task not in self._classes:
            spec = self._task(task)
            self._classes[task] = spec.classes or self._found_classes(task)
        return self._classes[task]

    def split(self, task: str, domain: str, part: Part) -> Split:
        """Return a part of a domain; it is empty only where the data's own parts leave it so."""
        key = (task, domain, part)
        if key not in self._splits:
            listing = self.listing(task, domain)
            places = self.places(task, domain)[part]
            cached = self._cached(task, domain)
            stored = places
            if len(cached.hashes) < len(listing):
                stored = np.searchsorted(self._used_places(task, domain), places)
            spec, own = self.suite.tasks[task], self.suite.tasks[task].domains[domain]
            manifest = Manifest(
                task=task,
                domain=domain,
                part=part,
                classes=listing.classes,
                names=tuple(listing.names[i] for i in places),
                labels=listing.labels[places],
                pixels=cached.pixel_hash(stored),
                image_size=self.suite.protocol.image_size,
                clusters=_facts(listing, own.cluster or spec.cluster, places, f"{task}/{domain}", "cluster"),
                groups=_facts(listing, own.group or spec.group, places, f"{task}/{domain}", "group"),
            )
            # A stretched picture has no other parts; of one that was cut to its centre, training sees the whole.
            whole = self.suite.protocol.resize == "center-crop" and part == "train"
            originals = Originals.of(self.own(task, domain).load, places) if whole else None
            self._splits[key] = Split(manifest, cached.at(stored).as_array(), originals)
        return self._splits[key]

    def training(
        self, task: str, sources: tuple[str, ...], part: Literal["train", "val"], shots: Literal["full"] | int = "full"
    ) -> Split:
        """Return what a method trains or validates on: the sources' parts, one after the other.

        Parameters
        ----------
        task : str
        sources : tuple of str
        part : {"train", "val"}
        shots : "full" or int
            At most this many images of every class and source, the first of the split's order, so that fewer
            shots are a subset of more.

        Raises
        ------
        DataError
            If the part holds no image.
        """
        key = ("training", task, sources, part, shots)
        if key not in self._splits:
            parts = [self.split(task, source, part) for source in sources]
            if shots != "full":
                parts = [_taken(own, first_per_class(own.labels, shots)) for own in parts]
            self._splits[key] = _filled(_joined(parts), f"{task}/{'+'.join(sources)}", part)
        return self._splits[key]

    def measured(
        self,
        task: str | Pair,
        sources: tuple[str, ...],
        target: str,
        role: Role,
        classes: Sequence[str] | None = None,
        max_images: int | None = None,
    ) -> Split:
        """Return what a predictor is measured on.

        Parameters
        ----------
        task : str or Pair
            A pair brings the classes of its target along.
        sources : tuple of str
        target : str
            Not looked at unless the role is ``"ood-test"``.
        role : {"id-val", "id-test", "ood-test"}
            The sources' own validation or test parts, several in one fair order; or the target's test part.
        classes : sequence of str, optional
            Keep the images of these classes only.
        max_images : int, optional
            Keep the first of the fixed order, after ``classes``.

        Raises
        ------
        DataError
            If a class is unknown, or no image is left.
        """
        name = task.task if isinstance(task, Pair) else task
        if classes is None and isinstance(task, Pair) and role == "ood-test":
            classes = task.classes
        domains = (target,) if role == "ood-test" else sources
        key = ("measured", name, domains, role, None if classes is None else tuple(classes), max_images)
        if key not in self._splits:
            part = PART_OF_ROLE[role]
            whole = _joined([self.split(name, domain, part) for domain in domains])
            if len(domains) > 1:
                # One source after the other would make the first images all of the first source.
                whole = _taken(whole, fair_order(whole.manifest.names, whole.manifest.scope))
            if classes is not None:
                labels = self._labels(name, classes)
                whole = _taken(whole, np.flatnonzero(np.isin(whole.labels, labels)))
            if max_images is not None and max_images < len(whole):
                whole = _taken(whole, np.arange(max_images))
            self._splits[key] = _filled(whole, f"{name}/{'+'.join(domains)}", part)
        return self._splits[key]

    def places(self, task: str, domain: str) -> Mapping[Part, Places]:
        """Return which images of a domain's listing are in which part; decodes nothing."""
        key = (task, domain)
        if key not in self._places:
            # By the domain's own classes: a class that it is declared not to have is not missed.
            listing, rule = self.own(task, domain), self.suite.split_of(task)
            listed_split = self.suite.tasks[task].domains[domain].split
            self._places[key] = split_places(listing, rule, listed_split, task=task, domain=domain)
        return self._places[key]

    def whole(self, task: str, domain: str) -> Mapping[Part, Places]:
        """Return the parts of a domain's listing before any cap; decodes nothing."""
        listing, rule = self.own(task, domain), self.suite.split_of(task)
        listed_split = self.suite.tasks[task].domains[domain].split
        return split_places(listing, rule, listed_split, task=task, domain=domain, capped=False)

    def counts(self) -> dict[tuple[str, str, Part], int]:
        """Return the number of images of every task, domain and part; decodes nothing."""
        return {
            (task, domain, part): len(self.places(task, domain)[part])
            for task, spec in self.suite.tasks.items()
            for domain in spec.domains
            for part in PARTS
        }

    def missing(self) -> dict[str, str]:
        """Return the tasks that have nothing below the data root, each with where its data were looked for."""
        absent = {
            name: self.root / spec.path
            for name, spec in self.suite.tasks.items()
            if spec.reader in IN_FOLDERS and spec.path and not _somewhere(self.root / spec.path)
        }
        return {name: f"no data at {place}{self.hint_at(name)}" for name, place in absent.items()}

    def hint_at(self, task: str) -> str:
        """Return where a missing task's folder seems to be, or what its name should be; empty where nobody knows."""
        paths = {spec.path for spec in self.suite.tasks.values() if spec.path}
        return way_out(self.root / (self.suite.tasks[task].path or ""), self.root, "folder", paths)

    def notes(self, task: str) -> list[str]:
        """Return what the readers know of a task's data beyond the images, such as where their names come from."""
        told = {domain: self.own(task, domain).note for domain in self.suite.tasks[task].domains}
        return [f"{task}/{domain}: {note}" for domain, note in told.items() if note]

    def used(self, task: str, domain: str) -> Listing:
        """Return the images of a domain's listing that are in any part: all, but for a rule that caps the parts."""
        own, rule = self.own(task, domain), self.suite.split_of(task)
        if not any(value is not None for name, value in rule if name.startswith("max_")):
            return own
        return own.some(self._used_places(task, domain))

    def done(self, task: str, domain: str) -> int:
        """Return how many images that a domain's parts use are in the cache, so far as is known without reading it."""
        protocol = self.suite.protocol
        try:
            with remembered_only():
                return self._cache.done(self.used(task, domain), protocol.image_size, protocol.resize)
        except NotRememberedError:
            return 0

    def build(self, task: str, domain: str) -> None:
        """Put a domain's images into the cache, and keep none of them."""
        self._cached(task, domain)
        del self._images[task, domain]

    def check(self, tasks: Collection[str] | None = None) -> None:
        """Check all that can be known without decoding an image: folders, classes, columns, parts, pairs.

        Parameters
        ----------
        tasks : collection of str, optional
            By default all.

        Raises
        ------
        DataError
            For the first thing that is not as the suite says.
        """
        for task, spec in self.suite.tasks.items():
            if tasks is not None and task not in tasks:
                continue
            self.classes(task)
            for domain, own in spec.domains.items():
                listing = self.listing(task, domain)
                places = self.places(task, domain)
                for column, kind in ((own.cluster or spec.cluster, "cluster"), (own.group or spec.group, "group")):
                    _facts(listing, column, places["test"], f"{task}/{domain}", kind)
            for pair in self.suite.pairs_of(task):
                needed: list[tuple[str, Part]] = [(pair.target, "test")]
                for source in pair.sources:
                    needed += [(source, part) for part in self._parts_of_sources()]
                for domain, part in needed:
                    if not len(self.places(task, domain)[part]):
                        raise _empty(f"{task}/{domain}", part)
                if pair.classes is not None:
                    wanted = self._labels(task, pair.classes)
                    tested = self.listing(task, pair.target).labels[self.places(task, pair.target)["test"]]
                    if not np.isin(tested, wanted).any():
                        raise DataError(f"{task}: target '{pair.target}' has no test image of the classes of its pair")

    def opened(self) -> list[Manifest]:
        """Return the manifests of the parts that somebody asked for so far."""
        return [
            self.split(task, domain, part).manifest
            for task, domain in sorted(self._images)
            for part in PARTS
            if len(self.places(task, domain)[part])
        ]

    def manifests(self) -> list[Manifest]:
        """Return the manifest of every part of every domain that is not empty; builds the cache."""
        return [
            self.split(task, domain, part).manifest
            for task, spec in self.suite.tasks.items()
            for domain in spec.domains
            for part in PARTS
            if len(self.places(task, domain)[part])
        ]

    def _task(self, name: str) -> TaskSpec:
        if name not in self.suite.tasks:
            raise UsageError(f"suite '{self.suite.name}' has no task '{name}'{nearest(name, self.suite.tasks)}")
        return self.suite.tasks[name]

    def own(self, task: str, domain: str) -> Listing:
        """Return a domain's images, labelled by the classes that it has itself."""
        key = (task, domain)
        if key not in self._read:
            spec = self._task(task)
            if domain not in spec.domains:
                raise UsageError(f"task '{task}' has no domain '{domain}'{nearest(domain, spec.domains)}")
            digests = self._cache.digests_told(f"{task}/{domain}: reading", self._progress)
            self._read[key] = read_domain(spec, task, domain, self.root, digests=digests)
        return self._read[key]

    def _found_classes(self, task: str) -> tuple[str, ...]:
        spec = self.suite.tasks[task]
        full = [domain for domain, own in spec.domains.items() if own.classes is None]
        if not full:
            return tuple(sorted({name for domain in spec.domains for name in self.own(task, domain).classes}))
        first, classes = full[0], self.own(task, full[0]).classes
        for domain in spec.domains:
            own = self.own(task, domain).classes
            strange = sorted(set(own) - set(classes))
            lacking = sorted(set(classes) - set(own)) if domain in full else []
            if strange or lacking:
                holder, other, name = (domain, first, strange[0]) if strange else (first, domain, lacking[0])
                raise DataError(
                    f"task '{task}': domain '{holder}' has class '{name}', domain '{other}' has not"
                    f"{nearest(name, (set(own) ^ set(classes)) - {name})}; give the one with fewer its own 'classes' "
                    f"in the suite"
                )
        return classes

    def _cached(self, task: str, domain: str) -> CachedImages:
        key = (task, domain)
        if key not in self._images:
            protocol = self.suite.protocol
            self._images[key] = self._cache.resized(
                self.used(task, domain),
                protocol.image_size,
                protocol.resize,
                label=f"{task}/{domain}",
                progress=self._progress,
            )
        return self._images[key]

    def _used_places(self, task: str, domain: str) -> Places:
        """Return the places of the images in any part, ascending."""
        return np.sort(np.concatenate(list(self.places(task, domain).values())))

    def _labels(self, task: str, names: Sequence[str]) -> list[int]:
        classes = self.classes(task)
        for name in names:
            if name not in classes:
                raise DataError(f"task '{task}' has no class '{name}'{nearest(name, classes)}")
        return [classes.index(name) for name in names]

    def _parts_of_sources(self) -> list[Part]:
        tested = any("id-test" in condition.roles for condition in self.suite.conditions)
        return ["train", "val", "test"] if tested else ["train", "val"]


def _somewhere(place: Path) -> bool:
    # Parquet files may stand for the folder: <path>.parquet.
    return place.exists() or place.with_name(f"{place.name}.parquet").exists()


def _facts(listing: Listing, column: str | None, places: Places, where: str, kind: str) -> tuple[str, ...] | None:
    if column is None:
        return None
    if column not in listing.columns:
        known = listed(listing.columns) or "no columns"
        raise DataError(
            f"{where}: {kind} names column '{column}', the data have {known}{nearest(column, listing.columns)}"
        )
    values = listing.columns[column]
    return tuple(values[i] for i in places)


def _taken(split: Split, places: Places) -> Split:
    """Return some of a split's images, still unread."""
    originals = split.originals and split.originals.take(places)
    return Split(split.manifest.take(places), _mapped(split).take(places).as_array(), originals)


def _joined(splits: Sequence[Split]) -> Split:
    """Return several domains' splits as one, still unread."""
    if len(splits) == 1:
        return splits[0]
    images = MappedImages.joined([_mapped(split) for split in splits])
    manifest = Manifest.concatenate([split.manifest for split in splits])
    return Split(manifest, images.as_array(), Originals.joined([split.originals for split in splits]))


def _mapped(split: Split) -> MappedImages:
    images: object = split.images
    if isinstance(images, MappedImages):
        return images
    return MappedImages([split.images], np.arange(len(split)))


def _filled(split: Split, where: str, part: str) -> Split:
    if not len(split):
        raise _empty(where, part)
    return split


def _empty(where: str, part: str) -> DataError:
    return DataError(f"{where}: has no {part} image; change the split, or the pairs that need it")
