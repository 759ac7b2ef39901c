"""The splits of the 2022 study: counts, members, few-shot sets and halves, and the rule written a second time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tlbench.data.domain import Listing, first_per_class
from tlbench.data.readers.catalogue import read_domain
from tlbench.data.splits import BOTH, PARTS, members_hash, quotas, split_places
from tlbench.suites.load import load_suite
from tlbench.suites.spec import SplitSpec

VLCS = {  # bird, car, chair, dog, person; then train, test, val, and how many a hundred shots are
    "Caltech101": ((237, 123, 118, 67, 870), (1134, 142, 139), 448),
    "LabelMe": ((80, 1209, 88, 42, 1237), (2127, 266, 259), 369),
    "SUN09": ((20, 932, 1036, 30, 1264), (2627, 328, 327), 340),
    "VOC2007": ((330, 699, 428, 420, 1499), (2703, 338, 335), 500),
}
PACS = {  # train, test, val; hash of the members; ten and a hundred shots
    "art_painting": (
        (1644, 203, 201), "044209b07533da9b7dfcfec55751946df10b0c5243af38ac5fec7426e302e96e", (70, 700),
    ),
    "cartoon": ((1880, 234, 230), "d37744dfd7b486fc5dec55a543db6c6211608074cdf05550a2591b60d9805ff2", (70, 700)),
    "photo": ((1339, 167, 164), "5f17b9837d27e9e45eaed55259a8f86e8ac203d091881bddf662ab5c099bea7a", (70, 700)),
    "sketch": ((3145, 393, 391), "629010062301227b75bfcd12dfbd3cc62a642af5b8a59bef684bb699b2f43800", (70, 664)),
}  # fmt: skip
Parts = dict[str, list[int]]


def listing_of(sizes: Sequence[int], unreadable: Sequence[int] = (), part: Sequence[str] = ()) -> Listing:
    names = tuple(f"{kind:03d}/{number:05d}.jpg" for kind, n in enumerate(sizes) for number in range(n))
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.int64)

    def load(place: int) -> np.ndarray:
        raise AssertionError("a split never looks at pixels")

    return Listing(
        names=names,
        labels=labels,
        classes=tuple(f"{kind:03d}" for kind in range(len(sizes))),
        load=load,
        fingerprint=lambda: "none",
        columns={"part": tuple(part)} if part else {},
        unreadable=frozenset(unreadable),
    )


def split(listing: Listing, rule: str = "assaying", **caps: int) -> Parts:
    spec = SplitSpec.model_validate({"rule": rule, **caps})
    parts = split_places(listing, spec, None, task="t", domain="d")
    return {part: places.tolist() for part, places in parts.items()}


def shuffled_by_the_study(places: Sequence[int]) -> list[int]:
    """Return a list after ``random.seed(42); random.shuffle(list)``, Python's state left as it was."""
    before = random.getstate()
    try:
        random.seed(42)
        order = list(places)
        random.shuffle(order)
    finally:
        random.setstate(before)
    return order


def split_by_the_study(labels: Sequence[int], unreadable: Sequence[int] = ()) -> Parts:
    """The rule in the words of the study: floors, left-overs to train, test, val in turn, then one walk."""
    room: dict[int, dict[str, int]] = {}
    for label in set(labels):
        n = sum(1 for other in labels if other == label)
        room[label] = {"train": int(0.8 * n), "test": int(0.1 * n), "val": int(0.1 * n)}
        for part in ("train", "test", "val"):
            if sum(room[label].values()) < n:
                room[label][part] += 1
    members: Parts = {"train": [], "val": [], "test": []}
    now = {label: ["train", "test", "val"] for label in room}
    for image in shuffled_by_the_study(range(len(labels))):
        if image in unreadable:
            continue
        label = labels[image]
        while room[label][now[label][0]] == 0:
            now[label].pop(0)
        room[label][now[label][0]] -= 1
        members[now[label][0]].append(image)
    return members


@pytest.mark.parametrize("sizes", [(1, 2, 3), (12, 7, 31), (99, 100, 101), (5, 250, 19, 20, 1), (7,)])
def test_members_and_order_are_those_of_the_rule_written_again(sizes: tuple[int, ...]) -> None:
    listing = listing_of(sizes)
    assert split(listing) == split_by_the_study(listing.labels.tolist())


