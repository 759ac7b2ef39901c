"""Robustness curves: how much accuracy an attack leaves, epsilon by epsilon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pandas as pd

from tlbench.report.figures import INK, Figure, colours, draw, labels
from tlbench.suites.spec import Attack, Suite

if TYPE_CHECKING:
    import altair as alt

_MANY: Final = 7  # sources that colours can still tell apart
_DASH: Final = {"id-test": [1, 0], "ood-test": [5, 3]}
_ROLE_WORD: Final = {"id-test": "ID-test", "ood-test": "OOD-test"}


@dataclass(frozen=True)
class Curves:
    """Robust accuracy under one attack.

    Attributes
    ----------
    attack, norm : str
    denominator : float
        Epsilons are shown times this: 255 where the suite counts them in 255ths of the pixel range.
    cells : DataFrame
        ``task``, ``source``, ``target``, ``role``, ``epsilon`` (of the [0, 1] pixel range), ``value``, ``n``: the mean
        over seeds of each cell's robust accuracy.
    means : DataFrame
        ``task``, ``role``, ``epsilon``, ``value``: the plain mean over a task's sources, or pairs.
    """

    attack: str
    norm: str
    denominator: float
    cells: pd.DataFrame
    means: pd.DataFrame

    @property
    def unit(self) -> str:
        """What the shown epsilons are counted in."""
        return "of the pixel range" if self.denominator == 1 else f"in 1/{self.denominator:g} of the pixel range"


def robustness_curves(means: pd.DataFrame, suite: Suite) -> list[Curves]:
    """Return a row's curves, one an attack of the suite that has numbers.

    Parameters
    ----------
    means : DataFrame
        As from ``cell_means``.
    suite : Suite
    """
    robust = means[means["metric"] == "robust_accuracy"]
    found = []
    for attack in suite.conditions:
        if not isinstance(attack, Attack):
            continue
        chosen = robust[(robust["condition"] == attack.name) & (robust["norm"] == attack.norm)]
        if not len(chosen):
            continue
        order = ["task", "source", "target", "role", "epsilon"]
        cells = chosen[[*order, "value", "n"]].sort_values(order, kind="stable").reset_index(drop=True)
        mean = cells.groupby(["task", "role", "epsilon"])["value"].mean().reset_index()
        found.append(Curves(attack.name, attack.norm, attack.denominator, cells, mean))
    return found


def figure(curves: Curves, *, name: str, model: str) -> Figure:
    """Return the curves as a figure; tasks side by side where there are several.

    A curve is the share of images whose breaking epsilon is larger, and therefore a step: between two measured
    epsilons it holds what the smaller one left, which is an upper bound.
    """
    tasks = list(dict.fromkeys(curves.cells["task"]))
    charts = [_chart(curves, task, alone=len(tasks) == 1) for task in tasks]
    cells = curves.cells.drop_duplicates(["task", "source", "target", "role"])
    return draw(
        charts[0] if len(charts) == 1 else _side_by_side(charts),
        name=name,
        title=f"Robust accuracy of {model} under {curves.attack}",
        description=f"Robust accuracy against epsilon ({curves.norm}, {curves.unit}) for {len(cells)} cells, and their "
        "mean; step curves that never rise.",
    )


def _side_by_side(charts: list[alt.LayerChart]) -> alt.ConcatChart:
    import altair as alt

    return alt.concat(*charts, columns=3)


def _chart(curves: Curves, task: str, *, alone: bool) -> alt.LayerChart:
    import altair as alt

    cells, means = (frame[frame["task"] == task] for frame in (curves.cells, curves.means))
    sources = list(dict.fromkeys(cells["source"]))
    several = cells["role"].nunique() > 1
    *names, average = _told([*sources, "mean"])
    told = dict(zip(sources, names, strict=True))
    rows = pd.DataFrame(
        {
            "epsilon": cells["epsilon"] * curves.denominator,
            "robust": cells["value"],
            "source": [told[source] for source in cells["source"]],
            "role": [_ROLE_WORD[role] for role in cells["role"]],
            "cell": [str(number) for number in cells.groupby(["source", "target", "role"], sort=False).ngroup()],
        }
    )
    middle = pd.DataFrame(
        {
            "epsilon": means["epsilon"] * curves.denominator,
            "robust": means["value"],
            "role": [_ROLE_WORD[role] for role in means["role"]],
            "source": average,
        }
    )
    shown = sorted(set(rows["epsilon"]))
    palette = {**colours(names), average: INK}
    legend = alt.Legend(title="source") if alone and 1 < len(sources) <= _MANY else None
    x = alt.X(
        "epsilon:Q",
        scale=alt.Scale(type="log", domain=[shown[0], shown[-1]], nice=False) if len(shown) > 1 else alt.Scale(),
        axis=alt.Axis(title=f"epsilon, {curves.unit}", values=shown, format="~g", grid=False, labelOverlap=True),
    )
    y = alt.Y(
        "robust:Q",
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(title="robust accuracy", format="~%", values=[0, 0.25, 0.5, 0.75, 1]),
    )
    dash = alt.StrokeDash(
        "role:N",
        scale=alt.Scale(domain=[_ROLE_WORD[role] for role in _DASH], range=list(_DASH.values())),
        legend=alt.Legend(title="images") if several and alone else None,
    )
    colour = alt.Color("source:N", scale=alt.Scale(domain=list(palette), range=list(palette.values())), legend=legend)
    thin = (
        alt.Chart(rows)
        .mark_line(interpolate="step-after", strokeWidth=1.6, opacity=0.9)
        .encode(x=x, y=y, color=colour, detail="cell:N", strokeDash=dash)
    )
    points = alt.Chart(rows).mark_point(filled=True, size=18, opacity=0.9).encode(x=x, y=y, color=colour)
    mean = (
        alt.Chart(middle)
        .mark_line(interpolate="step-after", strokeWidth=2.6)
        .encode(x=x, y=y, color=colour, strokeDash=dash)
    )
    wide, high = (460, 260) if alone else (230, 150)
    chart = alt.layer(thin, points, mean).properties(width=wide, height=high)
    return chart if alone else chart.properties(title=labels([task])[0])  # type: ignore[return-value]


def _told(names: list[str]) -> list[str]:
    """Return labels, with a number where two names have the same one."""
    short = labels(names)
    return [
        label if short.count(label) == 1 else f"{label} ({short[:place].count(label) + 1})"
        for place, label in enumerate(short)
    ]
