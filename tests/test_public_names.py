"""The public names: each is there, whatever has been imported before."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench
from tlbench import api

SOURCE = str(Path(tlbench.__file__).parents[1])


@pytest.mark.parametrize("name", tlbench.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(tlbench, name) is not None
    assert name in dir(tlbench)


def test_the_functions_are_those_of_the_api() -> None:
    for name in ("analyze", "compare", "evaluate", "load_predictions", "load_results"):
        assert getattr(tlbench, name) is getattr(api, name)
        assert inspect.getdoc(getattr(tlbench, name))


@pytest.mark.parametrize(
    "before", ["", "import tlbench.leaderboard.board as board; board.Board", "tlbench.leaderboard"]
)
def test_the_board_is_made_by_its_name_although_a_package_has_it(before: str) -> None:
    code = (
        f"import tlbench; {before or 'pass'}\n"
        "try:\n    tlbench.leaderboard('digit')\n"
        "except tlbench.TlbenchError as problem:\n    print(problem)\n"
        "from tlbench.leaderboard.board import Board\n"
        "assert callable(tlbench.leaderboard)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SOURCE)
    assert done.returncode == 0, done.stderr
    assert "did you mean 'digits'?" in done.stdout
