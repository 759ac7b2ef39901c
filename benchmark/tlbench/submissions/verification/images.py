"""Which images every measurement rests on: the manifests that a released suite has locked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlbench.records.lock import Key, read_lock
from tlbench.records.manifest import Manifest
from tlbench.submissions.verification.measured import Condition
from tlbench.suites.spec import PART_OF_ROLE, Suite


class Images:
    """The manifest of every set that a suite measures, as far as its lock tells.

    Parameters
    ----------
    suite : Suite
    lock : Path or None
        As ``records.lock.write_lock`` writes it; None, or a file that is not there, where nobody has locked the suite.

    Raises
    ------
    StoreError
        If the lock is there and cannot be read.
    """

    def __init__(self, suite: Suite, lock: Path | None) -> None:
        self._suite = suite
        self._locked: dict[Key, Manifest] = read_lock(lock) if lock is not None and lock.is_file() else {}
        self._found: dict[tuple[str, str, str, str, int | None], Manifest | None] = {}
        self._codes: dict[tuple[int, str], NDArray[np.intp]] = {}

    @property
    def locked(self) -> bool:
        """Whether there is a lock."""
        return bool(self._locked)

    def of(self, task: str, source: str, target: str, role: str, condition: Condition) -> Manifest | None:
        """Return the images of a set; None where no lock tells them.

        Sets of several sources, which are mixed into one order, are not in a lock.
        """
        key = (task, source if role == "ood-test" else "", target, role, condition.max_images)
        if key not in self._found:
            self._found[key] = self._cut(task, source, target, role, condition.max_images)
        return self._found[key]

    def classes(self, task: str) -> int | None:
        """Return how many classes a task has; None where only its data tell."""
        spec = self._suite.tasks.get(task)
        if spec is not None and spec.classes is not None:
            return len(spec.classes)
        return next((len(m.classes) for (name, _, _), m in self._locked.items() if name == task), None)

    def declares(self, kind: str, task: str, source: str, target: str, role: str) -> bool:
        """Return whether the suite names a ``cluster`` or ``group`` for a set, whose values only its manifest has."""
        spec = self._suite.tasks[task]
        domains = [target] if role == "ood-test" else source.split("+")
        return any(
            getattr(spec.domains[name], kind) is not None or getattr(spec, kind) is not None
            for name in domains
            if name in spec.domains
        )

    def units(self, manifest: Manifest, kind: str) -> NDArray[np.intp] | None:
        """Return the cluster or group of every image of a manifest as a number in the order of their names."""
        names = manifest.clusters if kind == "cluster" else manifest.groups
        if names is None:
            return None
        key = (id(manifest), kind)
        if key not in self._codes:
            # The order of the names decides which of them a jackknife leaves out together.
            self._codes[key] = np.unique(np.asarray(names, dtype=object), return_inverse=True)[1]
        return self._codes[key]

    def _cut(self, task: str, source: str, target: str, role: str, max_images: int | None) -> Manifest | None:
        part = next((part for known, part in PART_OF_ROLE.items() if known == role), None)
        if part is None or task not in self._suite.tasks:
            return None
        whole = self._locked.get((task, target, part))
        if whole is None:
            return None
        pairs = [pair for pair in self._suite.pairs_of(task) if pair.source == source and pair.target == target]
        if role == "ood-test" and pairs and pairs[0].classes is not None:
            labels = [whole.classes.index(name) for name in pairs[0].classes if name in whole.classes]
            whole = whole.take(np.flatnonzero(np.isin(whole.labels, labels)))
        return whole if max_images is None or max_images >= len(whole) else whole.take(np.arange(max_images))
