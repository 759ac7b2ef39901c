"""One row of a board by its name, from predictions or from outcomes alone."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from tlbench import api
from tlbench.errors import StoreError, UnknownNameError, UsageError
from tlbench.leaderboard.rows import NamedRow, load_row, row_named, rows_of_board
from tlbench.records import published
from tlbench.records.files import write_parquet
from tlbench.records.outcomes import make_outcomes
from tlbench.records.schema import PREDICTIONS
from tlbench.records.store import ModelStore

PAIRS = [{"source": "a", "target": "b"}, {"source": "c", "target": "b"}]
CHANGES: dict[str, Any] = {
    "tasks": {"t": {"reader": "embedded", "classes": ["p", "q", "r"], "domains": ["a", "b", "c"], "pairs": PAIRS}},
    "conditions": [{"kind": "clean"}],
}


@pytest.fixture
def run(synthetic: ModuleType, tmp_path: Path) -> Any:
    return synthetic.Run(tmp_path / "runs", synthetic.make_suite(**CHANGES))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that takes the place of the published results."""
    folder = tmp_path / "results"
    monkeypatch.setattr(published, "published_folder", lambda: folder)
    return folder


def publish(models: ModelStore, results: Path, *, predictions: bool = True, outcomes: bool = True) -> Path:
    folder = published.model_folder(results, models.store.suite, models.name)
    folder.mkdir(parents=True)
    tables = {"records": models.records(), "fits": models.fits()}
    whole = models.table("predictions", PREDICTIONS)
    tables |= {"predictions": whole} if predictions else {}
    tables |= {"outcomes": make_outcomes(tables["records"], whole)} if outcomes else {}
    for name, table in tables.items():
        write_parquet(folder / f"{name}.parquet", table)
    return folder


def rows(run: Any, *, with_published: bool = False) -> list[NamedRow]:
    return rows_of_board(run.suite, run_dir=run.folder, published=with_published)[0]


def test_rows_go_by_the_names_of_the_board(run: Any) -> None:
    run.add("soup", tables=True)
    run.add("soup", tables=True, variant="uniform", headline=False)
    run.add("majority", control=True)
    assert [row.name for row in rows(run)] == ["majority", "soup", "soup/uniform"]
    assert row_named("soup/uniform", rows(run), run.suite).variant == "uniform"
    assert [row.control for row in rows(run)] == [True, False, False]


def test_an_unknown_name_has_a_nearest_one(run: Any) -> None:
    with pytest.raises(UnknownNameError, match="'tiny' has no row 'finetun'; nothing has been measured yet"):
        row_named("finetun", rows(run), run.suite)
    run.add("finetune")
    with pytest.raises(UnknownNameError, match="'tiny' has no row 'finetun'; did you mean 'finetune'"):
        row_named("finetun", rows(run), run.suite)
    with pytest.raises(UnknownNameError, match="has no row 'x'; there are 'finetune'"):
        row_named("x", rows(run), run.suite)


def test_a_name_that_is_published_and_local_is_told_apart(run: Any, results: Path) -> None:
    publish(run.add("m", tables=True), results)
    both = rows(run, with_published=True)
    with pytest.raises(UsageError, match=r"'m': expected one row .* got 2: .*write local:m or published:m"):
        row_named("m", both, run.suite)
    assert row_named("local:m", both, run.suite).origin == "local"
    assert row_named("published:m", both, run.suite).origin == "published"
    with pytest.raises(UnknownNameError, match="has no row 'published:m'; there is 'local:m "):
        row_named("published:m", rows(run), run.suite)


def test_shots_tell_rows_apart(run: Any) -> None:
    run.add("m", shots="5", tables=True)
    run.add("m", shots="full")
    with pytest.raises(UsageError, match=r"got 2: 'local:m .* 5 images a class.*say --shots"):
        row_named("m", rows(run), run.suite)
    assert row_named("m", rows(run), run.suite, shots="5").shots == "5"
    with pytest.raises(UnknownNameError, match="has no row 'm' of 10 images a class; there is "):
        row_named("m", rows(run), run.suite, shots="10")


def test_two_models_under_one_name_have_no_name(run: Any) -> None:
    run.add("m")
    run.add("m", settings_hash="other")
    with pytest.raises(UsageError, match="evaluate one of them under another --name"):
        row_named("m", rows(run), run.suite)


