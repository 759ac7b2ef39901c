"""Outcomes: a bit an image, in the manifest's order, and back."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.errors import StoreError
from tlbench.records.outcomes import make_outcomes, unpacked
from tlbench.records.schema import OUTCOMES


def records_of(*measurements: tuple[str, str]) -> pa.Table:
    return pa.table(
        {
            "measurement_id": [name for name, _ in measurements],
            "condition": [condition for _, condition in measurements],
            "split_hash": [f"split of {name}" for name, _ in measurements],
        }
    )


def predictions_of(ranks: dict[str, list[int | None]]) -> pa.Table:
    rows = [(name, place, rank) for name, own in ranks.items() for place, rank in enumerate(own)]
    return pa.table(
        {
            "measurement_id": pa.array([row[0] for row in rows], pa.string()),
            "id": pa.array([row[1] for row in rows], pa.int32()),
            "rank": pa.array([row[2] for row in rows], pa.int32()),
        }
    )


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_what_was_right_comes_back_in_the_manifests_order(ranks: list[int], random: object) -> None:
    table = predictions_of({"a": list(ranks)})
    shuffled = list(range(len(ranks)))
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    packed = make_outcomes(records_of(("a", "clean")), table.take(shuffled))
    assert packed.schema.equals(OUTCOMES)
    assert unpacked(packed)["a"].tolist() == [rank == 0 for rank in ranks]


def test_the_first_image_is_the_highest_bit() -> None:
    packed = make_outcomes(records_of(("a", "clean")), predictions_of({"a": [0, 1, 1, 0]}))
    assert packed["correct"].to_pylist() == [b"\x90"]


def test_only_clean_sets_are_packed_and_each_once() -> None:
    records = records_of(("a", "clean"), ("a", "clean"), ("b", "fog"))
    packed = make_outcomes(records, predictions_of({"a": [0], "b": [0], "c": [0]}))
    assert packed["measurement_id"].to_pylist() == ["a"]
    assert packed["split_hash"].to_pylist() == ["split of a"]


def test_outputs_without_ranks_have_no_outcomes() -> None:
    assert len(make_outcomes(records_of(("a", "clean")), predictions_of({"a": [None, None]}))) == 0


def test_a_place_that_is_missing_or_doubled_is_told() -> None:
    table = predictions_of({"a": [0, 1, 0]})
    with pytest.raises(StoreError, match="every place 0 to 1"):
        make_outcomes(records_of(("a", "clean")), table.take([0, 2]))
    with pytest.raises(StoreError, match="every place 0 to 3"):
        make_outcomes(records_of(("a", "clean")), table.take([0, 1, 2, 2]))


def test_bits_that_do_not_fit_the_count_are_told() -> None:
    row = {"measurement_id": ["a"], "split_hash": ["s"], "n": [9], "correct": [b"\xff"]}
    with pytest.raises(StoreError, match="expected 2 bytes for 9 images, got 1"):
        unpacked(pa.table(row, schema=OUTCOMES))
    twice = pa.table({key: value * 2 for key, value in {**row, "n": [8]}.items()}, schema=OUTCOMES)
    with pytest.raises(StoreError, match="twice"):
        unpacked(twice)


def test_a_hundred_thousand_images_take_thirteen_kilobytes() -> None:
    ranks = np.random.default_rng(0).integers(0, 2, 100_000)
    table = pa.table({"measurement_id": ["a"] * len(ranks), "id": np.arange(len(ranks), dtype=np.int32), "rank": ranks})
    assert make_outcomes(records_of(("a", "clean")), table)["correct"].to_pylist()[0].__len__() == 12_500
