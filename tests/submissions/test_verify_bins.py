"""What verification catches in the counts by class and bin."""

from __future__ import annotations

import itertools
from pathlib import Path

import pandas as pd
from tlbench_tampering import caught, clean, edit, first


def a_count_moved_to_another_bin(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        own = (frame["measurement_id"] == clean(folder)) & ~frame["scaled"] & (frame["bin"] >= 4) & (frame["n"] > 1)
        rows = frame[own].sort_values(["class", "bin"])
        one, other = rows.index[:2]
        frame.loc[one, "n"] -= 1
        frame.loc[other, "n"] += 1

    edit(folder, "class_bins", change)


def an_image_moved_across_an_edge(folder: Path) -> None:
    """Move one image and its probability to the next bin, so that every sum stays what it was."""

    def change(frame: pd.DataFrame) -> None:
        table = frame[(frame["measurement_id"] == clean(folder)) & ~frame["scaled"]].reset_index(names="index_of")
        for one, other in itertools.pairwise(table.itertuples()):
            # Eight bins: from one half on, what an image adds to a class is the confidence of its prediction.
            edge = other.bin / 8
            next_to = (
                one.bin >= 4
                and other.bin == one.bin + 1
                and table.loc[one.Index, "class"] == table.loc[other.Index, "class"]
            )
            if next_to and one.n > max(one.positives, 1) and one.probability - edge >= (one.n - 1) * one.bin / 8:
                frame.loc[one.index_of, ["n", "probability"]] = one.n - 1, one.probability - edge
                frame.loc[other.index_of, ["n", "probability"]] = other.n + 1, other.probability + edge
                return
        raise AssertionError("expected two such bins")

    edit(folder, "class_bins", change)


def a_count_moved_to_another_class(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        for of_class, by in ((0, -1), (1, 1)):
            frame.loc[first(frame, measurement_id=clean(folder), scaled=True, **{"class": of_class}), "n"] += by

    edit(folder, "class_bins", change)


def a_positive_moved_to_another_bin(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        own = (frame["measurement_id"] == clean(folder)) & (frame["class"] == 0) & ~frame["scaled"]
        giver = frame.index[own & (frame["positives"] > 0)][0]
        taker = frame.index[own & (frame["positives"] < frame["n"]) & (frame.index != giver)][0]
        frame.loc[giver, "positives"] -= 1
        frame.loc[taker, "positives"] += 1

    edit(folder, "class_bins", change)


def a_probability_of_a_bin(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder)), "probability"] += 0.01

    edit(folder, "class_bins", change)


def class_bins_left_out(folder: Path) -> None:
    edit(folder, "class_bins", lambda frame: frame[frame["measurement_id"] != clean(folder)])


def a_class_that_there_is_not(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder)), "class"] = 2**31 - 1

    edit(folder, "class_bins", change)


TAMPERED = [
    (a_count_moved_to_another_bin, "class bins", ""),
    (an_image_moved_across_an_edge, "class bins", "images, the predictions give"),
    (a_count_moved_to_another_class, "class bins", "its bins hold"),
    (a_positive_moved_to_another_bin, "class bins", "images of the class, the predictions give"),
    (a_probability_of_a_bin, "class bins", ""),
    (class_bins_left_out, "class bins", "not both there"),
    (class_bins_left_out, "values", "class_wise_ece: status ok, recomputed not_applicable"),
    (a_class_that_there_is_not, "class bins", "expected a class below 3"),
]


test_what_was_tampered_with_is_caught_by_the_check_for_it = caught(TAMPERED)
