"""What a submission says that it holds, and what is not believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tlbench.errors import StoreError
from tlbench.records.inventory import ALWAYS, FileFact, Inventory, PlacedFact, read_inventory

FACT = FileFact(sha256="0" * 64, bytes=3)
PLACED = PlacedFact(sha256="1" * 64, bytes=10**9, url="https://zenodo.org/x")


def inventory(**changes: Any) -> Inventory:
    facts: dict[str, Any] = {
        "suite": "digits",
        "suite_version": 2,
        "suite_hash": "a" * 64,
        "model": "m|<b>",
        "tlbench_version": "0.1.0",
        "files": dict.fromkeys(ALWAYS, FACT),
        "elsewhere": {"predictions.parquet": PLACED},
    }
    return Inventory(**{**facts, **changes})


def written(folder: Path, document: Any) -> Path:
    (folder / "submission.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return folder


def test_it_reads_as_it_was_written(tmp_path: Path) -> None:
    assert read_inventory(written(tmp_path, inventory().to_json())) == inventory()


def test_a_folder_of_before_has_none(tmp_path: Path) -> None:
    assert read_inventory(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.update(format=2), "format"),
        (lambda d: d.update(note="x"), "note"),
        (lambda d: d["files"].update({"../x": {"sha256": "0" * 64, "bytes": 1}}), "expected files of a submission"),
        (lambda d: d["elsewhere"].update({"records.parquet": d["elsewhere"]["predictions.parquet"]}), "records"),
        (lambda d: d["files"].pop("outcomes.parquet"), "'outcomes.parquet' is missing"),
        (lambda d: d["files"].update({"predictions.parquet": {"sha256": "0" * 64, "bytes": 1}}), "here and elsewhere"),
        (lambda d: d["files"]["card.toml"].update(sha256="g" * 64), "sha256"),
        (lambda d: d["files"]["card.toml"].update(bytes=-1), "bytes"),
    ],
)
def test_what_is_no_inventory_is_one_line(tmp_path: Path, change: Any, said: str) -> None:
    document = json.loads(inventory().to_json())
    change(document)
    with pytest.raises(StoreError, match=said) as caught:
        read_inventory(written(tmp_path, document))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 90_000, " " * 200_000, "\xff"])
def test_what_is_no_json_object_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(StoreError):
        read_inventory(written(tmp_path, text))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text(inventory().to_json())
    (tmp_path / "submission.json").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="a link"):
        read_inventory(tmp_path)
