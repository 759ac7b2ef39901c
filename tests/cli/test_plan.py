"""`tlbench plan` and `tlbench status` as a user types them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlbench
from tlbench.cli import main
from tlbench.cli.showing_plan import show_status
from tlbench.engine.pace import Pace
from tlbench.engine.summary import StatusSummary

SOURCE = str(Path(tlbench.__file__).parents[1])
PLAN = ["plan", "--suite", "ood172", "--model", "finetune", "--no-probe"]


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A user's suite of two small domains."""
    rng = np.random.default_rng(0)
    for domain in ("dim", "bright"):
        for name in ("across", "down"):
            (tmp_path / "stripes" / domain / name).mkdir(parents=True)
            for number in range(10):
                image = Image.fromarray(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8))
                image.save(tmp_path / "stripes" / domain / name / f"{number}.png")
    file = tmp_path / "stripes.toml"
    file.write_text(
        'name = "stripes"\n[protocol]\nimage_size = 16\nseeds = [0]\nbackbone = "small-cnn"\n'
        '[tasks.stripes]\nreader = "folder"\npath = "stripes"\ndomains = ["dim", "bright"]\n'
        '[[conditions]]\nkind = "clean"\n'
    )
    return file


def test_a_plan_needs_neither_data_nor_weights(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tlbench", *PLAN, "--budget", "24h"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": SOURCE, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    for said in (
        "seeds 0, 1, 2",
        "3,340,086",
        "233.3 GB",
        "images as the suite declares",
        "within 24.0 h on the assumed",
    ):
        assert said in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if "--" not in line) <= 100
    assert not list(tmp_path.iterdir())


def test_tables_of_a_plan_fit_a_terminal_of_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--suite", "ood172-lite", "--model", "finetune", "--no-probe"]) == 0
    tables = [line for line in capsys.readouterr().out.splitlines() if line[:1] not in ("*", " ")]
    assert max(map(len, tables)) <= 80


def test_json_holds_what_the_tables_show(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--only", "task=PACS", "--seeds", "0", "--budget", "1h", "--json", "--run-dir", str(tmp_path)]
    assert main([*PLAN, *words]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["fits"], plan["training_images"], plan["epochs"]) == (4, 8008, 10)
    assert plan["hours"][0]["assumed"] is True
    assert plan["hours"][0]["by_kind"]["train"] == pytest.approx(80080 / 380 / 3600)
    assert plan["budgets"][0]["fits"] < plan["budgets"][0]["of"] == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--budget", "tomorrow"], "--budget tomorrow: expected a time such as 24h, 90m or 2d"),
        (["--budget=-2h"], "--budget -2h: expected"),
        (["--only", "task=PACKS"], "did you mean 'PACS'?"),
        (["--only", "source=photo", "--only", "target=photo"], "no pair of suite 'ood172'"),
        (["--recipe", "epochs=11"], "--recipe epochs=11"),
        (["--data-root", "nowhere", "--backbone", "timm:resnet50dd"], "no such network in timm"),
    ],
)
def test_a_mistake_is_one_line_and_no_plan(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, *words]) == 2
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""
    assert len(told.err.splitlines()) == 1


def test_a_budget_on_an_assumed_device_tells_what_it_leaves_out(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, empty_cache: Path
) -> None:
    words = ["--only", "task=PACS", "--seeds", "0", "--budget", "24h", "--run-dir", str(tmp_path)]
    assert main([*PLAN, *words]) == 0
    assert "if its CPU keeps up with crops and corruptions, which nobody knows without a probe" in " ".join(
        capsys.readouterr().out.split()
    )


def test_status_knows_the_rows_of_a_grid(suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = '[protocol.grid]\nlr = [1e-3, 1e-2]\nepochs = [1]\nregime = ["full", "head-only"]\n[tasks'
    suite.write_text(suite.read_text().replace("[tasks", grid, 1))
    words = ["--suite", str(suite), "--model", "finetune", "--run-dir", str(tmp_path / "runs"), "--grid"]
    words += ["--only", "source=dim"]
    assert main(["evaluate", *words, "--recipe", "regime=head-only", "--quiet", "--threads", "1"]) == 0
    capsys.readouterr()
    assert main(["status", *words, "--recipe", "regime=head-only"]) == 0
    assert main(["status", *words, "--json"]) == 1
    out = capsys.readouterr().out
    status = json.loads(out[out.index("{") :])
    assert (status["fits"], status["fits_to_do"], status["parts"], status["parts_to_do"]) == (2, 1, 4, 2)
    assert main(["status", *words]) == 1
    told = capsys.readouterr().out
    assert "2 rows of the grid" in told
    assert re.search(r"fits within +2 +4", told)


@pytest.mark.parametrize(
    ("share", "expected", "said"),
    [
        (0.0, None, "forecast 2.0 h; so far 1 s for 0% of the work"),
        (0.004, None, "forecast 2.0 h; so far 1 s for less than 1% of the work; too little to tell a pace from"),
        (0.5, 3.0, "forecast 2.0 h; so far 1 s for 50% of the work; at this pace 3.0 h in all"),
        (0.999, 3.0, "forecast 2.0 h; so far 1 s for more than 99% of the work; at this pace 3.0 h in all"),
        (1.0, 3.0, "forecast 2.0 h; it took 1 s"),
    ],
)
def test_a_pace_is_told_as_far_as_it_is_known(
    share: float, expected: float | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_status(StatusSummary(4, 40, 2, 20, Pace(share, 1 / 3600, 2.0, expected)))
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_status_tells_what_is_stored_and_at_what_pace(
    suite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], empty_cache: Path
) -> None:
    words = ["--suite", str(suite), "--model", "ncm", "--run-dir", str(tmp_path / "runs")]
    assert main(["plan", *words]) == 0
    assert main(["status", *words]) == 1
    told = capsys.readouterr()
    assert "so far 0 s for 0% of the work" in told.out
    assert "there is no such folder yet" in told.err
    assert main(["evaluate", *words, "--only", "source=dim", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["status", *words]) == 1
    out = capsys.readouterr().out
    assert "forecast" in out
    assert "for 50% of the work; at this pace" in out
    assert main(["status", *words, "--only", "source=dim"]) == 0
    assert "it took" in capsys.readouterr().out
    assert main(["status", *words, "--json"]) == 1
    status = json.loads(capsys.readouterr().out)
    assert (status["fits"], status["fits_to_do"], status["pace"]["share"]) == (2, 1, pytest.approx(0.5))


def test_measurements_of_all_variants_are_planned_as_they_are_evaluated(
    suite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.write_text(suite.read_text() + '[[conditions]]\nkind = "transform"\nname = "shift"\nsteps = [2]\n')

    def told(command: str, *words: str) -> tuple[int, int]:
        options = ["--suite", str(suite), "--run-dir", str(suite.parent), "--model", "wise-ft(curve=(0.0,1.0))"]
        main([command, *options, "--json", *words, *(["--no-probe"] if command == "plan" else [])])
        found = json.loads(capsys.readouterr().out)
        return found["measurements"], found["measurements_to_do"]

    # Two fits of three clean sets (ID-val, ID-test, OOD-test) and two shifted ones, and two predictors besides.
    assert told("plan") == told("status") == (2 * (5 + 2 * 3),) * 2
    assert told("plan", "--all-variants") == told("status", "--all-variants") == (2 * (5 + 2 * 5),) * 2