@pytest.mark.parametrize("unreadable", [(0,), (3, 4, 30), (12, 47, 48, 49), tuple(range(10, 16))])
def test_unreadable_images_are_passed_over_in_the_walk(unreadable: tuple[int, ...]) -> None:
    listing = listing_of((30, 20), unreadable)
    assert split(listing) == split_by_the_study(listing.labels.tolist(), unreadable)


@pytest.mark.parametrize("domain", VLCS)
def test_vlcs_has_the_published_counts_and_few_shot_sizes(domain: str) -> None:
    sizes, (train, test, val), hundred = VLCS[domain]
    # Which four images of LabelMe cannot be read is not known: any four leave the same counts.
    unreadable = (3, 700, 1290, 2600) if domain == "LabelMe" else ()
    listing = listing_of(sizes, unreadable)
    parts = split(listing)
    assert (len(parts["train"]), len(parts["test"]), len(parts["val"])) == (train, test, val)
    assert not set(unreadable) & {place for places in parts.values() for place in places}
    labels = listing.labels[parts["train"]]
    assert (len(first_per_class(labels, 10)), len(first_per_class(labels, 100))) == (50, hundred)


@pytest.mark.parametrize("seed", range(5))
def test_the_shortfall_of_unreadable_images_lands_in_val_wherever_they_are(seed: int) -> None:
    sizes, _, _ = VLCS["LabelMe"]
    unreadable = np.random.default_rng(seed).choice(sum(sizes), 4, replace=False).tolist()
    parts, whole = split(listing_of(sizes, unreadable)), split(listing_of(sizes))
    assert [len(parts[part]) for part in ("train", "test", "val")] == [2127, 266, 259]
    assert [len(whole[part]) for part in ("train", "test", "val")] == [2127, 266, 263]


def test_quickdraw_is_345_times_500() -> None:
    assert {part: 345 * n for part, n in quotas(500).items()} == {"train": 138000, "test": 17250, "val": 17250}


# --- parts as the data set gives them --------------------------------------------------------------------------------


def test_given_parts_keep_the_seed_42_order_of_their_rows() -> None:
    part = ["train", "val", "train", "test", "test", "train", "val", "test", "train", "train"]
    parts = split(listing_of((10,), part=part), "assaying-given")
    for name in PARTS:
        assert parts[name] == shuffled_by_the_study([i for i, own in enumerate(part) if own == name])
    assert parts["train"] != sorted(parts["train"])


