"""The notebook page gives what its code gives, and the page of tables speaks of every column."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tlbench
from tlbench.records.published import published_models
from tlbench.records.schema import PREDICTIONS, RECORDS

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "notebook_page.py"
NOTEBOOK = ROOT / "docs" / "notebook.md"
TABLES = (ROOT / "docs" / "pandas.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", NOTEBOOK.read_text(encoding="utf-8"), re.DOTALL)

if not {"finetune", "lp-ft"} <= {found.model for found in published_models("digits")}:
    pytest.skip("no published results in this checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def notebook_page() -> Callable[..., int]:
    """The script's command line, in this process: libraries are imported once."""
    spec = importlib.util.spec_from_file_location("tlbench_test_notebook_page", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return lambda *options: int(script.main(list(map(str, options))))


def documented(beginning: str) -> list[str]:
    """Return the columns of the first table after some words."""
    assert TABLES.count(beginning) == 1, beginning
    rows = re.search(r"\| column \| .*?\n\| --- \| --- \|\n((?:\|.*\n)+)", TABLES.partition(beginning)[2])
    assert rows is not None
    return [name for row in rows[1].splitlines() for name in re.findall(r"`([a-z_]+)`", row.split(" | ")[0])]


@pytest.mark.usefixtures("settled")
def test_the_page_shows_what_its_code_gives(
    notebook_page: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert notebook_page("--check") == 0, capsys.readouterr().err


@pytest.mark.usefixtures("settled")
def test_a_figure_takes_ten_lines() -> None:
    lines = [line for line in BLOCKS[0].splitlines() if line]
    assert len(lines) == 10
    assert "load_results" in BLOCKS[0]
    picture = (ROOT / "docs" / "figures" / "notebook.svg").read_text(encoding="utf-8")
    models = {found.model for found in published_models("digits")} - {"majority", "random-features", "shuffled-labels"}
    assert {model for model in models if f">{model}<" in picture} == models


def test_a_stale_page_is_found_and_made_anew(notebook_page: Callable[..., int], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    code = "import altair as alt\nimport pandas as pd\nframe = pd.DataFrame({'x': [1, 2], 'y': [0.123456, 2.5]})\n"
    drawn = "alt.Chart(frame, title='two points').mark_point().encode(x='x', y='y')\n"
    cells = f"```python\n{code}```\n\n```python\nframe\n```\n\n<!-- output -->\nold\n<!-- /output -->\n\nafter\n"
    page.write_text(f"before\n\n{cells}\n```python\n{drawn}```\n", encoding="utf-8")
    assert notebook_page("--page", page, "--check") == 1
    assert "old" in page.read_text(encoding="utf-8")
    assert notebook_page("--page", page) == 0
    text = page.read_text(encoding="utf-8")
    assert "```text\n   x      y\n0  1  0.123\n1  2  2.500\n```\n<!-- /output -->\n\nafter\n" in text
    assert "![two points](figures/page.svg)" in text
    assert text.startswith(f"before\n\n```python\n{code}```\n\n```python\nframe")
    picture = tmp_path / "figures" / "page.svg"
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    assert notebook_page("--page", page, "--check") == 0
    picture.unlink()
    assert notebook_page("--page", page, "--check") == 1


def test_a_page_without_code_is_a_usage_error(
    notebook_page: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n", encoding="utf-8")
    assert notebook_page("--page", page) == 2
    assert "expected blocks of Python" in capsys.readouterr().err


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {"run_dir": tmp_path_factory.mktemp("nowhere")}


def test_every_column_of_results_and_predictions_is_documented(nowhere: dict[str, Any]) -> None:
    records = tlbench.load_results("digits", **nowhere)
    assert set(documented("## load_results\n")) == set(records.columns) - set(RECORDS.names)
    predictions = tlbench.load_predictions("digits", "majority", **nowhere)
    assert set(documented("## load_predictions\n")) == set(predictions.columns) - set(PREDICTIONS.names)


def test_every_column_of_the_board_is_documented(nowhere: dict[str, Any]) -> None:
    board = tlbench.leaderboard("digits", **nowhere)
    # A column only where the suite has a frozen baseline.
    assert set(documented("`leaderboard(suite).frame`")) - {"effective_robustness"} == set(board.frame.columns) - {
        "effective_robustness"
    }
    assert documented("`leaderboard(suite).differences`") == list(board.differences.columns)
    assert documented("`leaderboard(suite).without`") == list(board.without.columns)


def test_every_column_of_a_comparison_is_documented(nowhere: dict[str, Any]) -> None:
    found = tlbench.compare("digits", "majority", "linear-probe", **nowhere)
    assert documented("`compare(...).frame`") == list(found.frame.columns)
    assert documented("`compare(...).images`") == list(found.images.columns)
    assert documented("`compare(...).flips.rows`") == list(found.flips.rows.columns)
