"""Published tables are a stranger's until they are checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.errors import StoreError
from tlbench.records import published
from tlbench.records.compact import with_derivable, without_derivable, write_compact
from tlbench.records.precision import as_stored
from tlbench.records.published import PublishedModel, model_folder, published_folder, published_models
from tlbench.records.schema import OUTCOMES, PREDICTIONS, RECORDS


def record(**changes: object) -> dict[str, object]:
    kinds = {"string": "", "bool": False, "int32": 1, "int64": 1, "double": None}
    row: dict[str, object] = {field.name: kinds[str(field.type)] for field in RECORDS}
    return {**row, "suite": "tiny", "model": "m", "status": "ok", **changes}


def place(folder: Path, table: pa.Table) -> PublishedModel:
    (folder / "tiny" / "m").mkdir(parents=True)
    pq.write_table(table, folder / "tiny" / "m" / "records.parquet")
    (found,) = published_models("tiny", folder=folder)
    return found


def test_a_table_of_the_schema_is_read(tmp_path: Path) -> None:
    found = place(tmp_path, pa.Table.from_pylist([record()], schema=RECORDS))
    assert found.table("records").schema.equals(RECORDS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "other"}, "column 'suite': expected 'tiny', got 'other'"),
        ({"model": "winner"}, "column 'model': expected 'm', got 'winner'"),
        ({"status": "fine"}, "column 'status'"),
    ],
)
def test_rows_that_claim_another_place_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    found = place(tmp_path, pa.Table.from_pylist([record(), record(**changes)], schema=RECORDS))
    with pytest.raises(StoreError, match=message):
        found.table("records")


def test_a_missing_column_and_a_missing_file_are_named(tmp_path: Path) -> None:
    found = place(tmp_path, pa.Table.from_pylist([record()], schema=RECORDS).drop_columns(["value"]))
    with pytest.raises(StoreError, match="column 'value' is missing"):
        found.table("records")
    with pytest.raises(StoreError, match=r"fits\.parquet: expected a Parquet file, found nothing"):
        found.table("fits")


def test_a_null_where_there_must_be_a_value_is_refused(tmp_path: Path) -> None:
    loose = pa.schema([field.with_nullable(True) for field in RECORDS], metadata=RECORDS.metadata)
    found = place(tmp_path, pa.Table.from_pylist([record(task=None)], schema=loose))
    with pytest.raises(StoreError, match="not of the written schema"):
        found.table("records")


def test_a_file_too_large_to_be_true_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = place(tmp_path, pa.Table.from_pylist([record()] * 10_000, schema=RECORDS))
    monkeypatch.setattr(published, "MAX_UNPACKED_BYTES", 50_000)
    with pytest.raises(StoreError, match="when unpacked"):
        found.table("records")
    monkeypatch.setattr(published, "MAX_FILE_BYTES", 100)
    with pytest.raises(StoreError, match="at most 100 bytes"):
        found.table("records")


def test_a_long_text_that_stands_in_many_rows_is_not_unpacked(tmp_path: Path) -> None:
    rows = 5_000
    words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([b"x" * 1_000_000]))
    ids = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["m"]))
    columns = {"measurement_id": ids, "split_hash": ids, "n": np.zeros(rows, np.int32), "correct": words}
    found = place(tmp_path, pa.Table.from_pylist([record()], schema=RECORDS))
    path = found.folder / "outcomes.parquet"
    pq.write_table(pa.table(columns).replace_schema_metadata(OUTCOMES.metadata), path, compression="zstd")
    assert path.stat().st_size < 5_000
    with pytest.raises(StoreError, match="when unpacked, got 5,000,0"):
        found.table("outcomes")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    found = place(tmp_path / "results", pa.Table.from_pylist([record()], schema=RECORDS))
    path = found.folder / "records.parquet"
    path.rename(tmp_path / "elsewhere.parquet")
    path.symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(StoreError, match="got a link"):
        found.table("records")


def test_hidden_folders_and_missing_places_hold_nothing(tmp_path: Path) -> None:
    place(tmp_path, pa.Table.from_pylist([record()], schema=RECORDS))
    (tmp_path / "tiny" / "m").rename(tmp_path / "tiny" / ".new.m")
    assert published_models(folder=tmp_path) == ()
    assert published_models(folder=tmp_path / "nowhere") == ()


@pytest.mark.parametrize("name", ["..", ".", "../x", ".hidden", "a/b", "\0"])
def test_no_name_leaves_the_suite_s_folder(tmp_path: Path, name: str) -> None:
    folder = model_folder(tmp_path, "tiny", name)
    assert folder.parent == tmp_path / "tiny"
    assert folder.resolve().parent == (tmp_path / "tiny").resolve()
    assert not folder.name.startswith(".")


def test_the_published_folder_of_this_checkout_is_its_results() -> None:
    assert published_folder().name in ("results", "results_published")


def test_the_compact_form_loses_no_bit(tmp_path: Path) -> None:
    rows = [
        {"measurement_id": f"{number % 3}", "severity": None, "id": number, "label": 0, "confidence": 0.1 * number}
        for number in range(9)
    ]
    table = pa.Table.from_pylist([{**dict.fromkeys(PREDICTIONS.names), **row} for row in rows], schema=PREDICTIONS)
    order = ("measurement_id", "id")
    write_compact(tmp_path / "p.parquet", table, order=order, delta=("id",))
    again = pq.read_table(tmp_path / "p.parquet")
    assert again.schema.metadata == PREDICTIONS.metadata
    assert again.equals(table.sort_by([(name, "ascending") for name in order]))


def test_confidences_that_follow_from_likelihoods_are_left_out_and_put_back(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    likelihood = as_stored(np.log(draw.uniform(0.3, 1, 1000)))
    right = draw.random(1000) < 0.7
    confidence = as_stored(np.where(right, np.exp(likelihood.astype(np.float64)), 0.6))
    confidence[right.argmax()] = np.nextafter(confidence[right.argmax()], np.float32(0))  # one that does not follow
    columns = {
        "measurement_id": ["k"] * 1000,
        "id": np.arange(1000, dtype=np.int32),
        "label": np.zeros(1000, np.int32),
        "predicted": (~right).astype(np.int32),
        "rank": (~right).astype(np.int32),
        "confidence": confidence,
        "log_likelihood": likelihood,
    }
    nulls = {name: [None] * 1000 for name in PREDICTIONS.names if name not in columns}
    table = pa.table({**columns, **nulls}, schema=PREDICTIONS)
    small = without_derivable(table)
    assert small["confidence"].null_count == right.sum() - 1
    assert with_derivable(small).equals(table)


def test_outputs_without_probabilities_stay_without_confidence() -> None:
    row = {**dict.fromkeys(PREDICTIONS.names), "measurement_id": "k", "id": 0, "label": 0, "predicted": 0, "rank": 0}
    table = pa.Table.from_pylist([row], schema=PREDICTIONS)
    assert with_derivable(without_derivable(table)).equals(table)


@given(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=1), st.integers(1, 16))
def test_rounding_keeps_what_it_promises(values: list[float], dropped: int) -> None:
    exact = np.array(values, dtype=np.float32)
    rounded = as_stored(exact, dropped)
    normal = np.abs(exact) > 1e-37
    assert (np.abs(rounded[normal] - exact[normal]) <= np.abs(exact[normal]) * 2.0 ** (dropped - 24)).all()
    assert not (rounded.view(np.uint32) & ((1 << dropped) - 1)).any()
    np.testing.assert_array_equal(as_stored(rounded, dropped), rounded)
