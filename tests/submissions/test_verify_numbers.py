"""What verification catches in the records: values, standard errors, numbers that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from tlbench_tampering import a_value_by_a_millionth, caught, edit, first


def a_value_by_a_hundred_millionth(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="ece", condition="fog"), "value"] += 1e-8

    edit(folder, "records", change)


def an_n(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="accuracy", condition="clean"), "n"] += 1

    edit(folder, "records", change)


def a_standard_error(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="macro_f1"), "standard_error"] *= 0.999

    edit(folder, "records", change)


def a_clustered_standard_error(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="accuracy", condition="clean", target="b"), "standard_error"] *= 0.9

    edit(folder, "records", change)


def a_status(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, metric="nll", condition="clean")
        frame.loc[row, ["status", "reason"]] = "not_applicable", "needs probabilities"
        frame.loc[row, ["value", "standard_error"]] = np.nan

    edit(folder, "records", change)


def a_metric_left_out_once(folder: Path) -> None:
    edit(folder, "records", lambda frame: frame.drop(first(frame, metric="brier")))


def a_metric_that_nobody_computes(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="infinite_nll_count"), "metric"] = "accuracy_gap"

    edit(folder, "records", change)


def a_younger_version_of_a_metric(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="ece"), "metric_version"] = 2

    edit(folder, "records", change)


def no_number_where_there_should_be_one(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="accuracy", condition="clean"), "value"] = np.nan

    change.keeps_nan = True  # type: ignore[attr-defined]
    edit(folder, "records", change)


def a_sentinel(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="accuracy", condition="clean"), "value"] = 999.0

    edit(folder, "records", change)


def an_infinite_accuracy(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="brier"), "value"] = np.inf

    edit(folder, "records", change)


TAMPERED = [
    (a_value_by_a_millionth, "values", "recomputed"),
    (a_value_by_a_hundred_millionth, "values", "fog, seed 0, at 1, ece"),
    (an_n, "values", ": n "),
    (a_standard_error, "standard errors", "macro_f1"),
    (a_clustered_standard_error, "standard errors", "accuracy: standard error"),
    (a_status, "values", "status not_applicable, recomputed ok"),
    (a_metric_left_out_once, "values", "brier: follows from the predictions, but there is no record of it"),
    (a_metric_that_nobody_computes, "values", "accuracy_gap: 0.0 does not follow"),
    (a_younger_version_of_a_metric, "values", "version 2 of the metric, this tlbench has 1"),
    (no_number_where_there_should_be_one, "ranges", "no value, expected a number"),
    (no_number_where_there_should_be_one, "values", "accuracy: nan"),
    (a_sentinel, "ranges", "999.0 is a value outside its range"),
    (an_infinite_accuracy, "ranges", "inf is a value outside its range"),
]


test_what_was_tampered_with_is_caught_by_the_check_for_it = caught(TAMPERED)