def test_a_shared_part_is_halved_class_by_class_and_an_odd_image_goes_to_test() -> None:
    sizes, trained = (7, 4, 1, 10), 3
    listing = listing_of([n + trained for n in sizes])
    part = [BOTH if number >= trained else "train" for n in sizes for number in range(n + trained)]
    parts = split(listing_of([n + trained for n in sizes], part=part), "assaying-given")
    counts = {name: np.bincount(listing.labels[parts[name]], minlength=4).tolist() for name in PARTS}
    assert counts == {"train": [3, 3, 3, 3], "test": [4, 2, 1, 5], "val": [3, 2, 0, 5]}
    # The study walks the shared images in seed-42 order: of every class the first half is test, the rest val.
    order = shuffled_by_the_study([i for i, own in enumerate(part) if own == BOTH])
    seen = dict.fromkeys(range(4), 0)
    expected: Parts = {"test": [], "val": []}
    for place in order:
        label = int(listing.labels[place])
        expected["test" if seen[label] < (sizes[label] + 1) // 2 else "val"].append(place)
        seen[label] += 1
    assert (parts["test"], parts["val"]) == (expected["test"], expected["val"])


def test_the_halves_of_rxrx1_differ_by_the_classes_with_an_odd_count() -> None:
    sizes = [35 + label % 2 for label in range(40)]
    parts = split(listing_of(sizes, part=[BOTH] * sum(sizes)), "assaying-given")
    assert len(parts["test"]) - len(parts["val"]) == sum(n % 2 for n in sizes)


# --- caps ------------------------------------------------------------------------------------------------------------


def test_a_cap_on_training_keeps_one_of_every_class_and_then_the_first() -> None:
    listing = listing_of((400, 300, 2))
    whole, capped = split(listing)["train"], split(listing, max_train=20)["train"]
    labels = listing.labels[whole]
    firsts = {whole[int(np.flatnonzero(labels == label)[0])] for label in range(3)}
    others = [place for place in whole if place not in firsts][:17]
    assert capped == [place for place in whole if place in firsts or place in others]
    assert len(capped) == 20
    assert 2 in listing.labels[capped]


def test_caps_on_val_and_test_keep_the_first_in_order() -> None:
    whole, capped = split(listing_of((200, 100))), split(listing_of((200, 100)), max_val=5, max_test=7)
    assert (capped["val"], capped["test"]) == (whole["val"][:5], whole["test"][:7])
    assert capped["train"] == whole["train"]


def test_a_cap_below_the_number_of_classes_still_trains_on_every_class() -> None:
    listing = listing_of((20, 20, 20, 20))
    assert sorted(listing.labels[split(listing, max_train=2)["train"]].tolist()) == [0, 1, 2, 3]


def test_a_cap_a_class_comes_before_the_cap_of_all() -> None:
    listing = listing_of((50, 10))
    capped = split(listing, max_train_per_class=4, max_train=6)["train"]
    assert np.bincount(listing.labels[capped]).max() <= 4
    assert len(capped) == 6


def test_uncapped_parts_are_the_data_sets_own() -> None:
    listing, rule = listing_of((50, 50)), SplitSpec(rule="assaying", max_train=5, max_test=1)
    parts = split_places(listing, rule, None, task="t", domain="d", capped=False)
    assert {part: places.tolist() for part, places in parts.items()} == split(listing)


# --- members ---------------------------------------------------------------------------------------------------------


def test_the_hash_of_members_moves_with_a_name_a_label_a_part_and_the_order() -> None:
    names, labels = ["a", "b", "c", "d"], np.array([0, 1, 0, 1])
    parts = {"train": np.array([0, 1]), "val": np.array([2]), "test": np.array([3])}
    hashes = {
        members_hash(names, labels, parts),
        members_hash(["a", "b", "c", "e"], labels, parts),
        members_hash(names, 1 - labels, parts),
        members_hash(names, labels, {**parts, "val": np.array([3]), "test": np.array([2])}),
        members_hash(names, labels, {**parts, "train": np.array([1, 0])}),
    }
    assert len(hashes) == 5


@pytest.mark.parametrize("domain", PACS)
def test_pacs_has_the_published_counts_and_these_members(pacs_root: Path, domain: str) -> None:
    (train, test, val), members, shots = PACS[domain]
    suite = load_suite("ood172")
    listing = read_domain(suite.tasks["PACS"], "PACS", domain, pacs_root)
    parts = split_places(listing, suite.split_of("PACS"), None, task="PACS", domain=domain, capped=False)
    assert (len(parts["train"]), len(parts["test"]), len(parts["val"])) == (train, test, val)
    assert members_hash(listing.names, listing.labels, parts) == members
    labels = listing.labels[parts["train"]]
    assert (len(first_per_class(labels, 10)), len(first_per_class(labels, 100))) == shots


def test_pacs_members_are_those_of_torchvisions_folder_and_the_rule_written_again(pacs_root: Path) -> None:
    from torchvision.datasets import ImageFolder

    files = ImageFolder(str(pacs_root / "PACS" / "photo"))
    listing = read_domain(load_suite("ood172").tasks["PACS"], "PACS", "photo", pacs_root)
    parts = split(listing)
    for part, places in split_by_the_study(files.targets).items():
        expected = [Path(files.samples[i][0]).relative_to(pacs_root / "PACS" / "photo").as_posix() for i in places]
        assert [listing.names[i] for i in parts[part]] == expected


def test_fewer_shots_are_a_subset_of_more_and_of_the_first_of_every_class() -> None:
    listing = listing_of((200, 50, 12))
    labels = listing.labels[split(listing)["train"]]
    ten, hundred = first_per_class(labels, 10), first_per_class(labels, 100)
    assert set(ten) < set(hundred) < set(range(len(labels)))
    assert np.bincount(labels[ten]).tolist() == [10, 10, 10]
    assert np.bincount(labels[hundred]).tolist() == [100, 40, 10]
