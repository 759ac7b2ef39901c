"""A domain's images to its train, validation and test parts, by rules that depend on names and nothing else."""

from __future__ import annotations

import hashlib
import posixpath
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlbench.data.domain import Listing, first_per_class
from tlbench.errors import DataError, listed, nearest
from tlbench.seeds import digest
from tlbench.suites.spec import ListedSplit, Part, SplitSpec

PARTS: tuple[Part, ...] = ("train", "val", "test")
Places = NDArray[np.int64]

# The published rule: this order of parts, these shares, this seed.
_PUBLISHED: Mapping[Part, float] = {"train": 0.8, "test": 0.1, "val": 0.1}
_PUBLISHED_SEED = 42
BOTH = "val+test"
"""The part of images that serve validation and test by halves: the data set lacks one of the two."""


def split_places(
    listing: Listing,
    rule: SplitSpec,
    listed_split: ListedSplit | None,
    *,
    task: str,
    domain: str,
    capped: bool = True,
) -> dict[Part, Places]:
    """Return which images are in which part, each part in its fixed order.

    The order is random per image, by a hash of (task, domain, name), so that the first images are a fair
    sample; under the two rules of the 2022 study it is the published order. Caps keep the first images: of every
    class, or of the part, then with one of every class in training.

    Parameters
    ----------
    listing : Listing
    rule : SplitSpec
    listed_split : ListedSplit or None
        A domain's own list of values; where there is one, it goes before the rule.
    task, domain : str
    capped : bool
        Whether the rule's caps apply; without them the parts are the data's own.

    Returns
    -------
    dict of part to int64 array
        Places in ``listing``.

    Raises
    ------
    DataError
        If a class has no training image, the data lack the column that the split needs, or values of that
        column are in no part. A domain whose given parts leave it without any training image may be
        measured on, and is not held to having every class; nor is one that the study took as it was given.
    """
    where = f"{task}/{domain}"
    if listed_split is not None:
        parts = _listed(listing, listed_split, where)
    elif rule.rule == "listed":
        raise DataError(
            f"{where}: the split rule is 'listed', but the domain lists nothing; give it split.by, .train, ..."
        )
    elif rule.rule == "given":
        parts = _given(listing, where)
    elif rule.rule == "assaying":
        parts = _assaying(listing)
    elif rule.rule == "assaying-given":
        parts = _assaying_given(listing, where)
    else:
        parts = _stratified(listing, rule, where)
    if listed_split is not None or not rule.rule.startswith("assaying"):
        order = _draws(listing.names, "order", where, rule.seed)
        parts = {part: places[np.argsort(order[places], kind="stable")] for part, places in parts.items()}
    if listing.unreadable:
        dropped = np.array(sorted(listing.unreadable), dtype=np.int64)
        parts = {part: places[~np.isin(places, dropped)] for part, places in parts.items()}
    if capped:
        parts = _all_capped(parts, listing.labels, rule)
    if listed_split is not None or rule.rule != "assaying-given":
        _check_classes(listing, parts, where)
    return parts


def members_hash(names: Sequence[str], labels: Sequence[int] | Places, parts: Mapping[Part, Places]) -> str:
    """Return the SHA-256 of which images, with which labels, are in which part of a domain, and in which order.

    Parameters
    ----------
    names : sequence of str, length n
        Of the whole listing.
    labels : sequence of int, length n
    parts : dict of part to int64 array
        As of ``split_places`` without caps.
    """
    return digest({part: [[names[i] for i in parts[part]], [int(labels[i]) for i in parts[part]]] for part in PARTS})


def fair_order(names: Sequence[str], scope: str) -> Places:
    """Return the places of names in an order that is random per name and the same on every machine."""
    return np.argsort(_draws(names, "order", scope, 0), kind="stable")


def quotas(n: int) -> dict[Part, int]:
    """Return the published rule's number of images a part, for a class of ``n`` images.

    The shares are floored; what is left over goes out one at a time to train, then test, then val.

    >>> quotas(7), quotas(99)
    ({'train': 6, 'test': 1, 'val': 0}, {'train': 80, 'test': 10, 'val': 9})
    """
    counts = {part: int(share * n) for part, share in _PUBLISHED.items()}
    for part in list(counts)[: n - sum(counts.values())]:
        counts[part] += 1
    return counts


