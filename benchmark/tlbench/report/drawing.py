"""The few shapes that small multiples are drawn with: a hundred panels by hand take less than one chart compiled."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Literal

from tlbench.report.figures import FONT, INK, xml_text

Anchor = Literal["start", "middle", "end"]


def number(value: float) -> str:
    """Return a coordinate, a hundredth of a pixel exactly.

    >>> number(3.0), number(1 / 3), number(-0.001)
    ('3', '0.33', '0')
    """
    written = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if written == "-0" else written


def svg(width: float, height: float, shapes: Iterable[str]) -> str:
    """Return shapes as a drawing."""
    return f'<svg viewBox="0 0 {number(width)} {number(height)}"><g font-family="{FONT}">{"".join(shapes)}</g></svg>'


def text(
    x: float,
    y: float,
    words: str,
    *,
    size: float = 11,
    anchor: Anchor = "start",
    turned: bool = False,
    colour: str = INK,
) -> str:
    """Return words at a place; ``turned`` ones are read from below."""
    at = f'x="{number(x)}" y="{number(y)}"'
    turn = f' transform="rotate(-90 {number(x)} {number(y)})"' if turned else ""
    style = f'font-size="{number(size)}" text-anchor="{anchor}" fill="{colour}"'
    return f"<text {at} {style}{turn}>{escape(xml_text(words))}</text>"


def rect(x: float, y: float, width: float, height: float, *, fill: str, opacity: float = 1.0) -> str:
    """Return a filled rectangle."""
    box = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {box} fill="{fill}" fill-opacity="{number(opacity)}"/>'


def line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    *,
    colour: str = INK,
    opacity: float = 1.0,
    dashed: bool = False,
    width: float = 1,
) -> str:
    """Return a straight line."""
    ends = f'x1="{number(x1)}" y1="{number(y1)}" x2="{number(x2)}" y2="{number(y2)}"'
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<line {ends} stroke="{colour}" stroke-opacity="{number(opacity)}" stroke-width="{number(width)}"{dash}/>'


def dot(x: float, y: float, radius: float, *, fill: str) -> str:
    """Return a filled circle."""
    return f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius)}" fill="{fill}"/>'


def area(corners: Iterable[tuple[float, float]], *, fill: str, opacity: float) -> str:
    """Return a filled polygon."""
    return f'<path d="M{_through(corners)}Z" fill="{fill}" fill-opacity="{number(opacity)}"/>'


def course(through: Iterable[tuple[float, float]], *, colour: str, width: float) -> str:
    """Return a line through several points, in a colour."""
    return f'<path d="M{_through(through)}" fill="none" stroke="{colour}" stroke-width="{number(width)}"/>'


def triangle(x: float, y: float, radius: float, *, colour: str) -> str:
    """Return an upright triangle, open."""
    corners = [(x, y - radius), (x + radius, y + 0.8 * radius), (x - radius, y + 0.8 * radius)]
    return f'<path d="M{_through(corners)}Z" fill="none" stroke="{colour}" stroke-width="1.4"/>'


def _through(points: Iterable[tuple[float, float]]) -> str:
    return "L".join(f"{number(x)} {number(y)}" for x, y in points)
