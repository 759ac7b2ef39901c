"""Figures: the one home of Altair and vl-convert. A chart becomes SVG for a page, and SVG and PNG files for a paper.

No font, script or style comes from elsewhere, and equal charts give equal bytes. A figure has no background; its lines
and words are drawn in one dark ink, which a page replaces by the colour of its own text, and its series in colours
that are told apart on white and on black.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from tlbench.leaderboard.text import plain
from tlbench.metrics.catalogue import METRICS

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd

    from tlbench.leaderboard.board import Board

INK: Final = "#1c1e21"
"""Of words, axes and lines that are no series: replaced by the page's own text colour where a figure stands in one."""

PALETTE: Final = ("#2b7bd6", "#c8641a", "#2a8a4a", "#a05ad0", "#d6433f", "#158a94", "#7a7f87")
"""Series. Each has a contrast of at least 3 against white and against the darkest page."""

FONT: Final = "Liberation Sans, Arial, Helvetica, sans-serif"
"""Fonts of one width: what fits when vl-convert measures it, with the first, fits in a browser with the next."""

_SCALE: Final = 2.0  # of the PNG: a figure 500 units wide has 1,000 pixels, 300 an inch in a column of a paper
_ROOT: Final = re.compile(r"<svg\b[^>]*>")
_VIEW: Final = re.compile(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"')
_NAME: Final = re.compile(r"[a-z0-9._-]+")


@dataclass(frozen=True)
class Figure:
    """A drawing and what it says.

    Attributes
    ----------
    name : str
        File name without its ending, and what its ids begin with: small letters, figures and the signs ``._-``.
    title, description : str
        For who cannot see it; text, never markup.
    svg : str
        The drawing, in ``INK`` and colours of ``PALETTE``, with a ``viewBox`` from 0, 0.
    """

    name: str
    title: str
    description: str
    svg: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"expected a name of small letters, figures and ._- alone, got {self.name!r}")
        if not _VIEW.search(self.svg):
            raise ValueError(f"figure {self.name}: expected an SVG with a viewBox from 0, 0")
        if _FORBIDDEN.search(self.svg):
            raise ValueError(f"figure {self.name}: its SVG has a character that XML forbids")

    def inline(self) -> Markup:
        """Return the SVG for a page: as wide as there is room, lines and words in the page's own text colour."""
        return Markup(self._labelled().replace(INK, "currentColor"))

    def files(self) -> dict[str, bytes]:
        """Return the figure's files by name: ``<name>.svg`` without a background, ``<name>.png`` on white."""
        import vl_convert

        svg = self._labelled()
        white = _ROOT.sub(lambda root: f'{root[0]}<rect width="100%" height="100%" fill="#ffffff"/>', svg, count=1)
        return {f"{self.name}.svg": svg.encode(), f"{self.name}.png": vl_convert.svg_to_png(white, scale=_SCALE)}

    def _labelled(self) -> str:
        view = _VIEW.search(self.svg)
        assert view is not None  # __post_init__ has seen it
        width, height = view.groups()
        title, description = (escape(xml_text(text)) for text in (self.title, self.description))
        root = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="figure" role="img" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" aria-labelledby="{self.name}-title {self.name}-desc">'
            f'<title id="{self.name}-title">{title}</title><desc id="{self.name}-desc">{description}</desc>'
        )
        return _ROOT.sub(lambda _: root, self.svg, count=1)


def draw(chart: alt.TopLevelMixin, *, name: str, title: str, description: str) -> Figure:
    """Return an Altair chart as a figure; parameters as the attributes of `Figure`.

    Names in its data stay text. Charts must not clip: a clip's id would be that of another figure of the page.
    """
    import vl_convert

    # A chart is told as a whole, by its title and description: nobody listens to a thousand marks.
    spec = _cleaned({**chart.to_dict(), "config": _config()})
    svg = vl_convert.vegalite_to_svg(spec)
    if " id=" in svg:
        raise ValueError(f"figure {name}: its SVG has ids, which another figure of the page may have, too")
    return Figure(name, title, description, svg)


def drawn_rows(board: Board) -> pd.DataFrame:
    """Return the rows of a board that its chart has a dot for: variants and incomplete rows have none."""
    frame = board.frame
    return frame[frame["standing"].isin(["ranked", "unranked", "control"]) & (frame["score"].abs() < float("inf"))]


def hollow(rows: pd.DataFrame) -> pd.Series[bool]:
    """Return which dots are hollow: rows that are not ranked, on a board that ranks some."""
    return (rows["standing"] == "unranked") & bool((rows["standing"] == "ranked").any())


