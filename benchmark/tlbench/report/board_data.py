"""The boards of a suite as one table of stored numbers: what the board page is drawn from, and carries as JSON.

Choosing another measure or one task on the page picks other columns of these; the page computes no score of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from tlbench.leaderboard.aggregate import Score
from tlbench.leaderboard.board import Board
from tlbench.leaderboard.prepared import ROW, Row
from tlbench.leaderboard.text import plain, plain_note
from tlbench.metrics.catalogue import METRICS
from tlbench.report.content import Content, model_path
from tlbench.report.page import metric_words, role_words
from tlbench.report.task_scores import seconds_of, task_scores, task_seconds

SECTION: Final = ("protocol", "shots", "precision", "pretraining")
SPECIAL: Final[Mapping[str, str]] = {
    "variant": "Variants, never ranked",
    "control": "Reference lines, never ranked",
    "incomplete": "Not complete, not ranked; between worst and best case",
}
"""Groups of rows below the ranked sections."""


@dataclass(frozen=True)
class Column:
    """A column of the board page.

    Attributes
    ----------
    key : str
        Its name in a board's frame; for an interval, what ``_low`` and ``_high`` are appended to.
    header, title : str
        Short, and in full.
    family : str
        The group of columns that it is shown and hidden with.
    unit : str
        As in the catalogue of metrics; ``""`` for the score's own, ``"text"``, ``"rank"``, ``"ranks"`` (an interval),
        ``"interval"``, ``"mark"``.
    width : float
        In em: equal widths in every row let a browser lay out thousands of them at once.
    higher : bool or None
        Whether more is better, and so which way a first click sorts; None follows the measure.
    """

    key: str
    header: str
    title: str
    family: str
    unit: str
    width: float
    higher: bool | None = False


def _beside(key: str, header: str, family: str, metric: str, title: str = "", *, width: float = 4.5) -> Column:
    info = METRICS[metric]
    return Column(key, header, title or info.description, family, info.unit, width, info.higher_is_better)


COLUMNS: Final = (
    Column("rank", "#", "rank among the rows of its section", "model", "rank", 2.8),
    Column("name", "Model", "a method with its settings", "model", "text", 14),
    Column("score", "Score", "the measure that was chosen, with its intervals as bars", "score", "", 10.8, None),
    Column("standard_error", "±", "standard error of measurement: if other images had been drawn", "score", "", 4),
    Column(
        "measurement", "95 %, same tasks",
        "where the score would lie with other images and seeds of the same pairs", "score", "interval", 7.6, None,
    ),
    Column(
        "generalisation", "95 %, new tasks", "where the score would lie on other tasks of this kind", "score",
        "interval", 7.6, None,
    ),
    Column("tie_group", "Tie", "rows of one group are not told apart; 1 holds the best", "score", "rank", 3.4),
    Column("rank_interval", "Rank, 95 %", "the ranks that the row may have", "score", "ranks", 5.2),
    Column("seeds_sd", "sd", "standard deviation over seeds", "score", "", 4),
    Column("seeds", "Seeds", "how many seeds the score rests on", "score", "text", 4.4),
    Column("backbone", "Backbone", "the pretrained network", "entry", "text", 9.4),
    Column("level", "Level", "how far the numbers have been checked", "entry", "text", 7.6),
    _beside("id_accuracy", "ID acc", "accuracy", "accuracy", "accuracy on the source's own test images"),
    _beside("ood_accuracy", "OOD acc", "accuracy", "accuracy", "accuracy on the target's test images"),
    _beside("accuracy_gap", "Gap", "accuracy", "accuracy_gap"),
    Column(
        "effective_robustness", "Eff. rob.", "OOD accuracy beyond what the baselines' line gives at this ID accuracy",
        "accuracy", "fraction", 4.6, True,
    ),
    _beside("nll", "NLL", "accuracy", "nll", width=5.2),
    _beside("brier", "Brier", "accuracy", "brier"),
    _beside("ece", "ECE", "calibration", "ece"),
    _beside("ece_scaled", "ECE scaled", "calibration", "ece_scaled"),
    _beside("mean_robust_accuracy", "Attacked", "adversarial", "mean_robust_accuracy", width=6),
    _beside("mean_corruption_accuracy", "Corrupted", "corruption", "mean_corruption_accuracy", width=6),
    _beside("mean_consistency", "Consist\u00adent", "invariance", "mean_consistency"),
    _beside("demographic_disparity", "Dispar\u00adity", "invariance", "demographic_disparity"),
    _beside("fit_seconds", "Fit, s", "cost", "fit_seconds"),
    Column("pareto", "Pareto", "no ranked row of the section is both better and cheaper", "cost", "mark", 5, True),
    Column("rank_by_pairs", "By pairs", "rank where every pair weighs the same", "weightings", "rank", 4.8),
    Column("rank_by_images", "By images", "rank where every image weighs the same", "weightings", "rank", 5),
    Column(
        "rank_without", "Leave one out", "least and greatest rank when each task is left out", "weightings", "ranks",
        6,
    ),
)  # fmt: skip

FAMILIES: Final[Mapping[str, str]] = {
    "model": "",
    "score": "Score",
    "entry": "Entry",
    "accuracy": "Accuracy",
    "calibration": "Calibration",
    "adversarial": "Adversarial",
    "corruption": "Corruption",
    "invariance": "Invariance",
    "cost": "Cost",
    "weightings": "Rank by other rules",
}

_ENDS: Final[Mapping[str, tuple[str, str]]] = {
    "measurement": ("measurement_low", "measurement_high"),
    "generalisation": ("generalisation_low", "generalisation_high"),
    "rank_interval": ("rank_low", "rank_high"),
    "rank_without": ("rank_without_low", "rank_without_high"),
}
_FIXED: Final = ("name", "backbone", "level")


def ends(column: Column) -> tuple[str, ...]:
    """Return the columns of a board's frame that a column shows: two for an interval."""
    return _ENDS.get(column.key, (column.key,))


