"""One image distribution: what a reader lists, what a split holds, what a batch carries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlbench.data.originals import Originals
from tlbench.records.manifest import Manifest
from tlbench.seeds import digest

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Listing:
    """What a reader found in one domain, before any split; no pixel has been kept.

    Attributes
    ----------
    names : tuple of str, length n
        Unique, stable name of every image, in the reader's sorted order; the root of its randomness.
    labels : int64 array, shape (n,)
        Position of each image's class in ``classes``.
    classes : tuple of str
        Class names in label order.
    load : callable
        ``load(i)`` decodes image ``i`` to uint8 RGB, shape (h, w, 3), in its original size; raises
        ``DataError`` naming the image where it cannot be decoded.
    columns : mapping of str to tuple of str
        Facts about every image, such as face, family, slide or region; clusters, groups and
        explicit splits are picked from them by name.
    unreadable : frozenset of int
        Places of images that cannot be decoded and that the suite lets be dropped; no split holds them, but the
        published rule counts them when it deals its quotas.
    contents : callable or None
        ``contents(places)`` is a hash over the stored bytes of some images, without looking at the others; None where
        only the whole has one.
    note : str
        What whoever reads results should know about these images, such as where their names come from; may be empty.
    hint : str
        The likely reason, should there be more images than expected; may be empty.
    fingerprint : callable
        SHA-256 hex digest over names, labels and the images' stored bytes.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    load: Callable[[int], NDArray[np.uint8]]
    fingerprint: Callable[[], str]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unreadable: frozenset[int] = frozenset()
    contents: Callable[[NDArray[np.int64]], str] | None = None
    note: str = ""
    hint: str = ""

    def __len__(self) -> int:
        return len(self.names)

    def some(self, places: NDArray[np.int64]) -> Listing:
        """Return the listing of some of the images, in the given order; the others are not looked at."""
        names, labels = tuple(self.names[i] for i in places), self.labels[places]

        def fingerprint() -> str:
            stored = self.fingerprint() if self.contents is None else self.contents(places)
            return digest("some", list(names), labels.tolist(), list(self.classes), stored)

        return replace(
            self,
            names=names,
            labels=labels,
            load=lambda place: self.load(int(places[place])),
            fingerprint=fingerprint,
            columns={name: tuple(values[i] for i in places) for name, values in self.columns.items()},
            unreadable=frozenset(np.flatnonzero(np.isin(places, list(self.unreadable))).tolist()),
            contents=None,
        )


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of one split.

    Attributes
    ----------
    ids : int64 tensor, shape (n,)
        Place of each image in its split's manifest.
    names : tuple of str
        The images' names; together with ``scope`` the only root of per-image randomness.
    images : uint8 tensor, shape (n, 3, h, w)
    labels : int64 tensor, shape (n,)
    scope : str
        ``"task/domain"``.
    """

    ids: Tensor
    names: tuple[str, ...]
    images: Tensor
    labels: Tensor
    scope: str

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Split:
    """The train, validation or test part of a domain, decoded and resized.

    Attributes
    ----------
    manifest : Manifest
        Names, labels, clusters and groups of the images, in the split's fixed order.
    images : uint8 array, shape (n, h, w, 3)
        Usually a read-only memory map into the cache.
    originals : Originals or None
        The same images in their own size, where training crops are cut from them.
    """

    manifest: Manifest
    images: NDArray[np.uint8]
    originals: Originals | None = None

    def __post_init__(self) -> None:
        if len(self.images) != len(self.manifest):
            raise ValueError(f"expected one image per name, got {len(self.images)} for {len(self.manifest)}")

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def labels(self) -> NDArray[np.int64]:
        """Labels, shape (n,), positions in ``manifest.classes``."""
        return self.manifest.labels

    @property
    def hash(self) -> str:
        """Content hash of the split."""
        return self.manifest.hash

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> Split:
        """Return the split of the given places, in the given order."""
        chosen = np.asarray(indices, dtype=np.int64)
        originals = self.originals and self.originals.take(chosen)
        return Split(self.manifest.take(chosen), self.images[chosen], originals)

    def head(self, most: int | None) -> Split:
        """Return the first ``most`` images in the split's fixed order, all where there are fewer."""
        if most is None or most >= len(self):
            return self
        originals = self.originals and self.originals.take(np.arange(most))
        return Split(self.manifest.take(np.arange(most)), self.images[:most], originals)

    def per_class(self, most: int) -> Split:
        """Return the first ``most`` images of every class, in the split's fixed order."""
        return self.take(first_per_class(self.labels, most))

    def batch(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Return the images at the given places."""
        import torch

        chosen = np.asarray(indices, dtype=np.int64)
        pixels = torch.from_numpy(np.ascontiguousarray(self.images[chosen])).permute(0, 3, 1, 2)
        names = tuple(self.manifest.names[i] for i in chosen)
        labels = torch.from_numpy(self.labels[chosen])
        return Batch(torch.from_numpy(chosen), names, pixels, labels, self.manifest.scope)

    def batches(self, size: int, order: NDArray[np.int64] | None = None) -> Iterator[Batch]:
        """Yield the images in batches of at most ``size``, in the split's order or the one given."""
        places = np.arange(len(self)) if order is None else order
        for start in range(0, len(places), size):
            yield self.batch(places[start : start + size])


def first_per_class(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return the places of the first ``most`` images of every class, ascending.

    >>> first_per_class(np.array([0, 0, 1, 0, 1]), 1)
    array([0, 2])
    """
    if most < 1:
        raise ValueError(f"expected at least one image a class, got {most}")
    kept = [np.flatnonzero(labels == label)[:most] for label in np.unique(labels)]
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, dtype=np.int64)


def concatenate(splits: Sequence[Split]) -> Split:
    """Return several domains' splits as one, for training on several sources.

    Raises
    ------
    ValueError
        If the splits' classes differ.
    """
    if len(splits) == 1:
        return splits[0]
    return Split(
        Manifest.concatenate([s.manifest for s in splits]),
        np.concatenate([s.images for s in splits]),
        Originals.joined([s.originals for s in splits]),
    )
