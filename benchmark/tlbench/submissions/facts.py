"""What is told of a pull request's submissions: plain data of a fixed form, texts and lists of bounded length.

It travels as JSON from the job that reads a stranger's files to the one that may write a comment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from tlbench.records.inventory import Closed

Text = Annotated[str, Field(max_length=2000)]
Number = float | None


class CheckFact(Closed):
    """The answer to one question of the verification."""

    name: Text
    status: Literal["ok", "warning", "mismatch", "not checked"]
    summary: Text


class RowFact(Closed):
    """A row of the board; numbers in the unit of its metric, rates as fractions."""

    name: Text
    standing: Text
    rank: int | None
    own: bool
    score: Number
    low: Number
    high: Number
    tie_group: int | None
    rank_low: int | None
    rank_high: int | None
    reason: Text = ""


class TaskFact(Closed):
    """A task's score, and that of the best ranked row of the section."""

    task: Text
    score: Number
    standard_error: Number
    best: Number


class SectionFact(Closed):
    """Where one row of the submission stands: its neighbours, itself among them, and its tasks."""

    title: tuple[Text, ...]
    ranked: int
    row: RowFact
    neighbours: tuple[RowFact, ...] = Field(max_length=20)
    ties: tuple[Text, ...] = Field(max_length=1000)
    generalisation_low: Number
    generalisation_high: Number
    tasks: tuple[TaskFact, ...] = Field(max_length=200)
    measures: Mapping[Text, Number]
    previous: Number


class Review(Closed):
    """All that is told of one submission."""

    format: Literal[1] = 1
    suite: Text
    suite_version: int
    model: Text
    ok: bool
    level: Text
    numbers: int
    metric: Text = ""
    percent: bool = True
    these_pairs_only: bool = False
    checks: tuple[CheckFact, ...] = Field((), max_length=100)
    sections: tuple[SectionFact, ...] = Field((), max_length=50)
    warnings: tuple[Text, ...] = Field((), max_length=200)


class Reviews(Closed):
    """Of one pull request; problems are those of the request as a whole."""

    format: Literal[1] = 1
    problems: tuple[Text, ...] = Field((), max_length=1000)
    reviews: tuple[Review, ...] = Field((), max_length=200)
