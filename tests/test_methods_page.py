"""The page of methods shows what the published results say, and speaks of every method."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

import tlbench
from tlbench.analysis.paired import compare
from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.tables import load_fits, load_predictions, load_results
from tlbench.registry import BUILT_IN
from tlbench.suites.load import load_suite

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "methods_page.py"
PAGE = ROOT / "docs" / "methods.md"
END = "<!-- /methods -->"
MODELS = ("finetune", "soup", "probe", "single")


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tlbench_test_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def methods_page(*options: str | Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]).rstrip(
        os.pathsep
    )
    command = [sys.executable, str(SCRIPT), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded(SCRIPT)


@pytest.fixture(scope="module")
def published(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results of a tiny suite: of two seeds, of one fit for all, of seed 0 alone, of a control, with a variant."""
    folder = tmp_path_factory.mktemp("methods")
    synthetic = loaded(ROOT / "tests" / "synthetic_results.py")
    suite = synthetic.make_suite(conditions=[{"kind": "clean"}])
    run = synthetic.Run(folder / "runs", suite)
    options: dict[str, dict[str, Any]] = {
        "finetune": {},
        "soup": {},
        "probe": {"deterministic": True},
        "single": {"seeds": (0,)},
        "majority": {"control": True},
    }
    for model, changes in options.items():
        run.add(model, tables=True, images=40, **changes)
    run.add("soup", tables=True, images=40, variant="uniform", headline=False)
    run.add("stranger", tables=True, images=40)
    return script.Published(suite, folder / "hours.csv", MODELS, run_dir=run.folder, published=False)


def rows_of(table: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.mark.usefixtures("settled")
def test_the_page_shows_the_published_results() -> None:
    done = methods_page("--check")
    assert done.returncode == 0, done.stderr


def test_every_method_stands_in_the_table_of_checks_with_a_file_of_tests() -> None:
    text = PAGE.read_text(encoding="utf-8").partition("## What the tests hold")[2]
    held = {row[0].strip("`"): row[-1].strip("`") for row in rows_of(text)}
    assert sorted(held) == sorted(BUILT_IN["methods"])
    for name, file in held.items():
        path = ROOT / "tests" / "methods" / file
        assert path.is_file(), name
        module = BUILT_IN["methods"][name].partition(":")[0]
        assert module in path.read_text(encoding="utf-8"), f"{file} does not import {module}"


def test_differences_are_those_of_the_published_accuracies(tmp_path: Path) -> None:
    suite = load_suite("digits")
    board = make_board(load_results(suite, run_dir=tmp_path), load_fits(suite, run_dir=tmp_path), suite)
    scores = board.frame.set_index("name")["ood_accuracy"]
    baseline = load_predictions(suite, "finetune", run_dir=tmp_path, condition="clean")
    for model in ("lp-ft", "linear-probe"):
        found = compare(load_predictions(suite, model, run_dir=tmp_path, condition="clean"), baseline, draws=10)
        assert found.mean.value == pytest.approx(scores[model] - scores["finetune"], abs=1e-9)
        without = set(found.pairs.loc[found.pairs["low"].isna(), "target"])
        assert without == {"stroke"}


def test_the_board_has_every_row_and_finetune_is_held_against_nothing(script: ModuleType, published: Any) -> None:
    rows = {row[0]: row for row in rows_of(script.board(published))}
    assert list(rows)[-1] == "`majority` (control)"
    assert set(rows) == {"`finetune`", "`soup`", "`probe`", "`single`", "`majority` (control)"}
    assert rows["`finetune`"][5:8] == ["", "", ""]
    assert {name: row[2] for name, row in rows.items()} == {
        "`finetune`": "2", "`soup`": "2", "`probe`": "fixed", "`single`": "0 alone", "`majority` (control)": "2",
    }  # fmt: skip
    assert re.fullmatch(r"\d / \d / \d", rows["`soup`"][7])
    assert re.fullmatch(r"\(\d / \d / \d\)", rows["`single`"][7])


def test_variants_stand_apart(script: ModuleType, published: Any) -> None:
    (row,) = rows_of(script.variants(published))
    assert row[0] == "`soup/uniform`"


def test_bold_are_the_differences_whose_interval_leaves_out_zero(script: ModuleType, published: Any) -> None:
    compared = published.beside("soup", "soup")[0]
    shown = [cell for row in rows_of(script.pairs(published, "soup")) for cell in row[1:] if cell]
    assert len(shown) == len(compared.pairs) == 7
    assert sum(cell.startswith("**") for cell in shown) == (compared.pairs["verdict"] != "undecided").sum()
    text = script.pairs(published, "soup")
    assert f"All 7 pairs: {100 * compared.mean.value:+.1f}." in text
    assert "alone" not in text
    assert "Seed 0 of both alone" in script.pairs(published, "single")


def test_finetune_shows_its_own_accuracies_and_strangers_nothing(script: ModuleType, published: Any) -> None:
    assert script.pairs(published, "finetune").startswith("Accuracy:")
    assert script.pairs(published, "nobody") == "Nothing is published of this model yet."


def test_cost_is_told_for_every_model(script: ModuleType, published: Any) -> None:
    rows = {row[0]: row for row in rows_of(script.cost(published))}
    assert set(rows) == {"`finetune`", "`soup`", "`probe`", "`single`", "`majority`"}
    assert {row[1] for row in rows.values()} == {"4"}  # sources of the two tasks


def test_what_others_submit_stands_on_the_board_and_a_method_of_ours_that_is_left_out_is_named(
    script: ModuleType, published: Any
) -> None:
    assert "stranger" not in set(published.records["model"]) | set(published.fits["model"]) | set(published.models())
    assert published.without_section == ["linear-probe"]  # the method of every one of these rows
    told = script.Published(published.suite, Path("none"), [*MODELS, "linear-probe"], **published._places)
    assert told.without_section == []


def test_hours_are_those_of_this_version(script: ModuleType, published: Any, tmp_path: Path) -> None:
    assert script.hours_table(published).startswith("Nobody has kept")
    now = published.suite.hash[:12]
    kept = [["tiny", now, "soup", 8, 64, 2.0, 3.0], ["tiny", now, "probe", 4, 32, None, 0.5]]
    kept += [["tiny", "0" * 12, "finetune", 8, 64, 1.0, 1.0]]
    pd.DataFrame(kept, columns=script.HOURS).to_csv(tmp_path / "hours.csv", index=False)
    page = script.Published(published.suite, tmp_path / "hours.csv", MODELS, **published._places)
    rows = rows_of(script.hours_table(page))
    assert ["`soup`", "8", "64", "2.0 h", "3.0 h", "1.50"] in rows
    assert ["`probe`", "4", "32", "–", "30 min", "–"] in rows
    assert rows[-1] == ["together, of 1 that were forecast", "8", "64", "2.0 h", "3.0 h", "1.50"]
    assert len(rows) == 3


def test_a_stale_page_is_found_and_made_anew(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n<!-- methods:board:digits -->\nold\n{END}\nafter\n", encoding="utf-8")
    options = ("--page", page, "--results", tmp_path / "results")
    assert methods_page("--check", *options).returncode == 1
    assert "old" in page.read_text(encoding="utf-8")
    assert methods_page(*options).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert text == f"before\n<!-- methods:board:digits -->\n\nNothing is published yet.\n\n{END}\nafter\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [("nothing\n", "expected markers"), (f"<!-- methods:boards:digits -->\n{END}\n", "got <!-- methods:boards:digits")],
)
def test_a_page_that_cannot_be_made_is_a_usage_error(tmp_path: Path, text: str, message: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    done = methods_page("--page", page, "--results", tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
