"""What verification catches in the predictions: classes, labels, ids, probabilities, and the outcomes made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tlbench_tampering import caught, clean, edit, first, measurement, verified


def a_predicted_class(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, measurement_id=clean(folder), rank=0)
        frame.loc[row, "predicted"] = (frame.loc[row, "label"] + 1) % 3

    edit(folder, "predictions", change)


def a_predicted_class_and_its_rank(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, measurement_id=clean(folder), rank=1)
        frame.loc[row, "predicted"], frame.loc[row, "rank"] = frame.loc[row, "label"], 0

    edit(folder, "predictions", change)


def a_label(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, measurement_id=clean(folder), rank=1)
        frame.loc[row, "label"] = 3 - frame.loc[row, "label"] - frame.loc[row, "predicted"]

    edit(folder, "predictions", change)


def the_order_of_ids(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        rows = frame.index[frame["measurement_id"] == clean(folder)]
        frame.loc[rows, "id"] = np.roll(frame.loc[rows, "id"].to_numpy(), 1)

    edit(folder, "predictions", change)


def an_image_left_out(folder: Path) -> None:
    edit(folder, "predictions", lambda frame: frame.drop(first(frame, measurement_id=clean(folder), id=5)))


def a_sentinel_class(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=1), "predicted"] = -1

    edit(folder, "predictions", change)


def a_label_of_two_billion(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=1), "label"] = 2**31 - 1

    edit(folder, "predictions", change)


def a_confidence_for_some_alone(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=1), "log_likelihood"] = np.nan

    edit(folder, "predictions", change)


def a_brier_score(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=0), "brier"] = 0.0

    edit(folder, "predictions", change)


def a_confidence(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=1), "confidence"] = 0.999

    edit(folder, "predictions", change)


def an_outcome(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, measurement_id=clean(folder))
        bits = frame.loc[row, "correct"]
        frame.loc[row, "correct"] = bytes([bits[0] ^ 128, *bits[1:]])

    edit(folder, "outcomes", change)


def a_split(folder: Path) -> None:
    edit(folder, "records", lambda frame: frame.assign(split_hash=frame["split_hash"].str[::-1]))


TAMPERED = [
    (a_predicted_class, "statistics", "a rank that contradicts the predicted class"),
    (a_predicted_class_and_its_rank, "values", "accuracy"),
    (a_predicted_class_and_its_rank, "statistics", "confidence is not the likelihood of the class"),
    (a_predicted_class_and_its_rank, "outcomes", "not those of the predictions"),
    (a_label, "images", "1 labels differ"),
    (the_order_of_ids, "images", "labels differ"),
    (an_image_left_out, "images", "expected every id from 0 to 46 once"),
    (an_image_left_out, "values", "n 48, recomputed 47"),
    (a_sentinel_class, "ranges", "predicted -1"),
    (a_label_of_two_billion, "ranges", "label 2147483647"),
    (a_label_of_two_billion, "class bins", "label: expected 0 to 2, got 2147483647"),
    (a_label_of_two_billion, "values", "cannot be recomputed: label: expected 0 to 2"),
    (a_confidence_for_some_alone, "ranges", "log_likelihood is there for some images only"),
    (a_brier_score, "statistics", "brier that its probabilities do not allow"),
    (a_confidence, "statistics", "more than 1 together"),
    (an_outcome, "outcomes", "accuracy"),
    (a_split, "images", "the manifest is"),
]


test_what_was_tampered_with_is_caught_by_the_check_for_it = caught(TAMPERED)


def test_without_a_manifest_labels_are_held_against_each_other(made: Any, copy: Path) -> None:
    a_label(copy)
    report = verified(made, copy, lock=made.lock.with_name("absent.parquet"))
    assert "other labels than another measurement of the same split" in report.check("images").summary


def test_equal_predictions_of_two_seeds_and_one_class_for_all_are_suspicious(made: Any, copy: Path) -> None:
    one, other = (measurement(copy, condition="clean", role="id-val", source="a", seed=seed) for seed in (0, 1))

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        twin = frame[frame["measurement_id"] == one].assign(measurement_id=other)
        return pd.concat([frame[frame["measurement_id"] != other], twin], ignore_index=True)

    edit(copy, "predictions", change)
    assert "the same predictions as with seed" in " ".join(verified(made, copy).check("ranges").details)
    edit(
        copy,
        "predictions",
        lambda frame: frame.assign(predicted=frame["predicted"].where(frame["predicted"].isna(), 1)),
    )
    assert "every image is given class 1" in " ".join(verified(made, copy).check("ranges").details)
