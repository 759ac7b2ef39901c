"""A page per task: how accuracy within goes with accuracy out of distribution, pair by pair, and who is best where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pandas as pd

from tlbench.leaderboard.board import pretraining
from tlbench.leaderboard.prepared import ROW, Row
from tlbench.leaderboard.text import plain
from tlbench.report.content import Content, model_path, page_name, task_path
from tlbench.report.figures import Figure
from tlbench.report.heat_map import shade_of
from tlbench.report.model_page import FIGURES, Drawn
from tlbench.report.page import render
from tlbench.report.points import Accuracies, TaskPoints, read_accuracies, task_points
from tlbench.report.scatter import SCALES, Scatter, figure, scatter, small_multiples
from tlbench.suites.spec import Pair

Section = tuple[str, str, str, str]
"""Protocol, shots, precision and pretraining: what is never ranked together."""


@dataclass(frozen=True)
class KeyLine:
    """A row by its number.

    Attributes
    ----------
    number : int
    name, path, section : str, str, str
    origin : str
    control : bool
    point : mapping or None
        Its accuracies and their intervals, None where it is not complete on this task.
    """

    number: int
    name: str
    path: str
    section: str
    origin: str
    control: bool
    point: Mapping[str, float] | None


@dataclass(frozen=True)
class Best:
    """The best row of a section on a pair: by OOD accuracy, of those that are no controls."""

    pair: Pair
    section: str
    line: KeyLine
    point: Mapping[str, float]
    equal: int


@dataclass(frozen=True)
class Shown:
    """A scatter as the page shows it."""

    scatter: Scatter
    drawn: Drawn


def task_pages(content: Content) -> dict[str, str | bytes]:
    """Return the page of every task, and the files of its figures, by their path in the report."""
    accuracies = read_accuracies(content.records, content.suite)
    files: dict[str, str | bytes] = {}
    for task in content.suite.tasks:
        files |= task_page(content, accuracies, task)
    return files


def task_page(content: Content, accuracies: Accuracies, task: str) -> dict[str, str | bytes]:
    """Return a task's page and the files of its figures, by path.

    Parameters
    ----------
    content : Content
    accuracies : Accuracies
        Of every row of the suite.
    task : str
    """
    files: dict[str, str | bytes] = {}

    def drawn(one: Figure) -> Drawn:
        own = {f"{FIGURES}{name}": data for name, data in one.files().items()}
        files.update(own)
        return Drawn(one.inline(), tuple(own))

    points = _with_the_boards(task_points(accuracies, content.suite, task), content)
    stem = f"task-{page_name(task)}"
    mean = [scatter(points.mean, scale) for scale in SCALES]
    pairs = {
        scale: [scatter(frame, scale, title=pair_words(pair)) for pair, frame in points.pairs if len(frame)]
        for scale in SCALES
    }
    key = key_lines(points)
    spec = content.suite.tasks[task]
    page = render(
        "task.html",
        path=task_path(task),
        styles=("model.css",),
        suite=content.suite,
        analysed=content.analysis is not None,
        task=task,
        spec=spec,
        pair_count=len(points.pairs),
        pairs=[pair for pair, _ in points.pairs],
        key=key,
        sections=len({line.section for line in key if not line.control}),
        means=[
            Shown(one, drawn(figure(one, name=f"{stem}.{one.scale}", task=plain(task))))
            for one in mean
            if len(one.points)
        ],
        multiples=[
            Shown(several[0], drawn(small_multiples(several, name=f"{stem}.pairs-{scale}", task=plain(task))))
            for scale, several in pairs.items()
            if several
        ],
        lines=[
            (title, [of_linear, of_probit])
            for title, of_linear, of_probit in [
                ("mean", *mean),
                *((a.title, a, b) for a, b in zip(pairs["linear"], pairs["probit"], strict=True)),
            ]
        ],
        best=best_rows(points, key),
        matrix=_matrix(points, key),
        shade=lambda value: shade_of(value, 1.0),
        without=without_interval(points),
        by_the_board=bool(len(content.suite.tasks) == 1 and points.mean["ood_low"].notna().any()),
    )
    return {task_path(task): page, **files}


def _with_the_boards(points: TaskPoints, content: Content) -> TaskPoints:
    """Return points whose mean has the board's own intervals, where the suite is this task and no other."""
    board = content.boards.get("accuracy")
    if board is None or board.role != "ood-test" or len(content.suite.tasks) > 1 or not len(points.mean):
        return points
    low, high = "measurement_low", "measurement_high"
    if low not in board.frame or high not in board.frame:
        return points
    told = {
        tuple(str(row[name]) for name in ROW): (row[low], row[high])
        for row in board.frame.to_dict("records")
        if row[low] == row[low] and row["score"] == row["score"]
    }
    rows = [tuple(str(value) for value in row) for row in points.mean[list(ROW)].itertuples(index=False, name=None)]
    ends = pd.DataFrame([told.get(row, (None, None)) for row in rows], columns=[low, high], dtype=float)
    mean = points.mean.assign(
        ood_low=ends[low].fillna(points.mean["ood_low"]), ood_high=ends[high].fillna(points.mean["ood_high"])
    )
    return replace(points, mean=mean)


