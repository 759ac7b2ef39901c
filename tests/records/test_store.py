"""What is stored appears whole or not at all, and what cannot be read or written is said in one line."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlbench.errors import StoreError
from tlbench.records.files import explained, read_table, write_parquet, write_text
from tlbench.records.record import Record
from tlbench.records.schema import FITS, LATER, PREDICTIONS, RECORDS
from tlbench.records.store import ModelStore, Store, records_table, stores
from tlbench.records.tables import class_bins_of, class_bins_table, columns_of, predictions_table

HASH = "0123456789abcdef" * 4


def record(measurement: str = "m1", **changes: object) -> Record:
    blank = Record(
        suite="toy",
        suite_version=1,
        suite_hash=HASH,
        task="t",
        source="a",
        fit_target=None,
        shots="full",
        seed=0,
        model="mine",
        method="mine",
        settings="{}",
        settings_hash="s1",
        backbone="none",
        weights_hash="none",
        protocol="source-only",
        deterministic=False,
        control=False,
        fit_id="f1",
        variant="main",
        headline=True,
        target="a",
        role="id-test",
        split_hash="h",
        measurement_id=measurement,
        condition="clean",
        severity=None,
        norm=None,
        epsilon=None,
        metric="accuracy",
        metric_version=1,
        value=0.5,
        standard_error=None,
        n=4,
        status="ok",
        reason="",
    )
    return replace(blank, **changes)


def failure(measurement: str = "m1", **changes: object) -> Record:
    return record(measurement, value=None, n=0, status="failed", reason="no luck", **changes)


@pytest.fixture
def model(tmp_path: Path) -> ModelStore:
    store = Store(tmp_path, "toy", HASH)
    store.prepare({"name": "toy"})
    found = store.model("mine")
    found.prepare({"model": "mine"})
    return found


def predictions(measurement: str = "m1", n: int = 4) -> pa.Table:
    columns = {
        "id": np.arange(n, dtype=np.int32),
        "label": np.zeros(n, np.int32),
        "predicted": np.zeros(n, np.int32),
        "rank": np.zeros(n, np.int32),
        "confidence": np.linspace(0.5, 1, n, dtype=np.float32),
    }
    return predictions_table(measurement, [(None, columns)])


def values(model: ModelStore) -> list[tuple[str, str]]:
    table = model.records().to_pylist()
    return sorted((row["measurement_id"], row["status"]) for row in table)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_written_is_read_back(model: ModelStore) -> None:
    model.write("m1", [record(), record(metric="nll", value=float("inf"))], {"predictions": predictions()})
    assert model.has("m1")
    assert not model.has("m2")
    assert model.records().to_pylist()[1]["value"] == float("inf")
    assert model.read("m1", "predictions").equals(predictions())
    assert model.table("predictions", PREDICTIONS).num_rows == 4
    assert model.card() == {"model": "mine"}


def test_names_of_models_survive_their_folders(tmp_path: Path) -> None:
    store = Store(tmp_path, "toy", HASH)
    names = ["finetune(lr=0.001,augment=color-jitter)", "a@timm:resnet18", "x/../y"]
    for name in names:
        store.model(name).prepare({})
    assert sorted(found.name for found in store.models()) == sorted(names)
    assert all(found.folder.parent == store.folder / "models" for found in store.models())


def test_versions_of_a_suite_live_apart(tmp_path: Path) -> None:
    for suite_hash in (HASH, HASH[::-1]):
        Store(tmp_path, "toy", suite_hash).prepare({})
    Store(tmp_path, "toy-two", HASH).prepare({})
    assert len(stores(tmp_path, "toy")) == 2
    assert len(stores(tmp_path, "toy-two")) == 1


def test_a_measurement_that_breaks_while_it_is_written_leaves_nothing(model: ModelStore) -> None:
    with pytest.raises(AttributeError):
        model.write("m1", [record()], {"predictions": "no table"})  # type: ignore[dict-item]
    assert not model.has("m1")
    assert list((model.folder / "measurements").iterdir()) == []


def test_what_is_being_written_is_not_read(model: ModelStore) -> None:
    model.write("m1", [record()], {"predictions": predictions()})
    whole = model.folder / "measurements" / "m1"
    half = whole.with_name(".host.1.m2.abc")
    half.mkdir()
    for path in whole.iterdir():
        (half / path.name).write_bytes(path.read_bytes())
    (half / "predictions.parquet").write_bytes(b"PAR1")
    assert values(model) == [("m1", "ok")]
    assert model.table("predictions", PREDICTIONS).num_rows == 4


def test_a_fit_appears_whole_and_takes_the_place_of_a_useless_one(model: ModelStore) -> None:
    store = model.store

    def write(text: str | None) -> None:
        with store.writing_fit("f1") as folder:
            (folder / "fit.json").touch()
            (folder / "fit.json").write_text(text)  # type: ignore[arg-type]

    with pytest.raises(TypeError):
        write(None)
    assert not store.has_fit("f1")
    write("first")
    write("second")
    assert (store.fit_folder("f1") / "fit.json").read_text() == "second"
    assert [path.name for path in (store.folder / "fits").iterdir()] == ["f1"]


def test_who_finishes_second_leaves_the_first_one_s_measurement(model: ModelStore) -> None:
    model.write("m1", [record()], {})
    model.write("m1", [record(value=0.75)], {})
    assert [row["value"] for row in model.records().to_pylist()] == [0.5]
    assert len(list((model.folder / "measurements").iterdir())) == 1


def test_a_success_forgets_its_failure(model: ModelStore) -> None:
    model.write_failure("m1", [failure()])
    assert values(model) == [("m1", "failed")]
    model.write("m1", [record()], {})
    assert values(model) == [("m1", "ok")]
    assert list((model.folder / "failures").iterdir()) == []


def test_a_failure_beside_its_success_is_not_counted(model: ModelStore) -> None:
    model.write("m1", [record()], {})
    # As a kill between the two steps of a write leaves it, or a failed fit of which a part was measured before.
    model.write_failure("f1", [failure("m1"), failure("m2")])
    assert values(model) == [("m1", "ok"), ("m2", "failed")]


def test_failures_of_another_version_of_the_model_are_forgotten(model: ModelStore) -> None:
    model.write_failure("old", [failure("m1", settings_hash="s0")])
    model.write_failure("new", [failure("m2")])
    model.forget_failures_but(settings_hash="s1", weights_hash="none")
    assert values(model) == [("m2", "failed")]


def test_an_equal_measurement_is_taken_over_under_the_new_name(model: ModelStore) -> None:
    model.write("m1", [record()], {"predictions": predictions()})
    other = model.store.model("yours")
    other.prepare({})
    other.adopt("m1", model, model="yours", seed=3)
    (row,) = other.records().to_pylist()
    assert (row["model"], row["seed"], row["value"]) == ("yours", 3, 0.5)
    assert other.read("m1", "predictions").equals(predictions())
    assert model.records().to_pylist()[0]["model"] == "mine"


def test_what_killed_processes_left_is_swept_and_what_others_write_is_not(model: ModelStore) -> None:
    child = os.fork()
    if not child:
        with model.store.writing_fit("f1") as folder:
            (folder / "half").touch()
            (model.folder / f".{folder.name.split('.')[1]}.{os.getpid()}.card.json.").touch()
            os._exit(0)  # as a kill would: nothing is cleaned up
    os.waitpid(child, 0)
    with model.store.writing_fit("f2") as mine:
        assert len(list(model.folder.parents[1].rglob(".*"))) == 3
        model.store.prepare({})
        assert list(model.folder.parents[1].rglob(".*")) == [mine]
        (mine / "fit.json").touch()
    assert files(model.store.folder) == ["fits/f2/fit.json", "models/mine/card.json", "suite.json"]


def test_a_lock_keeps_others_out_and_ends_with_its_process(model: ModelStore) -> None:
    store = model.store
    with store.lock("f1", wait=False) as first, store.lock("f1", wait=False) as second:
        assert (first, second) == (True, False)
        with store.lock("f2", wait=False) as other:
            assert other
    read, write = os.pipe()
    child = os.fork()
    if not child:
        with store.lock("f1", wait=True):
            os.write(write, b"x")
            os.read(os.pipe()[0], 1)  # for ever
    os.read(read, 1)
    with store.lock("f1", wait=False) as held:
        assert not held
    os.kill(child, 9)
    os.waitpid(child, 0)
    with store.lock("f1", wait=False) as held:
        assert held


def test_a_truncated_file_is_named(model: ModelStore) -> None:
    model.write("m1", [record()], {})
    path = model.folder / "measurements" / "m1" / "records.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StoreError, match=r"m1/records.parquet: not a readable Parquet file") as caught:
        model.records()
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(model: ModelStore) -> None:
    with pytest.raises(StoreError, match=r"m1/predictions.parquet: expected a Parquet file, found nothing"):
        model.read("m1", "predictions")


def test_another_version_of_the_schema_is_refused(tmp_path: Path) -> None:
    table = records_table([record()])
    write_parquet(tmp_path / "new.parquet", table.replace_schema_metadata({"tlbench_schema": "2"}))
    with pytest.raises(StoreError, match="expected schema version 1, got 2"):
        read_table(tmp_path / "new.parquet", RECORDS)
    pq.write_table(table.replace_schema_metadata({}), tmp_path / "none.parquet")
    with pytest.raises(StoreError, match="expected schema version 1, got none"):
        read_table(tmp_path / "none.parquet", RECORDS)


def test_other_columns_are_refused(tmp_path: Path) -> None:
    table = records_table([record()])
    write_parquet(tmp_path / "less.parquet", table.drop_columns(["value"]))
    with pytest.raises(StoreError, match="column 'value' is missing"):
        read_table(tmp_path / "less.parquet", RECORDS)
    place = table.schema.get_field_index("value")
    write_parquet(tmp_path / "text.parquet", table.set_column(place, "value", pa.array(["much"])))
    with pytest.raises(StoreError, match="columns are not of the written schema"):
        read_table(tmp_path / "text.parquet", RECORDS)


def test_a_file_in_place_of_a_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="expected a folder, found a file in its place"):
        Store(tmp_path / "runs", "toy", HASH).prepare({})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere; a read-only file system is tried instead")
def test_a_read_only_folder_is_said_before_any_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StoreError, match="cannot be written; give another folder or its permissions"):
            Store(tmp_path, "toy", HASH).prepare({})
    finally:
        tmp_path.chmod(0o755)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a small file system in memory, where that is allowed."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options: str) -> Path:
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
        return place

    if os.geteuid() != 0:
        pytest.skip("only root mounts file systems")
    yield mount
    subprocess.run(["umount", place], capture_output=True)


def test_a_read_only_file_system_is_said_before_any_work(mounted: Callable[[str], Path]) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        Store(mounted("size=1m,ro"), "toy", HASH).prepare({})


def test_a_full_file_system_is_said_and_nothing_is_lost(mounted: Callable[[str], Path]) -> None:
    store = Store(mounted("size=256k"), "toy", HASH)
    store.prepare({})
    store.model("mine").write("m1", [record()], {"predictions": predictions()})

    def fill() -> None:
        for number in range(2, 1000):
            store.model("mine").write(f"m{number}", [record(f"m{number}")], {"predictions": predictions(n=50)})

    with pytest.raises(StoreError, match="the disk is full; free some space and give the same command again"):
        fill()
    found = values(store.model("mine"))
    assert len(found) >= 1
    assert not list(store.folder.rglob(".*"))


def limited(work: Callable[[], None]) -> str:
    """Do some work in a process that can write 4 KiB to a file; return the error's text."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            work()
            text = "written"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write, text.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


