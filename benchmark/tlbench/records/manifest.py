"""The manifest of a split: which images it holds, in which order, with a hash that fixes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tlbench.seeds import digest


@dataclass(frozen=True, eq=False)
class Manifest:
    """Names, labels, clusters and groups of a split's images, in the split's fixed order.

    Attributes
    ----------
    task, domain, part : str
        Where the split belongs; ``part`` is ``"train"``, ``"val"`` or ``"test"``.
    classes : tuple of str
        Class names in label order.
    names : tuple of str, length n
        Unique name of every image.
    labels : int64 array, shape (n,)
    pixels : str
        SHA-256 hex digest of the images after resizing, in manifest order.
    image_size : int
        Side of the square images, in pixels.
    clusters, groups : tuple of str, length n, or None
        Unit of resampling and unit of worst-group accuracy, where the data name them.
    """

    task: str
    domain: str
    part: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    pixels: str
    image_size: int
    clusters: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.names):
            raise ValueError(f"expected one label per name, got {len(self.labels)} for {len(self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def scope(self) -> str:
        """``"task/domain"``: with an image's name, the root of that image's randomness."""
        return f"{self.task}/{self.domain}"

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything but the clusters and groups, which change no prediction."""
        labels = hashlib.sha256(np.ascontiguousarray(self.labels, dtype="<i8").tobytes()).hexdigest()
        return digest(
            self.task,
            self.domain,
            self.part,
            list(self.classes),
            list(self.names),
            labels,
            self.pixels,
            self.image_size,
        )

    def counts(self) -> dict[str, int]:
        """Return the number of images of every class, by class name."""
        found = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(n) for name, n in zip(self.classes, found, strict=True)}

    def take(self, places: NDArray[np.int64]) -> Manifest:
        """Return the manifest of some of the images; its pixel hash derives from the whole and the places."""
        chosen = [int(place) for place in places]
        if chosen == list(range(len(self))):
            return self
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            labels=self.labels[places],
            pixels=digest(self.pixels, chosen),
            clusters=None if self.clusters is None else tuple(self.clusters[i] for i in chosen),
            groups=None if self.groups is None else tuple(self.groups[i] for i in chosen),
        )

    @staticmethod
    def concatenate(parts: Sequence[Manifest]) -> Manifest:
        """Return the manifest of several domains' splits taken together."""
        first = parts[0]
        if any(part.classes != first.classes or part.part != first.part for part in parts):
            raise ValueError("expected splits of one part with equal classes")
        return replace(
            first,
            domain="+".join(part.domain for part in parts),
            names=tuple(f"{part.domain}/{name}" for part in parts for name in part.names),
            labels=np.concatenate([part.labels for part in parts]),
            pixels=digest([part.pixels for part in parts]),
            clusters=_joined([part.clusters for part in parts]),
            groups=_joined([part.groups for part in parts]),
        )


def _joined(columns: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    if any(column is None for column in columns):
        return None
    return tuple(value for column in columns if column is not None for value in column)
