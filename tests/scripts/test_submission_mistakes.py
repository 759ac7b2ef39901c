"""A script of the workflow that is called wrongly, or finds nonsense, says so in one line and ends with code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench

SCRIPTS = Path(__file__).parents[2] / "scripts" / "submission"


def script(name: str, *words: str | Path, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(tlbench.__file__).parents[1])}
    command = [sys.executable, str(SCRIPTS / name), *map(str, words)]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with one commit, and a folder of results that holds nothing to verify."""
    place = tmp_path_factory.mktemp("repository")
    (place / "results" / "digits").mkdir(parents=True)
    (place / "results" / "README.md").write_text("x")
    names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *words], cwd=place, check=True, env={**os.environ, **names})
    (place / "nonsense.json").write_text("{")
    (place / "other.json").write_text('{"problems": 3}')
    (place / "list.json").write_text("[]")
    return place


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["changed.py", "zzz", "HEAD"], "expected the commit 'zzz', found none"),
        (["changed.py", "HEAD", "0" * 40], f"expected the commit '{'0' * 40}', found none"),
        (["changed.py", "HEAD", "HEAD", "--repository", "nowhere"], "expected the commit 'HEAD', found none"),
        (["changed.py", "HEAD", "HEAD", "--out", "results"], "--out results: expected a folder that is empty"),
        (["check.py", "nowhere"], "nowhere: expected the folder that changed.py --out has written, found none"),
        (["check.py", ".", "--changed", "nowhere.json"], "nowhere.json: expected a file, got none"),
        (["check.py", ".", "--changed", "nonsense.json"], "nonsense.json: expected JSON"),
        (["check.py", ".", "--changed", "list.json"], "list.json: expected a JSON object, got list"),
        (["check.py", ".", "--changed", "other.json"], "other.json: expected what changed.py prints"),
        (["check.py", ".", "--fetched", "nowhere.txt"], "nowhere.txt: No such file or directory"),
        (["check.py", ".", "--results", "nowhere"], "--results nowhere: expected a folder of published results"),
        (["check.py", "results", "--out", "nowhere/review.json"], "nowhere/review.json: No such file or directory"),
        (["fetch.py", "nowhere"], "nowhere: expected a folder, found none"),
        (["fetch.py", ".", "--refused", "nowhere/x"], "nowhere/x: No such file or directory"),
        (["merge.py", "zzz"], "expected the commit 'zzz', found none"),
        (["merge.py"], "expected the commit before the merge, or --all"),
        (["merge.py", "HEAD", "--all"], "expected the commit before the merge, or --all"),
        (["merge.py", "--all", "--repository", "nowhere"], "nowhere: expected a checkout with a folder 'results'"),
        (["table.py", "nowhere.json"], "nowhere.json: expected a file, got none"),
        (["table.py", "nonsense.json"], "nonsense.json: expected JSON"),
        (["post.py", "nowhere", "--head", "x"], "nowhere: expected a review, got none"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(repository: Path, words: list[str], told: str) -> None:
    done = script(*words, place=repository)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert told in lines[0]


def test_a_word_that_looks_like_an_option_of_git_is_none(repository: Path) -> None:
    done = script("changed.py", "--", "--output=stolen", "HEAD", place=repository)
    assert done.returncode == 2
    assert "expected the commit '--output=stolen', found none" in done.stderr
    assert not (repository / "stolen").exists()


def test_a_program_that_is_missing_or_fails_is_one_line(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "review.json").write_text(json.dumps({"problems": [], "reviews": []}))
    (tmp_path / "number").write_text("7")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = script("post.py", tmp_path, "--head", "x", place=repository)
    assert (done.returncode, done.stderr) == (2, "error: gh: No such file or directory\n")
    shell = shutil.which("sh", path="/bin:/usr/bin")
    (tmp_path / "gh").write_text(f"#!{shell}\necho 'HTTP 401: who are you' >&2\nexit 1\n")
    (tmp_path / "gh").chmod(0o755)
    done = script("post.py", tmp_path, "--head", "x", place=repository)
    assert done.returncode == 2
    assert done.stderr.startswith("error: gh api ")
    assert done.stderr.endswith(": HTTP 401: who are you\n")
    assert done.stderr.count("\n") == 1


def test_a_branch_of_no_results_has_nothing_to_verify(repository: Path) -> None:
    for words in (["HEAD"], ["--all"]):
        done = script("merge.py", *words, place=repository)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
