from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.data.domain import Listing
from tlbench.data.splits import PARTS, quotas, split_places
from tlbench.errors import DataError
from tlbench.suites.spec import ListedSplit, SplitSpec

PARTS_OF_THREE = ("train", "val", "test")


def listing_of(counts: dict[str, int], columns: dict[str, tuple[str, ...]] | None = None) -> Listing:
    names = tuple(f"{kind}/{number:04d}.png" for kind, n in counts.items() for number in range(n))
    labels = np.repeat(np.arange(len(counts)), list(counts.values()))

    def load(place: int) -> np.ndarray:
        raise AssertionError("a split never looks at pixels")

    return Listing(names, labels.astype(np.int64), tuple(counts), load, lambda: "none", columns or {})


def shuffled(listing: Listing, seed: int) -> Listing:
    order = np.random.default_rng(seed).permutation(len(listing))
    names = tuple(listing.names[i] for i in order)
    columns = {key: tuple(values[i] for i in order) for key, values in listing.columns.items()}
    return Listing(names, listing.labels[order], listing.classes, listing.load, listing.fingerprint, columns)


def named(listing: Listing, **rule: object) -> dict[str, list[str]]:
    parts = split_places(listing, SplitSpec.model_validate(rule), None, task="t", domain="d")
    return {part: [listing.names[i] for i in places] for part, places in parts.items()}


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 3))
def test_stratified_parts_share_every_class_out_without_overlap(sizes: list[int], seed: int) -> None:
    listing = listing_of({f"c{i}": n for i, n in enumerate(sizes)})
    parts = split_places(listing, SplitSpec(seed=seed), None, task="t", domain="d")
    together = np.concatenate([parts[part] for part in PARTS])
    assert sorted(together.tolist()) == list(range(len(listing)))
    for label, n in enumerate(sizes):
        counts = [int((listing.labels[parts[part]] == label).sum()) for part in PARTS]
        assert counts[0] >= 1
        assert all(abs(count - share * n) <= 1 for count, share in zip(counts, (0.8, 0.1, 0.1), strict=True))


@pytest.mark.parametrize("rule", ["stratified", "assaying"])
def test_membership_and_order_depend_on_names_and_not_on_the_order_of_files(rule: str) -> None:
    listing = listing_of({"cat": 30, "dog": 21})
    assert named(listing, rule=rule) == named(shuffled(listing, 1), rule=rule)


def test_an_added_image_leaves_the_order_of_the_others() -> None:
    before = [n for n in named(listing_of({"cat": 30, "dog": 30}))["train"]]
    after = [n for n in named(listing_of({"cat": 30, "dog": 31}))["train"]]
    both = set(before) & set(after)
    assert [n for n in before if n in both] == [n for n in after if n in both]
    assert len(both) >= len(before) - 2


def test_the_seed_of_the_split_moves_images() -> None:
    listing = listing_of({"cat": 50, "dog": 50})
    assert set(named(listing, seed=0)["test"]) != set(named(listing, seed=1)["test"])


def test_two_domains_with_equal_names_are_split_differently() -> None:
    listing = listing_of({"cat": 60})
    one, two = (split_places(listing, SplitSpec(), None, task="t", domain=d)["test"].tolist() for d in ("a", "b"))
    assert set(one) != set(two)


def test_the_first_images_are_a_fair_sample_of_the_classes() -> None:
    listing = listing_of({"cat": 1000, "dog": 1000})
    first = split_places(listing, SplitSpec(), None, task="t", domain="d")["train"][:200]
    assert 70 <= int(listing.labels[first].sum()) <= 130


def test_many_small_classes_leave_no_part_empty() -> None:
    parts = named(listing_of({f"c{i}": 5 for i in range(40)}))
    assert len(parts["val"]) >= 10
    assert len(parts["test"]) >= 10


@pytest.mark.parametrize(
    ("n", "train", "test", "val"),
    [
        (1, 1, 0, 0), (2, 2, 0, 0), (5, 5, 0, 0), (7, 6, 1, 0), (9, 8, 1, 0), (10, 8, 1, 1), (12, 10, 1, 1),
        (15, 13, 1, 1), (19, 16, 2, 1), (20, 16, 2, 2), (99, 80, 10, 9),
    ],
)  # fmt: skip
def test_quotas_of_small_classes_are_the_published_ones(n: int, train: int, test: int, val: int) -> None:
    assert quotas(n) == {"train": train, "test": test, "val": val}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((237, 123, 118, 67, 870), (1134, 139, 142)),  # VLCS Caltech101
        ((20, 932, 1036, 30, 1264), (2627, 327, 328)),  # SUN09
        ((330, 699, 428, 420, 1499), (2703, 335, 338)),  # VOC2007
        ((189, 202, 182, 186, 199, 280, 432), (1339, 164, 167)),  # PACS photo
        ((772, 740, 753, 608, 816, 80, 160), (3145, 391, 393)),  # PACS sketch
    ],
)
def test_the_published_rule_gives_the_published_counts(counts: tuple[int, ...], expected: tuple[int, ...]) -> None:
    parts = named(listing_of({f"c{i}": n for i, n in enumerate(counts)}), rule="assaying")
    assert tuple(len(parts[part]) for part in PARTS_OF_THREE) == expected


