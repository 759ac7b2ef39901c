"""Who differs from whom, on the board's page and a model's: the board's own numbers, each the right way round."""

from __future__ import annotations

import re
from dataclasses import replace
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from tlbench.analysis.questions import ask
from tlbench.analysis.runs import tidy_runs
from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.prepared import ROW
from tlbench.leaderboard.statistics import SECTION, row_labels
from tlbench.leaderboard.tables import load_fits, load_results
from tlbench.report.analysis_page import analysis_files
from tlbench.report.board_page import board_page
from tlbench.report.comparisons import NEAREST, Comparisons, p_words
from tlbench.report.content import Content
from tlbench.report.method_page import method_page
from tlbench.report.model_page import model_page

NAMES = ("best", "<b>next</b>", "last")
TASKS = {
    f"t{number}": {
        "reader": "embedded",
        "classes": ["p", "q"],
        "domains": ["a", "b"],
        "pairs": [{"source": "a", "target": "b"}],
    }
    for number in range(8)
}


@pytest.fixture(scope="module")
def wide(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Three rows on eight tasks: the first far ahead, the other two alike but for one task."""
    folder = tmp_path_factory.mktemp("wide") / "runs"
    conditions = [{"kind": "clean", "roles": ["id-test", "ood-test"]}]
    run = synthetic.Run(folder, synthetic.make_suite(tasks=TASKS, conditions=conditions))

    def scores(base: float, odd: float) -> Any:
        return lambda cell: base + 0.01 * int(cell.task[1]) + (odd if cell.task == "t0" else 0.0)

    for name, base, odd in zip(NAMES, (0.8, 0.502, 0.5), (0.0, 0.0, 0.012), strict=True):
        run.add(name, value=scores(base, odd))
    place: dict[str, Any] = {"run_dir": folder, "published": False}
    records, fits = load_results(run.suite, **place), load_fits(run.suite, **place)
    boards = {metric: make_board(records, fits, run.suite, metric=metric) for metric in ("accuracy", "nll")}
    return Content(run.suite, boards, records, fits, **place)


def _cells(page: str, row: str) -> list[str]:
    """Return the cells of the first table row that begins with a name."""
    table = page[page.index('class="data matrix"') :]
    line = re.search(rf"<tr>(?:(?!</tr>).)*<bdi>{re.escape(row)}</bdi>.*?</tr>", table[table.index("<tbody>") :], re.S)
    assert line is not None
    return re.findall(r"<td[^>]*>([^<]*)</td>", line[0])


def test_a_table_holds_each_difference_once_and_each_p_once(wide: Content) -> None:
    (matrix,) = wide.comparisons["accuracy"].matrices
    assert [line.label for line in matrix.lines] == list(NAMES)
    found = wide.board.differences.set_index(["first", "second"])
    page = board_page(wide)
    best, _, last = matrix.lines
    assert best.against[0] is None
    difference = found.loc[("best", "last"), "difference"]
    assert best.against[2] is not None
    assert best.against[2].difference == pytest.approx(difference)
    assert last.against[0] is not None
    assert last.against[0].difference == pytest.approx(-difference)
    assert best.against[2].apart
    assert last.against[0].apart
    assert _cells(page, "best")[3] == f"{100 * difference:.1f}"
    assert _cells(page, "last")[1] == p_words(found.loc[("best", "last"), "adjusted_p"])


def test_a_row_is_held_against_the_others_as_the_better_or_the_worse(wide: Content) -> None:
    frame = wide.board.frame
    pages = {name: str(model_page(wide, name, "local")[_path(wide, name)]) for name in NAMES}
    assert 'data-compared="accuracy"' in pages["last"]
    (line,) = re.findall(r"<tr><th[^>]*><a[^>]*><bdi>best</bdi>.*?</tr>", pages["last"].split('data-compared="nll"')[0])
    scores = frame.set_index("name")["score"]
    (value,) = re.findall(r'data-value="([^"]+)"', line)
    assert float(value) == pytest.approx(scores["last"] - scores["best"])
    assert "worse" in line
    (other,) = re.findall(
        r"<tr><th[^>]*><a[^>]*><bdi>last</bdi>.*?</tr>", pages["best"].split('data-compared="nll"')[0]
    )
    assert "better" in other
    assert "<b>next</b>" not in pages["best"]


def test_every_task_is_left_out_in_turn(wide: Content) -> None:
    board = wide.board
    rows = {
        name: tuple(board.frame.set_index("name", drop=False).loc[name, column] for column in ROW) for name in NAMES
    }
    _, without, _ = wide.comparisons["accuracy"].of(rows["last"])
    wanted = board.without[board.without["name"] == "last"].set_index("task")
    assert [one.task for one in without] == list(TASKS)
    assert [one.score for one in without] == wanted["score"].tolist()
    # The task that it owes its place to.
    assert {one.task: one.rank for one in without}["t0"] == wanted["rank"]["t0"]


def test_many_rows_are_compared_with_the_nearest(wide: Content) -> None:
    first = wide.board.frame.iloc[[0]]
    rows = 3 * NEAREST
    frame = pd.concat([first] * rows, ignore_index=True)
    names = [f"m{number:02d}" for number in range(rows)]
    frame["name"] = frame["model"] = pd.array(names, dtype="str")
    pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]
    differences = pd.DataFrame(pairs, columns=["first", "second"]).assign(
        **{name: frame[name].iloc[0] for name in SECTION}, difference=0.1, low=0.0, high=0.2, p=0.5, adjusted_p=0.9
    )
    found = Comparisons(replace(wide.board, frame=frame, differences=differences))
    middle = frame.iloc[rows // 2]
    against, _, left = found.of(tuple(str(middle[name]) for name in ROW))
    assert len(against) == 2 * NEAREST
    assert left == rows - 1 - 2 * NEAREST


def test_rows_of_one_name_are_told_by_their_origin_and_their_settings() -> None:
    rows = pd.DataFrame(
        {
            "name": ["a", "a", "b", "b", "c"],
            "origin": ["published", "local", "local", "local", "local"],
            "settings_hash": ["1" * 16, "1" * 16, "2" * 16, "3" * 16, "4" * 16],
            "backbone": "net",
            "weights_hash": "f00d" * 4,
        }
    )
    assert row_labels(rows) == ["published:a", "local:a", "local:b (22222222, net)", "local:b (33333333, net)", "c"]


def test_the_analysis_is_a_page_of_the_report_and_leads_back(wide: Content) -> None:
    runs = tidy_runs(wide.records, wide.suite, wide.fits)
    asked = replace(wide, analysis=ask(runs, suite=wide.suite.name, questions=["A1", "A2"], draws=20))
    assert asked.analysis is not None
    files = analysis_files(asked.analysis, path="analysis.html", folder="analysis/", suite=asked.suite)
    page = files["analysis.html"].decode()
    assert '<a href="index.html">Board</a>' in page
    assert '<a href="analysis.html" aria-current="page">Analysis</a>' in page
    for name in re.findall(r'href="(analysis/[^"]+)"', page):
        assert name in files
    assert "analysis/runs.csv" in files
    assert '<a href="analysis.html">Analysis</a>' in method_page(asked)
    assert "analysis.html" not in method_page(wide)


def _path(content: Content, name: str) -> str:
    from tlbench.report.content import model_path

    return model_path(name, "local")
