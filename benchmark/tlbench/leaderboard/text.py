"""A board as text: a table for terminals, Markdown, CSV, JSON. Names come from strangers and stay text."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tlbench.metrics.catalogue import METRICS

if TYPE_CHECKING:
    from tlbench.leaderboard.board import Board

_NARROWEST: Final = 60
_LONGEST_NAME: Final = 80
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]|~#])")
_ROLE_WORD: Final = {"ood-test": "OOD", "id-test": "ID", "id-val": "ID-val"}
_HEADERS: Final = {
    "id_accuracy": ("ID acc", "accuracy"),
    "ood_accuracy": ("OOD acc", "accuracy"),
    "accuracy_gap": ("gap", "accuracy_gap"),
    "nll": ("NLL", "nll"),
    "brier": ("Brier", "brier"),
    "ece": ("ECE", "ece"),
    "ece_scaled": ("ECE scaled", "ece_scaled"),
    "mean_corruption_accuracy": ("corrupted", "mean_corruption_accuracy"),
    "mean_robust_accuracy": ("attacked", "mean_robust_accuracy"),
    "mean_consistency": ("consistent", "mean_consistency"),
    "demographic_disparity": ("disparity", "demographic_disparity"),
    "fit_seconds": ("fit s", "fit_seconds"),
}
"""Header and metric of every column beside the score."""

_ELSEWHERE: Final = (
    "nll", "brier", "ece", "ece_scaled", "mean_corruption_accuracy", "mean_robust_accuracy", "mean_consistency",
    "demographic_disparity",
)  # fmt: skip
"""Columns beside the score of which a reader must be told where they are measured."""
_ERROR: Final = "±: standard error of measurement."
_IMAGES: Final = "95 %: where the score would lie with other images and seeds of the same pairs of domains."
_TASKS: Final = "other tasks: 95 % interval of the mean over tasks like these, by Student's t."
_TIES: Final = (
    "tie: rows of one group are not told apart from its best; ranks: those that a row may have; both keep the chance "
    "of any false difference in a section below 5 %"
)
_OTHERWISE: Final = (
    "otherwise: the rank where it differs with every pair counting alike (pairs), every image alike (images), or one "
    "task left out (tasks)."
)
_UNBEATEN: Final = "° no other row is as good and as cheap, and better in one of the two."
_LEVELS: Final = (
    "level: of recomputed rows the arithmetic is right; that the model made the predictions is known of reproduced "
    "ones alone."
)
_EFFECTIVE: Final = "beyond line: OOD accuracy above what the suite's frozen line expects of the ID accuracy."


@dataclass(frozen=True)
class _Column:
    header: str
    cell: Callable[[Any], str]
    left: bool = False


def plain(name: object) -> str:
    """Return a stranger's text as one line without control characters.

    >>> plain("a\\x1b[31m\\nb")
    'a[31m b'
    """
    spaced = re.sub(r"\s+", " ", str(name))
    # Category C: control characters, and the marks that turn the direction of what follows.
    kept = "".join(letter for letter in spaced if unicodedata.category(letter)[0] != "C")
    return kept if len(kept) <= _LONGEST_NAME else kept[: _LONGEST_NAME - 1] + "…"


def as_table(board: Board, width: int | None = None) -> str:
    """Return the board for a terminal; columns that do not fit continue in a second table of the same rows."""
    wide = max(_NARROWEST, width or shutil.get_terminal_size((100, 24)).columns)
    console = Console(
        file=io.StringIO(), width=wide, color_system=None, markup=False, highlight=False, emoji=False, soft_wrap=False
    )
    for line in _heading(board):
        console.print(Text(line))
    for title, rows, columns in _blocks(board):
        console.print()
        console.print(Text(title))
        for group in _folded(rows, columns, wide):
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
            for column in group:
                table.add_column(Text(column.header), justify="left" if column.left else "right", overflow="fold")
            for row in rows:
                table.add_row(*(Text(column.cell(row)) for column in group))
            console.print()
            console.print(table)
    console.print()
    for line in _footer(board):
        console.print(Text(line))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def as_markdown(board: Board) -> str:
    """Return the board as GitHub's Markdown."""
    lines = [_escaped(line) for line in _heading(board)]
    for title, rows, columns in _blocks(board):
        lines += ["", f"**{_escaped(title)}**", ""]
        lines.append("| " + " | ".join(_escaped(column.header) for column in columns) + " |")
        lines.append("| " + " | ".join(":--" if column.left else "--:" for column in columns) + " |")
        lines += ["| " + " | ".join(_escaped(column.cell(row)) for column in columns) + " |" for row in rows]
    for line in _footer(board):
        lines += ["", _escaped(line)]
    return "\n".join(lines) + "\n"