def board_chart(board: Board) -> Figure:
    """Return a board as a figure: a dot a row that has a score, with its interval of measurement, section by section.

    Controls stand below as reference; dots of rows that are not ranked are hollow. A row without an interval has a dot
    alone.
    """
    import altair as alt
    import pandas as pd

    info = METRICS[board.metric]
    percent = info.unit == "fraction"
    rows = drawn_rows(board)
    controls = rows["standing"] == "control"
    section = [
        _CONTROLS if control else " · ".join(plain(word) for word in words)
        for control, *words in zip(controls, rows["protocol"], rows["shots"], rows["pretraining"], strict=True)
    ]
    absent = pd.Series(float("nan"), index=rows.index)
    frame = pd.DataFrame(
        {
            # Two rows of one name are two rows: they are told by their place, and labelled by their name.
            "place": [f"{number:05d}" for number in range(len(rows))],
            "name": labels([str(name) for name in rows["name"]]),
            "section": section,
            "control": controls.to_numpy(),
            "hollow": hollow(rows).to_numpy(),
            "score": rows["score"].to_numpy(),
            "low": rows.get("measurement_low", absent).to_numpy(),
            "high": rows.get("measurement_high", absent).to_numpy(),
        }
    )
    words = {"nll": "NLL", "brier": "Brier score"}.get(board.metric, board.metric.replace("_", " "))
    where = {"ood-test": "OOD ", "id-test": "ID ", "id-val": "ID-val "}.get(board.role or "", "")
    style: dict[str, Any] = {"scale": alt.Scale(zero=False)}
    axis = alt.Axis(title=f"{where}{words}", format="~%" if percent else "~g", tickCount=6)
    named = dict(zip(frame["place"], frame["name"], strict=True))
    charts = []
    sections = sorted(dict.fromkeys(frame["section"]), key=lambda name: name == _CONTROLS)
    for name in sections:
        own = frame[frame["section"] == name]
        # Names are marks of the drawing: an axis would take them for its own values, and merge equal ones.
        y = alt.Y("place:N", sort=None, axis=None)
        base = alt.Chart(own)
        colour = PALETTE[6] if name == _CONTROLS else PALETTE[0]
        style["axis"] = axis if name == sections[-1] else alt.Axis(title=None, labels=False, ticks=False, tickCount=6)
        left = base.mark_text(align="right", dx=-8, color=INK).encode(x=alt.value(0), y=y, text="name:N")
        rule = (
            base.transform_filter("isValid(datum.low)")
            .mark_rule(strokeWidth=2, opacity=0.5, color=colour)
            .encode(x=alt.X("low:Q", **style), x2="high:Q", y=y)
        )
        dots = [
            base.transform_filter(wanted)
            .mark_point(filled=filled, size=48, opacity=1, color=colour)
            .encode(x=alt.X("score:Q", **style), y=y)
            for wanted, filled in (("!datum.hollow", True), ("datum.hollow", False))
        ]
        layers = alt.layer(left, rule, *dots)
        charts.append(layers.properties(width=460, height=alt.Step(17), title=alt.Title(name, frame="group")))
    chart = alt.vconcat(*charts, spacing=10).resolve_scale(x="shared")
    title = f"{board.suite} by {where}{words}"
    shown = ", ".join(
        f"{named[place]} {score:.4g}" for place, score in zip(frame["place"], frame["score"], strict=True)
    )
    return draw(chart, name="board", title=title, description=f"One dot a row, best first in each section: {shown}.")


def labels(names: list[str]) -> list[str]:
    """Return strangers' names as labels: one line each, without control characters, at most 40 letters.

    >>> labels(["a\\x00b\\n<script>"])
    ['ab <script>']
    """
    told = [plain(name) for name in names]
    return [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in told]


def colours(series: list[str]) -> Mapping[str, str]:
    """Return a colour for every series, in order; with more series than colours they come round again."""
    return MappingProxyType({name: PALETTE[number % len(PALETTE)] for number, name in enumerate(series)})


_LONGEST: Final = 40
_CONTROLS: Final = "controls"


_FORBIDDEN: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(words: str) -> str:
    """Return words without the characters that XML forbids, on which vl-convert ends the whole process."""
    return _FORBIDDEN.sub("", words)


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return xml_text(value)
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


@cache
def _config() -> dict[str, Any]:
    axis = {
        "labelColor": INK,
        "titleColor": INK,
        "domainColor": INK,
        "tickColor": INK,
        "gridColor": INK,
        "gridOpacity": 0.13,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelFont": FONT,
        "titleFont": FONT,
    }
    words = {"labelColor": INK, "titleColor": INK, "labelFont": FONT, "titleFont": FONT}
    return {
        "aria": False,
        "background": None,
        "font": FONT,
        "padding": 8,
        "view": {"stroke": None},
        "axis": axis,
        "legend": {**words, "titleFontWeight": "normal", "labelFontSize": 11, "labelLimit": 260, "symbolSize": 70},
        "header": {**words, "labelFontSize": 12, "labelLimit": 260},
        "title": {"color": INK, "font": FONT, "fontSize": 13, "fontWeight": "normal", "anchor": "start"},
        "text": {"color": INK, "font": FONT, "fontSize": 11},
        "rule": {"color": INK},
    }
