"""The board: one table, whole without a script, of sections that are never ranked together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from tlbench.report.board_data import FAMILIES, SPECIAL, board_data, section_title
from tlbench.report.content import LEVELS, Content
from tlbench.report.figures import drawn_rows, hollow
from tlbench.report.page import metric_words, number, render, script_json

HIDDEN_AT_FIRST: Final = ("weightings",)
_ABSENT: Final = "–"
_INFINITE: Final = {"inf": float("inf"), "-inf": float("-inf")}


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes
    ----------
    place : int
        In the data.
    row : mapping
    reason : str
        Why it is not ranked, where it is not.
    cells : mapping from a column to str
    bar : str
        Style of the bars beside the score, in per cent of their box; empty where there are none.
    """

    place: int
    row: Mapping[str, Any]
    reason: str
    cells: Mapping[str, str]
    bar: str


def board_page(
    content: Content, *, picture: str | Markup = "", figures: Sequence[str] = (), pictured: int | None = None
) -> str:
    """Return the page of the board.

    Parameters
    ----------
    content : Content
    picture : Markup, optional
        A drawing of the board, shown above the table.
    figures : sequence of str
        Paths of that drawing's files in the report.
    pictured : int, optional
        How many rows the drawing shows, where there are more that it could show.
    """
    data = board_data(content)
    opening = data["metrics"][0]
    exports = [
        (metric["words"], [(kind, export_path(metric["key"], kind)) for kind in ("csv", "json", "md", "tex")])
        for metric in data["metrics"]
    ]
    return render(
        "board.html",
        path="index.html",
        scripts=("board.js",),
        styles=("board.css",),
        suite=content.suite,
        analysed=content.analysis is not None,
        data=data,
        embedded=script_json(data | {"hidden": list(HIDDEN_AT_FIRST), "levels": dict(LEVELS)}),
        opening=opening,
        columns=data["columns"],
        families=[(key, word) for key, word in FAMILIES.items() if any(c["family"] == key for c in data["columns"])],
        spans=_spans(data, opening),
        groups=_groups(data, opening),
        layout=Markup(layout(data["columns"], opening)),
        hidden_families=HIDDEN_AT_FIRST,
        levels={level: LEVELS[level] for level in LEVELS if any(row["level"] == level for row in data["rows"])},
        protocols=sorted({row["protocol"] for row in data["rows"]}),
        backbones=sorted({row["backbone"] for row in data["rows"]}),
        models=int((content.board.frame["standing"] != "variant").sum()),
        pairs=len(content.suite.pairs),
        picture=picture,
        figures=figures,
        pictured=pictured,
        hollow=bool(hollow(drawn_rows(content.board)).any()),
        amounts=_amounts(content),
        exports=exports,
        comparisons=[(one, metric_words(one.metric, one.role)) for one in content.comparisons.values()],
        section_title=section_title,
    )


def _amounts(content: Content) -> list[str]:
    """Return how many rows of each standing there are, in words."""
    counts = content.board.frame["standing"].value_counts()
    words = {"control": "reference line", "variant": "variant"}
    told = []
    for standing in ("ranked", "unranked", "variant", "control", "incomplete"):
        count, word = int(counts.get(standing, 0)), words.get(standing, standing)
        if count:
            told.append(f"{count:,} {word}{'s' if standing in words and count > 1 else ''}")
    return told


def export_path(metric: str, ending: str) -> str:
    """Return where in a report a board's file lies; ``md`` is Markdown, ``tex`` LaTeX."""
    return f"exports/board-{metric}.{ending}"


def cell(column: Mapping[str, Any], metric: Mapping[str, Any], row: Mapping[str, Any], place: int) -> str:
    """Return what a cell of the opening view says; ``board.js`` has the same for every other view."""
    if column["key"] in row:
        return str(row[column["key"]])
    unit = column["unit"] or metric["unit"]
    values = [metric["values"][end][place] for end in column["ends"]]
    if column["key"] == "score" and values[0] is None:
        low, high = metric["low"][place], metric["high"][place]
        return _ABSENT if low is None else f"{_number(low, unit)} – {_number(high, unit)}"
    if any(value is None for value in values):
        return "" if unit in ("rank", "ranks", "interval", "text", "mark") else _ABSENT
    match unit:
        case "ranks":
            return str(values[0]) if values[0] == values[1] else f"{values[0]} – {values[1]}"
        case "interval":
            return " – ".join(_number(value, metric["unit"]) for value in values)
        case "mark":
            return "yes" if values[0] else ""
        case "rank" | "text":
            return str(values[0])
    return _number(values[0], unit)


