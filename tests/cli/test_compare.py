"""`tlbench compare` as a user types it, on the published board and on runs of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import tlbench
from tlbench import cli
from tlbench.records.published import published_models

SOURCE = str(Path(tlbench.__file__).parents[1])

if not {"finetune", "lp-ft"} <= {found.model for found in published_models("digits")}:
    pytest.skip("no published results in this checkout", allow_module_level=True)


@pytest.fixture
def anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def test_two_published_rows_in_a_hundred_columns(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "tlbench", "compare", "lp-ft", "finetune", "--suite", "digits", "--out", "flips.csv"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[1:3] == ["A  lp-ft", "B  finetune"]
    found = tlbench.compare("digits", "lp-ft", "finetune", run_dir=tmp_path)
    assert f"all 12 pairs {100 * found.differences.mean.value:+.1f} no interval" in " ".join(done.stdout.split())
    assert "* no interval: 3 clusters, an interval needs at least 5." in lines
    assert "over images only" in done.stdout
    pair = found.flips.pairs.iloc[0]
    counts = [pair["both_right"], pair["first_only"], pair["second_only"], pair["both_wrong"]]
    shown = [line.split() for line in lines if line.startswith(f"{pair['source']} to {pair['target']} ")]
    assert shown[1][3:7] == [str(count) for count in counts]
    written = pd.read_csv(tmp_path / "flips.csv")
    assert len(written) == len(found.flips.rows) == found.flips.pairs[["first_only", "second_only"]].sum().sum()
    assert list(written.columns) == list(found.flips.rows.columns)
    assert f"{len(written):,} flips in flips.csv" in done.stderr


def test_json_is_what_python_gets(anywhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "compare majority linear-probe --suite digits --metric brier --role id-test --flips 3 --json"
    assert cli.main(words.split()) == 0
    told = json.loads(capsys.readouterr().out)
    found = tlbench.compare("digits", "majority", "linear-probe", metric="brier", role="id-test")
    assert told["seeds"] == list(found.differences.seeds)
    assert [row["difference"] for row in told["differences"]] == pytest.approx(list(found.frame["difference"]))
    assert [row["level"] for row in told["differences"]] == list(found.frame["level"])
    assert [row["image"] for row in told["flips"]] == list(found.images["image"].head(3))
    assert "A is a control, a reference and never ranked" in told["notes"]
    assert told["suite_hash"] == found.suite_hash


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("lp-tf finetune", "suite 'digits' has no row 'lp-tf'; did you mean 'lp-ft'?"),
        ("local:lp-ft finetune", "suite 'digits' has no row 'local:lp-ft'; there is 'published:lp-ft "),
        ("lp-ft finetune --shots full,", "--shots: expected one amount, or two with a comma, got 'full,'"),
        ("lp-ft finetune --run-dir absent", "--run-dir absent: expected a run folder, found none"),
        ("lp-ft finetune --out absent/x.csv", "--out absent/x.csv: expected a file in a folder that exists"),
        ("lp-ft finetune --metric ece", "'ece' is not one of 'accuracy', 'nll', 'brier'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    anywhere: Path, capsys: pytest.CaptureFixture[str], words: str, message: str
) -> None:
    assert cli.main(["compare", *words.split(), "--suite", "digits"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert not list(anywhere.iterdir())


def test_a_file_that_is_no_table_of_flips_is_not_overwritten(
    anywhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", "linear-probe", "majority", "--suite", "digits", "--out", "flips.csv"]
    (anywhere / "flips.csv").write_text("mine")
    assert cli.main(words) == 2
    assert "flips.csv: expected a new file or an earlier table of flips" in capsys.readouterr().err
    assert (anywhere / "flips.csv").read_text() == "mine"
    (anywhere / "flips.csv").unlink()
    assert [cli.main(words), cli.main(words)] == [0, 0]


def test_one_fit_of_each_and_no_flips_wanted_are_said(anywhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "linear-probe", "majority", "--suite", "digits", "--flips", "0"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "seed 0 alone" in text
    assert "One fit of each: the intervals tell of other images only" in text
    assert "A more" not in text
    assert "images of a pair that flip" not in text