def _assaying(listing: Listing) -> dict[Part, Places]:
    """Split as Wenzel et al. (2022) did: a seed-42 shuffle of the sorted files, dealt out class by class."""
    order = _published_order(_as_image_folder(listing))
    return _dealt(order, listing, [quotas(int(n)) for n in _class_sizes(listing, order)])


def _assaying_given(listing: Listing, where: str) -> dict[Part, Places]:
    """Take the data's own parts as Wenzel et al. (2022) did: each in seed-42 order, ``val+test`` cut in halves."""
    values = _column(listing, "part", where)
    known = (*PARTS, BOTH)
    strange = sorted(set(values) - set(known))
    if strange:
        raise DataError(f"{where}: expected parts {listed(known)}, got '{strange[0]}'{nearest(strange[0], known)}")
    parts = {part: np.array(_published_order(_places_of(values, {part}).tolist()), np.int64) for part in PARTS}
    shared = _published_order(_places_of(values, {BOTH}).tolist())
    if not shared:
        return parts
    # An odd class gives its extra image to the test half.
    halves = [{"test": n - n // 2, "val": n // 2} for n in map(int, _class_sizes(listing, shared))]
    dealt = _dealt(shared, listing, halves)
    return {part: np.concatenate([places, dealt[part]]) for part, places in parts.items()}


def _published_order(places: list[int]) -> list[int]:
    # CPython's shuffle, not NumPy's: the published splits were drawn with it, and it is stable across versions.
    order = list(places)
    random.Random(_PUBLISHED_SEED).shuffle(order)
    return order


def _class_sizes(listing: Listing, places: Sequence[int]) -> NDArray[np.int64]:
    return np.bincount(listing.labels[places], minlength=len(listing.classes))


def _dealt(order: Sequence[int], listing: Listing, left: Sequence[Mapping[Any, int]]) -> dict[Part, Places]:
    """Deal images out in order: each to the first part, in the quotas' order, that its class has not filled.

    Unreadable images count in the quotas and are passed over in the dealing, so that the last part lacks them.
    """
    remaining = [dict(quota) for quota in left]
    dealt: dict[Part, list[int]] = {part: [] for part in PARTS}
    for place in order:
        if place in listing.unreadable:
            continue
        quota = remaining[listing.labels[place]]
        part = next(part for part, n in quota.items() if n)
        quota[part] -= 1
        dealt[part].append(place)
    return {part: np.array(places, dtype=np.int64) for part, places in dealt.items()}


def _as_image_folder(listing: Listing) -> list[int]:
    """Return places in the order of torchvision's ImageFolder: class, then folder, then file."""

    def key(place: int) -> tuple[str, str, str]:
        return (listing.classes[listing.labels[place]], *posixpath.split(listing.names[place]))

    return sorted(range(len(listing)), key=key)


def _stratified(listing: Listing, rule: SplitSpec, where: str) -> dict[Part, Places]:
    drawn = _draws(listing.names, "member", where, rule.seed)
    shares = {"train": rule.train, "val": rule.val, "test": rule.test}
    parts: dict[Part, list[Places]] = {part: [] for part in PARTS}
    for label, name in enumerate(listing.classes):
        members = np.flatnonzero(listing.labels == label)
        members = members[np.argsort(drawn[members], kind="stable")]
        # Equal remainders are common in small classes: a draw per class keeps one part from winning them all.
        ties = _draws(PARTS, "tie", where, rule.seed, name)
        counts = _apportioned(len(members), [shares[part] for part in PARTS], ties)
        for part, own in zip(PARTS, np.split(members, np.cumsum(counts)[:-1]), strict=True):
            parts[part].append(own)
    return {part: np.concatenate(own) for part, own in parts.items()}


def _apportioned(n: int, shares: Sequence[float], ties: NDArray[np.uint64]) -> list[int]:
    """Share ``n`` images out by largest remainder; the first part gets at least one."""
    exact = [round(share * n, 9) for share in shares]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], int(ties[i])))
    for i in by_remainder[: n - sum(counts)]:
        counts[i] += 1
    if n and not counts[0]:
        counts[int(np.argmax(counts))] -= 1
        counts[0] = 1
    return counts


