"""What the workflows may do: the scripts that they name are there, and a pull request runs none of its own code."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import tlbench
from tlbench.submissions.comment import MARK
from tlbench.submissions.facts import Reviews

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"

pytestmark = pytest.mark.skipif(not WORKFLOWS.is_dir(), reason="no workflows in this copy")


def workflow(name: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    document: dict[str, Any] = yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))
    return document


@pytest.mark.parametrize("name", ["submission.yml", "submission-comment.yml"])
def test_every_script_that_is_named_is_there(name: str) -> None:
    scripts = re.findall(r"scripts/[\w/]+\.py", (WORKFLOWS / name).read_text(encoding="utf-8"))
    assert scripts
    for script in scripts:
        assert (ROOT / script).is_file(), script


def test_after_a_merge_every_page_that_shows_results_is_made_anew() -> None:
    """A pull request with results may touch no page, so nobody else does it."""
    commands = "\n".join(step.get("run", "") for step in workflow("submission.yml")["jobs"]["publish"]["steps"])
    pages = {"readme_table.py", "methods_page.py", "notebook_page.py"}
    assert set(re.findall(r"scripts/(\w+\.py)", commands)) == pages
    assert "git add README.md docs results" in commands


def test_a_plug_in_that_somebody_submits_is_not_held_to_our_style() -> None:
    """It comes as it was run, with its hash: nobody may mend it, and no check of ours may ask for that."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "results" in document["tool"]["ruff"]["extend-exclude"]


def test_a_pull_request_is_verified_without_secrets_and_without_its_code() -> None:
    text = (WORKFLOWS / "submission.yml").read_text(encoding="utf-8")
    document = workflow("submission.yml")
    assert "secrets." not in text
    assert "pull_request_target" not in text
    assert document["permissions"] == {"contents": "read"}
    verify = document["jobs"]["verify"]
    assert "permissions" not in verify
    checkouts = [step for step in verify["steps"] if "checkout" in step.get("uses", "")]
    assert [step["with"]["ref"] for step in checkouts] == ["${{ github.event.pull_request.base.sha }}"]
    assert checkouts[0]["with"]["persist-credentials"] is False
    commands = "\n".join(step.get("run", "") for step in verify["steps"])
    assert not re.search(r"git (checkout|switch|merge|pull|reset|worktree)", commands)


@pytest.mark.parametrize("name", ["submission.yml", "submission-comment.yml"])
def test_no_command_is_built_from_what_a_stranger_wrote(name: str) -> None:
    for job in workflow(name)["jobs"].values():
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), step


def test_only_the_merge_may_write_and_only_the_comment_may_comment() -> None:
    jobs = {**workflow("submission.yml")["jobs"], **workflow("submission-comment.yml")["jobs"]}
    assert {name: job["permissions"] for name, job in jobs.items() if "permissions" in job} == {
        "publish": {"contents": "write"},
        "comment": {"actions": "read", "contents": "read", "pull-requests": "write"},
    }
    assert jobs["publish"]["if"] == "github.event_name == 'push'"
    assert jobs["comment"]["if"] == "github.event.workflow_run.event == 'pull_request'"


@pytest.fixture
def gh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program gh that answers as the forge does, and notes what it was asked."""
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "gh"
    program.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> "{tmp_path}/asked"\n'
        'for word in "$@"; do case "$word" in body=@*) cp "${word#body=@}" ' + f'"{tmp_path}/body";; esac; done\n'
        'case "$*" in *pulls/7*) echo abc;; *paginate*) ' + f'cat "{tmp_path}/before" 2>/dev/null || true;; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def posted(folder: Path, head: str = "abc") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "submission" / "post.py"), str(folder), "--head", head],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tlbench.__file__).parents[1])},
    )


def test_a_review_is_posted_once_and_then_replaced(gh: Path) -> None:
    (gh / "number").write_text("7\n")
    (gh / "review.json").write_text(Reviews(problems=("a @link",)).model_dump_json())
    assert posted(gh).returncode == 0
    assert "-X POST repos/{owner}/{repo}/issues/7/comments" in (gh / "asked").read_text()
    assert (gh / "body").read_text().startswith(MARK)
    assert "- `a @link`" in (gh / "body").read_text()
    (gh / "before").write_text("31\n44\n")
    assert posted(gh).returncode == 0
    assert "-X PATCH repos/{owner}/{repo}/issues/comments/31" in (gh / "asked").read_text()


def test_nothing_is_posted_to_another_pull_request(gh: Path) -> None:
    (gh / "review.json").write_text(Reviews().model_dump_json())
    (gh / "number").write_text("8\n")
    done = posted(gh)
    assert done.returncode == 0
    assert "another head" in done.stderr
    assert not (gh / "body").exists()


@pytest.mark.parametrize(
    ("number", "review"),
    [("7/../8", "{}"), ("-1", "{}"), ("7", json.dumps({"reviews": [{"body": "<script>"}]})), ("7", "no")],
)
def test_what_is_no_review_is_not_posted(gh: Path, number: str, review: str) -> None:
    (gh / "number").write_text(number)
    (gh / "review.json").write_text(review)
    assert posted(gh).returncode == 2
    assert not (gh / "asked").exists()
