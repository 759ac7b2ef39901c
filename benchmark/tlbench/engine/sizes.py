"""How many images there are: counted in listings where the data are here, as declared where they are not."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Literal, final

import numpy as np

from tlbench.data.cache import ImageCache
from tlbench.data.domain import first_per_class
from tlbench.data.prepare import SuiteData
from tlbench.data.splits import PARTS
from tlbench.engine.declared import Declared, DeclaredSizes
from tlbench.seeds import digest
from tlbench.suites.spec import PART_OF_ROLE, Pair, Part, Role


@final
class KnownSizes(DeclaredSizes):
    """Sizes for a forecast; no image is decoded, and the hashes are of no data.

    Parameters
    ----------
    data : SuiteData
    here : collection of str
        Tasks whose data are here.
    """

    def __init__(self, data: SuiteData, here: Collection[str]) -> None:
        super().__init__(data.suite)
        self._data, self._here = data, frozenset(here)
        self._measured: dict[tuple[object, ...], Declared] = {}

    def split(self, task: str, domain: str, part: Part) -> Declared:
        """Return the size of a part of a domain."""
        if task not in self._here:
            return super().split(task, domain, part)
        return Declared(len(self._data.places(task, domain)[part]), digest("counted", task, domain, part))

    def training(
        self, task: str, sources: tuple[str, ...], part: Literal["train", "val"], shots: Literal["full"] | int = "full"
    ) -> Declared:
        """Return the size of what a method trains or validates on."""
        if task not in self._here:
            return super().training(task, sources, part, shots)
        n = 0
        for source in sources:
            labels = self._labels(task, source, part)
            n += len(labels) if shots == "full" else len(first_per_class(labels, shots))
        return Declared(n, digest("counted", task, list(sources), part, shots))

    def measured(
        self,
        task: str | Pair,
        sources: tuple[str, ...],
        target: str,
        role: Role,
        classes: Sequence[str] | None = None,
        max_images: int | None = None,
    ) -> Declared:
        """Return the size of what a predictor is measured on."""
        name = task.task if isinstance(task, Pair) else task
        wanted = None if classes is None else tuple(classes)
        domains = (target,) if role == "ood-test" else sources
        key = (name, domains, role, wanted, max_images)
        # Every seed, and every row of a grid, asks for the same sets again.
        if key not in self._measured:
            if name in self._here:
                self._measured[key] = self._counted(name, domains, role, wanted, max_images)
            else:
                self._measured[key] = super().measured(name, sources, target, role, wanted, max_images)
        return self._measured[key]

    def _counted(
        self, task: str, domains: tuple[str, ...], role: Role, classes: Sequence[str] | None, most: int | None
    ) -> Declared:
        labels = np.concatenate([self._labels(task, domain, PART_OF_ROLE[role]) for domain in domains])
        if classes is not None:
            known = self._data.classes(task)
            labels = labels[np.isin(labels, [known.index(one) for one in classes])]
        n = len(labels) if most is None else min(most, len(labels))
        return Declared(n, digest("counted", task, list(domains), role, list(classes or ()), most))

    def classes(self, task: str) -> int:
        """Return the number of classes of a task; 0 where neither the data nor the suite tell."""
        return len(self._data.classes(task)) if task in self._here else len(self.suite.tasks[task].classes or ())

    def images(self, task: str, domain: str) -> int:
        """Return how many images of a domain are cached for a suite: those of all its parts."""
        if task in self._here:
            return len(self._data.used(task, domain))
        return sum(len(super(KnownSizes, self).split(task, domain, part)) for part in PARTS)

    def cached(self) -> set[tuple[str, str]]:
        """Return the domains whose images are in the cache, as its entries say: no file is read to find out."""
        size, entries = self.suite.protocol.image_size, set()
        for file in ImageCache().folder.glob("images/*/entry.json"):
            try:
                facts = json.loads(file.read_text(encoding="utf-8"))
                entries.add((facts["names"], facts["images_bytes"] // (size * size * 3)))
            except (OSError, ValueError, KeyError, TypeError):
                continue  # a damaged entry is made again
        found = set()
        for task in self._here:
            for domain in self.suite.tasks[task].domains:
                names = self._data.used(task, domain).names
                if (digest(list(names)), len(names)) in entries:
                    found.add((task, domain))
        return found

    def _labels(self, task: str, domain: str, part: Part) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        return self._data.listing(task, domain).labels[self._data.places(task, domain)[part]]
