"""Outputs kept on request: what was measured can be measured again from them."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tlbench import api
from tlbench.errors import DataError
from tlbench.records.outputs import read_outputs, writing_outputs
from tlbench.records.record import FitKey
from tlbench.records.schema import OUTPUTS
from tlbench.submissions.pack import submit
from tlbench.suites.load import load_suite

QUIET = {"quiet": True, "threads": 1}
MODEL = "finetune(epochs=1)"
PLACE = ["task", "source", "target", "role", "seed", "metric"]


def clean(run_dir: Path, suite: Path, model: str) -> pd.DataFrame:
    frame = api.load_results(suite, run_dir=run_dir, published=False)
    kept = frame[(frame.model == model) & (frame.condition == "clean")]
    return kept.set_index(PLACE)[["value", "standard_error", "n", "status"]].sort_index()


@pytest.fixture(scope="module")
def run_dir(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with outputs of both seeds."""
    made = tmp_path_factory.mktemp("runs")
    assert api.evaluate(blobs, MODEL, run_dir=made, keep_outputs=True, metrics=["accuracy"], **QUIET).complete
    return made


def outputs_of(run_dir: Path) -> list[Path]:
    return sorted(run_dir.rglob("outputs/main/full/*.parquet"))


def test_there_is_a_file_for_every_clean_set(run_dir: Path, blobs: Path) -> None:
    sets = clean(run_dir, blobs, MODEL).reset_index()[PLACE[:-1]].drop_duplicates()
    files = outputs_of(run_dir)
    assert len(files) == len(sets) == 14
    for file in files:
        table = pq.read_table(file)
        assert table.schema.equals(OUTPUTS)
        assert len(set(table.column("image").to_pylist())) == len(table)
    assert not [path for path in run_dir.rglob("outputs/**/.*") if path.is_file()]


def test_scoring_them_gives_the_same_numbers(run_dir: Path, blobs: Path, tmp_path: Path) -> None:
    scored = api.score(outputs_of(run_dir)[0].parent, blobs, model="again", run_dir=tmp_path)
    assert scored.complete
    pd.testing.assert_frame_equal(clean(run_dir, blobs, MODEL), clean(tmp_path, blobs, "again"))


def test_one_file_of_them_can_be_scored_too(run_dir: Path, blobs: Path, tmp_path: Path) -> None:
    api.score(outputs_of(run_dir)[0], blobs, model="one", run_dir=tmp_path)
    again = clean(tmp_path, blobs, "one").query("metric == 'accuracy'")
    assert len(again) == 1
    expected = clean(run_dir, blobs, MODEL).loc[again.index]
    pd.testing.assert_frame_equal(again, expected)


def test_the_folder_above_says_where_they_are(run_dir: Path, blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give one of the folders in it, 'full'"):
        api.score(outputs_of(run_dir)[0].parents[1], blobs, model="above", run_dir=tmp_path)


def test_what_was_measured_without_is_measured_again_and_the_same(blobs: Path, tmp_path: Path) -> None:
    part = {"only": ["source=right"], "seeds": [0], "metrics": ["accuracy"], "run_dir": tmp_path, **QUIET}
    api.evaluate(blobs, MODEL, **part)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("measurements/*/*")}
    assert not outputs_of(tmp_path)
    result = api.evaluate(blobs, MODEL, keep_outputs=True, **part)
    assert result.complete
    assert not result.failures
    assert len(outputs_of(tmp_path)) == 3
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("measurements/*/*")} == before
    # And once they are there nothing is done again.
    stamps = [path.stat().st_mtime_ns for path in outputs_of(tmp_path)]
    api.evaluate(blobs, MODEL, keep_outputs=True, **part)
    assert [path.stat().st_mtime_ns for path in outputs_of(tmp_path)] == stamps


