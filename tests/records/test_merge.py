"""Many small files into one: the same tables, whoever else is at work and whenever it is killed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlbench.errors import StoreError
from tlbench.leaderboard.tables import load_fits, load_predictions, load_results
from tlbench.records import merged as merged_form
from tlbench.records.files import write_parquet
from tlbench.records.merge import merge
from tlbench.records.merged import MERGED_FILE, TABLES, Entry, Merged, merged_of, write_merged
from tlbench.records.schema import AUDITS, CLASS_BINS, PREDICTIONS
from tlbench.records.store import ModelStore, Store
from tlbench.records.tables import audits_table

_SPEC = importlib.util.spec_from_file_location(
    "tlbench_test_merge_results", Path(__file__).parents[1] / "synthetic_results.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
synthetic = sys.modules[_SPEC.name] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(synthetic)

SUITE = synthetic.make_suite(
    tasks={
        "t": {
            "reader": "embedded",
            "classes": ["p", "q", "r"],
            "domains": ["a", "b"],
            "pairs": [{"source": "a", "target": "b"}],
        }
    },
    conditions=[{"kind": "clean"}, {"kind": "corruption", "name": "fog", "severities": [1, 5]}],
)
MEASUREMENTS = 2 * (3 + 1)  # two seeds; clean on every set, fog on ID-test
FITS = 2


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    synthetic.Run(folder, SUITE).add("m", tables=True)
    return folder


@pytest.fixture
def run(written: Path, tmp_path: Path) -> Any:
    shutil.copytree(written, tmp_path / "runs")
    return synthetic.Run(tmp_path / "runs", SUITE)


def tables(run: Any, model: str = "m") -> dict[str, pd.DataFrame]:
    places: dict[str, Any] = {"run_dir": run.folder, "published": False}
    frames = {
        "records": load_results(SUITE, **places),
        "fits": load_fits(SUITE, **places),
        "predictions": load_predictions(SUITE, model, **places),
        "class_bins": run.store.model(model).table("class_bins", CLASS_BINS).to_pandas(),
    }
    keys = {
        "records": ["measurement_id", "severity", "metric"],
        "fits": ["fit_id"],
        "predictions": ["measurement_id", "severity", "id"],
        "class_bins": ["measurement_id", "scaled", "class", "bin"],
    }
    return {name: frame.sort_values(keys[name]).reset_index(drop=True) for name, frame in frames.items()}


def check_equal(found: dict[str, pd.DataFrame], expected: dict[str, pd.DataFrame]) -> None:
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(found[name], frame)


def files(models: ModelStore) -> list[str]:
    names = [path.relative_to(models.folder) for path in models.folder.rglob("*.parquet")]
    return sorted(str(name) for name in names)


def child(work: Callable[[], object]) -> int:
    """Do some work in a process of its own; return the process."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def ended(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_every_table_is_the_same_in_one_file(run: Any) -> None:
    before = tables(run)
    models = run.store.model("m")
    ids = models.measured()
    told = merge(models)
    check_equal(tables(run), before)
    assert files(models) == [MERGED_FILE]
    assert models.measured() == ids
    assert (told.state, told.measurements, told.fits, told.left) == ("merged", MEASUREMENTS, FITS, 0)
    assert told.files_after == 1
    assert told.files_before > MEASUREMENTS
    assert told.bytes_after < told.bytes_before
    assert merge(models).state == "nothing to do"


def test_one_measurement_is_read_as_before(run: Any) -> None:
    models = run.store.model("m")
    ids = sorted(models.measured())
    fit = load_fits(SUITE, run_dir=run.folder, published=False)["fit_id"].iloc[0]

    def everything() -> list[Any]:
        return [
            [models.has(own), models.tables_of(own), models.written(own) is not None, models.read(own, "records")]
            + [models.read(own, name, ["measurement_id"]) for name in models.tables_of(own)]
            for own in ids
        ]

    def facts() -> tuple[Any, ...]:
        return models.has_fit_row(fit), models.batch_size_of(fit), models.has_fit_row("f"), models.batch_size_of("f")

    before, known, when = everything(), facts(), {own: models.written(own) for own in ids}
    merge(models)
    after = everything()
    for old, new in zip(before, after, strict=True):
        assert old[0] is new[0] is True
        assert set(old[1]) == set(new[1])
        assert old[3].equals(new[3])
    assert facts() == known == (True, 128, False, None)
    assert {own: models.written(own) for own in ids} == when
    assert not models.has("absent")
    assert models.written("absent") is None
    assert models.tables_of("absent") == []
    for name, table in (("absent", "records"), (ids[0], "audits")):
        with pytest.raises(StoreError, match="expected a Parquet file, found nothing"):
            models.read(name, table)