def _number(value: Any, unit: str) -> str:
    return number(_INFINITE.get(value, value), unit)


def group_of(metric: Mapping[str, Any], row: Mapping[str, Any], place: int, sections: int) -> int:
    """Return the place of a row's group: its section where it has a score, else one of the groups below."""
    special = list(SPECIAL)
    if metric["values"]["score"][place] is None:
        return sections + special.index("incomplete")
    if metric["control"][place]:
        return sections + special.index("control")
    return sections + special.index("variant") if row["variant"] else int(row["section"])


def _groups(data: Mapping[str, Any], metric: Mapping[str, Any]) -> list[tuple[str, list[Line]]]:
    low, high = _range(metric)
    groups: list[tuple[str, list[Line]]] = [(title, []) for title in data["groups"]]
    for place, row in enumerate(data["rows"]):
        cells = {column["key"]: cell(column, metric, row, place) for column in data["columns"]}
        line = Line(place, row, metric["reason"][place], cells, bars(metric, place, low, high))
        groups[group_of(metric, row, place, data["sections"])][1].append(line)
    return groups


def _range(metric: Mapping[str, Any]) -> tuple[float, float]:
    """Return the ends of the scale of the bars: the scores and their intervals, controls apart, which lie far off."""
    names = ("score", "measurement_low", "measurement_high", "generalisation_low", "generalisation_high")
    found = [
        value
        for name in names
        for value, control in zip(metric["values"].get(name, ()), metric["control"], strict=False)
        if isinstance(value, int | float) and not control
    ]
    low, high = (min(found), max(found)) if found else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def bars(metric: Mapping[str, Any], place: int, low: float, high: float) -> str:
    """Return the style of a score's bars, in per cent of the scale: both intervals and the score itself.

    Empty where there is no score, or it is off the scale.
    """
    values = metric["values"]

    def at(name: str) -> float | None:
        value = values[name][place] if name in values else None
        return 100 * (value - low) / (high - low) if isinstance(value, int | float) else None

    middle = at("score")
    if middle is None or not 0 <= middle <= 100:
        return ""
    told = [f"--d:{middle:.1f}%"]
    for name, of in (("w", "generalisation"), ("n", "measurement")):
        left, right = at(f"{of}_low"), at(f"{of}_high")
        if left is not None and right is not None:
            left, right = max(left, 0.0), min(right, 100.0)
            told.append(f"--{name}:{left:.1f}%;--{name}w:{right - left:.1f}%")
    return ";".join(told)


def layout(columns: Sequence[Mapping[str, Any]], metric: Mapping[str, Any]) -> str:
    """Return the style of the opening view: which columns it shows, and how wide."""
    gone = [_hidden(column, metric) for column in columns]
    kept = [column for column, hidden in zip(columns, gone, strict=True) if not hidden]
    widths = ["var(--name)" if column["key"] == "name" else f"{column['width']:g}em" for column in kept]
    hidden = ", ".join(f"table.board .c{place}" for place, away in enumerate(gone) if away)
    rule = f"table.board {{ --columns: {' '.join(widths)}; --total: calc({' + '.join(widths)}); }}"
    return rule + (f" {hidden} {{ display: none !important; }}" if hidden else "")


def _hidden(column: Mapping[str, Any], metric: Mapping[str, Any]) -> bool:
    return column["key"] == metric["same"] or column["family"] in HIDDEN_AT_FIRST


def _spans(data: Mapping[str, Any], metric: Mapping[str, Any]) -> dict[str, int]:
    """Return how many columns of every family the opening view shows."""
    spans = dict.fromkeys(FAMILIES, 0)
    for column in data["columns"]:
        spans[column["family"]] += not _hidden(column, metric)
    return spans
