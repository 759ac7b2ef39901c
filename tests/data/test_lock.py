from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlbench.data.lock import check_lock
from tlbench.errors import DataError, StoreError
from tlbench.records.lock import read_lock, write_lock
from tlbench.records.manifest import Manifest


def manifest(part: str = "test", n: int = 4, **changes: object) -> Manifest:
    whole = Manifest(
        task="pets",
        domain="photo",
        part=part,
        classes=("cat", "dog"),
        names=tuple(f"{i}.png" for i in range(n)),
        labels=np.arange(n) % 2,
        pixels="0" * 64,
        image_size=8,
        clusters=tuple("ab"[i % 2] for i in range(n)),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def test_a_lock_reads_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "made.lock.parquet"
    written = [manifest("train", 7), manifest("test"), manifest("val", 0)]
    write_lock(path, written)
    found = read_lock(path)
    assert list(found) == [("pets", "photo", part) for part in ("train", "test", "val")]
    for m in written:
        assert found["pets", "photo", m.part].hash == m.hash
        assert found["pets", "photo", m.part].clusters == m.clusters
        assert found["pets", "photo", m.part].groups is None or m.part == "val"
    check_lock(written, path)
    check_lock(written[:1], path)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"names": ("0.png", "1.png", "2.png", "x.png")}, "2 images, such as '3.png' (missing)"),
        ({"names": ("1.png", "0.png", "2.png", "3.png")}, "order of the images"),
        ({"labels": np.array([0, 1, 1, 1])}, "1 labels"),
        ({"pixels": "1" * 64}, "pixels 111111111111, expected 000000000000"),
        ({"classes": ("cat", "dgo")}, "class 'dgo'"),
        ({"image_size": 9}, "image size 9, expected 8"),
        ({"domain": "sketch"}, "not in the lock"),
    ],
)
def test_what_differs_is_told_in_a_table(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    path = tmp_path / "made.lock.parquet"
    write_lock(path, [manifest("train"), manifest()])
    with pytest.raises(DataError) as error:
        check_lock([manifest("train"), manifest(**changes)], path)
    first, header, row = str(error.value).splitlines()
    assert "1 of 2 splits" in first
    assert header.split() == ["split", "expected", "found", "difference"]
    assert row.endswith(told)


def test_counts_stand_in_the_table(tmp_path: Path) -> None:
    path = tmp_path / "made.lock.parquet"
    write_lock(path, [manifest(n=4)])
    with pytest.raises(DataError, match=r"pets/photo test +4 +3 +1 images, such as '3.png' \(missing\)"):
        check_lock([manifest(n=3)], path)


def test_rows_that_were_edited_are_found_out(tmp_path: Path) -> None:
    path = tmp_path / "made.lock.parquet"
    write_lock(path, [manifest()])
    table = pq.read_table(path)
    labels = pa.array([1, 1, 0, 1], pa.int32())
    edited = table.set_column(table.schema.get_field_index("label"), table.schema.field("label"), labels)
    pq.write_table(edited, path)
    with pytest.raises(StoreError, match="do not have the hash that the file states"):
        read_lock(path)


def test_another_parquet_file_is_not_a_lock(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(StoreError, match="schema version"):
        read_lock(path)
    with pytest.raises(StoreError, match="found nothing"):
        read_lock(tmp_path / "none.parquet")
