"""The README's board is what the published results say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "readme_table.py"
START, END = "<!-- leaderboard:digits -->", "<!-- /leaderboard -->"


def readme_table(*options: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(
        os.pathsep
    )
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.usefixtures("settled")
def test_the_readme_shows_the_published_board() -> None:
    page = ROOT / "README.md"
    if not page.is_file() or START not in page.read_text(encoding="utf-8"):
        pytest.skip("the README has no board yet")
    done = readme_table("--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_found_and_made_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n", encoding="utf-8")
    options = ("--page", page, "--results", tmp_path / "results")
    assert readme_table("--check", *options).returncode == 1
    assert "old" in page.read_text(encoding="utf-8")
    assert readme_table(*options).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{START}\n")
    assert text.endswith(f"{END}\nafter\n")
    assert "old" not in text
    assert "digits, version" in text
    assert readme_table("--check", *options).returncode == 0


def test_a_page_without_markers_is_a_usage_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n", encoding="utf-8")
    done = readme_table("--page", page)
    assert done.returncode == 2
    assert "expected the markers" in done.stderr
