"""Who differs from whom on a board, and what becomes of it without each task: a table a section, a list a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import pandas as pd

from tlbench.leaderboard.board import Board
from tlbench.leaderboard.prepared import ROW, Row
from tlbench.leaderboard.statistics import SECTION, row_labels
from tlbench.leaderboard.ties import LEVEL
from tlbench.metrics.catalogue import METRICS

MOST_ROWS: Final = 30
"""Rows of a section that a table shows: more columns nobody would read."""
NEAREST: Final = 15
"""Rows on either side that the page of a model is compared with."""

Section = tuple[str, ...]


@dataclass(frozen=True)
class Against:
    """One ranked row held against another of its section.

    Attributes
    ----------
    label : str
        What the other row is called.
    model, origin : str
        Whose page tells of it.
    difference, low, high : float
        Score of this row minus that of the other, and the simultaneous 95 % interval.
    adjusted_p : float
    """

    label: str
    model: str
    origin: str
    difference: float
    low: float
    high: float
    adjusted_p: float

    @property
    def apart(self) -> bool:
        """Whether the two are told apart."""
        return self.adjusted_p <= LEVEL


@dataclass(frozen=True)
class Without:
    """A row's score and rank when one task is left out."""

    task: str
    score: float
    rank: int | None


@dataclass(frozen=True)
class Line:
    """A row of a section's tables.

    Attributes
    ----------
    label, model, origin : str
    score : float
    rank : int or None
    against : list of (Against or None)
        One a column, None on the diagonal and where the two were not compared.
    without : list of (Without or None)
        One a task.
    """

    label: str
    model: str
    origin: str
    score: float
    rank: int | None
    against: list[Against | None]
    without: list[Without | None]


@dataclass(frozen=True)
class Matrix:
    """The ranked rows of a section, each against each.

    Attributes
    ----------
    section : tuple of str
        Its protocol, shots, precision and pretraining.
    rows : int
        How many there are; ``lines`` has the first of them.
    lines : list of Line
    compared : bool
        Whether any two rows were.
    tasks : tuple of str
        Those that are left out in turn; empty where there is one.
    """

    section: Section
    rows: int
    lines: list[Line]
    compared: bool
    tasks: tuple[str, ...]


class Comparisons:
    """What a board says of every two rows.

    Parameters
    ----------
    board : Board
    """

    def __init__(self, board: Board) -> None:
        self.metric, self.role, self.unit = board.metric, board.role, METRICS[board.metric].unit
        self.proper, self._board = board.proper, board

    @cached_property
    def matrices(self) -> list[Matrix]:
        """The tables of every section of two ranked rows or more."""
        return [self._matrix(section, rows) for section, rows in self._sections.items() if len(rows) > 1]

    def of(self, row: Row) -> tuple[list[Against], list[Without], int]:
        """Return the nearest rows that a row is compared with, its scores without each task, how many rows are left.

        Parameters
        ----------
        row : Row
            Values of ``prepared.ROW``; empty lists for one that is not ranked.
        """
        section, place = self._places.get(row, ((), -1))
        if place < 0:
            return [], [], 0
        rows = self._sections[section]
        near = range(max(0, place - NEAREST), min(len(rows), place + NEAREST + 1))
        found = [self._against(section, rows[place], rows[other]) for other in near if other != place]
        told = [one for one in found if one is not None]
        tasks = self._tasks.get(section, ())
        without = [self._without.get((*section, task, rows[place]["label"])) for task in tasks]
        left = len(rows) - len(near) if told else 0
        return told, [one for one in without if one is not None], left

    @cached_property
    def _sections(self) -> dict[Section, list[dict[str, Any]]]:
        frame = self._board.frame
        found: dict[Section, list[dict[str, Any]]] = {}
        for section, rows in frame[frame["standing"] == "ranked"].groupby(SECTION, sort=False):
            labelled = rows.assign(label=row_labels(rows))
            found[tuple(map(str, section))] = [
                {str(name): value for name, value in row.items()} for row in labelled.to_dict("records")
            ]
        return found

    @cached_property
    def _places(self) -> dict[Row, tuple[Section, int]]:
        return {
            tuple(str(row[name]) for name in ROW): (section, place)
            for section, rows in self._sections.items()
            for place, row in enumerate(rows)
        }

    @cached_property
    def _differences(self) -> dict[tuple[str, ...], tuple[float, float, float, float]]:
        table = self._board.differences[[*SECTION, "first", "second", "difference", "low", "high", "adjusted_p"]]
        return {tuple(map(str, row[:-4])): row[-4:] for row in table.itertuples(index=False, name=None)}

    @cached_property
    def _without(self) -> dict[tuple[str, ...], Without]:
        table = self._board.without[[*SECTION, "task", "name", "score", "rank"]]
        return {
            tuple(map(str, row[:-2])): Without(str(row[-4]), float(row[-2]), _whole(row[-1]))
            for row in table.itertuples(index=False, name=None)
        }

    @cached_property
    def _tasks(self) -> Mapping[Section, tuple[str, ...]]:
        found: dict[Section, dict[str, None]] = {}
        for key in self._without:
            found.setdefault(key[: len(SECTION)], {})[key[-2]] = None
        return {section: tuple(tasks) for section, tasks in found.items()}

    def _matrix(self, section: Section, rows: list[dict[str, Any]]) -> Matrix:
        shown = rows[:MOST_ROWS]
        tasks = self._tasks.get(section, ())
        lines = [
            Line(
                row["label"],
                str(row["model"]),
                str(row["origin"]),
                float(row["score"]),
                _whole(row["rank"]),
                [None if row is other else self._against(section, row, other) for other in shown],
                [self._without.get((*section, task, row["label"])) for task in tasks],
            )
            for row in shown
        ]
        compared = any(one is not None for line in lines for one in line.against)
        return Matrix(section, len(rows), lines, compared, tasks)

    def _against(self, section: Section, row: dict[str, Any], other: dict[str, Any]) -> Against | None:
        name, model, origin = other["label"], str(other["model"]), str(other["origin"])
        found = self._differences.get((*section, row["label"], name))
        if found is not None:
            return Against(name, model, origin, *map(float, found))
        found = self._differences.get((*section, name, row["label"]))
        if found is None:
            return None
        difference, low, high, p = map(float, found)
        return Against(name, model, origin, -difference, -high, -low, p)


def p_words(p: float) -> str:
    """Return a p as a page shows it.

    >>> p_words(0.04712), p_words(0.0002), p_words(1.0), p_words(float("nan"))
    ('0.047', '<0.001', '1.000', '–')
    """
    if p != p:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)