def test_outcomes_stand_for_predictions_that_are_not_published(run: Any, results: Path) -> None:
    models = run.add("m", tables=True, images=11)
    run.add("other", tables=True, images=11)
    folder = publish(models, results)
    places = {"run_dir": run.folder}
    carried = api.compare(run.suite, "published:m", "other", **places)
    (folder / "predictions.parquet").unlink()
    (row,) = [row for row in rows(run, with_published=True) if row.origin == "published"]
    table, whole = load_row(run.suite, row, run_dir=run.folder)
    assert not whole
    assert (len(table), set(table["rank"])) == (2 * 11 * (2 * 2 + 2), {0, 1})
    found = api.compare(run.suite, "published:m", "other", **places)
    columns = ["flips", "first_only", "second_only", "label", "second_predicted"]
    for name in ("frame", "images"):
        frames = [getattr(one, name) for one in (found, carried)]
        kept = frames[0].columns if name == "frame" else columns
        pd.testing.assert_frame_equal(frames[0][kept], frames[1][kept])
    assert found.images["first_predicted"].isna().all()
    assert carried.images["first_predicted"].notna().all()
    assert any("its predictions are not published" in note for note in found.notes)
    with pytest.raises(UsageError, match="only accuracy is compared"):
        api.compare(run.suite, "published:m", "other", metric="nll", **places)
    (folder / "outcomes.parquet").unlink()
    with pytest.raises(StoreError, match="expected a Parquet file, found nothing"):
        api.compare(run.suite, "published:m", "other", **places)


def test_what_no_board_ranks_together_is_said(run: Any) -> None:
    run.add("a", tables=True)
    run.add("b", tables=True, protocol="test-time", shots="5", backbone="timm:x", control=True, deterministic=True)
    notes = api.compare(run.suite, "a", "b", run_dir=run.folder, published=False).notes
    assert notes == (
        "not the same protocol: A source-only, B test-time; no board ranks the two together",
        "not the same training images a class: A full, B 5; no board ranks the two together",
        "not the same pretraining data: A ImageNet, B that of timm:x; no board ranks the two together",
        "B is a control, a reference and never ranked",
        "B is deterministic: its one fit stands for every seed",
    )


def test_seeds_and_pairs_that_one_lacks_are_said(run: Any) -> None:
    run.add("a", tables=True)
    run.add("b", tables=True, seeds=(1, 2), without=lambda cell: (cell.source, cell.target) == ("a", "b"))
    found = api.compare(run.suite, "a", "b", run_dir=run.folder, published=False)
    assert found.differences.seeds == (1,)
    assert found.notes == (
        "left out for only one of the two has it: seed 0, 2",
        "one pair is left out, measured of A only",
    )


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("a", "a"), {}, "expected two rows of the board, got one twice"),
        (("a", "b"), {"metric": "acuracy"}, "metric: expected 'accuracy', 'nll', 'brier', got 'acuracy'; did you mean"),
        (("a", "b"), {}, "'a' and 'b': expected models with a seed in common"),
        (("a", "c"), {}, "'a' and 'c': a to b: expected the same images"),
    ],
)
def test_two_rows_that_cannot_be_compared_are_named(
    run: Any, names: tuple[str, str], options: dict[str, Any], message: str
) -> None:
    run.add("a", tables=True, seeds=(0,))
    run.add("b", tables=True, seeds=(1,))
    run.add("c", tables=True, seeds=(0,), split_hash=lambda cell: "others")
    with pytest.raises(UsageError, match=message):
        api.compare(run.suite, *names, run_dir=run.folder, published=False, **options)


def test_results_of_another_version_of_the_suite_are_left_out_and_said(run: Any, synthetic: ModuleType) -> None:
    run.add("a", tables=True)
    newer = synthetic.Run(run.folder, synthetic.make_suite(**CHANGES, metrics={"ece_bins": 9}))
    with pytest.raises(StoreError, match="results of suite 'tiny' with hash"):
        api.compare(newer.suite, "a", "b", run_dir=run.folder, published=False)
    newer.add("b", tables=True)
    with pytest.raises(
        UnknownNameError, match=f"has no row 'a'; there are 'b'; .*with hash {run.suite.hash[:12]} are left out"
    ):
        api.compare(newer.suite, "a", "b", run_dir=run.folder, published=False)
    newer.add("c", tables=True)
    (note,) = api.compare(newer.suite, "c", "b", run_dir=run.folder, published=False).notes
    assert run.suite.hash[:12] in note
