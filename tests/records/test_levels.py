"""The level of a published model: believed only where every file is the one that was verified."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tlbench.records.levels import level_of


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(folder: Path, **changes: Any) -> dict[str, Any]:
    files = {path.name: sha256(path.read_bytes()) for path in folder.iterdir() if path.name != "verification.json"}
    document = {"format": 1, "level": "recomputed", "files": files, **changes}
    (folder / "verification.json").write_text(json.dumps(document))
    return document


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("records.parquet", "fits.parquet", "card.toml"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize("level", ["self-reported", "recomputed", "reproduced", "disputed"])
def test_a_stated_level_counts(folder: Path, level: str) -> None:
    assert level_of(folder) == "self-reported"
    write(folder, level=level)
    assert level_of(folder) == level


@pytest.mark.parametrize("name", ["records.parquet", "fits.parquet", "card.toml"])
def test_a_changed_file_makes_it_self_reported(folder: Path, name: str) -> None:
    write(folder)
    (folder / name).write_bytes(b"other")
    assert level_of(folder) == "self-reported"


def test_a_file_more_or_less_makes_it_self_reported(folder: Path) -> None:
    write(folder)
    (folder / "predictions.parquet").write_bytes(b"")
    assert level_of(folder) == "self-reported"
    (folder / "predictions.parquet").unlink()
    assert level_of(folder) == "recomputed"
    (folder / "card.toml").unlink()
    assert level_of(folder) == "self-reported"


def test_files_that_lie_elsewhere_are_those_of_the_inventory(folder: Path) -> None:
    for name in ("outcomes.parquet",):
        (folder / name).write_bytes(b"")
    facts = {path.name: {"sha256": sha256(path.read_bytes()), "bytes": 1} for path in folder.iterdir()}
    placed = {"sha256": sha256(b"large"), "bytes": 5, "url": "https://zenodo.org/x"}
    inventory = {
        "suite": "tiny", "suite_version": 1, "suite_hash": "0" * 64, "model": "m", "tlbench_version": "0",
        "files": facts, "elsewhere": {"predictions.parquet": placed},
    }  # fmt: skip
    (folder / "submission.json").write_text(json.dumps(inventory))
    files = write(folder)["files"]
    write(folder, files={**files, "predictions.parquet": sha256(b"large")})
    assert level_of(folder) == "recomputed"
    write(folder, files={**files, "predictions.parquet": sha256(b"other")})
    assert level_of(folder) == "self-reported"


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "[" * 20_000, '{"format": 2}', '{"format": 1, "level": "recomputed"}',
        '{"format": 1, "level": "recomputed", "files": []}', '{"format": 1, "level": "recomputed", "files": {}}',
        '{"format": 1, "level": ["recomputed"], "files": {}}',
        '{"format": 1, "level": "recomputed", "files": {"records.parquet": 1, "fits.parquet": "x"}}',
    ],
)  # fmt: skip
def test_nonsense_vouches_for_nothing(folder: Path, text: str) -> None:
    (folder / "verification.json").write_text(text)
    assert level_of(folder) == "self-reported"


def test_a_huge_or_linked_file_is_not_read(folder: Path, tmp_path: Path) -> None:
    write(folder, padding="x" * 2_000_000)
    assert level_of(folder) == "self-reported"
    write(folder)
    (folder / "verification.json").rename(tmp_path.parent / "elsewhere.json")
    (folder / "verification.json").symlink_to(tmp_path.parent / "elsewhere.json")
    assert level_of(folder) == "self-reported"