def as_csv(board: Board) -> str:
    """Return the board's frame as CSV, rates as fractions."""
    frame = board.frame.copy()
    for column in ("name", "model", "backbone", "reason"):
        frame[column] = [plain(value) for value in frame[column]]
    return str(frame.assign(metric=board.metric, suite_hash=board.suite_hash).to_csv(index=False, lineterminator="\n"))


def as_json(board: Board) -> str:
    """Return the board as JSON, rates as fractions; a number that is missing or infinite is null."""
    document = {
        "suite": board.suite,
        "suite_version": board.suite_version,
        "suite_hash": board.suite_hash,
        "metric": board.metric,
        "role": board.role,
        "proper": board.proper,
        "these_pairs_only": board.these_pairs_only,
        "notes": list(board.notes),
        "rows": _rows(board.frame),
        "differences": _rows(board.differences),
        "without": _rows(board.without),
    }
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): _value(value) for key, value in row.items()} for row in frame.to_dict("records")]


def _value(value: Any) -> Any:
    if isinstance(value, str):
        return plain(value)
    if value is None or value is pd.NA:
        return None
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _heading(board: Board) -> Iterator[str]:
    yield f"{board.suite}, version {board.suite_version} (hash {board.suite_hash[:12]}), by {_measure(board)}"
    if board.these_pairs_only:
        yield (
            "For these pairs only: with so few tasks nothing is said of other ones. Rows are compared by what other "
            "images and seeds of these pairs would give."
        )
    for note in board.notes:
        yield f"Note: {plain_note(note)}"


def plain_note(note: str) -> str:
    """Return a note without control characters, however long."""
    return "".join(letter for letter in re.sub(r"\s+", " ", note) if unicodedata.category(letter)[0] != "C")


def _measure(board: Board) -> str:
    words = re.sub(r"\b(nll|ece)\b", lambda found: found[0].upper(), board.metric.replace("_", " "))
    return f"{_ROLE_WORD[board.role]} {words}" if board.role else words


def _blocks(board: Board) -> Iterator[tuple[str, list[Any], list[_Column]]]:
    """Yield title, rows and columns of every table: the sections, variants, controls, what is not complete."""
    frame = board.frame
    named = _names(frame)
    rows: list[Any] = list(frame.assign(name=named).itertuples(index=False))
    shown = [row for row in rows if row.standing in ("ranked", "unranked")]
    several = len({(row.protocol, row.shots) for row in rows}) > 1
    for section in dict.fromkeys((row.protocol, row.shots, row.precision, row.pretraining) for row in shown):
        inside = [row for row in shown if (row.protocol, row.shots, row.precision, row.pretraining) == section]
        yield _title(*section), inside, _columns(board, ranks=True)
    variants = [row for row in rows if row.standing == "variant"]
    if variants:
        yield "Variants, never ranked", variants, _columns(board, ranks=False, section=several)
    controls = [row for row in rows if row.standing == "control" and not math.isnan(row.score)]
    if controls:
        yield "Reference lines, never ranked", controls, _columns(board, ranks=False, section=several)
    rest = [row for row in rows if math.isnan(row.score)]
    if rest:
        yield "Not complete", rest, _incomplete_columns(board, several)


def _title(protocol: str, shots: str, precision: str, pretraining: str) -> str:
    amount = "all training images" if shots == "full" else f"{plain(shots)} images a class"
    weights = "no pretraining" if pretraining == "none" else f"pretraining: {plain(pretraining)}"
    # float32 is what everybody expects; of outputs from elsewhere nobody knows.
    measured = "" if precision in ("float32", "unknown") else f", measured in {plain(precision)}"
    return f"{plain(protocol)}, {amount}, {weights}{measured}"


