"""From a folder to a pull request, by commands that are printed or run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tlbench.errors import StoreError, UsageError
from tlbench.submissions.pull_request import branch_of, check_can_open, commands, open_pull_request


def git(place: Path, *words: str) -> str:
    names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(
        ["git", *words], cwd=place, check=True, capture_output=True, text=True, env={**os.environ, **names}
    )
    return done.stdout.strip()


@pytest.fixture
def fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a remote to push to, and a program gh that notes what it was asked."""
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "x")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "x@example.org")
    git(tmp_path, "init", "-q", "--bare", "remote.git")
    git(tmp_path, "init", "-q", "-b", "main", "fork")
    fork = tmp_path / "fork"
    git(fork, "remote", "add", "origin", str(tmp_path / "remote.git"))
    (fork / "README.md").write_text("a board\n")
    git(fork, "add", "-A")
    git(fork, "commit", "-q", "-m", "first")
    programs = tmp_path / "bin"
    programs.mkdir()
    gh = programs / "gh"
    gh.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{tmp_path}/asked"\necho https://github.com/o/r/pull/7\n')
    gh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    folder = fork / "results" / "digits" / "a (b)"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text("x")
    (fork / "notes.txt").write_text("not to be submitted")
    return fork


def test_a_pull_request_holds_the_folder_and_nothing_else(fork: Path) -> None:
    address = open_pull_request(fork / "results" / "digits" / "a (b)", "digits", "a (b)")
    assert address == "https://github.com/o/r/pull/7"
    branch = branch_of("digits", "a (b)")
    remote = fork.parent / "remote.git"
    assert git(remote, "show", "--name-only", "--format=%s", branch).split("\n\n") == [
        "digits: a (b)",
        "results/digits/a (b)/card.toml",
    ]
    assert (fork.parent / "asked").read_text().splitlines()[:4] == ["pr", "create", "--title", "digits: a (b)"]


def test_a_command_that_fails_is_named_with_what_it_said(fork: Path) -> None:
    git(fork, "remote", "remove", "origin")
    with pytest.raises(StoreError, match=r"git push -u: failed \(.+\); the folder is written"):
        open_pull_request(fork / "results" / "digits" / "a (b)", "digits", "a (b)")


def test_what_is_missing_is_said_before_anything_is_done(
    fork: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_can_open(fork / "results" / "digits" / "new")
    outside = tmp_path / "outside" / "results"
    outside.mkdir(parents=True)
    with pytest.raises(UsageError, match="lies in no git checkout"):
        check_can_open(outside / "digits" / "new")
    (tmp_path / "bin" / "gh").unlink()
    monkeypatch.setenv("PATH", os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep)))
    with pytest.raises(UsageError, match="gh is not installed"):
        check_can_open(fork / "results" / "digits" / "new")


@pytest.mark.parametrize("model", ["temperature(lp-ft)", "../..", ".lock", "a..b", "é", "-x", "x.lock", "@{u}", "a\nb"])
def test_any_name_gives_a_branch_that_git_takes(model: str) -> None:
    branch = branch_of("digits", model)
    assert subprocess.run(["git", "check-ref-format", "--branch", branch], capture_output=True).returncode == 0
    assert commands(Path("results/digits/x"), "digits", model)[0] == ["git", "switch", "-c", branch]
