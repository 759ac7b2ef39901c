"""Who is ranked against whom, and how the board reads."""

from __future__ import annotations

import csv
import io
import json
import math
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlbench.errors import UsageError
from tlbench.leaderboard.board import Board, make_board, needed
from tlbench.leaderboard.one_model import line_of, pairs_of
from tlbench.leaderboard.tables import load_fits, load_results


def board_of(run: Any, metric: str | None = None) -> Board:
    options = {"run_dir": run.folder, "published": False}
    return make_board(load_results(run.suite, **options), load_fits(run.suite, **options), run.suite, metric=metric)


def standing(board: Board) -> dict[str, tuple[str, Any]]:
    rows = board.frame[["name", "standing", "rank"]].itertuples(index=False, name=None)
    return {name: (of, None if pd.isna(rank) else rank) for name, of, rank in rows}


def test_complete_rows_are_ranked_best_first_and_ties_share_a_rank(run: Any) -> None:
    for model, value in (("low", 0.3), ("high", 0.9), ("also high", 0.9)):
        run.add(model, value=value)
    board = board_of(run)
    assert list(zip(board.frame["name"], board.frame["rank"], strict=True)) == [
        ("also high", 1),
        ("high", 1),
        ("low", 3),
    ]


def test_a_lower_nll_ranks_first(run: Any) -> None:
    run.add("good", value=0.3)
    run.add("bad", value=0.9)
    assert standing(board_of(run, "nll")) == {"good": ("ranked", 1), "bad": ("ranked", 2)}


def test_controls_and_incomplete_rows_are_never_ranked(run: Any) -> None:
    run.add("m", value=0.5)
    run.add("majority", value=0.9, control=True)
    run.add("half", value=0.9, without=lambda cell: cell.source == "a")
    assert standing(board_of(run)) == {"m": ("ranked", 1), "majority": ("control", None), "half": ("incomplete", None)}


@pytest.mark.parametrize(
    "other",
    [
        {"protocol": "unlabelled-target"},
        {"shots": "5"},
        {"backbone": "small-cnn"},
        {"weights_hash": "untrained"},
        {"backbone": "timm:other"},
    ],
)
def test_other_protocols_shots_and_pretraining_stand_in_a_section_of_their_own(run: Any, other: dict[str, str]) -> None:
    run.add("m", value=0.5)
    run.add("other", value=0.9, **other)
    board = board_of(run)
    assert standing(board) == {"m": ("ranked", 1), "other": ("ranked", 1)}
    assert board.frame.groupby(["protocol", "shots", "pretraining"]).ngroups == 2
    text = board.to_text("table", width=100)
    assert sum(line.startswith(("source-only, ", "unlabelled-target, ")) for line in text.splitlines()) == 2


def test_an_infinite_nll_is_unranked_with_its_count(run: Any) -> None:
    def value(cell: Any) -> float:
        if cell.source == "a" and cell.target == "b" and cell.metric in ("nll", "infinite_nll_count"):
            return math.inf if cell.metric == "nll" else 3.0
        return 0.0 if cell.metric == "infinite_nll_count" else 0.5

    run.add("m", value=value)
    board = board_of(run, "nll")
    assert standing(board) == {"m": ("unranked", None)}
    assert "6 images" in board.frame["reason"].iloc[0]  # three a seed
    assert "∞" in board.to_text("table", width=120)
    assert json.loads(board.to_text("json"))["rows"][0]["score"] is None


def test_a_measure_that_is_not_proper_sorts_and_does_not_rank(run: Any) -> None:
    run.add("a", value=0.4)
    run.add("b", value=0.2)
    board = board_of(run, "ece")
    assert list(board.frame["name"]) == ["b", "a"]
    assert board.frame["rank"].isna().all()
    assert "makes no ranks" in board.notes[0]


def test_a_small_suite_is_headed_for_these_pairs_only(run: Any) -> None:
    run.add("m")
    board = board_of(run)
    assert board.these_pairs_only
    assert "For these pairs only" in board.to_text("table", width=100)
    assert "For these pairs only" in board.to_text("markdown")


def test_cells_without_a_standard_error_are_named(run: Any) -> None:
    run.add("m", error=lambda cell: None if cell.target == "b" else 0.01)
    assert any("no standard error" in note and "b" in note for note in board_of(run).notes)


