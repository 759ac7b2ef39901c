"""The figures of an analysis: estimates with their intervals, scatters of runs, loadings, critical differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from tlbench.analysis.answer import Answer
from tlbench.report.drawing import line, svg, text
from tlbench.report.figures import INK, PALETTE, Figure, draw, labels

if TYPE_CHECKING:
    import altair as alt

    from tlbench.analysis.questions import Analysis

MOST_ROWS: Final = 60
"""More estimates than this are no figure but a table."""
MOST_PANELS: Final = 24
MOST_POINTS: Final = 4000
_WIDTH: Final = 420


def analysis_figures(analysis: Analysis) -> dict[str, list[Figure]]:
    """Return the figures of every question that has some, by its id."""
    figures = {answer.id: _of(answer) for answer in analysis.answers.values() if answer.tables}
    if "A3" in figures:
        figures["A3"] += scatter(analysis.runs, analysis.answers["A3"].tables["pairs"])
    return {name: found for name, found in figures.items() if found}


def _of(answer: Answer) -> list[Figure]:
    tables = answer.tables
    if answer.id == "A11":
        return loadings(tables["loadings"])
    if answer.id == "A15":
        return critical_differences(tables["ranks"], tables["tests"])
    found = []
    for table, columns, value, words in _INTERVALS.get(answer.id, ()):
        if table in tables:
            found += intervals(f"{answer.id.lower()}-{table}-{value}", tables[table], columns, value, words)
    return [figure for figure in found if figure is not None]


_PAIR: Final = ("task", "source", "target")
_INTERVALS: Final[Mapping[str, Sequence[tuple[str, Sequence[str], str, str]]]] = {
    "A1": (("pairs", _PAIR, "spearman", "Spearman correlation of ID and OOD accuracy"),),
    "A4": (("measures", ("task", "measure"), "spearman", "Spearman correlation with OOD accuracy"),),
    "A5": (("pairs", _PAIR, "difference", "lead of a second OOD domain over ID accuracy"),),
    "A6": (
        ("measures", ("measure",), "partial", "partial Spearman correlation with OOD accuracy"),
        ("measures", ("measure",), "gain", "gain in the explained share of variance"),
    ),
    "A7": (("predictors", ("predictor",), "partial", "partial Spearman correlation with OOD accuracy"),),
    "A8": (("measures", ("measure",), "spearman", "Spearman correlation of ID and OOD"),),
    "A9": (("pairs", _PAIR, "with_ood", "Spearman correlation of ID and OOD calibration"),),
    "A10": (("tasks", ("task",), "partial", "partial Spearman correlation with OOD accuracy"),),
    "A12": (("effects", ("shots", "augment", "outcome"), "difference", "difference from identity"),),
    "A13": (("effects", ("shots", "outcome"), "difference", "all weights minus a head alone"),),
    "A14": (("measures", ("measure",), "spearman", "Spearman correlation with mean OOD accuracy"),),
    "A16": (
        ("within", ("task",), "epochs", "correlation of ID and OOD accuracy within configurations, over epochs"),
        ("within", ("task",), "seeds", "correlation of ID and OOD accuracy within configurations, over seeds"),
        ("effects", ("setting", "level", "shots", "outcome"), "difference", "difference from the smallest value"),
    ),
    "A17": (("variance", ("measure",), "seed_share", "share of variance between seeds"),),
}


def intervals(name: str, table: pd.DataFrame, columns: Sequence[str], value: str, words: str) -> list[Figure]:
    """Return estimates as points with their intervals, one row each, in the order of the table.

    Parameters
    ----------
    name : str
    table : DataFrame
        With ``value``, and ``<value>_low`` and ``<value>_high``.
    columns : sequence of str
        Which name a row.
    value, words : str
        The column, and what it is.

    Returns
    -------
    list of Figure
        None where there are no numbers, or too many to be read.
    """
    if value not in table:
        return []
    known = table[table[value].notna()]
    if not 0 < len(known) <= MOST_ROWS:
        return []
    shown = [column for column in columns if column in known and known[column].nunique() > 1] or [columns[-1]]
    named = labels([_row_name(row, shown) for row in known.to_dict("records")])
    rows = [
        {
            "row": f"{place:03}",
            "name": label,
            "value": row[value],
            "low": row[f"{value}_low"],
            "high": row[f"{value}_high"],
        }
        for place, (label, row) in enumerate(zip(named, known.to_dict("records"), strict=True))
    ]
    parts = [f"{row['name']} {row['value']:.2f}" for row in rows[:8]]
    description = f"{words}: {'; '.join(parts)}{'; ...' if len(rows) > len(parts) else ''}. Bars are 95 % intervals."
    return [draw(_dots(rows, words), name=name, title=words[:1].upper() + words[1:], description=description)]


def _row_name(row: Mapping[Any, Any], columns: Sequence[str]) -> str:
    words = {column: str(row[column]).replace("_", " ") for column in columns}
    if "source" in words and "target" in words:
        words["source"] += f" to {words.pop('target')}"
    return ", ".join(words.values())


def _dots(rows: list[dict[str, Any]], words: str) -> alt.TopLevelMixin:
    import altair as alt

    finite = [{key: None if item != item else item for key, item in row.items()} for row in rows]
    base = alt.Chart(alt.InlineData(values=finite)).encode(
        y=alt.Y(
            "row:O",
            sort=None,
            title=None,
            axis=alt.Axis(
                labelExpr=_names({row["row"]: row["name"] for row in rows}), labelLimit=280, ticks=False, domain=False
            ),
        )
    )
    zero = alt.Chart(alt.InlineData(values=[{"x": 0}])).mark_rule(color=INK, opacity=0.4).encode(x="x:Q")
    bars = base.mark_rule(color=PALETTE[0], strokeWidth=2).encode(x=alt.X("low:Q", title=words), x2="high:Q")
    dots = base.mark_circle(color=PALETTE[0], size=60, opacity=1).encode(x="value:Q")
    return alt.layer(zero, bars, dots).properties(width=_WIDTH, height=18 * len(rows) + 4)


def _names(names: Mapping[str, str]) -> str:
    """Return a Vega expression that writes a name in the place of its key; names are data, never code."""
    import json

    # JSON is a literal of Vega's expressions, too.
    return f"({json.dumps(dict(names))})[datum.value]"


def scatter(runs: pd.DataFrame, pairs: pd.DataFrame) -> list[Figure]:
    """Return small scatters of OOD against ID accuracy, a panel a pair with its shape, coloured by method.

    Panels are the first pairs of the table; where there are more points than can be drawn, every n-th one is.
    """
    import altair as alt

    told = pairs[pairs["reason"] == ""].head(MOST_PANELS)
    panel_of = {
        (row["task"], row["source"], row["target"]): f"{row['source']} to {row['target']}: {row['shape']}"
        for row in told.to_dict("records")
    }
    keys = list(zip(runs["task"], runs["source"], runs["target"], strict=True))
    shown = runs[[key in panel_of for key in keys]].dropna(subset=["id_accuracy", "ood_accuracy"])
    if not len(shown):
        return []
    shown = shown.iloc[:: 1 + len(shown) // MOST_POINTS]
    shown = shown.assign(trained=shown["cluster"].str.rpartition(" on ")[0])
    common = shown["trained"].value_counts().index[: len(PALETTE) - 1]
    rows = [
        {
            "x": 100 * row["id_accuracy"],
            "y": 100 * row["ood_accuracy"],
            "panel": labels([panel_of[row["task"], row["source"], row["target"]]])[0],
            "method": labels([row["trained"]])[0] if row["trained"] in common else "others",
        }
        for row in shown.to_dict("records")
    ]
    methods = sorted(dict.fromkeys(row["method"] for row in rows), key=lambda name: name == "others")  # they come last
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_circle(size=28, opacity=0.75)
        .encode(
            x=alt.X("x:Q", title="ID accuracy, %", scale=alt.Scale(zero=False, nice=True), axis=alt.Axis(tickCount=4)),
            y=alt.Y("y:Q", title="OOD accuracy, %", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4)),
            color=alt.Color(
                "method:N",
                title="method",
                sort=None,
                scale=alt.Scale(domain=methods, range=list(PALETTE[: len(methods)])),
            ),
            facet=alt.Facet("panel:N", title=None, columns=3, sort=list(dict.fromkeys(row["panel"] for row in rows))),
        )
        .properties(width=150, height=120)
        .resolve_scale(x="independent", y="independent")
    )
    counts = told["shape"].value_counts()
    description = "; ".join(f"{count} pairs: {shape}" for shape, count in counts.items())
    return [draw(chart, name="a3-scatter", title="OOD against ID accuracy, a point a run", description=description)]


def loadings(table: pd.DataFrame) -> list[Figure]:
    """Return one heat map of loadings a scope, variables by factors."""
    import altair as alt

    found = []
    for number, (scope, own) in enumerate(table.groupby("scope", sort=False)):
        rows = [
            {
                "variable": row["variable"].replace("_", " "),
                "factor": f"factor {row['factor']}",
                "loading": row["loading"],
                "told": f"{row['loading']:.2f}".replace("-", "−"),
            }
            for row in own.to_dict("records")
        ]
        order = list(dict.fromkeys(row["variable"] for row in rows))
        base = alt.Chart(alt.InlineData(values=rows)).encode(
            x=alt.X("factor:N", title=None, axis=alt.Axis(orient="top", labelAngle=0)),
            y=alt.Y("variable:N", title=None, sort=order, axis=alt.Axis(labelLimit=280)),
        )
        cells = base.mark_rect().encode(
            color=alt.Color(
                "loading:Q",
                legend=None,  # its gradient would have an id; the numbers stand in the cells
                scale=alt.Scale(domain=[-1, 0, 1], range=[PALETTE[1], "#f2f2f2", PALETTE[0]], interpolate="rgb"),
            )
        )
        # Words lie on the cells' own colours, on a dark page, too: not in the page's colour.
        words = base.mark_text(color="#101214").encode(text="told:N")
        height = 22 * len(order)
        chart = (cells + words).properties(width=90 * own["factor"].nunique(), height=height)
        title = "Loadings of the measures" + ("" if scope == "(all)" else f", task {labels([str(scope)])[0]}")
        high = own[own["loading"].abs() >= 0.4].sort_values("factor", kind="stable")
        parts = [f"factor {row['factor']}: {row['variable']} {row['loading']:.2f}" for row in high.to_dict("records")]
        found.append(draw(chart, name=f"a11-loadings-{number}", title=title, description="; ".join(parts)))
    return found


def critical_differences(ranks: pd.DataFrame, tests: pd.DataFrame) -> list[Figure]:
    """Return one critical-difference diagram a measure: mean ranks, and bars over those that are not told apart."""
    return [
        _diagram(str(row["measure"]), ranks[ranks["measure"] == row["measure"]], float(row["critical_difference"]))
        for row in tests.to_dict("records")
    ]


def _diagram(measure: str, ranks: pd.DataFrame, difference: float) -> Figure:
    """Draw ranks from best, at the left, to worst; names below, the critical difference above the axis."""
    names, values = labels([str(name) for name in ranks["backbone"]]), ranks["mean_rank"].to_numpy(np.float64)
    most, left, width, top = len(names), 40.0, 520.0, 46.0
    place: Callable[[float], float] = lambda rank: left + width * (rank - 1) / max(most - 1, 1)  # noqa: E731
    shapes = [line(place(1), top, place(most), top)]
    for rank in range(1, most + 1):
        shapes += [line(place(rank), top - 5, place(rank), top), text(place(rank), top - 9, str(rank), anchor="middle")]
    end = place(min(1 + difference, most))
    shapes += [
        line(place(1), 14, end, 14, width=2),
        text(end + 6, 18, f"critical difference {difference:.2f}"),
    ]
    bars = _bars(ranks["groups"].tolist(), values)
    for level, (first, last) in enumerate(bars):
        y = top + 10 + 7 * level
        shapes.append(line(place(first) - 3, y, place(last) + 3, y, colour=PALETTE[0], width=3))
    below = top + 16 + 7 * len(bars)
    half = (most + 1) // 2
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        # The better half is written on the left from the top, the other on the right from the bottom.
        mine = number < half
        y = below + 18 * (number if mine else most - 1 - number) + 8
        edge = left - 20 if mine else left + width + 20
        shapes += [line(place(value), top, place(value), y), line(place(value), y, edge, y)]
        told = f"{name}  {value:.2f}"
        shapes.append(text(edge - 4 if mine else edge + 4, y + 4, told, anchor="end" if mine else "start"))
    longest = 7.0 * max(len(name) + 6 for name in names)
    height = below + 18 * half + 20
    drawing = svg(
        left + width + 24 + 2 * longest, height, [f'<g transform="translate({longest:.0f} 0)">', *shapes, "</g>"]
    )
    words = "ID accuracy" if measure.startswith("id") else "OOD accuracy"
    parts = [
        f"{name} {value:.2f} ({groups})" for name, value, groups in zip(names, values, ranks["groups"], strict=True)
    ]
    return Figure(
        f"a15-{measure.replace('_', '-')}",
        f"Mean ranks of backbones by {words}; bars join those that are not told apart",
        f"Mean ranks, 1 is best, critical difference {difference:.2f}: {'; '.join(parts)}.",
        drawing,
    )


def _bars(groups: Sequence[str], values: np.ndarray[Any, Any]) -> list[tuple[float, float]]:
    letters = sorted(set("".join(groups)))
    spans = []
    for letter in letters:
        own = [value for value, mine in zip(values, groups, strict=True) if letter in mine]
        if len(own) > 1:
            spans.append((min(own), max(own)))
    return spans
