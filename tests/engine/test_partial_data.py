"""A data root that holds some tasks: those run, the rest are recorded as not run; made-up data stay apart."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tlbench
from tlbench import api
from tlbench.errors import DataError, UsageError, WeightsError

SECOND_TASK = '[tasks.more]\nreader = "folder"\npath = "more"\ndomains = ["left", "right"]\n\n'


@pytest.fixture
def two(suite_folder: Path, tmp_path: Path) -> Path:
    """A suite of two tasks; the folder holds the first one's data only."""
    (tmp_path / "blobs").symlink_to(suite_folder / "blobs")
    text = (suite_folder / "blobs.toml").read_text(encoding="utf-8")
    suite = tmp_path / "two.toml"
    text = text.replace('name = "blobs"', 'name = "two"', 1).replace("[[cond", f"{SECOND_TASK}[[cond", 1)
    suite.write_text(text, encoding="utf-8")
    return suite


def add_the_second_task(suite: Path) -> None:
    for domain in ("left", "right"):
        shutil.copytree(suite.parent / "blobs" / domain, suite.parent / "more" / domain)


def evaluated(suite: Path, **options: object) -> api.EvaluationResult:
    run_dir = suite.parent / "runs"
    return tlbench.evaluate(suite, "ncm", seeds=[0], run_dir=run_dir, quiet=True, metrics=["accuracy"], **options)


def test_what_is_there_runs_and_the_rest_is_not_run_never_zero(two: Path) -> None:
    result = evaluated(two)
    assert not result.failures
    assert not result.complete
    assert list(result.missing) == ["more"]
    assert str(two.parent / "more") in result.missing["more"]
    records = tlbench.load_results(two, run_dir=two.parent / "runs", published=False)
    ours, theirs = records[records["task"] == "blobs"], records[records["task"] == "more"]
    assert set(ours["status"]) == {"ok", "not_applicable"}
    assert set(theirs["status"]) == {"not_run"}
    assert theirs["value"].isna().all()
    assert set(zip(theirs["source"], theirs["target"], theirs["role"], strict=True)) >= {
        ("left", "right", "ood-test"),
        ("right", "left", "ood-test"),
        ("left", "left", "id-test"),
    }
    board = api.leaderboard(two, run_dir=two.parent / "runs", published=False).to_text("csv")
    assert "incomplete" in board
    assert "not run" in board


def test_data_that_arrive_later_are_run_and_their_gaps_forgotten(two: Path) -> None:
    evaluated(two)
    add_the_second_task(two)
    result = evaluated(two)
    assert result.complete
    assert not result.missing
    records = tlbench.load_results(two, run_dir=two.parent / "runs", published=False)
    assert "not_run" not in set(records["status"])


def test_a_task_that_was_not_asked_for_is_not_missed(two: Path) -> None:
    result = evaluated(two, only=["task=blobs"])
    assert not result.missing
    assert result.complete


def test_no_data_at_all_says_where_to_look(two: Path) -> None:
    with pytest.raises(DataError, match=r"none of 'more' is here.*--data-root.*tlbench data status") as told:
        evaluated(two, only=["task=more"])
    assert "\n" not in str(told.value)


def test_a_missing_domain_of_a_task_that_is_there_stops_the_run(two: Path) -> None:
    (two.parent / "more" / "left" / "a").mkdir(parents=True)
    with pytest.raises(DataError, match="more/"):
        evaluated(two)


def test_no_board_and_no_submission_takes_made_up_data(two: Path) -> None:
    add_the_second_task(two)
    two.write_text("synthetic = true\n" + two.read_text(encoding="utf-8"), encoding="utf-8")
    result = evaluated(two)
    assert result.complete
    assert result.suite.synthetic
    with pytest.raises(UsageError, match="made up"):
        api.leaderboard(two, run_dir=two.parent / "runs")
    with pytest.raises(UsageError, match="made up"):
        api.submit(two.parent / "runs", suite=two, results=two.parent / "results")


def test_made_up_data_are_not_measured_under_the_name_of_real_ones(two: Path) -> None:
    note = {"synthetic": True, "suite_file": "two-rehearsal.toml", "identity": "any"}
    (two.parent / "rehearsal.json").write_text(json.dumps(note), encoding="utf-8")
    with pytest.raises(DataError, match=r"made-up data.*two-rehearsal\.toml"):
        evaluated(two)


def test_one_bad_task_says_how_to_run_the_others(two: Path) -> None:
    add_the_second_task(two)
    shutil.rmtree(two.parent / "more" / "right")
    with pytest.raises(DataError, match=r"more/right.*; the others run with --only task=blobs$"):
        evaluated(two)


def test_a_method_that_needs_no_pretrained_weights_does_not_ask_for_them(two: Path) -> None:
    text = two.read_text(encoding="utf-8").replace('"small-cnn"', '"timm:resnet10t"')
    two.write_text(text, encoding="utf-8")
    options = {"run_dir": two.parent / "runs", "quiet": True, "seeds": [0], "metrics": ["accuracy"]}
    assert not api.evaluate(two, "majority", only=["task=blobs"], **options).failures
    with pytest.raises(WeightsError, match="timm:resnet10t"):
        api.evaluate(two, "ncm", only=["task=blobs"], **options)
