"""A board as a file beside its page: Markdown, LaTeX, CSV and JSON; names of strangers stay text in each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from tlbench.leaderboard.board import Board
from tlbench.leaderboard.text import plain, plain_note
from tlbench.metrics.catalogue import METRICS
from tlbench.report.board_data import COLUMNS, SECTION, Column, ends, level_of, section_title
from tlbench.report.page import metric_words, number

_LATEX: Final = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "–": "--", "−": "$-$", "±": r"$\pm$", "∞": r"$\infty$",
    "…": r"\dots{}", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
}  # fmt: skip
_FORMULA: Final = re.compile(r"^[=+\-@\t\r]")
_TEXTS: Final = ("name", "model", "backbone", "reason", "protocol", "shots", "pretraining", "settings_hash")


def board_files(board: Board) -> dict[str, str]:
    """Return a board as files, by ending: ``md``, ``tex``, ``csv``, ``json``.

    Rates are per cent in the first two and fractions in the others.
    """
    return {
        "md": board.to_text("markdown"),
        "tex": as_latex(board),
        "csv": as_csv(board),
        "json": board.to_text("json"),
    }


def as_csv(board: Board) -> str:
    """Return the board's frame as CSV: a text that a spreadsheet would run as a formula begins with a quote instead."""
    frame = board.frame.copy()
    for column in (name for name in _TEXTS if name in frame):
        told = (plain_note(value) if column == "reason" else plain(value) for value in frame[column])
        frame[column] = [f"'{text}" if _FORMULA.match(text) else text for text in told]
    return str(frame.assign(metric=board.metric, suite_hash=board.suite_hash).to_csv(index=False, lineterminator="\n"))


def as_latex(board: Board) -> str:
    r"""Return the board as tables for LaTeX, one a section, for the packages booktabs, textcomp and fontenc (T1)."""
    parts = [
        f"% {latex_text(board.suite)}, version {board.suite_version}, hash {board.suite_hash}, by "
        f"{metric_words(board.metric, board.role)}",
        r"% \usepackage[T1]{fontenc}\usepackage{booktabs,textcomp}",
    ]
    for title, rows in _sections(board.frame):
        parts += ["", *_table(board, title, rows)]
    return "\n".join(parts) + "\n"


def latex_text(text: str) -> str:
    r"""Return text of a stranger for LaTeX: every letter that LaTeX would obey is written out.

    >>> print(latex_text(r"50%_\input{x}"))
    50\%\_\textbackslash{}input\{x\}
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _sections(frame: pd.DataFrame) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    rows: list[dict[str, Any]] = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    scored = [row for row in rows if not pd.isna(row["score"])]
    ranked = [row for row in scored if row["standing"] in ("ranked", "unranked")]
    for section in dict.fromkeys(tuple(str(row[name]) for name in SECTION) for row in ranked):
        inside = [row for row in ranked if tuple(str(row[name]) for name in SECTION) == section]
        yield section_title(*section), inside
    for standing, title in (("variant", "Variants, never ranked"), ("control", "Reference lines, never ranked")):
        inside = [row for row in scored if row["standing"] == standing]
        if inside:
            yield title, inside
    missing = [row for row in rows if pd.isna(row["score"])]
    if missing:
        yield "Not complete, not ranked: worst and best case", missing


def _table(board: Board, title: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    columns = [column for column in COLUMNS if _wanted(column, rows)]
    layout = "".join("l" if column.key in ("name", "backbone", "level") else "r" for column in columns)
    caption = f"{metric_words(board.metric, board.role)}; {title}"
    yield r"\begin{table}"
    yield rf"\caption{{{latex_text(caption)}}}"
    yield rf"\begin{{tabular}}{{{layout}}}"
    yield r"\toprule"
    heads = (metric_words(board.metric, board.role) if c.key == "score" else c.header for c in columns)
    yield " & ".join(latex_text(head.replace("\u00ad", "")) for head in heads) + r" \\"
    yield r"\midrule"
    for row in rows:
        # A row that begins with a bracket would be taken for the length of the line break before it.
        yield "{}" + " & ".join(latex_text(_text(column, row, board)) for column in columns) + r" \\"
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table}"


def _wanted(column: Column, rows: list[dict[str, Any]]) -> bool:
    if column.family == "weightings" or column.key in ("seeds", "standard_error"):
        return False
    if column.key in ("name", "backbone", "level", "score"):
        return True
    return any(all(end in row and not pd.isna(row[end]) for end in ends(column)) for row in rows)


def _text(column: Column, row: dict[str, Any], board: Board) -> str:
    if column.key == "level":
        return level_of(row)
    if column.key in ("name", "backbone"):
        return plain(row[column.key])
    unit = column.unit or METRICS[board.metric].unit
    values = [row.get(end) for end in ends(column)]
    if column.key == "score" and pd.isna(row["score"]):
        return "–" if pd.isna(row["low"]) else f"{number(row['low'], unit)} – {number(row['high'], unit)}"
    if any(pd.isna(value) for value in values):
        return ""
    if unit == "interval":
        return " – ".join(number(value, METRICS[board.metric].unit) for value in values)
    if unit == "ranks":
        return " – ".join(dict.fromkeys(str(value) for value in values))
    if unit == "mark":
        return "yes" if values[0] else ""
    return str(values[0]) if unit in ("rank", "text") else number(values[0], unit)
