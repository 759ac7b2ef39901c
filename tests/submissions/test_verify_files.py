"""What verification catches in the files: schema, hashes, inventory, card; and what it makes of any damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tlbench_tampering import caught, edit, sign, verified

from tlbench.records.inventory import INVENTORY, read_inventory


def half_a_file(folder: Path) -> None:
    path = folder / "predictions.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sign(folder)


def another_schema(folder: Path) -> None:
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    names = ["place" if name == "id" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names).replace_schema_metadata(table.schema.metadata), path)
    sign(folder)


def another_version_of_the_schema(folder: Path) -> None:
    path = folder / "fits.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({"tlbench_schema": "99"}), path)
    sign(folder)


def texts_that_are_none(folder: Path) -> None:
    path = folder / "records.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("reason")
    broken = pa.Array.from_buffers(
        pa.string(),
        len(table),
        [None, pa.py_buffer(np.arange(len(table) + 1, dtype=np.int32).tobytes()), pa.py_buffer(b"\xff" * len(table))],
    )
    pq.write_table(table.set_column(place, table.schema.field(place), broken), path)
    sign(folder)


def an_unsigned_file(folder: Path) -> None:
    with (folder / "card.toml").open("a") as file:
        file.write("\n# more\n")


def a_file_more(folder: Path) -> None:
    (folder / "run.sh").write_text("echo\n")


def a_link(folder: Path) -> None:
    target = folder.parent / "elsewhere.parquet"
    (folder / "audits.parquet").rename(target)
    (folder / "audits.parquet").symlink_to(target)


def an_inventory_of_another_model(folder: Path) -> None:
    document = json.loads((folder / INVENTORY).read_text())
    (folder / INVENTORY).write_text(json.dumps({**document, "model": "n"}))


def an_inventory_that_climbs_out(folder: Path) -> None:
    document = json.loads((folder / INVENTORY).read_text())
    document["files"]["../../other.parquet"] = document["files"]["fits.parquet"]
    (folder / INVENTORY).write_text(json.dumps(document))


def an_inventory_nested_too_deeply(folder: Path) -> None:
    (folder / INVENTORY).write_text("[" * 50_000)


def a_card_that_is_none(folder: Path) -> None:
    (folder / "card.toml").write_text("name = [")
    sign(folder)


def a_card_of_a_megabyte(folder: Path) -> None:
    (folder / "card.toml").write_text("x = 1\n" * 200_000)
    sign(folder)


TAMPERED = [
    (half_a_file, "schema", "not a readable Parquet file"),
    (another_schema, "schema", "column 'id' is missing"),
    (another_version_of_the_schema, "schema", "expected schema version 1, got 99"),
    (texts_that_are_none, "schema", "records.parquet"),
    (an_unsigned_file, "files", "card.toml: "),
    (a_file_more, "files", "run.sh: not a file of a submission"),
    (a_link, "files", "audits.parquet: expected a plain file"),
    (a_link, "schema", "got a link"),
    (an_inventory_of_another_model, "files", "model 'n', expected 'm'"),
    (an_inventory_that_climbs_out, "files", "expected files of a submission, got '../../other.parquet'"),
    (an_inventory_nested_too_deeply, "files", "expected JSON"),
    (a_card_that_is_none, "schema", "card.toml"),
    (a_card_of_a_megabyte, "schema", "expected at most 64,000 bytes"),
]


test_what_was_tampered_with_is_caught_by_the_check_for_it = caught(TAMPERED)


def test_predictions_that_lie_elsewhere_leave_the_outcomes_to_be_checked(made: Any, copy: Path) -> None:
    inventory = read_inventory(copy)
    assert inventory is not None
    document = json.loads(inventory.to_json())
    for name in ("predictions.parquet", "class_bins.parquet", "audits.parquet"):
        document["elsewhere"][name] = {**document["files"].pop(name), "url": "https://zenodo.org/x"}
        (copy / name).rename(copy.parent / name)
    (copy / INVENTORY).write_text(json.dumps(document))
    report = verified(made, copy)
    assert (report.ok, report.level) == (True, "self-reported"), report.to_text()
    assert report.check("values").summary == "predictions lie elsewhere"
    assert report.check("outcomes").status == "ok"
    an_outcome_is_caught = shutil.copytree(copy, copy.parent / "n")
    document["files"].pop("outcomes.parquet")
    an_outcome_in(an_outcome_is_caught)
    assert verified(made, an_outcome_is_caught).check("outcomes").status == "mismatch"
    # Once fetched they are held against the hashes that were stated.
    for name in ("predictions.parquet", "class_bins.parquet", "audits.parquet"):
        (copy.parent / name).rename(copy / name)
    assert verified(made, copy).level == "recomputed"
    (copy / "audits.parquet").write_bytes(b"PAR1")
    assert "audits.parquet: 4 bytes" in verified(made, copy).check("files").summary


def an_outcome_in(folder: Path) -> None:
    path = folder / "outcomes.parquet"
    table = pq.read_table(path)
    bits = table.column("correct").to_pylist()
    bits[0] = bytes([bits[0][0] ^ 128, *bits[0][1:]])
    place = table.column_names.index("correct")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(bits, pa.binary())), path)


def test_no_damage_to_a_file_ends_in_an_error(made: Any, copy: Path) -> None:
    draw = np.random.default_rng(0)
    names = ("records.parquet", "predictions.parquet", "class_bins.parquet", "outcomes.parquet", "fits.parquet")
    for name in names:
        whole = (copy / name).read_bytes()
        for _ in range(3):
            damaged = bytearray(whole)
            for place in draw.integers(0, len(whole), 8):
                damaged[place] = draw.integers(0, 256)
            (copy / name).write_bytes(bytes(damaged))
            assert verified(made, copy).check("files").status == "mismatch"
        (copy / name).write_bytes(whole)
    assert verified(made, copy).ok


def test_signing_a_copy_again_changes_nothing(made: Any, copy: Path) -> None:
    # Otherwise the table of tampered copies would prove nothing.
    for name in ("records", "predictions", "class_bins", "fits", "audits", "outcomes"):
        edit(copy, name, lambda frame: None)
    assert verified(made, copy).ok


def test_the_order_of_rows_does_not_matter(made: Any, copy: Path) -> None:
    for name in ("records", "predictions", "class_bins", "fits", "audits", "outcomes"):
        edit(copy, name, lambda frame: frame.sample(frac=1, random_state=3))
    assert verified(made, copy).level == "recomputed"