def test_records_of_another_version_are_refused(run: Any, synthetic: ModuleType) -> None:
    run.add("m")
    records = load_results(run.suite, run_dir=run.folder, published=False)
    fits = load_fits(run.suite, run_dir=run.folder, published=False)
    with pytest.raises(ValueError, match="expected records of suite 'tiny' with hash"):
        make_board(records, fits, synthetic.make_suite(version=2))


def test_an_empty_board_says_what_to_type(run: Any) -> None:
    board = board_of(run)
    assert len(board.frame) == 0
    for format in ("table", "markdown"):
        assert "tlbench evaluate --suite tiny" in board.to_text(format)
    assert json.loads(board.to_text("json"))["rows"] == []


def test_a_table_keeps_to_its_width_and_shows_every_column(run: Any) -> None:
    run.add("temperature(lp-ft)")
    run.add("a model with a name that somebody thought about for a long time", value=0.4)
    board = board_of(run)
    for width in (100, 120, 200):
        text = board.to_text("table", width=width)
        assert max(map(len, text.splitlines())) <= width
        for header in ("OOD accuracy", "ID acc", "NLL", "ECE scaled", "attacked", "disparity", "fit s"):
            assert header in text


def test_names_cannot_break_out_of_the_page(run: Any) -> None:
    run.add("[red]x|y<b>\x1b[31m\u202e`z`")
    board = board_of(run)
    table, markdown = board.to_text("table", width=120), board.to_text("markdown")
    for text in (table, markdown, board.to_text("csv"), board.to_text("json")):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "[red]x|y<b>" in table
    assert r"\[red\]x\|y&lt;b&gt;" in markdown
    row = next(line for line in markdown.splitlines() if "[red" in line)
    header = next(line for line in markdown.splitlines() if line.startswith("| \\#"))
    assert row.replace(r"\|", "").count("|") == header.count("|")


def test_rates_are_percentages_on_the_page_and_fractions_elsewhere(run: Any) -> None:
    run.add("m", value=0.5, error=None)
    board = board_of(run)
    assert board.frame["score"].iloc[0] == 0.5
    assert "50.0" in board.to_text("markdown")
    assert json.loads(board.to_text("json"))["rows"][0]["score"] == 0.5
    (row,) = csv.DictReader(io.StringIO(board.to_text("csv")))
    assert float(row["score"]) == 0.5


def test_an_unknown_format_is_a_usage_error(run: Any) -> None:
    with pytest.raises(UsageError, match="expected table, markdown, csv or json"):
        board_of(run).to_text("html")  # type: ignore[arg-type]


def test_one_s_own_rows_are_marked(run: Any) -> None:
    run.add("m")
    assert "m *" in board_of(run).to_text("table", width=100)


def test_rows_of_one_name_and_other_settings_are_told_apart(run: Any) -> None:
    run.add("m", settings_hash="aaaaaaaaaa")
    run.add("m", settings_hash="bbbbbbbbbb")
    text = board_of(run).to_text("table", width=100)
    assert "m (aaaaaaaa)" in text
    assert "m (bbbbbbbb)" in text


def test_the_line_of_a_model_covers_the_seeds_that_it_has(run: Any) -> None:
    run.add("m", value=0.5, seeds=(1,), seconds=2.0)
    records = load_results(run.suite, run_dir=run.folder, published=False)
    fits = load_fits(run.suite, run_dir=run.folder, published=False)
    line = line_of(records, fits, run.suite, "m")
    assert line["ood_accuracy"] == pytest.approx(0.5)
    assert line["fit_seconds"] == 2.0
    assert line_of(records, fits, run.suite, "nobody") == {}


def test_pairs_are_listed_as_far_as_they_are_measured(run: Any) -> None:
    run.add("m", value=lambda cell: 0.9 if cell.role == "id-test" else 0.5, without=lambda cell: cell.source == "a")
    rows = pairs_of(load_results(run.suite, run_dir=run.folder, published=False), run.suite, "m")
    assert len(rows) == 5
    assert rows[-1] == {"task": "u", "source": "x", "target": "y", "id_accuracy": 0.9, "ood_accuracy": 0.5}


