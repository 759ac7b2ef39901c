"""A frozen line of ID against OOD accuracy: what its file may say, and what a row has beyond it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w
from scipy.stats import norm

from tlbench.errors import SuiteError
from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.effective import baseline_of, read_baseline
from tlbench.leaderboard.tables import load_fits, load_results
from tlbench.suites.load import load_suite


def document(suite: Any, slope: float = 0.8, intercept: float = -0.3) -> dict[str, Any]:
    lines = [
        {"task": p.task, "source": p.source, "target": p.target, "slope": slope, "intercept": intercept}
        for p in suite.pairs
    ]
    return {
        "format": 1,
        "suite": suite.name,
        "suite_hash": suite.hash,
        "provenance": {"models": ["a", "b", "c"], "tlbench_version": "1.0", "fitted": "2026-01-31", "note": "made up"},
        "pairs": lines,
    }


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "tiny.baseline.toml"
    path.write_text(tomli_w.dumps(content), encoding="utf-8")
    return path


def test_a_row_on_the_line_has_nothing_beyond_it_and_one_above_has_what_it_is_above(run: Any, tmp_path: Path) -> None:
    expected = float(norm.cdf(0.8 * norm.ppf(0.9) - 0.3))
    run.add("on", value=lambda cell: 0.9 if cell.role == "id-test" else expected)
    run.add("above", value=lambda cell: 0.9 if cell.role == "id-test" else expected + 0.1 * (cell.task == "u"))
    options = {"run_dir": run.folder, "published": False}
    baseline = read_baseline(written(tmp_path, document(run.suite)), run.suite)
    records, fits = load_results(run.suite, **options), load_fits(run.suite, **options)
    frame = make_board(records, fits, run.suite, baseline=baseline).frame.set_index("name")
    assert frame.loc["on", "effective_robustness"] == pytest.approx(0, abs=1e-12)
    assert frame.loc["above", "effective_robustness"] == pytest.approx(0.05)  # one of two tasks
    board = make_board(records, fits, run.suite, baseline=baseline)
    assert "beyond line" in board.to_text("table", width=120)
    assert "effective_robustness" not in make_board(records, fits, run.suite).frame


def test_an_accuracy_of_one_is_taken_for_half_an_image_less(run: Any, tmp_path: Path) -> None:
    run.add("m", value=lambda cell: 1.0 if cell.role == "id-test" else 0.5, images=50)
    options = {"run_dir": run.folder, "published": False}
    baseline = read_baseline(written(tmp_path, document(run.suite)), run.suite)
    records, fits = load_results(run.suite, **options), load_fits(run.suite, **options)
    board = make_board(records, fits, run.suite, baseline=baseline)
    expected = 0.5 - norm.cdf(0.8 * norm.ppf(0.99) - 0.3)
    assert board.frame["effective_robustness"].iloc[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite_hash": "0" * 64}, "no board mixes versions"),
        ({"slop": 1}, "slop"),
        ({"format": 2}, "format"),
    ],
)
def test_a_file_of_another_version_or_with_a_slip_is_refused_in_a_line(
    run: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SuiteError, match=message) as caught:
        read_baseline(written(tmp_path, {**document(run.suite), **change}), run.suite)
    assert "\n" not in str(caught.value)


def test_every_pair_has_a_line_once(run: Any, tmp_path: Path) -> None:
    whole = document(run.suite)
    with pytest.raises(SuiteError, match="has none"):
        read_baseline(written(tmp_path, {**whole, "pairs": whole["pairs"][1:]}), run.suite)
    with pytest.raises(SuiteError, match="twice"):
        read_baseline(written(tmp_path, {**whole, "pairs": whole["pairs"] + whole["pairs"][:1]}), run.suite)
    strange = {**whole["pairs"][0], "target": "bb"}
    with pytest.raises(SuiteError, match="no pair of task"):
        read_baseline(written(tmp_path, {**whole, "pairs": [*whole["pairs"], strange]}), run.suite)
    with pytest.raises(SuiteError, match="slope"):
        read_baseline(written(tmp_path, document(run.suite, slope=0.0)), run.suite)


def test_no_suite_of_ours_has_a_baseline_yet_and_a_user_s_never_takes_ours(run: Any) -> None:
    assert baseline_of(load_suite("digits")) is None
    assert baseline_of(run.suite) is None