def test_later_work_stands_beside_and_is_merged_the_next_time(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merged_form, "_BATCH", 2)
    monkeypatch.setattr(merged_form, "_GROUP_ROWS", 20)  # several row groups, as a large model has
    models = run.store.model("m")
    merge(models)
    before = tables(run)
    run.add("m", seeds=(7,), tables=True)
    with_later = tables(run)
    assert len(with_later["records"]) == 1.5 * len(before["records"])
    assert merge(models).measurements == MEASUREMENTS // 2
    assert files(models) == [MERGED_FILE]
    check_equal(tables(run), with_later)
    merged = merged_of(models.folder)
    assert merged is not None
    assert len(merged._starts) > 4


def test_what_is_merged_is_not_written_again(run: Any) -> None:
    models = run.store.model("m")
    merge(models)
    before = tables(run)
    run.add("m", tables=True, value=0.1)
    assert not list(models.folder.glob("measurements/*"))
    check_equal({**tables(run), "fits": before["fits"]}, before)


def test_a_row_of_a_fit_that_is_written_anew_counts(run: Any) -> None:
    models = run.store.model("m")
    merge(models)
    row = models.fits().to_pylist()[0]
    models.write_fit({**row, "batch_size": 7})
    assert models.batch_size_of(row["fit_id"]) == 7
    for state in ("merged", "nothing to do"):
        assert merge(models).state == state
        (found,) = [fit for fit in models.fits().to_pylist() if fit["fit_id"] == row["fit_id"]]
        assert found["batch_size"] == models.batch_size_of(row["fit_id"]) == 7
        assert len(models.fits()) == FITS


def test_a_fit_that_somebody_works_on_keeps_its_file(run: Any) -> None:
    models = run.store.model("m")
    before = tables(run)
    fit = before["fits"]["fit_id"].iloc[1]
    with run.store.lock(fit, wait=True):
        assert merge(models).left == 1
    assert files(models) == [f"fits/{fit}.parquet", MERGED_FILE]
    check_equal(tables(run), before)
    assert merge(models).left == 0


def test_only_one_process_merges_a_model(run: Any) -> None:
    models = run.store.model("m")
    before = files(models)
    (name,) = [path.stem for path in _locks_made_by(lambda: merge(models), run.store)]
    shutil.rmtree(run.folder)
    shutil.copytree(run.folder.parent / "kept", run.folder)
    with run.store.lock(name, wait=True):
        assert merge(models).state == "busy"
        assert files(models) == before
    assert merge(models).state == "merged"


def _locks_made_by(work: Callable[[], object], store: Store) -> list[Path]:
    shutil.copytree(store.folder.parent, store.folder.parent.parent / "kept")
    work()
    return list(store.folder.glob("locks/*.merge.lock"))


def test_another_model_takes_over_a_merged_measurement(run: Any) -> None:
    models = run.store.model("m")
    merge(models)
    other = run.store.model("other")
    other.prepare({"name": "other"})
    for own in sorted(models.measured()):
        other.adopt(own, models, model="other")
    for name, schema in (("predictions", PREDICTIONS), ("class_bins", CLASS_BINS), ("audits", AUDITS)):
        theirs, ours = models.table(name, schema), other.table(name, schema)
        assert ours.sort_by("measurement_id").equals(theirs.sort_by("measurement_id"))
    taken = other.records().to_pandas()
    assert set(taken["model"]) == {"other"}
    columns = [name for name in taken.columns if name != "model"]
    theirs = models.records().to_pandas()
    order = ["measurement_id", "metric", "severity"]
    pd.testing.assert_frame_equal(
        taken[columns].sort_values(order, ignore_index=True), theirs[columns].sort_values(order, ignore_index=True)
    )


def test_a_failure_that_a_merged_measurement_mended_is_not_shown(run: Any) -> None:
    models = run.store.model("m")
    merge(models)
    before = tables(run)
    failed = models.folder / "failures" / "x.parquet"
    shutil.copy(_exported(models, failed.parent), failed)
    check_equal(tables(run), before)


def _exported(models: ModelStore, folder: Path) -> Path:
    path = folder.parent / "failed"
    write_parquet(path, models.read(sorted(models.measured())[0], "records"))
    return path


def test_files_that_tlbench_does_not_know_are_left_alone(run: Any) -> None:
    models = run.store.model("m")
    before = tables(run)
    folder = sorted(models.folder.glob("measurements/*"))[3]
    (folder / "notes.txt").write_text("mine")
    assert merge(models).left == 1
    assert (folder / "notes.txt").read_text() == "mine"
    check_equal(tables(run), before)


