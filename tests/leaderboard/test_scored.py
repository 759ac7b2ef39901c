"""The narrow tables that a board is made from give the board of the whole ones, in less memory."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from tlbench.errors import StoreError, UnknownNameError
from tlbench.leaderboard.board import make_board, needed
from tlbench.leaderboard.tables import load_fits, load_priced, load_results, load_scored
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Suite


def same_board(suite: Suite, metric: str | None, **where: Any) -> None:
    records, fits = load_results(suite, **where), load_fits(suite, **where)
    whole = make_board(records, fits, suite, metric=metric)
    scored = load_scored(suite, needed(suite, metric), **where)
    narrow = make_board(scored, load_priced(suite, **where), suite, metric=metric)
    pd.testing.assert_frame_equal(narrow.frame, whole.frame, check_exact=True)
    assert narrow.notes == whole.notes
    assert narrow.to_text("csv") == whole.to_text("csv")
    assert len(scored) < len(records)
    assert scored.memory_usage(deep=True).sum() < records.memory_usage(deep=True).sum() / 3


@pytest.mark.parametrize("metric", [None, "nll", "mean_corruption_accuracy", "mean_robust_accuracy", "accuracy_gap"])
def test_the_published_boards_of_digits_are_the_same(metric: str | None, tmp_path: Path) -> None:
    same_board(load_suite("digits"), metric, run_dir=tmp_path)


@pytest.mark.parametrize("metric", [None, "brier"])
def test_failures_variants_controls_and_holes_are_told_the_same(run: Any, metric: str | None) -> None:
    run.add("whole")
    run.add("per target", per_target=True, protocol="unlabelled-target")
    run.add("control", control=True, deterministic=True)
    run.add("holes", without=lambda cell: cell.target == "b" and cell.seed == 1)
    run.add("failed", status=lambda cell: ("failed", "it broke") if cell.kind == "clean" else None)
    run.add("inapplicable", status=lambda cell: ("not_applicable", "no gradient") if cell.kind == "attack" else None)
    run.add("whole", variant="soup", headline=False)
    same_board(run.suite, metric, run_dir=run.folder, published=False)


def test_another_version_is_left_out_and_said_or_refused_where_it_is_all(synthetic: ModuleType, run: Any) -> None:
    old = synthetic.Run(run.folder, synthetic.make_suite(version=2))
    old.add("old")
    with pytest.raises(StoreError, match="left out"):
        load_scored(run.suite, needed(run.suite), run_dir=run.folder, published=False)
    run.add("new")
    found = load_scored(run.suite, needed(run.suite), run_dir=run.folder, published=False)
    assert set(found["model"]) == {"new"}
    assert len(found.attrs["notes"]) == 1


def test_no_results_are_an_empty_table_of_the_same_columns(run: Any) -> None:
    found = load_scored(run.suite, needed(run.suite), run_dir=run.folder, published=False)
    assert len(found) == 0
    run.add("m")
    assert list(load_scored(run.suite, needed(run.suite), run_dir=run.folder).columns) == list(found.columns)


def test_only_what_the_board_weighs_is_needed(run: Any) -> None:
    pairs = needed(run.suite, "accuracy")
    assert {("clean", "accuracy"), ("fog", "accuracy"), ("apgd-dlr", "mean_robust_accuracy")} <= pairs
    assert ("clean", "macro_f1") not in pairs
    assert ("clean", "macro_f1") in needed(run.suite, "macro_f1")
    with pytest.raises(UnknownNameError):
        needed(run.suite, "acuracy")
