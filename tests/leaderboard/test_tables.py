"""Results as pandas tables: what is there, what is left out, and what is said of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlbench.errors import StoreError, UnknownNameError
from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.tables import load_fits, load_predictions, load_results
from tlbench.records.lock import write_lock
from tlbench.records.manifest import Manifest
from tlbench.records.record import COLUMNS
from tlbench.submissions.pack import submit


def test_missing_folders_give_an_empty_table_with_its_types(run: Any) -> None:
    records = load_results(run.suite, run_dir="nowhere", results="nowhere either")
    assert list(records.columns) == [*COLUMNS, "origin", "level"]
    assert len(records) == 0
    run.add("m")
    filled = load_results(run.suite, run_dir=run.folder, published=False)
    assert records.dtypes.to_dict() == filled.dtypes.to_dict()
    assert len(load_fits(run.suite, run_dir="nowhere", results="nowhere either")) == 0


def test_published_and_local_results_are_both_there_and_told_apart(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True)
    submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results")
    both = load_results(run.suite, run_dir=run.folder, results=tmp_path / "results")
    assert both.groupby("origin").size().nunique() == 1
    assert set(both["origin"]) == {"published", "local"}
    assert set(load_results(run.suite, run_dir=run.folder, published=False)["origin"]) == {"local"}
    fits = load_fits(run.suite, run_dir=run.folder, results=tmp_path / "results")
    board = make_board(both, fits, run.suite)
    assert board.frame["score"].nunique() == 1
    assert board.frame["fit_seconds"].notna().all()
    assert len(board.frame) == 2


def test_results_of_another_version_alone_are_one_line_with_both_hashes(run: Any, synthetic: ModuleType) -> None:
    run.add("m")
    changed = synthetic.make_suite(version=2)
    with pytest.raises(StoreError) as caught:
        load_results(changed, run_dir=run.folder, published=False)
    assert run.suite.hash[:12] in str(caught.value)
    assert changed.hash[:12] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(load_results(changed, run_dir=run.folder, published=False, all_versions=True))


def test_results_of_another_version_beside_current_ones_are_left_out_and_said(run: Any, synthetic: ModuleType) -> None:
    run.add("m")
    changed = synthetic.make_suite(version=2)
    synthetic.Run(run.folder, changed).add("n")
    records = load_results(changed, run_dir=run.folder, published=False)
    assert set(records["model"]) == {"n"}
    fits = load_fits(changed, run_dir=run.folder, published=False)
    assert any(run.suite.hash[:12] in note for note in make_board(records, fits, changed).notes)


def test_a_bare_name_finds_the_results_of_a_user_s_suite(run: Any, synthetic: ModuleType) -> None:
    run.add("m")
    assert set(load_results("tiny", run_dir=run.folder, published=False)["model"]) == {"m"}
    assert set(load_results(run_dir=run.folder, published=False)["suite"]) == {"tiny"}
    synthetic.Run(run.folder, synthetic.make_suite(version=2)).add("m")
    with pytest.raises(StoreError, match="2 versions of suite 'tiny'"):
        load_results("tiny", run_dir=run.folder, published=False)
    with pytest.raises(UnknownNameError, match="'digits'"):
        load_results("digit", run_dir=run.folder, published=False)


def test_predictions_say_what_they_are_predictions_of(run: Any) -> None:
    run.add("m", tables=True, images=6)
    rows = load_predictions(run.suite, "m", run_dir=run.folder, published=False)
    clean = rows[(rows["condition"] == "clean") & (rows["role"] == "ood-test")]
    assert len(clean) == 2 * 7 * 6  # seeds, pairs, images
    assert clean["severity"].isna().all()
    assert set(rows.loc[rows["condition"] == "shift", "severity"]) == {4.0, 8.0}
    assert rows["image"].isna().all()
    with pytest.raises(UnknownNameError, match="did you mean 'm'"):
        load_predictions(run.suite, "mm", run_dir=run.folder, published=False)


def test_a_lock_gives_images_their_names(run: Any) -> None:
    manifest = Manifest(
        task="t",
        domain="b",
        part="test",
        classes=("p", "q", "r"),
        names=tuple(f"b/{place}" for place in range(6)),
        labels=np.arange(6) % 3,
        pixels="0" * 64,
        image_size=64,
        clusters=("k",) * 3 + ("l",) * 3,
    )
    lock = run.folder.parent / "tiny.lock.parquet"
    write_lock(lock, [manifest])
    run.add(
        "m",
        tables=True,
        images=6,
        split_hash=lambda cell: manifest.hash if (cell.target, cell.role) == ("b", "ood-test") else "another",
    )
    rows = load_predictions(run.suite, "m", run_dir=run.folder, published=False, lock=lock)
    named = rows[rows["image"].notna()]
    assert set(zip(named["target"], named["role"], strict=True)) == {("b", "ood-test")}
    assert (named["image"] == "b/" + named["id"].astype(str)).all()
    assert (named["cluster"] == np.where(named["id"] < 3, "k", "l")).all()


def test_a_damaged_file_is_named(run: Any) -> None:
    run.add("m")
    path = next(run.folder.rglob("records.parquet"))
    path.write_bytes(b"nothing")
    with pytest.raises(StoreError, match=r"records\.parquet: not a readable Parquet file"):
        load_results(run.suite, run_dir=run.folder, published=False)


def test_a_folder_that_is_no_run_is_empty(run: Any, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copy(__file__, tmp_path / "other")
    assert isinstance(load_results(run.suite, run_dir=tmp_path / "other", published=False), pd.DataFrame)


def test_one_condition_may_be_had_alone(run: Any) -> None:
    run.add("m", tables=True, images=6)
    places = {"run_dir": run.folder, "published": False}
    rows = load_predictions(run.suite, "m", **places)
    clean = load_predictions(run.suite, "m", **places, condition="clean")
    pd.testing.assert_frame_equal(clean, rows[rows["condition"] == "clean"].reset_index(drop=True))
    assert set(clean["deterministic"]) == {False}