def test_a_damaged_file_changes_nothing(run: Any) -> None:
    models = run.store.model("m")
    damaged = sorted(models.folder.glob("measurements/*/predictions.parquet"))[3]
    damaged.write_bytes(damaged.read_bytes()[:200])
    before = files(models)
    with pytest.raises(StoreError, match=f"{damaged.parent.name}.*not a readable Parquet file"):
        merge(models)
    assert files(models) == before
    assert not list(models.folder.rglob(".*"))


def test_a_damaged_merged_file_is_named(run: Any) -> None:
    models = run.store.model("m")
    merge(models)
    path = models.folder / MERGED_FILE
    path.write_bytes(path.read_bytes()[:1000])
    for read in (models.measured, models.records, models.fits):
        with pytest.raises(StoreError, match=r"merged\.parquet: not a readable Parquet file"):
            read()


def _killed_at(step: int, work: Callable[[], object]) -> Callable[[], None]:
    """Kill the process just before the given change of its file system, counted from 0."""

    def struck() -> None:
        left = step

        def counted(owner: Any, name: str) -> None:
            plain = getattr(owner, name)

            def method(*arguments: Any, **options: Any) -> Any:
                nonlocal left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return plain(*arguments, **options)

            setattr(owner, name, method)

        for owner, name in ((Path, "rename"), (Path, "replace"), (Path, "unlink"), (os, "rmdir"), (os, "unlink")):
            counted(owner, name)
        work()

    return struck


# The renaming of the merged file; fits go first, then folders, each by a rename and several removals.
@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20])
def test_killed_half_way_nothing_is_lost(run: Any, step: int) -> None:
    models = run.store.model("m")
    before = tables(run)
    assert ended(child(_killed_at(step, lambda: merge(models)))) == -signal.SIGKILL
    check_equal(tables(run), before)
    assert (models.folder / MERGED_FILE).exists() is (step > 0)
    if step == 8:  # work goes on after the kill, before anybody merges again
        run.add("m", seeds=(7,), tables=True)
        before = tables(run)
    merge(models)
    check_equal(tables(run), before)
    assert files(models) == [MERGED_FILE]
    assert not list(run.folder.rglob(".*"))


def test_another_process_reads_and_writes_meanwhile(run: Any) -> None:
    models = run.store.model("m")
    expected = len(models.records())
    (per_seed,) = {expected // 2}
    later = (5, 6, 7)
    writing = child(lambda: [run.add("m", seeds=(seed,), tables=True) for seed in later])

    def read() -> None:
        n = expected
        while n < expected + len(later) * per_seed:
            found = models.records()
            # What was there once is there every time, and once only.
            assert len(found) >= n
            assert len(set(map(str, found.select(["measurement_id", "metric", "severity"]).to_pylist()))) == len(found)
            n = len(found)

    reading = child(read)
    while os.waitpid(writing, os.WNOHANG)[0] == 0:
        merge(models)
    assert ended(reading) == 0
    merge(models)
    assert len(models.records()) == expected + len(later) * per_seed
    assert files(models) == [MERGED_FILE]


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=6), st.integers(1, 5))
def test_tables_that_are_absent_empty_or_short_come_back_as_they_were(shapes: list[list[int]], group: int) -> None:
    entries = [
        Entry(
            "measurement",
            f"m{place}",
            float(place),
            {
                name: TABLES[name].empty_table() if not n else audits(f"m{place}", n)
                for name, n in zip(("audits", "records", "class_bins"), shape, strict=False)
                if name == "audits" or n == 0
            },
        )
        for place, shape in enumerate(shapes)
    ]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(merged_form, "_GROUP_ROWS", group)
        patch.setattr(merged_form, "_BATCH", 2)
        path = Path(folder) / MERGED_FILE
        write_merged(path, None, entries, replaced={"measurement": set(), "fit": set()})
        found = Merged(path)
        assert list(found.ids("measurement")) == [entry.id for entry in entries]
        for entry in entries:
            assert found.names("measurement", entry.id) == [name for name in TABLES if name in entry.tables]
            for name, table in entry.tables.items():
                again = found.read("measurement", entry.id, name)
                assert again is not None
                assert again.equals(table)
        whole = [entry.tables["audits"] for entry in entries if "audits" in entry.tables]
        assert len(found.table("audits")) == sum(map(len, whole))


def audits(name: str, n: int) -> Any:
    values = {"id": list(range(n)), "epsilon": [0.5] * n, "implied": [True] * n, "found": [False] * n}
    return audits_table(name, values)
