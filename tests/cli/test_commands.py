"""The command line as a user types it: results on stdout, one line on stderr for a mistake, honest exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench

SOURCE = str(Path(tlbench.__file__).parents[1])


def run(*words: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "tlbench", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def mistake(*words: str, cwd: Path | None = None) -> str:
    """Return the one line that a mistake prints; nothing else is printed, and the exit code is 2."""
    done = run(*words, cwd=cwd)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").strip()


def test_help_teaches_by_examples() -> None:
    for words in ([], ["--help"]):
        done = run(*words)
        assert done.returncode == 0
        assert "tlbench evaluate --suite digits --model linear-probe" in done.stdout
    assert "temperature(finetune(lr=1e-3))" in run("evaluate", "--help").stdout


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"tlbench {tlbench.__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["evalute"], "Did you mean 'evaluate'"),
        (["evaluate", "--modle", "x"], "there is no option '--modle'; did you mean '--model'?"),
        (["evaluate", "--suite", "digits"], "expected --model, or --checkpoint SOURCE=FILE"),
        (["suites"], "Missing command (see tlbench suites --help)"),
        (["suites", "show", "digit"], "there is no suite 'digit'; did you mean 'digits'?"),
        (["suites", "validate", "absent.toml"], "absent.toml: no such file"),
        (["models", "show", "linear-prob"], "there is no method 'linear-prob'; did you mean 'linear-probe'?"),
        (["models", "show", "knn", "--set", "kk=3"], "unknown setting 'kk'"),
        (["evaluate", "--suite", "digits", "--model", "knn", "--seeds", "a"], "--seeds: expected whole numbers"),
        (["leaderboard", "--suite", "digits", "--format", "tabel"], "'tabel' is not one of 'table', 'markdown'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], expected: str, tmp_path: Path) -> None:
    assert expected in mistake(*words, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--suite", "digit", "--model", "knn"], "there is no suite 'digit'; did you mean 'digits'?"),
        (["--suite", "digits", "--model", "kn"], "there is no method 'kn'; did you mean 'knn'?"),
        (["--suite", "digits", "--model", "broken.py"], "broken.py, line 1: ZeroDivisionError: division by zero"),
        (["--suite", "digits", "--model", "knn", "--metrics", "acuracy"], "did you mean 'accuracy'?"),
        (["--suite", "digits", "--model", "knn", "--backbone", "small-cn"], "did you mean 'small-cnn'?"),
        (["--suite", "digits", "--model", "knn", "--only", "source=mnits"], "did you mean 'mnist'?"),
    ],
)
def test_a_mistake_in_an_evaluation_stops_before_any_compute(words: list[str], expected: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    assert expected in mistake("evaluate", *words, cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == ["broken.py"]


def test_a_suite_of_ones_own_is_checked(tmp_path: Path) -> None:
    text = 'name = "mine"\n[tasks.pacs]\nreader = "folder"\ndomains = ["photo", "sketch"]\n'
    (tmp_path / "mine.toml").write_text(text)
    done = run("suites", "validate", "mine.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mine.toml: a suite of 1 task(s), 2 pairs")
    (tmp_path / "mine.toml").write_text(text.replace("folder", "foldr"))
    assert "tasks.pacs: reader: unknown name 'foldr'; did you mean 'folder'?" in mistake(
        "suites", "validate", "mine.toml", cwd=tmp_path
    )
    (tmp_path / "mine.toml").write_text(text + '[[tasks.pacs.pairs]]\nsource = "photo"\ntarget = "sketchh"\n')
    assert mistake("suites", "validate", "mine.toml", cwd=tmp_path) == (
        "mine.toml, tasks.pacs, pair 1: target 'sketchh' is not a domain of this task; did you mean 'sketch'?"
    )


def test_a_name_in_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "x"\n"\\u001b[31m" = 1\n')
    assert "\x1b" not in mistake("suites", "validate", "mine.toml", cwd=tmp_path)


def test_suites_are_listed_and_shown() -> None:
    assert run("suites", "list").stdout.splitlines()[1].split()[:4] == ["digits", "2", "1", "12"]
    assert {entry["name"] for entry in json.loads(run("suites", "list", "--json").stdout)} >= {"digits"}
    assert "apgd-dlr" in run("suites", "show", "digits").stdout
    pairs = run("suites", "show", "digits", "--pairs").stdout.splitlines()
    assert pairs[1].split() == ["digits", "optdigits", "mnist"]
    assert len(pairs) == 13
    assert len(json.loads(run("suites", "show", "digits", "--json", "--pairs").stdout)["pairs"]) == 12
    assert json.loads(run("suites", "schema").stdout)["title"] == "Suite"


def test_models_are_listed_and_shown(tmp_path: Path) -> None:
    lines = run("models", "list").stdout.splitlines()
    assert any(line.startswith("linear-probe ") and "Multinomial logistic regression" in line for line in lines)
    assert any(line.startswith("timm:NAME ") for line in lines)
    listed = json.loads(run("models", "list", "--json").stdout)
    assert "small-cnn" in {entry["name"] for entry in listed["backbones"]}
    assert all(entry["summary"] for group in listed.values() for entry in group)
    plugin = "import tlbench\nclass Mine(tlbench.Method):\n    lr: float = 0.01\n"
    (tmp_path / "mine.py").write_text(plugin)
    shown = json.loads(run("models", "show", "mine.py", "--set", "lr=1", "--json", cwd=tmp_path).stdout)
    assert shown["name"] == "mine(lr=1.0)"
    assert "lr" in run("models", "show", "mine.py", cwd=tmp_path).stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m tlbench suites schema | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )
    assert (done.stdout, done.stderr) == ("{\n", "")
