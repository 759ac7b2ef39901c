"""Content hashes of files are remembered, whatever interrupts the reading of them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import tlbench
from tlbench.data import digests as module
from tlbench.data.digests import FileDigests, NotRememberedError, remembered_only


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.bin").write_bytes(b"x" * number)
    return sorted(folder.iterdir())


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of files that are read from now on."""
    names: list[str] = []
    true: Callable[[Path], str] = module._sha256

    def sha256(path: Path) -> str:
        names.append(path.name)
        return true(path)

    monkeypatch.setattr(module, "_sha256", sha256)
    return names


def test_digests_are_those_of_the_files(files: list[Path], tmp_path: Path) -> None:
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    digests = FileDigests(tmp_path / "memory")
    assert digests.of(files[0].parent, files) == expected
    assert digests.of(files[0].parent, files[::-1]) == expected[::-1]


def test_progress_tells_of_files_that_are_read_and_of_no_others(files: list[Path], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    digests = FileDigests(tmp_path / "memory", lambda *at: told.append(at))
    digests.of(files[0].parent, files[:4])
    digests.of(files[0].parent, files)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4), (1, 2), (2, 2)]


def test_what_was_read_before_a_file_that_cannot_be_read_is_remembered(
    files: list[Path], tmp_path: Path, read: list[str]
) -> None:
    gone = files[0].parent / "9.bin"
    gone.symlink_to(files[0].parent)  # can be seen, and not be read
    with pytest.raises(OSError):
        FileDigests(tmp_path / "memory").of(gone.parent, [*files, gone])
    read.clear()
    FileDigests(tmp_path / "memory").of(gone.parent, files)
    assert read == []


def test_domains_that_share_a_folder_keep_each_others_memory(
    files: list[Path], tmp_path: Path, read: list[str]
) -> None:
    # Both have looked at the memory, still empty, before either writes to it.
    first, second = FileDigests(tmp_path / "memory"), FileDigests(tmp_path / "memory")
    inner = FileDigests(tmp_path / "memory", lambda done, _: done == 1 and second.of(files[0].parent, files[3:]))
    inner.of(files[0].parent, files[:3])
    read.clear()
    first.of(files[0].parent, files)
    assert read == []


READ = """
import os, signal, sys
from pathlib import Path
from tlbench.data import digests
digests._KEPT_EVERY_FILES = 2
root = Path(sys.argv[1])
def progress(done, total):
    if done == 5:
        os.kill(os.getpid(), signal.SIGKILL)
digests.FileDigests(Path(sys.argv[2]), progress).of(root, sorted(root.iterdir()))
"""


def test_a_kill_loses_only_the_last_files(files: list[Path], tmp_path: Path, read: list[str]) -> None:
    path = os.pathsep.join([str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", READ, str(files[0].parent), str(tmp_path / "memory")],
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == -9
    FileDigests(tmp_path / "memory").of(files[0].parent, files)
    assert sorted(read) == ["4.bin", "5.bin"]


def test_a_file_with_the_size_and_time_of_its_predecessor_is_read_again(files: list[Path], tmp_path: Path) -> None:
    digests = FileDigests(tmp_path / "memory")
    before = digests.of(files[0].parent, files)
    state = files[3].stat()
    files[3].write_bytes(b"abc")
    os.utime(files[3], ns=(state.st_atime_ns, state.st_mtime_ns))
    after = digests.of(files[0].parent, files)
    assert after[3] == hashlib.sha256(b"abc").hexdigest()
    assert after[:3] + after[4:] == before[:3] + before[4:]


def test_lines_of_an_older_version_are_no_lines(files: list[Path], tmp_path: Path, read: list[str]) -> None:
    digests = FileDigests(tmp_path / "memory")
    digests.of(files[0].parent, files)
    (memory,) = (tmp_path / "memory").iterdir()
    old = [[name, *state[:2], "0" * 64] for name, *state in map(json.loads, memory.read_text().splitlines())]
    memory.write_text("".join(json.dumps(line) + "\n" for line in old))
    read.clear()
    assert digests.of(files[0].parent, files) == FileDigests(None).of(files[0].parent, files)
    assert len(read) == 12


def test_half_a_line_costs_that_file_alone(files: list[Path], tmp_path: Path, read: list[str]) -> None:
    digests = FileDigests(tmp_path / "memory")
    digests.of(files[0].parent, files)
    (memory,) = (tmp_path / "memory").iterdir()
    memory.write_bytes(memory.read_bytes()[:-20])
    read.clear()
    digests.of(files[0].parent, files)
    assert read == ["5.bin"]
    read.clear()
    digests.of(files[0].parent, files)
    assert read == []


def test_a_cheap_question_reads_nothing(files: list[Path], tmp_path: Path, read: list[str]) -> None:
    digests = FileDigests(tmp_path / "memory")
    with remembered_only(), pytest.raises(NotRememberedError, match="6 files"):
        digests.of(files[0].parent, files)
    assert read == []
    expected = digests.of(files[0].parent, files)
    with remembered_only():
        assert digests.of(files[0].parent, files) == expected
