"""What verification catches between rows: what is there twice, what is missing, what is of another version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
from tlbench_tampering import caught, edit, verified


def a_prediction_twice(folder: Path) -> None:
    edit(folder, "predictions", lambda frame: pd.concat([frame, frame.iloc[[7]]], ignore_index=True))


def a_record_twice(folder: Path) -> None:
    edit(folder, "records", lambda frame: pd.concat([frame, frame.iloc[[7]]], ignore_index=True))


def a_fit_twice(folder: Path) -> None:
    edit(folder, "fits", lambda frame: pd.concat([frame, frame.iloc[[0]]], ignore_index=True))


def a_pair_left_out(folder: Path) -> None:
    records = pq.read_table(folder / "records.parquet").to_pandas()
    gone = set(records[(records["role"] == "ood-test") & (records["target"] == "a")]["measurement_id"])
    for name in ("records", "predictions", "class_bins", "outcomes"):
        edit(folder, name, lambda frame: frame[~frame["measurement_id"].isin(gone)])


def a_severity_left_out(folder: Path) -> None:
    edit(folder, "records", lambda frame: frame[frame["severity"] != 3])
    edit(folder, "predictions", lambda frame: frame[frame["severity"] != 3])


def a_severity_of_its_own(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[frame["severity"] == 3, "severity"] = 2.0

    edit(folder, "records", change)
    edit(folder, "predictions", change)


def the_hash_of_the_suite(folder: Path) -> None:
    edit(folder, "records", lambda frame: frame.assign(suite_hash="0" * 64))
    edit(folder, "fits", lambda frame: frame.assign(suite_hash="0" * 64))


def other_settings_for_one_fit(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[frame["fit_id"] == frame["fit_id"].iloc[0], "settings_hash"] = "bad"

    edit(folder, "records", change)


def other_weights_for_one_seed(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[frame["seed"] == 1, "weights_hash"] = "bad"

    edit(folder, "records", change)
    edit(folder, "fits", change)


def a_fit_left_out(folder: Path) -> None:
    edit(folder, "fits", lambda frame: frame.iloc[1:])


TAMPERED = [
    (a_prediction_twice, "duplicates", "predictions: t, "),
    (a_record_twice, "duplicates", "records: "),
    (a_fit_twice, "duplicates", "fits: fit_id"),
    (a_pair_left_out, "completeness", "t, b to a, ood-test, clean, seed 0"),
    (a_severity_left_out, "completeness", "1 of 2 settings"),
    (a_severity_of_its_own, "completeness", "severity 2, epsilon nan is no setting of it"),
    (the_hash_of_the_suite, "suite", "rows of suite_hash 000000000000, expected"),
    (other_settings_for_one_fit, "fits", "values of settings_hash under one name"),
    (other_weights_for_one_seed, "fits", "values of weights_hash under one name"),
    (a_fit_left_out, "fits", "is not among the fits"),
]


test_what_was_tampered_with_is_caught_by_the_check_for_it = caught(TAMPERED)


def test_incomplete_work_may_be_allowed(made: Any, copy: Path) -> None:
    a_pair_left_out(copy)
    report = verified(made, copy, allow_incomplete=True)
    assert report.check("completeness").status == "warning"
    assert "the row is not ranked" in report.check("completeness").summary
    assert (report.ok, report.level) == (True, "recomputed"), report.to_text()
