"""Reliability diagrams: what share of the images of a confidence was right, before and after temperature scaling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from tlbench.metrics.calibration import ReliabilityDiagram, expected_calibration_error, reliability_diagram
from tlbench.report.drawing import dot, line, rect, svg, text
from tlbench.report.figures import PALETTE, Figure
from tlbench.suites.spec import Metrics

DiagramRole = Literal["id-test", "ood-test"]
ROLES: Final[tuple[DiagramRole, ...]] = ("id-test", "ood-test")
_WORD: Final = {"id-test": "ID-test", "ood-test": "OOD-test"}
_COLUMN: Final = {False: "confidence", True: "confidence_scaled"}


@dataclass(frozen=True)
class Diagram:
    """One reliability diagram.

    Attributes
    ----------
    task : str
    role : {"id-test", "ood-test"}
    scaled : bool
        Whether after temperature scaling on ID-val.
    bins : ReliabilityDiagram
    ece : float
        Of the images of this diagram, all seeds and pairs in one; the board's is the mean of each pair's own.
    """

    task: str
    role: DiagramRole
    scaled: bool
    bins: ReliabilityDiagram
    ece: float

    @property
    def n(self) -> int:
        """Images, an image of several seeds or pairs once for each."""
        return int(self.bins.count.sum())


def diagrams(predictions: pd.DataFrame, metrics: Metrics) -> list[Diagram]:
    """Return the reliability diagrams of a row: by task, role, before and after scaling.

    Parameters
    ----------
    predictions : DataFrame
        Of one row and variant, as from ``load_predictions``; only clean images are taken. A set without probabilities
        has no diagram.
    metrics : Metrics
        The suite's bins.

    Returns
    -------
    list of Diagram
        Seeds and pairs are pooled: every prediction counts once.
    """
    clean = predictions[(predictions["condition"] == "clean") & predictions["rank"].notna()]
    return [
        diagram
        for task in dict.fromkeys(clean["task"])
        for role in ROLES
        for diagram in _of_set(clean[(clean["task"] == task) & (clean["role"] == role)], str(task), role, metrics)
    ]


def _of_set(rows: pd.DataFrame, task: str, role: DiagramRole, metrics: Metrics) -> Iterator[Diagram]:
    for scaled, column in _COLUMN.items():
        there = rows[rows[column].notna()]
        if not len(there):
            continue
        # As stored: bins have edges of the confidences' own precision.
        confidence, right = there[column].to_numpy(), (there["rank"] == 0).to_numpy(np.bool_)
        bins, closed = metrics.ece_bins, metrics.ece_closed
        yield Diagram(
            task,
            role,
            scaled,
            reliability_diagram(confidence, right, bins=bins, closed=closed),
            expected_calibration_error(confidence, right, bins=bins, closed=closed),
        )


_SIDE: Final = 255.0
_STRIP: Final = 44.0
_LEFT, _TOP, _BELOW, _BETWEEN = 46.0, 30.0, 40.0, 26.0
_WIDTH: Final = _LEFT + _SIDE + _BETWEEN
_HEIGHT: Final = _TOP + _SIDE + _STRIP + _BELOW


def figure(chosen: list[Diagram], *, name: str, model: str) -> Figure:
    """Return the diagrams of one task as a figure: a row for each role, before scaling on the left."""
    roles = [role for role in ROLES if any(diagram.role == role for diagram in chosen)]
    shapes: list[str] = []
    for diagram in chosen:
        left = _WIDTH * diagram.scaled
        top = _HEIGHT * roles.index(diagram.role)
        shapes += _panel(diagram, left + _LEFT, top + _TOP)
    told = "; ".join(f"{_heading(diagram)}, {diagram.n:,} predictions" for diagram in chosen)
    return Figure(
        name,
        f"Reliability of {model}",
        f"Share of right predictions against confidence, in {len(chosen[0].bins.count)} bins. {told}.",
        svg(2 * _WIDTH, _HEIGHT * len(roles), shapes),
    )


def _heading(diagram: Diagram) -> str:
    when = "after temperature scaling" if diagram.scaled else "as predicted"
    return f"{_WORD[diagram.role]}, {when}: ECE {100 * diagram.ece:.1f} %"


def _panel(diagram: Diagram, left: float, top: float) -> Iterator[str]:
    bottom = top + _SIDE
    yield text(left, top - 12, _heading(diagram), size=12)
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield line(left, bottom - tick * _SIDE, left + _SIDE, bottom - tick * _SIDE, opacity=0.13)
        yield text(left - 6, bottom - tick * _SIDE + 4, f"{100 * tick:.0f}", anchor="end")
        yield text(left + tick * _SIDE, bottom + _STRIP + 15, f"{100 * tick:.0f}", anchor="middle")
    yield text(left - 32, top + _SIDE / 2, "right, %", anchor="middle", turned=True)
    yield text(left + _SIDE / 2, bottom + _STRIP + 30, "confidence, %", anchor="middle")
    yield text(left - 6, bottom + _STRIP / 2 + 4, "n", anchor="end")
    bins = diagram.bins
    wide = _SIDE / len(bins.count)
    colour = PALETTE[0] if diagram.role == "id-test" else PALETTE[1]
    most = max(int(bins.count.max()), 1)
    for number, count in enumerate(bins.count.tolist()):
        x = left + number * wide
        if count:
            high = float(bins.accuracy[number]) * _SIDE
            yield rect(x + 0.5, bottom - high, wide - 1, high, fill=colour, opacity=0.35)
        share = _STRIP * count / most
        yield rect(x + 0.5, bottom + _STRIP - share, wide - 1, share, fill=colour, opacity=0.18)
        yield text(x + wide / 2 + 3, bottom + _STRIP - 3, f"{count}", size=8.5, turned=True)
    yield line(left, bottom, left + _SIDE, top, dashed=True, opacity=0.6)
    yield line(left, bottom, left + _SIDE, bottom)
    for confidence, accuracy in zip(bins.confidence.tolist(), bins.accuracy.tolist(), strict=True):
        if accuracy == accuracy:  # an empty bin has none
            yield dot(left + confidence * _SIDE, bottom - accuracy * _SIDE, 3.2, fill=colour)