def pair_words(pair: Pair) -> str:
    """Return a pair as a reader says it."""
    return f"{pair.source} → {pair.target}"


def key_lines(points: TaskPoints) -> list[KeyLine]:
    """Return every row that has a number, in the order of the numbers."""
    complete = {int(row["number"]): row for row in points.mean.to_dict("records")}
    lines = []
    for row in points.known.to_dict("records"):
        number = int(row["number"])
        lines.append(
            KeyLine(
                number=number,
                name=str(row["name"]),
                path=model_path(str(row["model"]), str(row["origin"])),
                section=" · ".join(section_of(tuple(str(row[name]) for name in ROW))),
                origin=str(row["origin"]),
                control=bool(row["control"]),
                point=_point(complete[number]) if number in complete else None,
            )
        )
    return lines


def section_of(row: Row) -> Section:
    """Return the section of the board that a row belongs to."""
    of = dict(zip(ROW, row, strict=True))
    return of["protocol"], of["shots"], of["precision"], pretraining(of["backbone"], of["weights_hash"])


def best_rows(points: TaskPoints, key: list[KeyLine]) -> list[Best]:
    """Return the best row of every section on every pair that has one, in the suite's order of pairs."""
    lines = {line.number: line for line in key}
    found = []
    for pair, frame in points.pairs:
        models = frame[~frame["control"]]
        sections = pd.Series(
            [lines[int(number)].section for number in models["number"]], index=models.index, dtype=object
        )
        for section in sorted(set(sections)):
            own = models[sections == section]
            top = own[own["ood"] == own["ood"].max()].sort_values("number")
            first = top.iloc[0]
            found.append(Best(pair, section, lines[int(first["number"])], _point(first.to_dict()), len(top) - 1))
    return found


def without_interval(points: TaskPoints) -> list[str]:
    """Return the domains whose images give no standard error, and so no interval."""
    found = set()
    for pair, frame in points.pairs:
        if len(frame) and frame["id_low"].isna().all():
            found.add(pair.source)
        if len(frame) and frame["ood_low"].isna().all():
            found.add(pair.target)
    return sorted(found)


_NUMBERS: Final = tuple(f"{name}{end}" for name in ("id", "ood") for end in ("", "_low", "_high"))


def _point(row: Mapping[Any, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in _NUMBERS}


def _matrix(points: TaskPoints, key: list[KeyLine]) -> list[tuple[KeyLine, list[Mapping[str, float] | None]]]:
    """Return the accuracies of every row on every pair."""
    by_pair = [{int(row["number"]): _point(row) for row in frame.to_dict("records")} for _, frame in points.pairs]
    return [(line, [table.get(line.number) for table in by_pair]) for line in key]