def test_the_published_rule_is_the_seed_42_shuffle_dealt_out_class_by_class() -> None:
    import random

    listing = listing_of({"cat": 12, "dog": 7})
    order = list(range(19))
    random.seed(42)
    random.shuffle(order)
    cats, dogs = [i for i in order if i < 12], [i for i in order if i >= 12]
    parts = split_places(listing, SplitSpec(rule="assaying"), None, task="t", domain="d")
    expected = {"train": {*cats[:10], *dogs[:6]}, "test": {cats[10], dogs[6]}, "val": {cats[11]}}
    for part, members in expected.items():
        assert parts[part].tolist() == [i for i in order if i in members]  # type: ignore[index]


def test_nested_files_are_ordered_as_a_folder_walk_orders_them() -> None:
    # A walk lists a folder's own files before those of its sub-folders; plain sorting would put 'a/' before 'b.png'.
    from tlbench.data.splits import _as_image_folder

    listing = listing_of({"c": 3})
    nested = Listing(("c/a/z.png", "c/b.png", "c/a.png"), listing.labels, ("c",), listing.load, listing.fingerprint)
    assert [nested.names[i] for i in _as_image_folder(nested)] == ["c/a.png", "c/b.png", "c/a/z.png"]


def test_a_cap_keeps_the_first_images_of_every_class() -> None:
    listing = listing_of({"cat": 40, "dog": 40})
    whole, capped = named(listing)["train"], named(listing, max_train_per_class=5)["train"]
    seen = {"cat": 0, "dog": 0}
    expected = []
    for name in whole:
        kind = name.split("/")[0]
        seen[kind] += 1
        expected += [name] if seen[kind] <= 5 else []
    assert capped == expected


def test_given_parts_are_taken_as_they_are() -> None:
    parts = ("train", "test", "val", "train")
    split = split_places(listing_of({"cat": 4}, {"part": parts}), SplitSpec(rule="given"), None, task="t", domain="d")
    assert sorted(split["train"].tolist()) == [0, 3]
    assert (split["test"].tolist(), split["val"].tolist()) == ([1], [2])


def test_a_given_domain_without_training_images_may_lack_classes() -> None:
    listing = listing_of({"cat": 2, "dog": 0}, {"part": ("test", "test")})
    split = split_places(listing, SplitSpec(rule="given"), None, task="t", domain="d")
    assert [len(split[part]) for part in PARTS] == [0, 0, 2]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"part": ("train", "trian")}, "did you mean 'train'"),
        ({"parts": ("train", "val")}, "needs column 'part', the data have 'parts'; did you mean 'parts'"),
    ],
)
def test_given_parts_that_are_none_are_an_error(columns: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_places(listing_of({"cat": 2}, columns), SplitSpec(rule="given"), None, task="t", domain="d")


FACES = {"face": ("roman", "gothic", "script", "roman")}


def test_a_listed_split_keeps_values_whole_and_goes_before_the_rule() -> None:
    listed_split = ListedSplit(by="face", train=("roman",), val=("script",), test=("gothic",))
    split = split_places(listing_of({"cat": 4}, FACES), SplitSpec(), listed_split, task="t", domain="d")
    assert sorted(split["train"].tolist()) == [0, 3]
    assert (split["val"].tolist(), split["test"].tolist()) == ([2], [1])


@pytest.mark.parametrize(
    ("listed_split", "message"),
    [
        (
            {"train": ["roman"], "val": ["script"], "test": ["gothik"]},
            "gothik', which no image has; did you mean 'gothic'",
        ),
        ({"train": ["roman"], "val": ["script"], "test": ["gothic"], "by": "fase"}, "did you mean 'face'"),
    ],
)
def test_a_listed_value_or_column_that_the_data_lack_is_an_error(listed_split: dict[str, object], message: str) -> None:
    split = ListedSplit.model_validate({"by": "face", **listed_split})
    with pytest.raises(DataError, match=message):
        split_places(listing_of({"cat": 4}, FACES), SplitSpec(), split, task="t", domain="d")


def test_a_value_of_the_data_in_no_part_is_an_error() -> None:
    split = ListedSplit(by="face", train=("roman",), val=("script",), test=("gothic",))
    faces = {"face": ("roman", "gothic", "script", "blackletter")}
    with pytest.raises(DataError, match="face 'blackletter' is in no part"):
        split_places(listing_of({"cat": 4}, faces), SplitSpec(), split, task="t", domain="d")


def test_a_class_without_training_images_is_named() -> None:
    parts = {"part": ("train", "train", "test", "test")}
    with pytest.raises(DataError, match="class 'dog' has 2 images, none of them in the train part"):
        split_places(listing_of({"cat": 2, "dog": 2}, parts), SplitSpec(rule="given"), None, task="t", domain="d")


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(DataError, match="class 'dog' has no image"):
        split_places(listing_of({"cat": 9, "dog": 0}), SplitSpec(), None, task="t", domain="d")
