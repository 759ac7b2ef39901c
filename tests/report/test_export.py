"""A board as a file: strangers' names stay text in Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from tlbench.report.content import Content
from tlbench.report.export import as_csv, as_latex, board_files, latex_text


@given(st.text(max_size=60))
def test_no_letter_of_a_name_is_obeyed_by_latex(text: str) -> None:
    told = latex_text(text)
    # What is left once every known escape is taken out holds nothing that LaTeX would act on.
    known = r"\\(text[a-z]+\{\}|dots\{\}|[&%$#_{}])|\$(-|\\pm|\\infty)\$"
    assert not re.search(r"[\\&%$#_{}~^]", re.sub(known, "", told))


def test_latex_tables_have_a_column_for_every_cell(content: Content) -> None:
    text = as_latex(content.board)
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(tables) == 5  # three sections, controls, what is not complete
    for layout, body in tables:
        for line in body.strip().splitlines():
            if line.endswith(r"\\"):
                assert len(re.findall(r"(?<!\\)&", line)) == len(layout) - 1


def test_latex_writes_a_hostile_name_out(content: Content) -> None:
    text = as_latex(content.board)
    assert r"\textbackslash{}input\{secret\}\%\_\$\#\&" in text
    assert r"\input{" not in text


def test_a_spreadsheet_runs_no_name_as_a_formula(content: Content) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(content.board))))
    assert len(rows) == len(content.board.frame)
    assert not [row["name"] for row in rows if re.match(r"[=+\-@]", row["name"])]
    assert '\'=HYPERLINK("http://x")' in {row["name"] for row in rows}


def test_files_hold_the_scores_of_the_board(content: Content) -> None:
    files = board_files(content.board)
    assert set(files) == {"md", "tex", "csv", "json"}
    told = {row["name"]: row["score"] for row in json.loads(files["json"])["rows"]}
    board = dict(zip(content.board.frame["name"], content.board.frame["score"], strict=True))
    assert told["twin"] == board["twin"]
    assert told["half"] is None
    assert "&lt;script&gt;" in files["md"]
    assert "<script>" not in files["md"]
