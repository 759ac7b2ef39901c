"""What a pull request's reader wants to know of a submission: does it verify, and where would it stand on the board?

`tlbench.submissions.comment` turns the facts into Markdown.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from tlbench.errors import PluginError
from tlbench.leaderboard.aggregate import score_rows
from tlbench.leaderboard.board import BESIDE, Board, make_board, needed
from tlbench.leaderboard.effective import baseline_of
from tlbench.leaderboard.forms import form
from tlbench.leaderboard.measured import load_measured
from tlbench.leaderboard.prepared import ROW, prepare
from tlbench.leaderboard.tables import load_priced, load_scored
from tlbench.methods.card import read_published_card
from tlbench.metrics.catalogue import METRICS
from tlbench.records.inventory import CARD
from tlbench.records.published import model_folder
from tlbench.submissions.card import is_row_of
from tlbench.submissions.facts import CheckFact, Review, RowFact, SectionFact, TaskFact
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tlbench.submissions.verification.report import Report

_NEIGHBOURS: Final = 2
_SECTION: Final = ("protocol", "shots", "precision", "pretraining")


def review(folder: Path, suite: Suite, model: str, report: Report, *, results: Path) -> Review:
    """Return what is to be told of a submission.

    Parameters
    ----------
    folder : Path
        Its files.
    suite : Suite
    model : str
    report : Report
        Of its verification; of one that does not verify, no score is told.
    results : Path
        The published results that it wants to join; nothing is written there.
    """
    checks = tuple(
        CheckFact(name=check.name, status=check.status, summary=_cut(check.summary)) for check in report.checks
    )
    told = Review(
        suite=suite.name,
        suite_version=suite.version,
        model=model,
        ok=report.ok,
        level=report.level,
        numbers=report.numbers,
        checks=checks,
    )
    if not report.ok:
        return told
    with _joined(folder, suite, model, results) as together, tempfile.TemporaryDirectory() as nowhere:
        place: dict[str, Any] = {"run_dir": Path(nowhere) / "none", "results": together}
        records = load_scored(suite, needed(suite), **place)
        board = make_board(
            records,
            load_priced(suite, **place),
            suite,
            measured=load_measured(suite, **place),
            baseline=baseline_of(suite),
        )
        before = _score_before(suite, model, results, Path(nowhere) / "none")
    frame = board.frame
    own = frame[frame["model"] == model]
    metric = METRICS[board.metric]
    return told.model_copy(
        update={
            "metric": board.metric,
            "percent": metric.unit != "nats",
            "these_pairs_only": board.these_pairs_only,
            "sections": tuple(_section(board, suite, records, index, before) for index in own.index),
            "warnings": tuple(_cut(text) for text in _warnings(folder, records, board, model)),
        }
    )


@contextmanager
def _joined(folder: Path, suite: Suite, model: str, results: Path) -> Iterator[Path]:
    """Yield a folder of published results in which the submission has taken its place."""
    with tempfile.TemporaryDirectory(prefix="tlbench-review-") as name:
        root = Path(name)
        target = model_folder(root, suite.name, model)
        for place in sorted((results / suite.name).glob("[!.]*/")):
            if place.name != target.name and not place.is_symlink():
                _link(place, root / suite.name / place.name)
        _link(folder, target)
        yield root


def _link(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and not path.is_symlink():
            try:
                os.link(path, target / path.name)
            except OSError:
                shutil.copy2(path, target / path.name)


def _score_before(suite: Suite, model: str, results: Path, nowhere: Path) -> Mapping[tuple[str, ...], float]:
    """Return the published scores of the same model, by section."""
    if not (model_folder(results, suite.name, model) / "records.parquet").is_file():
        return {}
    place: dict[str, Any] = {"run_dir": nowhere, "results": results}
    records, fits = load_scored(suite, needed(suite), **place), load_priced(suite, **place)
    kept = records[records["model"] == model]
    kept = kept.astype({name: "str" for name in kept if isinstance(kept[name].dtype, pd.CategoricalDtype)})
    frame = make_board(kept, fits[fits["model"] == model], suite).frame
    rows: list[Any] = frame.to_dict("records")
    return {(row["name"], *(row[column] for column in _SECTION)): row["score"] for row in rows}


def _section(
    board: Board, suite: Suite, records: pd.DataFrame, index: int, before: Mapping[tuple[str, ...], float]
) -> SectionFact:
    frame = board.frame
    row: Any = frame.loc[index]
    section = frame[(frame[list(_SECTION)] == row[list(_SECTION)]).all(axis=1)]
    ranked = section[section["rank"].notna()]
    near = ranked
    if index in ranked.index:
        place = list(ranked.index).index(index)
        near = ranked.iloc[max(0, place - _NEIGHBOURS) : place + _NEIGHBOURS + 1]
    else:
        near = pd.concat([ranked.head(_NEIGHBOURS), frame.loc[[index]]])
    group = _whole(row, "tie_group")
    ties = [] if group is None else [r for i, r in ranked.iterrows() if _whole(r, "tie_group") == group and i != index]
    best = ranked.iloc[0] if len(ranked) else None
    return SectionFact(
        title=tuple(str(row[column]) for column in _SECTION),
        ranked=len(ranked),
        row=_row_fact(row, own=True),
        neighbours=tuple(_row_fact(other, own=i == index) for i, other in near.iterrows()),
        ties=tuple(_cut(str(other["name"])) for other in ties),
        generalisation_low=_number(row, "generalisation_low"),
        generalisation_high=_number(row, "generalisation_high"),
        tasks=_tasks(suite, board.metric, records, row, best),
        measures={name: _number(row, name) for name in BESIDE if name in frame},
        previous=_finite(before.get((row["name"], *(row[column] for column in _SECTION)))),
    )


def _row_fact(row: Any, *, own: bool) -> RowFact:
    low, high = _number(row, "measurement_low"), _number(row, "measurement_high")
    if low is None and row["standing"] == "incomplete":
        low, high = _number(row, "low"), _number(row, "high")
    return RowFact(
        name=_cut(str(row["name"])),
        standing=str(row["standing"]),
        rank=_whole(row, "rank"),
        own=own,
        score=_number(row, "score"),
        low=low,
        high=high,
        tie_group=_whole(row, "tie_group"),
        rank_low=_whole(row, "rank_low"),
        rank_high=_whole(row, "rank_high"),
        reason=_cut(str(row["reason"])),
    )


def _tasks(suite: Suite, metric: str, records: pd.DataFrame, row: Any, best: Any) -> tuple[TaskFact, ...]:
    """Return a row's score on every task, and that of the best row."""
    whole = form(suite, metric)
    models = [row["model"], *([] if best is None else [best["model"]])]
    prepared = prepare(records[records["model"].isin(models)], suite.protocol.seeds)
    facts = []
    for task in suite.tasks:
        terms = whole.terms[whole.terms["task"] == task]
        # A task has one part in as many as there are tasks.
        part = replace(whole, terms=terms.assign(weight=terms["weight"] * len(suite.tasks)))
        scores = {_identity(of): score for of, score in score_rows(prepared, part, tuple(suite.protocol.seeds)).items()}
        own, other = scores.get(_identity_of(row)), None if best is None else scores.get(_identity_of(best))
        facts.append(
            TaskFact(
                task=task,
                score=_finite(own.value if own else None),
                standard_error=_finite(own.standard_error if own else None),
                best=_finite(other.value if other else None),
            )
        )
    return tuple(facts)