def test_outputs_of_another_precision_come_back_as_a_row_of_that_precision(
    run_dir: Path, blobs: Path, tmp_path: Path
) -> None:
    part = {"only": ["source=right"], "seeds": [0], "metrics": ["accuracy"]}
    made = api.evaluate(blobs, MODEL, precision="bfloat16", keep_outputs=True, run_dir=tmp_path, **part, **QUIET)
    folder = outputs_of(tmp_path)[0].parent
    result = api.score(folder, blobs, model="again", run_dir=tmp_path / "scored")
    assert (made.model, result.model) == (f"{MODEL}@bfloat16", "again@bfloat16")
    records = api.load_results(blobs, run_dir=tmp_path / "scored", published=False)
    assert set(records.precision) == {"bfloat16"}
    assert set(records.model) == {"again@bfloat16"}
    before, after = clean(tmp_path, blobs, made.model), clean(tmp_path / "scored", blobs, "again@bfloat16")
    pd.testing.assert_frame_equal(before, after.loc[before.index])
    # A folder has one precision: not that of whichever file comes first.
    shutil.copy(outputs_of(run_dir)[0], folder)
    with pytest.raises(DataError, match=r"outputs of one precision, got bfloat16 \(.*\) and float32 \(.*\); give each"):
        api.score(folder, blobs, model="again", run_dir=tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_a_file_that_does_not_say_its_precision_is_of_float32(run_dir: Path, tmp_path: Path) -> None:
    table = pq.read_table(outputs_of(run_dir)[0])
    assert table.schema.metadata[b"tlbench_precision"] == b"float32"
    for metadata, precision in ({}, "float32"), ({"tlbench_precision": "bfloat16"}, "bfloat16"):
        pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "set.parquet")
        assert read_outputs(tmp_path / "set.parquet").precision == precision
    pq.write_table(table.replace_schema_metadata({"tlbench_precision": "float8"}), tmp_path / "set.parquet")
    with pytest.raises(DataError, match=r"expected outputs in .*bfloat16.*, its metadata says 'float8'"):
        read_outputs(tmp_path / "set.parquet")


def test_a_folder_of_folders_is_told_which_one_to_give(run_dir: Path) -> None:
    with pytest.raises(DataError, match=r"\.\.\./outputs/<variant>/<shots>.*give one of .*outputs/main/full"):
        read_outputs(run_dir)


def test_other_numbers_than_the_stored_ones_are_told_and_not_kept(blobs: Path, tmp_path: Path) -> None:
    part = {"only": ["source=right"], "seeds": [0], "metrics": ["accuracy"], "run_dir": tmp_path, **QUIET}
    api.evaluate(blobs, MODEL, **part)
    models = tmp_path.glob("*/models/*").__next__()
    name = next(path.parent.name for path in models.glob("measurements/*/records.parquet"))
    path = models / "measurements" / name / "records.parquet"
    table = pq.read_table(path)
    values = [0.123 if value is not None else None for value in table.column("value").to_pylist()]
    place = table.schema.get_field_index("value")
    pq.write_table(table.set_column(place, table.schema.field(place), [values]), path)
    result = api.evaluate(blobs, MODEL, keep_outputs=True, **part)
    assert len(result.failures) == 1
    assert "measured again" in result.failures[0]
    assert "0.123 is stored" in result.failures[0]
    assert name not in {file.stem for file in outputs_of(tmp_path)}
    assert len(outputs_of(tmp_path)) == 2


def test_they_are_never_submitted(run_dir: Path, blobs: Path, tmp_path: Path) -> None:
    folder = submit(run_dir, suite=load_suite(blobs), model=MODEL, results=tmp_path, allow_incomplete=True)
    assert {path.name for path in folder.rglob("*")} >= {"records.parquet", "predictions.parquet"}
    assert not [path for path in folder.rglob("*") if "outputs" in path.name]


def test_sets_of_different_numbers_of_classes_share_a_folder(tmp_path: Path) -> None:
    for task, classes in (("small", 2), ("large", 5)):
        write(tmp_path / f"{task}.parquet", task, 3, classes)
    found = read_outputs(tmp_path)
    assert found.width.tolist() == [5] * 3 + [2] * 3
    assert np.isnan(found.outputs[3:, 2:]).all()
    assert not np.isnan(found.outputs[:3]).any()


def test_a_killed_writer_leaves_nothing_that_could_be_taken_for_whole(tmp_path: Path) -> None:
    path = tmp_path / "set.parquet"

    def killed() -> None:
        with writing(path, "t", 4) as writer:
            writer.add(np.arange(2), np.zeros((2, 3), np.float32))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """100,000 images of 100 classes are 40 MB: a quarter of that is more than may be held."""
    n, classes = 100_000, 100
    batch = np.zeros((1000, classes), np.float32)
    with writing(tmp_path / "set.parquet", "t", n) as writer:
        writer.add(np.arange(1000), batch)  # what is allocated once
        tracemalloc.start()
        for start in range(1000, n, 1000):
            writer.add(np.arange(start, start + 1000), batch.copy())
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 32 * 2**20
    assert pq.read_metadata(tmp_path / "set.parquet").num_rows == n
    shutil.rmtree(tmp_path)


def key(task: str) -> FitKey:
    words = {name: "x" for name in FitKey.__dataclass_fields__}
    return FitKey(**{**words, "task": task, "fit_target": None, "seed": 0, "suite_version": 1})  # type: ignore[arg-type]


def writing(path: Path, task: str, n: int):  # type: ignore[no-untyped-def]
    return writing_outputs(path, key(task), target="y", role="ood-test", names=[str(i) for i in range(n)])


def write(path: Path, task: str, n: int, classes: int) -> None:
    with writing(path, task, n) as writer:
        writer.add(np.arange(n), np.ones((n, classes), np.float32))