def test_other_data_than_the_suite_counts_are_told_with_whose_they_are(run: Any) -> None:
    for model in ("m", "n"):
        run.add(model, value=0.5)
    options = {"run_dir": run.folder, "published": False}
    fits = load_fits(run.suite, **options)
    fits.loc[fits["model"] == "m", "data_notes"] = "t/a: these are the old ones; t/b: members by file name"
    board = make_board(load_results(run.suite, **options), fits, run.suite)
    (note,) = [note for note in board.notes if "t/" in note]
    assert note == "t/a: these are the old ones (in m)"


def test_attacks_that_an_audit_found_wrong_are_told(run: Any) -> None:
    for model in ("m", "n"):
        run.add(model, value=0.5)
    options = {"run_dir": run.folder, "published": False}
    records, fits = load_results(run.suite, **options), load_fits(run.suite, **options)
    whole = records[records["metric"] == "mean_robust_accuracy"]
    turned = (whole["model"] == "m") & (whole["seed"] == 0)
    audits = whole.assign(metric="audit_reversals", n=8, value=np.where(turned, 0.25, 0.0))
    notes = make_board(pd.concat([records, audits], ignore_index=True), fits, run.suite).notes
    total, wrong = 8 * (whole["model"] == "m").sum(), 2 * turned.sum()
    assert [note for note in notes if "audited" in note] == [
        f"m (local): of {total} audited verdicts of its attacks {wrong} turned out otherwise; its robustness is less "
        "sure than it looks"
    ]
    assert ("apgd-dlr", "audit_reversals") in needed(run.suite)


def test_test_time_rows_of_batches_of_several_sizes_are_told(run: Any) -> None:
    for model in ("m", "n", "plain"):
        run.add(model, value=0.5, **({} if model == "plain" else {"protocol": "test-time"}))
    options = {"run_dir": run.folder, "published": False}
    records, fits = load_results(run.suite, **options), load_fits(run.suite, **options)
    fits.loc[fits["model"] == "plain", "batch_size"] = 5

    def told() -> list[str]:
        board = make_board(records, fits, run.suite)
        assert set(board.frame["standing"]) == {"ranked"}
        return [note for note in board.notes if "batch" in note]

    assert told() == []
    fits.loc[fits["model"] == "n", "batch_size"] = 64
    (apart,) = told()
    assert apart.startswith("test-time: predictions depend on their batch")
    assert apart.endswith("n (local) of 64; m (local) of 128")
    # Two folders that were copied together: half of a row is of another size, and it is compared with nothing.
    fits.loc[(fits["model"] == "n") & (fits["seed"] == fits["seed"].max()), "batch_size"] = 128
    board = make_board(records, fits, run.suite)
    rows = board.frame.set_index("name")
    assert rows["standing"].to_dict() == {"m": "ranked", "n": "unranked", "plain": "ranked"}
    assert "in batches of 64 and 128" in rows.loc["n", "reason"]
    assert not [note for note in board.notes if "batch" in note]
    assert "n is not ranked: its predictions depend on their batch" in board.to_text("markdown")


def test_measures_beside_a_score_rest_on_its_seeds_or_are_absent(run: Any) -> None:
    run.add(
        "m", value=lambda cell: 0.55 + 0.1 * cell.seed, without=lambda cell: cell.kind == "attack" and cell.seed > 0
    )
    accuracy = board_of(run).frame.iloc[0]
    assert (accuracy.standing, accuracy.seeds, round(accuracy.score, 6)) == ("ranked", "2", 0.6)
    assert math.isnan(accuracy.mean_robust_accuracy)  # there is one of seed 0 alone
    attacked = board_of(run, "mean_robust_accuracy").frame.iloc[0]
    assert (attacked.standing, attacked.seeds) == ("unranked", "1 of 2")
    assert math.isnan(attacked.ood_accuracy)


def test_seeds_that_are_not_the_suites_are_left_out_and_said(run: Any) -> None:
    run.add("m", value=0.5, seeds=(7,))
    board = board_of(run)
    assert not len(board.frame)
    assert board.notes == ("left out: seed 7 of m, for the suite's are 0, 1",)
    assert "Nothing of this suite's seeds has been measured yet" in board.to_text("markdown")
