"""The board's page without a script: sections apart, bounds of what is incomplete, and every stored number in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from tlbench.report.board_data import section_title
from tlbench.report.board_page import bars, board_page
from tlbench.report.content import Content
from tlbench.report.method_page import method_page
from tlbench.report.task_scores import task_scores


class Table(HTMLParser):
    """The cells of a page's table, row by row, and every attribute of every element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._open = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data.strip()

    def place(self, text: str) -> int:
        """Return the first row with a cell of this text."""
        return next(number for number, row in enumerate(self.rows) if text in row)


@pytest.fixture(scope="module")
def page(content: Content) -> str:
    return board_page(content)


def data_of(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="board-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_sections_of_other_protocols_and_pretraining_stand_apart(page: str) -> None:
    table = Table(page)
    groups = [row[0] for row in table.rows if len(row) == 1]
    assert section_title("source-only", "full", "float32", "ImageNet") in groups
    assert section_title("source-only", "full", "float32", "none") in groups
    assert section_title("unlabelled-target", "full", "float32", "ImageNet") in groups
    places = {name: table.place(name) for name in ("twin", "steady", "reader", "majority")}
    start = {row[0]: number for number, row in enumerate(table.rows) if len(row) == 1}
    assert places["steady"] > start["source-only, all training images, no pretraining"]
    assert places["majority"] > start["Reference lines, never ranked"]


def test_a_row_that_is_incomplete_has_no_rank_and_its_bounds(page: str, content: Content) -> None:
    table = Table(page)
    row = next(row for row in table.rows if any(cell.startswith("half") for cell in row))
    frame = content.board.frame.set_index("name")
    assert row[0] == ""
    assert row[2] == f"{100 * frame['low']['half']:.1f} – {100 * frame['high']['half']:.1f}"
    assert "2 cells" in row[1] or "cells" in row[1]


def test_names_are_text_wherever_they_stand(page: str) -> None:
    table = Table(page)
    tags = [tag for tag, _ in table.elements]
    assert tags.count("script") == 3  # theme, board, data
    assert "img" not in tags
    assert not [name for _, attributes in table.elements for name in attributes if name.startswith("on")]
    cells = {cell for row in table.rows for cell in row}
    assert {"<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "safegnp.exe"} <= cells
    assert "\u202e" not in page


def test_every_name_links_to_its_own_page_inside_the_report(page: str) -> None:
    table = page.partition('<section id="comparisons"')[0]
    links = [attributes["href"] or "" for tag, attributes in Table(table).elements if tag == "a"]
    models = [link for link in links if link.startswith("models/")]
    assert len(models) == len({link.casefold() for link in models}) == 12
    assert not [link for link in links if ".." in link or ":" in link or "<" in link]


def test_a_name_of_300_letters_is_cut_and_told_in_full_beside(content: Content) -> None:
    frame = content.board.frame.copy()
    long = "m" * 300
    frame["name"] = [long if name == "twin" else name for name in frame["name"]]
    frame["model"] = frame["name"]
    board = replace(content.board, frame=frame)
    page = board_page(replace(content, boards={board.metric: board}))
    assert long not in {cell for row in Table(page).rows for cell in row}
    assert f'title="{long}"' in page


def test_every_board_and_task_is_carried_as_stored(page: str, content: Content) -> None:
    data = data_of(page)
    names = [row["name"] for row in data["rows"]]
    assert [metric["key"] for metric in data["metrics"]] == list(content.boards)
    for metric in data["metrics"]:
        frame = content.boards[metric["key"]].frame.set_index("name")
        scores = metric["values"].get("score", data["metrics"][0]["values"]["score"])
        told = scores[names.index("twin")]
        assert (told is None) == bool(np.isnan(frame["score"]["twin"]))
        assert told is None or told == pytest.approx(frame["score"]["twin"], rel=1e-6)
    scores = task_scores(content)
    assert [task["name"] for task in data["tasks"]] == ["t", "u"]
    twin = [score.value for task in scores.values() for row, score in task["accuracy"].items() if "twin" in row]
    assert len(twin) == 2
    assert sum(value or 0 for value in twin) / 2 == pytest.approx(
        content.board.frame.set_index("name")["score"]["twin"]
    )


def test_a_task_that_a_row_has_not_run_has_its_reason(page: str) -> None:
    data = data_of(page)
    half = [row["name"] for row in data["rows"]].index("half")
    t, u = (task["values"]["accuracy"] for task in data["tasks"])
    assert t["score"][half] is not None
    assert u["score"][half] is None
    assert u["reason"][half]


def test_columns_of_all_families_and_of_cost_are_there(page: str) -> None:
    families = {column["family"] for column in data_of(page)["columns"]}
    assert {"accuracy", "calibration", "adversarial", "corruption", "invariance", "cost"} <= families


def test_bars_lie_on_one_scale() -> None:
    values = {"score": [0.5, 1.0, 2.0], "measurement_low": [0.25, None, None], "measurement_high": [0.75, None, None]}
    assert bars({"values": values}, 0, 0.0, 1.0) == "--d:50.0%;--n:25.0%;--nw:50.0%"
    assert bars({"values": values}, 1, 0.0, 1.0) == "--d:100.0%"
    assert bars({"values": values}, 2, 0.0, 1.0) == ""  # off the scale


def test_a_board_without_rows_says_what_to_do(content: Content) -> None:
    boards = {metric: replace(board, frame=board.frame.iloc[:0]) for metric, board in content.boards.items()}
    assert "tlbench evaluate --suite tiny" in board_page(replace(content, boards=boards))


def test_the_method_page_tells_suite_protocols_conditions_levels_and_measures(content: Content) -> None:
    text = method_page(content)
    assert content.suite.hash in text
    assert "linf, epsilon {1, 2}/255; 100 steps, 1 restart, exact" in text
    for word in ("unlabelled-target", "expected calibration error", "recomputed", "does not show that the model made"):
        assert word in text
    assert "This suite has 2 tasks" in text