def test_a_file_that_may_not_grow_is_a_full_disk(model: ModelStore) -> None:
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 99, 9000, dtype=np.int32) for name in ("id", "label", "predicted", "rank")}
    large = predictions_table("m1", [(None, columns)])
    said = limited(lambda: model.write("m1", [record()], {"predictions": large}))
    assert said.startswith("StoreError: ")
    assert said.endswith("the disk is full; free some space and give the same command again")
    assert not model.has("m1")
    said = limited(lambda: write_text(model.folder / "card.json", "x" * 9000))
    assert said.startswith("StoreError: ")
    assert model.card() == {"model": "mine"}
    assert not list(model.folder.rglob(".*"))


def test_other_errors_of_the_operating_system_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="interrupted") as caught, explained(tmp_path):
        raise OSError(errno.EINTR, "interrupted")
    assert not isinstance(caught.value, StoreError)


def test_columns_that_are_absent_are_null_and_nan_stays_nan() -> None:
    columns = {
        "id": np.arange(3, dtype=np.int32),
        "label": np.zeros(3, np.int32),
        "confidence": np.array([0.5, np.nan, 1], dtype=np.float32),
    }
    table = predictions_table("m1", [(0.1, columns), (0.2, columns)])
    assert table.column("brier").null_count == 6
    assert table.column("confidence").null_count == 0
    back = columns_of(table.slice(0, 3))
    assert set(back) == {"severity", "id", "label", "confidence"}
    assert np.array_equal(back["confidence"], columns["confidence"], equal_nan=True)
    assert set(table.column("severity").to_pylist()) == {np.float32(0.1), np.float32(0.2)}


