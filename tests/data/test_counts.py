"""A suite's declared numbers of images against those that are there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tlbench.data.counts import check_counts, count_domain
from tlbench.data.prepare import SuiteData
from tlbench.errors import DataError

TEN = {"cat": 10, "dog": 10}
DECLARED = {"train": 16, "val": 2, "test": 2}


@pytest.fixture
def data_of(folders: Callable[..., Path], suite_of: Callable[..., Any]) -> Callable[..., SuiteData]:
    """Return pets whose photos are as declared and whose sketches are as given."""

    def make(sketch: Mapping[str, int], protocol: Mapping[str, Any] | None = None, **declared: Any) -> SuiteData:
        root = folders({"photo": TEN, "sketch": sketch})
        domains = {"photo": {"counts": DECLARED}, "sketch": {"counts": DECLARED, **declared}}
        suite = suite_of(domains, protocol={"split": {"rule": "assaying"}, **(protocol or {})})
        return SuiteData(suite, data_root=root)

    return make


def test_data_as_declared_pass_in_silence(data_of: Callable[..., SuiteData]) -> None:
    assert check_counts(data_of(TEN), ["pets"]) == []


def test_caps_of_a_suite_do_not_count(data_of: Callable[..., SuiteData]) -> None:
    capped = data_of(TEN, {"split": {"rule": "assaying", "max_train": 4, "max_test_per_class": 1}})
    assert check_counts(capped, ["pets"]) == []


def test_a_suite_that_declares_nothing_is_not_held_to_anything(data_of: Callable[..., SuiteData]) -> None:
    data = data_of({"cat": 30, "dog": 3}, counts=None)
    assert check_counts(data, ["pets"]) == []
    assert count_domain(data, "pets", "sketch").right


def test_a_known_variant_passes_and_is_named(data_of: Callable[..., SuiteData]) -> None:
    notes = check_counts(data_of({"cat": 12, "dog": 10}, variants={"the first release": 22}), ["pets"])
    assert notes == ["pets/sketch: these are the first release (22 images; the suite counts 20)"]


def test_a_difference_stops_with_a_table_of_every_domain(data_of: Callable[..., SuiteData]) -> None:
    data = data_of({"cat": 30, "dog": 10}, counts={"train": 8, "val": 1, "test": 1}, variants={"older": 22})
    with pytest.raises(DataError) as error:
        check_counts(data, ["pets"])
    first, *rows = str(error.value).split("\n")
    assert first.startswith("1 of 2 domains do not hold the images of suite 'made'")
    assert [row.split() for row in rows[:2]] == [
        ["domain", "expected", "found", "difference"],
        ["pets/sketch", "8/1/1", "32/4/4", "+30", "images"],
    ]
    assert rows[2:] == ["  pets/sketch: as many too many as class 'cat' holds"]


@pytest.mark.parametrize(
    ("sketch", "difference", "cause"),
    [
        ({"cat": 11, "dog": 9}, "other parts", "another version of the data"),
        ({"cat": 10, "dog": 9}, "-1 image", "an unfinished download"),
        ({"cat": 20, "dog": 20}, "+20 images", "every image seems to be there twice"),
    ],
)
def test_the_likely_cause_is_told(
    data_of: Callable[..., SuiteData], sketch: Mapping[str, int], difference: str, cause: str
) -> None:
    data = data_of(sketch)
    if difference == "other parts":
        # Eleven and nine are dealt as ten and ten are, but for the declared parts of another cut.
        data = data_of(sketch, counts={"train": 14, "val": 3, "test": 3})
    with pytest.raises(DataError) as error:
        check_counts(data, ["pets"])
    assert difference in str(error.value)
    assert cause in str(error.value)


def test_images_that_a_missing_list_would_leave_out_are_the_likely_cause(
    folders: Callable[..., Path], suite_of: Callable[..., Any]
) -> None:
    root = folders({"photo": {"cat": 11, "dog": 10}, "sketch": TEN})
    suite = suite_of(
        {name: {"counts": DECLARED} for name in ("photo", "sketch")},
        reader="domainbed",
        options={"exclude": "duplicates.txt"},
        protocol={"split": {"rule": "assaying"}},
    )
    with pytest.raises(DataError, match=r"pets/photo: .*duplicates\.txt is not there, so the images"):
        check_counts(SuiteData(suite, data_root=root), ["pets"])
    (root / "duplicates.txt").write_text("photo/cat/003.png\n")
    assert check_counts(SuiteData(suite, data_root=root), ["pets"]) == []


def test_the_real_pacs_is_what_the_suite_declares(pacs_root: Path) -> None:
    from tlbench.suites.load import load_suite

    data = SuiteData(load_suite("ood172"), data_root=pacs_root)
    assert check_counts(data, ["PACS"]) == []
    assert count_domain(data, "PACS", "photo").found.model_dump() == {"train": 1339, "val": 164, "test": 167}
