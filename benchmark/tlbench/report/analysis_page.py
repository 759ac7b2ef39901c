"""An analysis as a folder: a page with every question's answer, its figures, and its tables as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from tlbench.errors import UsageError
from tlbench.report.analysis_figures import analysis_figures
from tlbench.report.page import render

if TYPE_CHECKING:
    from tlbench.analysis.questions import Analysis
    from tlbench.report.figures import Figure
    from tlbench.suites.spec import Suite

MOST_ROWS: Final = 200
"""Rows of a table on the page; the files have all."""
_INTERVAL: Final = ("_low", "_high")


MARKER = ".tlbench-analysis"


def check_out(out: str | Path) -> None:
    """Make a folder for an analysis; done before any work is.

    Raises
    ------
    UsageError
        If it cannot be made, or holds what no analysis has written.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder}: expected a folder, found a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        strange = sorted(path.name for path in folder.iterdir()) if not (folder / MARKER).is_file() else []
        if not strange:
            (folder / MARKER).write_text("what lies here was written by tlbench analyze\n", encoding="utf-8")
    except OSError as problem:
        raise UsageError(f"--out {folder}: cannot be written ({problem.strerror})") from None
    if strange:
        raise UsageError(
            f"--out {folder}: expected an empty folder or an earlier analysis, found '{strange[0]}'; "
            "name another folder"
        )


def write_analysis(analysis: Analysis, out: str | Path) -> list[Path]:
    """Write tables (CSV, Parquet), figures (SVG, PNG) and ``index.html``; return the files, the page first."""
    folder = Path(out)
    files = analysis_files(analysis)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return [folder / name for name in files]


def analysis_files(
    analysis: Analysis, *, path: str = "index.html", folder: str = "", suite: Suite | None = None
) -> dict[str, bytes]:
    """Return the page of an analysis, its tables and its figures, by their paths; the page first.

    Parameters
    ----------
    analysis : Analysis
    path : str
        Of the page.
    folder : str
        Where tables and figures lie, seen from the page: empty, or a folder with its slash.
    suite : Suite, optional
        Given where the page is one of a report, so that it leads to the others.
    """
    figures = analysis_figures(analysis)
    drawn = (figure for found in figures.values() for figure in found)
    page = analysis_page(analysis, figures, path=path, folder=folder, suite=suite)
    return {
        path: page.encode("utf-8"),
        **{f"{folder}{name}": content for name, content in analysis.files().items()},
        **{f"{folder}figures/{name}": content for figure in drawn for name, content in figure.files().items()},
    }


def analysis_page(
    analysis: Analysis,
    figures: dict[str, list[Figure]],
    *,
    path: str = "index.html",
    folder: str = "",
    suite: Suite | None = None,
) -> str:
    """Return the page of an analysis.

    Parameters
    ----------
    analysis : Analysis
    figures : dict from a question to its figures
        As from ``analysis_figures``.
    path, folder, suite
        As for ``analysis_files``.
    """
    answers = [
        {
            "id": one.id,
            "title": one.title,
            "sentence": one.sentence,
            "answered": not one.too_small,
            "figures": figures.get(one.id, []),
            "tables": [_table(name, table) for name, table in one.tables.items()],
        }
        for one in analysis.answers.values()
    ]
    return render(
        "analysis.html",
        path=path,
        styles=("analysis.css",),
        suite=suite,
        analysed=True,
        folder=folder,
        suite_name=analysis.suite,
        runs=len(analysis.runs),
        models=int(analysis.runs["model"].nunique()),
        clusters=int(analysis.runs["cluster"].nunique()),
        notes=analysis.notes,
        answers=answers,
    )


def _table(name: str, table: pd.DataFrame) -> dict[str, Any]:
    """Return a table as text: a number and its interval share a cell."""
    columns = [column for column in table.columns if not column.endswith(_INTERVAL)]
    rows = [[_cell(table, row, column) for column in columns] for row in range(min(MOST_ROWS, len(table)))]
    return {
        "name": name,
        "headers": [column.replace("_", " ") for column in columns],
        "text": [table[column].dtype.kind not in "if" for column in columns],
        "rows": rows,
        "more": len(table) - len(rows),
    }


def _cell(table: pd.DataFrame, row: int, column: str) -> str:
    value = table[column].iloc[row]
    if table[column].dtype.kind == "b":
        return "yes" if value else "no"
    if table[column].dtype.kind != "f":
        return str(value)
    if value != value:
        return "–"
    told = f"{value:.3f}"
    ends = [f"{column}{end}" for end in _INTERVAL]
    if all(end in table for end in ends):
        low, high = (table[end].iloc[row] for end in ends)
        told += "" if low != low else f" ({low:.3f} to {high:.3f})"
    return told.replace("-", "−")