def _names(frame: pd.DataFrame) -> list[str]:
    """Return what every row is called: with a mark if it is one's own, and its settings' hash where names clash."""
    keys = list(zip(frame["name"], frame["origin"], frame["backbone"], frame["protocol"], frame["shots"], strict=True))
    names = []
    for key, name, origin, settings in zip(keys, frame["name"], frame["origin"], frame["settings_hash"], strict=True):
        clash = f" ({plain(settings)[:8]})" if keys.count(key) > 1 else ""
        names.append(plain(name) + clash + (" *" if origin == "local" else ""))
    return names


def _columns(board: Board, *, ranks: bool, section: bool = False) -> list[_Column]:
    unit = METRICS[board.metric].unit
    columns = [_Column("#", lambda row: "" if pd.isna(row.rank) else str(row.rank))] if ranks else []
    columns.append(_Column("model", lambda row: row.name, left=True))
    if section:
        columns.append(_Column("protocol", lambda row: f"{plain(row.protocol)}, {plain(row.shots)}", left=True))
    columns.append(_Column("backbone", lambda row: plain(row.backbone), left=True))
    columns.append(_Column(_measure(board), lambda row: _with_error(row.score, row.standard_error, unit)))
    told = _Told.of(board.frame)
    if told.images:
        columns.append(_Column("95 %", lambda row: _interval(row.measurement_low, row.measurement_high, unit)))
    if told.tasks:
        columns.append(
            _Column("other tasks", lambda row: _interval(row.generalisation_low, row.generalisation_high, unit))
        )
    if ranks and told.ties:
        columns.append(_Column("tie", lambda row: "" if pd.isna(row.tie_group) else str(row.tie_group)))
        columns.append(_Column("ranks", lambda row: _range(row.rank_low, row.rank_high)))
    if ranks and told.otherwise:
        columns.append(_Column("otherwise", _otherwise, left=True))
    columns.append(_Column("sd", lambda row: _number(row.seeds_sd, unit)))
    if board.frame["seeds"].str.contains(" of ").any():
        columns.append(_Column("seeds", lambda row: row.seeds))
    if told.levels:
        columns.append(_Column("level", lambda row: row.level, left=True))
    for key, (header, metric) in _HEADERS.items():
        if _left_out(board, key):
            continue
        columns.append(_Column(header, _cost if key == "fit_seconds" else _cell(key, METRICS[metric].unit)))
    if told.effective:
        columns.append(_Column("beyond line", _cell("effective_robustness", "fraction")))
    return columns


def _left_out(board: Board, key: str) -> bool:
    """Whether a column beside the score would show the score again, or nothing."""
    metric = _HEADERS[key][1]
    same = metric == board.metric and (key not in ("id_accuracy", "ood_accuracy") or _role_of(key) == board.role)
    return same or bool(board.frame[key].isna().all())


@dataclass(frozen=True)
class _Told:
    """Which of the statistics there are, so that no column is empty and no line explains what is not shown."""

    images: bool
    tasks: bool
    ties: bool
    otherwise: bool
    levels: bool
    unbeaten: bool
    effective: bool

    @classmethod
    def of(cls, frame: pd.DataFrame) -> _Told:
        return cls(
            images=bool(frame["measurement_low"].notna().any()),
            tasks=bool(frame["generalisation_low"].notna().any()),
            # A row that has nobody to be compared with is told apart from nobody.
            ties=bool((frame["rank_high"].fillna(1) > 1).any()),
            otherwise=any(_otherwise(row) for row in frame.itertuples(index=False)),
            levels=bool((frame["level"] != "self-reported").any()),
            unbeaten=bool(frame["pareto"].any()),
            effective="effective_robustness" in frame and bool(frame["effective_robustness"].notna().any()),
        )


def _otherwise(row: Any) -> str:
    """Say which rank a row has under other weightings, where it is another one."""
    parts = [
        f"{word} {rank}"
        for word, rank in (("pairs", row.rank_by_pairs), ("images", row.rank_by_images))
        if not pd.isna(rank) and rank != row.rank
    ]
    low, high = row.rank_without_low, row.rank_without_high
    if not pd.isna(low) and (low != row.rank or high != row.rank):
        parts.append(f"tasks {_range(low, high)}")
    return ", ".join(parts)


def _range(low: Any, high: Any) -> str:
    if pd.isna(low) or pd.isna(high):
        return ""
    return str(low) if low == high else f"{low}–{high}"


def _interval(low: float, high: float, unit: str) -> str:
    return "" if math.isnan(low) else f"{_number(low, unit)} to {_number(high, unit)}"