def board_data(content: Content) -> dict[str, Any]:
    """Return every number of the board page, and its words as text.

    Returns
    -------
    dict
        ``rows``: one entry a row, in the order of the opening board: ``name``, ``backbone``, ``protocol``, ``level``,
        ``href``, ``section`` (place in ``groups``), ``variant``. ``groups``: titles, the sections first. ``columns``.
        ``metrics``: for every board, its words and ``values``, a list a column, those left out that are the first
        board's. ``tasks``: names, and ``values`` by measure.
    """
    told: dict[Row, dict[str, Any]] = {}
    for board in content.boards.values():
        for key, row in zip(_row_keys(board.frame), board.frame.to_dict("records"), strict=True):
            told.setdefault(key, {str(name): value for name, value in row.items()})
    place = {key: number for number, key in enumerate(told)}
    sections = list(dict.fromkeys(_sections(content)))
    frames = {metric: _placed(board.frame, place) for metric, board in content.boards.items()}
    columns = [column for column in COLUMNS if _there(column, frames.values())]
    metrics = [_metric(board, frames[metric], columns) for metric, board in content.boards.items()]
    for metric in metrics[1:]:
        # Measures beside the score are mostly those of the opening board: carried once.
        shared = metrics[0]["values"]
        metric["values"] = {name: values for name, values in metric["values"].items() if values != shared[name]}
    named = Counter((row["name"], row["origin"]) for row in told.values())
    return {
        "rows": [_row(row, named[row["name"], row["origin"]] > 1, sections) for row in told.values()],
        "groups": [*(section_title(*section) for section in sections), *SPECIAL.values()],
        "sections": len(sections),
        "columns": [vars(column) | {"ends": list(ends(column))} for column in columns],
        "metrics": metrics,
        "tasks": _tasks(content, list(told)) if len(content.suite.tasks) > 1 else [],
    }


def section_title(protocol: str, shots: str, precision: str, pretraining: str) -> str:
    """Return what the rows of a section have in common.

    >>> section_title("source-only", "full", "float32", "ImageNet")
    'source-only, all training images, pretraining: ImageNet'
    """
    amount = "all training images" if shots == "full" else f"{plain(shots)} images a class"
    weights = "no pretraining" if pretraining == "none" else f"pretraining: {plain(pretraining)}"
    measured = "" if precision in ("float32", "unknown") else f", measured in {plain(precision)}"
    return f"{plain(protocol)}, {amount}, {weights}{measured}"


def level_of(row: Mapping[str, Any]) -> str:
    """Return a row's level: what its frame says, ``own`` for local results."""
    if row["origin"] == "local":
        return "own"
    level = row.get("level")
    return level if isinstance(level, str) and level else "self-reported"


def _row_keys(frame: pd.DataFrame) -> list[Row]:
    return [tuple(map(str, key)) for key in frame[list(ROW)].itertuples(index=False, name=None)]