def test_class_bins_come_back_bit_for_bit() -> None:
    from tlbench.binning import class_bins

    rng = np.random.default_rng(0)
    outputs = rng.dirichlet(np.ones(3), 40)
    made = class_bins(outputs, rng.integers(0, 3, 40), bins=5, closed="right")
    back = class_bins_of(class_bins_table("m1", {False: made}), classes=3, bins=5)
    assert list(back) == [False]
    for name in ("count", "probability", "positive"):
        assert np.array_equal(getattr(back[False], name), getattr(made, name))


def test_a_fits_table_of_before_a_column_was_added_is_read_with_its_default(tmp_path: Path) -> None:
    values = {"string": "x", "bool": False, "int32": 1, "int64": 1, "double": 0.0}
    whole = pa.Table.from_pylist([{field.name: values[str(field.type)] for field in FITS}] * 2, schema=FITS)
    old = whole.drop_columns(list(LATER))
    pq.write_table(old, tmp_path / "fits.parquet")
    read = read_table(tmp_path / "fits.parquet", FITS)
    assert read.schema.equals(FITS)
    assert {name: read.column(name).to_pylist() for name in LATER} == {
        "candidates": ["[]"] * 2,
        "data_notes": [""] * 2,
        "precision": ["float32"] * 2,
    }
    assert read.select(old.column_names).equals(old)
    # Any other column that is missing is an error still.
    pq.write_table(whole.drop_columns(["seconds"]), tmp_path / "fits.parquet")
    with pytest.raises(StoreError, match="column 'seconds' is missing"):
        read_table(tmp_path / "fits.parquet", FITS)
