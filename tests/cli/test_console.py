"""Whatever goes wrong is one line on stderr and an exit code."""

from __future__ import annotations

import errno
import json

import pytest

from tlbench.cli.console import run, show_json, show_table
from tlbench.errors import StoreError, VerificationError


def fail(problem: BaseException) -> int:
    def command() -> None:
        raise problem

    return run(command)


@pytest.mark.parametrize(
    ("problem", "code", "words"),
    [
        (StoreError("here:\nwrong"), 2, "error: here: wrong"),
        (VerificationError("a number differs"), 4, "error: a number differs"),
        (KeyboardInterrupt(), 130, "interrupted; the same command resumes"),
        (OSError(errno.ENOSPC, "No space left", "/runs/x"), 2, "error: /runs/x: the disk is full"),
        (OSError(errno.EROFS, "Read-only", "/runs/x"), 2, "error: /runs/x: the folder is read-only; name another\n"),
        (PermissionError(errno.EACCES, "Denied", "/runs/x"), 2, "error: /runs/x: permission denied"),
        (RuntimeError("a slip"), 1, "error: RuntimeError: a slip (unexpected; TLBENCH_DEBUG=1 shows the traceback)"),
    ],
)
def test_every_problem_is_one_line_with_its_code(
    capsys: pytest.CaptureFixture[str], problem: BaseException, code: int, words: str
) -> None:
    assert fail(problem) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(words)
    assert printed.err.count("\n") == 1


def test_the_traceback_is_shown_on_request(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLBENCH_DEBUG", "1")
    fail(RuntimeError("a slip"))
    assert "Traceback" in capsys.readouterr().err


def test_a_commands_code_is_the_exit_code() -> None:
    assert run(lambda: 1) == 1
    assert run(lambda: None) == 0


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"nll": float("inf"), "rows": [float("nan"), 1.5]})
    assert json.loads(capsys.readouterr().out) == {"nll": None, "rows": [None, 1.5]}


def test_columns_of_numbers_are_aligned_on_their_right(capsys: pytest.CaptureFixture[str]) -> None:
    show_table(["model", "n"], [["a", 1], ["long", 100]])
    assert capsys.readouterr().out == "model    n\na        1\nlong   100\n"