def _sections(content: Content) -> Iterator[tuple[str, ...]]:
    """Yield the sections of the rows, those that rank somebody first."""
    for wanted in (True, False):
        for board in content.boards.values():
            frame = board.frame
            ranked = frame["standing"].isin(["ranked", "unranked"]) == wanted
            yield from frame.loc[ranked, list(SECTION)].astype("str").itertuples(index=False, name=None)


def _placed(frame: pd.DataFrame, place: Mapping[Row, int]) -> pd.DataFrame:
    """Return a board's frame by the number of its rows."""
    return frame.set_index(pd.Index([place[key] for key in _row_keys(frame)])).reindex(range(len(place)))


def _there(column: Column, frames: Iterable[pd.DataFrame]) -> bool:
    """Whether a board has the column and something in it; the error bar gives way to the interval."""
    frames = list(frames)
    if column.key == "level":
        return True
    if column.key == "seeds":
        return any(frame["seeds"].astype("str").str.contains(" of ").any() for frame in frames)
    if column.key == "standard_error" and any(
        "measurement_low" in frame and frame["measurement_low"].notna().any() for frame in frames
    ):
        return False
    return any(all(end in frame and frame[end].notna().any() for end in ends(column)) for frame in frames)


def _row(told: Mapping[str, Any], clash: bool, sections: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    return {
        "name": plain(told["name"]),
        "full": plain_note(told["name"]) if len(told["name"]) > len(plain(told["name"])) else "",
        "mark": plain(told["settings_hash"])[:8] if clash else "",
        "backbone": plain(told["backbone"]),
        "protocol": plain(told["protocol"]),
        "level": level_of(told),
        "href": model_path(told["model"], told["origin"]),
        "section": sections.index(tuple(str(told[column]) for column in SECTION)),
        "variant": told["name"] != told["model"],
    }


def _metric(board: Board, frame: pd.DataFrame, columns: Sequence[Column]) -> dict[str, Any]:
    info = METRICS[board.metric]
    wanted = {end for column in columns if column.key not in _FIXED for end in ends(column)}
    values = {name: _listed(frame[name]) if name in frame else [None] * len(frame) for name in sorted(wanted)}
    return {
        "key": board.metric,
        "words": metric_words(board.metric, board.role),
        "about": f"{info.description}; {role_words(board.role)}; {'higher' if info.higher_is_better else 'lower'} is "
        "better",
        "unit": info.unit,
        "ranks": board.proper,
        "higher": info.higher_is_better,
        "same": _same(board),
        "pairs_only": board.these_pairs_only,
        "notes": [plain_note(note) for note in board.notes],
        "control": [int(standing == "control") for standing in frame["standing"]],
        "reason": [plain_note(value) if isinstance(value, str) else "" for value in frame["reason"]],
        "low": _listed(frame["low"]),
        "high": _listed(frame["high"]),
        "values": values,
    }


def _same(board: Board) -> str:
    """Return the column beside the score that would show the score again, if there is one."""
    if board.metric == "accuracy":
        return {"id-test": "id_accuracy", "ood-test": "ood_accuracy"}.get(board.role or "", "")
    return {"robust_accuracy": "mean_robust_accuracy", "corruption_accuracy": "mean_corruption_accuracy"}.get(
        board.metric, board.metric
    )


def _listed(column: pd.Series[Any]) -> list[Any]:
    return [_short(value) for value in column.tolist()]


def _short(value: Any) -> Any:
    """Return a number with what a page can show of it; infinities, which JSON lacks, as text."""
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else "inf" if value > 0 else "-inf"
    return plain(value)


def _tasks(content: Content, keys: Sequence[Row]) -> list[dict[str, Any]]:
    seconds = task_seconds(content)
    tasks = []
    for task, by_column in task_scores(content).items():
        values: dict[str, dict[str, list[Any]]] = {}
        for column, scores in by_column.items():
            found = [scores.get(key) for key in keys]
            values[column] = {"score": [_short(score.value) if score else None for score in found]}
            if column in content.boards:
                values[column] |= {
                    "standard_error": [_short(score.standard_error) if score else None for score in found],
                    "seeds_sd": [_short(score.seeds_sd) if score else None for score in found],
                    "low": [_short(score.low) if score else None for score in found],
                    "high": [_short(score.high) if score else None for score in found],
                    "reason": [_missing(score) for score in found],
                }
        values["fit_seconds"] = {"score": [_short(seconds_of(seconds[task], key)) for key in keys]}
        tasks.append({"name": task, "values": values})
    return tasks


def _missing(score: Score | None) -> str:
    return plain_note(score.reason) if score is not None else "nothing of this task"