def _cost(row: Any) -> str:
    return _number(row.fit_seconds, "seconds") + (" °" if row.pareto else "")


def _role_of(key: str) -> str:
    return {"id_accuracy": "id-test", "ood_accuracy": "ood-test"}[key]


def _cell(key: str, unit: str) -> Callable[[Any], str]:
    return lambda row: _number(getattr(row, key), unit)


def _incomplete_columns(board: Board, several: bool) -> list[_Column]:
    unit = METRICS[board.metric].unit
    columns = [_Column("model", lambda row: row.name, left=True)]
    if several:
        columns.append(_Column("protocol", lambda row: f"{plain(row.protocol)}, {plain(row.shots)}", left=True))
    return [
        *columns,
        _Column("cells", lambda row: f"{row.found} of {row.expected}"),
        _Column("between", lambda row: _between(row.low, row.high, unit)),
        _Column("reason", lambda row: plain_note(row.reason)[:200], left=True),
    ]


def _between(low: float, high: float, unit: str) -> str:
    return "" if math.isnan(low) else f"{_number(low, unit)} and {_number(high, unit)}"


def _with_error(value: float, error: float, unit: str) -> str:
    return _number(value, unit) + ("" if math.isnan(error) else f" ± {_number(error, unit)}")


def _number(value: float, unit: str) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    if unit == "fraction":
        return f"{100 * value:.1f}"
    if unit == "epsilon":
        return f"{value * 255:.2f}/255"
    return f"{value:.1f}" if unit in ("seconds", "count") else f"{value:.3f}"


def _folded(rows: list[Any], columns: list[_Column], width: int) -> Iterator[list[_Column]]:
    """Yield groups of columns that fit the width, each led by the columns that say whose row it is."""
    leading = [column for column in columns[:2] if column.header in ("#", "model")]

    def needed(group: list[_Column]) -> int:
        return sum(max(cell_len(text) for text in (c.header, *map(c.cell, rows))) + 3 for c in group)

    group = list(leading)
    for column in columns[len(leading) :]:
        if len(group) > len(leading) and needed([*group, column]) > width and column.header != "reason":
            yield group
            group = list(leading)
        group.append(column)
    yield group


def _legend(board: Board, scored: pd.DataFrame) -> str:
    """Return what the columns that are there mean; rows without a score have none of them."""
    there = [key for key in _HEADERS if len(scored) and not _left_out(board, key)]
    away = [_HEADERS[key][0] for key in _ELSEWHERE if key in there]
    parts = [
        *(["sd: spread over seeds"] if len(scored) else []),
        *(["gap: ID minus OOD accuracy"] if "accuracy_gap" in there else []),
    ]
    if away:
        named = f"{away[0]} to {away[-1]}" if len(away) > 1 else away[0]
        parts.append(f"{named} on OOD-test images where the suite measures them there, else on ID-test")
    if "mean_robust_accuracy" in there:
        parts.append("attacked: mean over epsilons")
    return "; ".join([*parts, "rates in %."])


def _footer(board: Board) -> Iterator[str]:
    if not len(board.frame):
        suite = plain_note(board.reference or board.suite)
        so_far = "Nothing of this suite's seeds" if board.notes else "Nothing"
        yield f"{so_far} has been measured yet; next: tlbench evaluate --suite {suite} --model linear-probe"
        return
    scored = board.frame[board.frame["score"].notna()]
    yield _legend(board, scored)
    if scored["standard_error"].notna().any():
        yield _ERROR
    told = _Told.of(board.frame)
    by = "by images and seeds" if board.these_pairs_only else "over tasks"
    for line, there in (
        (_IMAGES, told.images),
        (_TASKS, told.tasks),
        (f"{_TIES}, compared {by}.", told.ties),
        (_OTHERWISE, told.otherwise),
        (_UNBEATEN, told.unbeaten),
        (_LEVELS, told.levels),
        (_EFFECTIVE, told.effective),
    ):
        if there:
            yield line
    if (board.frame["origin"] == "local").any():
        yield "* your own results, not published."
    unranked = board.frame[(board.frame["standing"] == "unranked") & (board.frame["reason"] != "")]
    for reason, rows in unranked.groupby("reason", sort=False):
        names = ", ".join(map(plain, rows["name"]))
        yield f"{names} {'is' if len(rows) == 1 else 'are'} not ranked: {plain_note(str(reason))}"
