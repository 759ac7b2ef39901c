"""What a board says of its rows: who takes part in the comparison, which notes, how it reads."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlbench.leaderboard.board import Board, make_board
from tlbench.leaderboard.tables import load_fits, load_results

TASKS = {
    f"t{number}": {
        "reader": "embedded",
        "classes": ["p", "q"],
        "domains": ["a", "b"],
        "pairs": [{"source": "a", "target": "b"}],
    }
    for number in range(8)
}


@pytest.fixture
def wide(synthetic: ModuleType, tmp_path: Any) -> Any:
    """A run folder of a suite of eight tasks of a pair each."""
    conditions = [{"kind": "clean", "roles": ["id-test", "ood-test"]}]
    return synthetic.Run(tmp_path / "runs", synthetic.make_suite(tasks=TASKS, conditions=conditions))


def board_of(run: Any, metric: str | None = None) -> Board:
    options = {"run_dir": run.folder, "published": False}
    return make_board(load_results(run.suite, **options), load_fits(run.suite, **options), run.suite, metric=metric)


def level(base: float, spread: float = 0.01) -> Any:
    """Accuracy about a base, a little other on every task."""
    return lambda cell: base + spread * np.sin(1 + 3 * int(cell.task[1:]) + 40 * base)


def test_rows_far_apart_make_groups_and_those_close_by_share_one(wide: Any) -> None:
    wide.add("best", value=level(0.8))
    wide.add("close", value=lambda cell: level(0.8)(cell) - 0.002 + 0.01 * (-1) ** int(cell.task[1:]))
    wide.add("far", value=level(0.5))
    frame = board_of(wide).frame.set_index("name")
    assert frame["tie_group"].tolist() == [1, 1, 2]
    assert frame[["rank_low", "rank_high"]].to_numpy().tolist() == [[1, 2], [1, 2], [3, 3]]
    assert frame["generalisation_low"].notna().all()
    assert (frame["generalisation_low"] < frame["score"]).all()


def test_for_a_lower_nll_the_lower_one_is_the_better(wide: Any) -> None:
    for name, base in (("good", 0.3), ("bad", 0.9)):
        wide.add(name, value=level(base))
    board = board_of(wide, "nll")
    assert board.frame.set_index("name")["tie_group"].to_dict() == {"good": 1, "bad": 2}
    row = board.differences.iloc[0]
    assert (row["first"], row["second"]) == ("good", "bad")
    assert row["high"] < 0


def test_controls_variants_and_incomplete_rows_move_no_comparison(wide: Any) -> None:
    for name, base in (("a", 0.8), ("b", 0.78), ("c", 0.6)):
        wide.add(name, value=level(base, 0.02))
    alone = board_of(wide)
    wide.add("control", value=level(0.1), control=True)
    wide.add("half", value=level(0.9), without=lambda cell: cell.task == "t3")
    wide.add("one seed", value=level(0.95), seeds=(0,))
    wide.add("a", value=level(0.85), variant="soup", headline=False)
    among = board_of(wide)
    pd.testing.assert_frame_equal(among.differences, alone.differences)
    pd.testing.assert_frame_equal(among.without, alone.without)
    unranked = among.frame[among.frame["standing"] != "ranked"]
    assert len(unranked) == 4
    assert unranked[["tie_group", "rank_low", "rank_by_pairs", "rank_without_low"]].isna().all(axis=None)
    assert not unranked["pareto"].any()


def test_sections_are_never_compared(wide: Any) -> None:
    wide.add("a", value=level(0.8))
    wide.add("b", value=level(0.4), protocol="unlabelled-target")
    board = board_of(wide)
    assert len(board.differences) == 0
    assert board.frame["tie_group"].tolist() == [1, 1]


def test_ranks_without_a_task_and_by_pairs_differ_where_a_task_decides(run: Any) -> None:
    # Task t has six pairs, task u one: "pairs" wins six of seven pairs, "task" the mean over tasks.
    run.add("pairs", value=lambda cell: 0.6 if cell.task == "t" else 0.4)
    run.add("task", value=lambda cell: 0.5 if cell.task == "t" else 0.9)
    board = board_of(run)
    frame = board.frame.set_index("name")
    assert frame["rank"].to_dict() == {"task": 1, "pairs": 2}
    assert frame["rank_by_pairs"].to_dict() == {"task": 2, "pairs": 1}
    assert frame["rank_by_images"].to_dict() == {"task": 2, "pairs": 1}
    assert frame.loc["task", ["rank_without_low", "rank_without_high"]].tolist() == [1, 2]
    without_u = board.without[board.without["task"] == "u"].set_index("name")
    assert without_u["rank"].to_dict() == {"pairs": 1, "task": 2}
    assert without_u.loc["pairs", "score"] == pytest.approx(0.6)
    assert "pairs 2, images 2, tasks 1–2" in board.to_text("table", width=120)


def test_the_unbeaten_are_marked_among_ranked_rows(run: Any) -> None:
    run.add("dear and good", value=0.9, seconds=9.0)
    run.add("cheap", value=0.5, seconds=1.0)
    run.add("neither", value=0.4, seconds=5.0)
    run.add("majority", value=0.99, seconds=0.1, control=True)
    board = board_of(run)
    assert board.frame.set_index("name")["pareto"].to_dict() == {
        "dear and good": True, "cheap": True, "neither": False, "majority": False,
    }  # fmt: skip
    assert "9.0 °" in board.to_text("table", width=200)


def test_few_tasks_without_images_compare_nothing_and_say_so(run: Any) -> None:
    run.add("m", value=0.9)
    run.add("n", value=0.1)
    board = board_of(run)
    assert board.frame["tie_group"].isna().all()
    assert len(board.differences) == 0
    assert any("no row is compared" in note for note in board.notes)
    bounds = board.frame.iloc[0]
    assert bounds.measurement_high - bounds.score == pytest.approx(min(1.96 * bounds.standard_error, 0.1), abs=1e-4)
    assert any("bounds from the recorded standard errors" in note for note in board.notes)


def test_an_interval_of_a_loss_does_not_go_below_nothing(wide: Any) -> None:
    wide.add("wild", value=0.1, error=5.0)
    row = board_of(wide, metric="nll").frame.iloc[0]
    assert row["measurement_low"] == 0
    assert row["measurement_high"] > row["score"]


def test_the_legend_explains_the_columns_that_are_there_and_no_others(wide: Any) -> None:
    wide.add("m", value=level(0.5), error=None)
    text = board_of(wide).to_text(width=300)
    assert "gap: ID minus OOD accuracy" in text
    assert "NLL to disparity on OOD-test" in text
    assert "attacked" not in text
    assert "±" not in text
    wide.add("n", value=level(0.4))
    assert "±: standard error of measurement" in board_of(wide).to_text(width=300)


def test_rows_that_share_a_name_are_told_apart_by_where_they_come_from(wide: Any) -> None:
    wide.add("m", value=level(0.8))
    options = {"run_dir": wide.folder, "published": False}
    records, fits = load_results(wide.suite, **options), load_fits(wide.suite, **options)
    both = pd.concat([records, records.assign(origin="published", value=records["value"] - 0.1)], ignore_index=True)
    board = make_board(both, pd.concat([fits, fits.assign(origin="published")], ignore_index=True), wide.suite)
    assert list(board.differences["first"]) == ["local:m"]
    assert list(board.differences["second"]) == ["published:m"]
    assert set(board.without["name"]) == {"local:m", "published:m"}


def test_json_carries_differences_and_the_table_keeps_its_width(wide: Any) -> None:
    for name, base in (("best of all the models", 0.8), ("temperature(lp-ft)", 0.5)):
        wide.add(name, value=level(base))
    board = board_of(wide)
    document = json.loads(board.to_text("json"))
    assert document["differences"][0]["first"] == "best of all the models"
    assert len(document["without"]) == 16
    text = board.to_text("table", width=100)
    assert max(map(len, text.splitlines())) <= 100
    for word in ("95 %", "other tasks", "tie", "ranks"):
        assert word in text
    assert "For these pairs only" not in text
    empty = board_of(type(wide)(wide.folder / "none", wide.suite))
    assert list(empty.differences.columns) == list(board.differences.columns)
    assert list(empty.frame.columns) == list(board.frame.columns)
