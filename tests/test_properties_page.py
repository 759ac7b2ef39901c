"""The page of properties is what the tests are named by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import tlbench
from tlbench.registry import BUILT_IN

ROOT = Path(__file__).parents[1]


def properties_page(*options: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(
        os.pathsep
    )
    command = [sys.executable, str(ROOT / "scripts" / "properties_page.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


def test_the_page_is_what_the_tests_say() -> None:
    done = properties_page("--check")
    assert done.returncode == 0, done.stderr


def test_a_stale_page_is_found_and_made_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("old\n", encoding="utf-8")
    assert properties_page("--check", "--page", page).returncode == 1
    assert properties_page("--page", page).returncode == 0
    titles = {line[3:] for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("## ")}
    assert {name for title in titles for name in title.split(", ")} == set(BUILT_IN["methods"])