def _given(listing: Listing, where: str) -> dict[Part, Places]:
    values = _column(listing, "part", where)
    strange = sorted(set(values) - set(PARTS))
    if strange:
        raise DataError(f"{where}: expected parts {listed(PARTS)}, got '{strange[0]}'{nearest(strange[0], PARTS)}")
    return {part: _places_of(values, {part}) for part in PARTS}


def _listed(listing: Listing, split: ListedSplit, where: str) -> dict[Part, Places]:
    values = _column(listing, split.by, where)
    wanted: dict[Part, tuple[str, ...]] = {"train": split.train, "val": split.val, "test": split.test}
    choices = {name for names in wanted.values() for name in names}
    found = set(values)
    for part, names in wanted.items():
        for name in names:
            if name not in found:
                raise DataError(
                    f"{where}: split.{part} names {split.by} '{name}', which no image has{nearest(name, found)}"
                )
    homeless = sorted(found - choices)
    if homeless:
        raise DataError(
            f"{where}: {split.by} '{homeless[0]}' is in no part of the split{nearest(homeless[0], choices)}"
        )
    return {part: _places_of(values, set(names)) for part, names in wanted.items()}


def _places_of(values: Sequence[str], wanted: set[str]) -> Places:
    return np.array([place for place, value in enumerate(values) if value in wanted], dtype=np.int64)


def _column(listing: Listing, name: str, where: str) -> tuple[str, ...]:
    if name not in listing.columns:
        known = listed(listing.columns) or "none"
        raise DataError(
            f"{where}: the split needs column '{name}', the data have {known}{nearest(name, listing.columns)}"
        )
    return listing.columns[name]


def _all_capped(parts: Mapping[Part, Places], labels: Places, rule: SplitSpec) -> dict[Part, Places]:
    of_class = {"train": rule.max_train_per_class, "val": rule.max_val_per_class, "test": rule.max_test_per_class}
    in_all = {"train": rule.max_train, "val": rule.max_val, "test": rule.max_test}
    capped: dict[Part, Places] = {}
    for part, places in parts.items():
        most = of_class[part]
        kept = places if most is None else places[first_per_class(labels[places], most)]
        capped[part] = kept[_first(labels[kept], in_all[part], every_class=part == "train")]
    return capped


def _first(labels: Places, most: int | None, *, every_class: bool) -> Places:
    """Return the first ``most`` places in order; with ``every_class`` the first of each class comes before the rest."""
    if most is None or most >= len(labels):
        return np.arange(len(labels))
    if not every_class:
        return np.arange(most)
    firsts = first_per_class(labels, 1) if len(labels) else np.arange(0)
    rest = np.setdiff1d(np.arange(len(labels)), firsts)
    return np.sort(np.concatenate([firsts, rest[: max(0, most - len(firsts))]]))


def _check_classes(listing: Listing, parts: Mapping[Part, Places], where: str) -> None:
    if not len(parts["train"]) and len(listing):
        return
    found = np.bincount(listing.labels, minlength=len(listing.classes))
    trained = np.bincount(listing.labels[parts["train"]], minlength=len(listing.classes))
    for name, images, training in zip(listing.classes, found, trained, strict=True):
        if not images:
            raise DataError(f"{where}: class '{name}' has no image; leave it out of the domain's classes, or add some")
        if not training:
            raise DataError(f"{where}: class '{name}' has {images} images, none of them in the train part")


def _draws(names: Sequence[str], *stream: str | int) -> NDArray[np.uint64]:
    """Return 64 random bits per name, by the hash of the stream's identity and the name."""
    start = hashlib.sha256("\x1f".join(["tlbench split", *map(str, stream), ""]).encode())
    drawn = np.empty(len(names), dtype=np.uint64)
    for i, name in enumerate(names):
        # Copying the common start is four times as fast as hashing the whole identity for every image.
        one = start.copy()
        one.update(name.encode("utf-8", "surrogateescape"))
        drawn[i] = int.from_bytes(one.digest()[:8], "big")
    return drawn
