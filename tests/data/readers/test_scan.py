"""Folders walked once: what is remembered, and when it is not believed."""

from __future__ import annotations

import cProfile
import json
import os
import time
from pathlib import Path

import pytest

from tlbench.data.readers import scan
from tlbench.data.readers.scan import scanned

LONG_AGO = time.time_ns() - 10**12


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def aged(root: Path, ns: int = LONG_AGO) -> None:
    """Set the times of change of all folders back, as in data that were unpacked some time ago."""
    for folder, _, _ in os.walk(root):
        os.utime(folder, ns=(ns, ns))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    put(tmp_path / "data", "cat/2.png", "cat/1.png", "cat/old/1.png", "list.txt", ".hidden/x.png", "dog/.x.png")
    aged(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count the walks through a root."""
    seen: list[str] = []
    walk = scan._walk

    def counted(folder: Path, name: str, *rest: object) -> None:
        seen.extend([folder.name] if not name else [])
        walk(folder, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(scan, "_walk", counted)
    return seen


FOUND = {"": ("list.txt",), "cat": ("1.png", "2.png"), "cat/old": ("1.png",), "dog": ()}


def test_files_are_found_by_folder_without_hidden_ones(root: Path) -> None:
    assert scanned(root, None) == FOUND


def test_what_systems_leave_behind_is_left_out(root: Path) -> None:
    put(root, "cat/@eaDir/1.png/THUMB.jpg", "__MACOSX/cat/1.png", ".ipynb_checkpoints/1.png", "lost+found/x")
    assert scanned(root, None) == FOUND


def test_a_folder_is_walked_once_and_remembered(root: Path, tmp_path: Path, walks: list[str]) -> None:
    assert [scanned(root, tmp_path / "memory") for _ in range(3)] == [FOUND] * 3
    assert walks == ["data"]
    scanned(root, None)
    assert len(walks) == 2


@pytest.mark.parametrize("where", ["cat/3.png", "cat/old/3.png", "eel/1.png", "dog/deep/1.png"])
def test_a_new_file_anywhere_is_seen(root: Path, tmp_path: Path, where: str) -> None:
    scanned(root, tmp_path / "memory")
    put(root, where)
    folder, _, name = where.rpartition("/")
    assert name in scanned(root, tmp_path / "memory")[folder]


def test_a_file_or_folder_that_went_is_seen(root: Path, tmp_path: Path) -> None:
    scanned(root, tmp_path / "memory")
    (root / "cat" / "2.png").unlink()
    (root / "dog" / ".x.png").unlink()
    (root / "dog").rmdir()
    assert scanned(root, tmp_path / "memory") == {"": ("list.txt",), "cat": ("1.png",), "cat/old": ("1.png",)}


def test_folders_that_change_while_they_are_walked_are_not_remembered(
    root: Path, tmp_path: Path, walks: list[str]
) -> None:
    # Within the clock's resolution, a file could still come without a change in the folder's time.
    aged(root, time.time_ns())
    for _ in range(2):
        assert scanned(root, tmp_path / "memory") == FOUND
    assert len(walks) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda held: "{",
        lambda held: "[1, 2]",
        lambda held: json.dumps({**held, "key": ["elsewhere"]}),
        lambda held: json.dumps({**held, "fact": {"": 3}}),
        lambda held: json.dumps({**held, "fact": {}}),
        lambda held: json.dumps({**held, "fact": {name: [t, [1]] for name, (t, _) in held["fact"].items()}}),
    ],
)
def test_a_damaged_memory_is_ignored(root: Path, tmp_path: Path, damage: object) -> None:
    scanned(root, tmp_path / "memory")
    (file,) = (tmp_path / "memory").iterdir()
    file.write_text(damage(json.loads(file.read_text())))  # type: ignore[operator]
    assert scanned(root, tmp_path / "memory") == FOUND


def test_a_memory_that_cannot_be_written_costs_nothing_but_time(root: Path, tmp_path: Path) -> None:
    (tmp_path / "memory").write_text("a file, not a folder")
    assert scanned(root, tmp_path / "memory") == FOUND


def test_a_link_is_followed_but_not_in_a_circle(root: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "far.png")
    (root / "eel").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "up").symlink_to(root)
    assert scanned(root, None) == {**FOUND, "eel": ("far.png",)}


def test_twenty_thousand_files_are_remembered(tmp_path: Path) -> None:
    """The system is not asked about each again. Calls are counted: a clock would tell of the machine, too."""
    folder = tmp_path / "data" / "images"
    folder.mkdir(parents=True)
    for number in range(20_000):
        os.link(tmp_path / "one", folder / f"{number}.png") if number else (tmp_path / "one").write_bytes(b"")
    aged(tmp_path / "data")
    first = scanned(tmp_path / "data", tmp_path / "memory")
    with cProfile.Profile() as profile:
        again = scanned(tmp_path / "data", tmp_path / "memory")
    assert sum(entry.callcount for entry in profile.getstats() if "posix" in str(entry.code)) < 100
    assert again == first
    assert len(again["images"]) == 19_999