def _warnings(folder: Path, records: pd.DataFrame, board: Board, model: str) -> Iterator[str]:
    own = records[records["model"] == model]
    try:
        card = read_published_card(folder / CARD)
    except PluginError as problem:
        yield str(problem).replace(f"{folder}{os.sep}", "")
    else:
        used = set(own["backbone"].astype("str"))
        if not is_row_of(card.name, model):
            yield f"the card is that of {card.name!r}, the row is {model!r}"
        if card.backbone is not None and used and card.backbone not in used:
            yield f"the card names backbone {card.backbone!r}, the records {sorted(used)[0]!r}"
        if not card.authors:
            yield "the card names no authors"
        if not card.licence:
            yield "the card names no licence"
    yield from sorted(set(board.frame.loc[board.frame["model"] == model, "reason"]) - {""})
    yield from (note for note in board.notes if model in note)


def _identity(row: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(str(value) for value in row)


def _identity_of(row: Any) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in ROW)


def _number(row: Any, column: str) -> float | None:
    return _finite(row.get(column))


def _whole(row: Any, column: str) -> int | None:
    value = row.get(column)
    return None if value is None or pd.isna(value) else int(value)


def _finite(value: Any) -> float | None:
    return None if value is None or pd.isna(value) or not math.isfinite(value) else float(value)


def _cut(text: str) -> str:
    return text if len(text) <= 1000 else text[:999] + "…"
