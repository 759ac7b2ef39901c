"""From a folder of published results to a pull request: the commands, to be typed or to be run."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tlbench.errors import StoreError, UsageError

_WORDS = re.compile(r"[^A-Za-z0-9._-]+")


def branch_of(suite: str, model: str) -> str:
    """Return a branch name for a model's submission, which any name gives.

    >>> branch_of("digits", "temperature(lp-ft)")
    'results/digits/temperature-lp-ft'
    """
    # Git refuses two dots, a dot at either end and ".lock".
    words = _WORDS.sub("-", model).replace("..", "-").strip("-.").removesuffix(".lock")
    return f"results/{suite}/{words or 'model'}"


def commands(folder: Path, suite: str, model: str) -> list[list[str]]:
    """Return what makes a pull request of a folder, as words of a shell, from the checkout that it lies in.

    Parameters
    ----------
    folder : Path
        As a command names it from where it is typed.
    suite, model : str
    """
    branch, title = branch_of(suite, model), f"{suite}: {model}"
    body = f"Results of {model} on suite {suite}, written by tlbench submit."
    return [
        ["git", "switch", "-c", branch],
        ["git", "add", "--", str(folder)],
        ["git", "commit", "-m", title, "--", str(folder)],
        ["git", "push", "-u", "origin", branch],
        ["gh", "pr", "create", "--title", title, "--body", body],
    ]


def open_pull_request(folder: Path, suite: str, model: str) -> str:
    """Run the commands, and return the address of the pull request.

    Parameters
    ----------
    folder : Path
        Inside a git checkout whose remote ``origin`` may be pushed to.
    suite, model : str

    Raises
    ------
    UsageError
        If ``gh`` or ``git`` is not installed, or the folder lies in no checkout.
    StoreError
        If a command fails; the message has its last line.
    """
    check_can_open(folder)
    said = ""
    for words in commands(folder.resolve(), suite, model):
        said = _run(words, folder.parent)
    return said.strip().splitlines()[-1] if said.strip() else ""


def check_can_open(folder: Path) -> None:
    """Raise ``UsageError`` where no pull request can be opened from a folder, which need not exist yet."""
    for program in ("git", "gh"):
        if shutil.which(program) is None:
            raise UsageError(f"--open: {program} is not installed; without --open the steps are printed")
    place = next(parent for parent in folder.resolve().parents if parent.is_dir())
    if subprocess.run(["git", "rev-parse"], cwd=place, capture_output=True, check=False).returncode:
        raise UsageError(f"--open: {folder} lies in no git checkout; --results names the folder of one")


def _run(words: Sequence[str], place: Path) -> str:
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        raise StoreError(f"{' '.join(words[:3])}: failed ({lines[-1]}); the folder is written, go on by hand from here")
    return done.stdout
