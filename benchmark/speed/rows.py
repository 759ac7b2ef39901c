"""What a row of the speed table says: the work, both sides' times, their agreement, and whether that is enough."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["met", "missed", "disagrees", "failed", "not measured", "shown"]
BAD: frozenset[Status] = frozenset({"missed", "disagrees", "failed"})
"""What makes the command exit 1."""


@dataclass(frozen=True)
class Bar:
    """The limit of a row's ratio.

    Attributes
    ----------
    limit : float
    side : {"least", "most"}
        Whether the ratio must reach the limit or stay within it.
    guide : bool
        A guide is shown and never fails the command.
    """

    limit: float
    side: Literal["least", "most"] = "least"
    guide: bool = False

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is good enough; NaN never is."""
        return ratio >= self.limit if self.side == "least" else ratio <= self.limit


@dataclass(frozen=True)
class Work:
    """What a row measures, before it is measured.

    Attributes
    ----------
    key : str
        What ``--only`` names.
    theme : str
        The module of this package that measures it.
    work : str
        The work, as the table calls it.
    peer : str
        Whom ours is compared with.
    ours : str
        What is called of tlbench.
    bar : Bar or None
        None for a row that is shown without a limit.
    packages : tuple of str
        Distributions of the peer; where one is missing the row is not measured.
    ratio : {"speedup", "share", "seconds"}
        ``speedup`` is peer over ours, ``share`` ours over peer, ``seconds`` the seconds of ours alone.
    agreement : str
        What is compared of both sides' results, empty where there is nothing to compare.
    tolerance : float
        Largest difference at which they agree.
    unit : str
        What the milliseconds are of.
    reason : str
        Why the bar may be missed, told where it is.
    """

    key: str
    theme: str
    work: str
    peer: str
    ours: str
    bar: Bar | None = None
    packages: tuple[str, ...] = ()
    ratio: Literal["speedup", "share", "seconds"] = "speedup"
    agreement: str = ""
    tolerance: float = 0.0
    unit: str = "call"
    reason: str = ""


@dataclass(frozen=True)
class Part:
    """One line of a row's own table, such as one type of corruption; seconds are per the row's unit."""

    name: str
    peer_seconds: float
    ours_seconds: float
    agreement: str = ""


@dataclass(frozen=True)
class Outcome:
    """What was found of a row.

    Attributes
    ----------
    key : str
    peer_seconds, ours_seconds : float or None
        Medians, per the row's unit.
    difference : float or None
        Of the two sides' results, in the measure that the row's tolerance is in.
    absent : str
        Why it was not measured.
    failure : str
        What went wrong.
    note : str
    parts : tuple of Part
    """

    key: str
    peer_seconds: float | None = None
    ours_seconds: float | None = None
    difference: float | None = None
    absent: str = ""
    failure: str = ""
    note: str = ""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True)
class Row:
    """A work and its outcome."""

    work: Work
    outcome: Outcome

    @property
    def ratio(self) -> float | None:
        """The number that the bar limits; None where it was not measured."""
        ours, peer = self.outcome.ours_seconds, self.outcome.peer_seconds
        if ours is None or (peer is None and self.work.ratio != "seconds"):
            return None
        if self.work.ratio == "seconds":
            return ours
        assert peer is not None
        above, below = (peer, ours) if self.work.ratio == "speedup" else (ours, peer)
        return above / below if below else math.inf

    @property
    def agrees(self) -> bool:
        """Whether the two sides' numbers agree, or there are none to compare."""
        if not self.work.agreement:
            return True
        # Written so that NaN disagrees.
        return self.outcome.difference is not None and self.outcome.difference <= self.work.tolerance

    @property
    def status(self) -> Status:
        """A row whose numbers differ fails whatever its speed."""
        if self.outcome.failure:
            return "failed"
        if self.outcome.absent:
            return "not measured"
        if not self.agrees:
            return "disagrees"
        if self.ratio is None:
            return "failed"
        bar = self.work.bar
        if bar is None:
            return "shown"
        if bar.holds(self.ratio):
            return "met"
        return "shown" if bar.guide else "missed"

    def as_json(self) -> dict[str, Any]:
        """Return everything that the row says as plain values."""
        return {**asdict(self.work), **asdict(self.outcome), "value": self.ratio, "status": self.status}


def exit_code(rows: list[Row], *, bars: bool = True) -> int:
    """Return 1 where numbers differ, a row failed or, unless bars do not count, one was missed; else 0."""
    return int(any(row.status in BAD and (bars or row.status != "missed") for row in rows))
