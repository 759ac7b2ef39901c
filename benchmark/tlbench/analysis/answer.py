"""What a question returns: tables, one sentence, or the reason why a table of runs is too small for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from tlbench.metrics.uncertainty import LEAST_CLUSTERS

LEVEL: Final = 0.95
"""Of every confidence interval."""


@dataclass(frozen=True)
class Answer:
    """What a table of runs says to one question.

    Attributes
    ----------
    id : str
        ``"A1"`` to ``"A17"``.
    title : str
        The question.
    tables : mapping of str to DataFrame
        The summary first. Empty where the runs are too small for any number.
    sentence : str
        What the tables say, with numbers and intervals.
    too_small : str
        Why there is no answer; empty where there is one.
    """

    id: str
    title: str
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    sentence: str = ""
    too_small: str = ""


def unanswered(id: str, title: str, reason: str) -> Answer:
    """Return an answer that says why there is none, and no number."""
    return Answer(id, title, {}, f"Not answered: {reason}.", reason)


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; NaN where there is none.

    Attributes
    ----------
    value, low, high : float
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.value:.2f} (no interval)"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out zero, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


def estimate(samples: NDArray[np.float64], clusters: int) -> Estimate:
    """Return a statistic with its expanded percentile interval.

    Parameters
    ----------
    samples : float array, shape (draws + 1,)
        The statistic of the runs themselves, then of every bootstrap draw; NaN where a draw has none.
    clusters : int
        How many were drawn from. With few of them the percentiles of the bootstrap lie too close; those taken here
        are further out, as a t interval is wider than a normal one.

    Returns
    -------
    Estimate
        Without an interval where there are fewer than five clusters, or a tenth of the draws has no value.

    References
    ----------
    Hesterberg (2015), "What Teachers Should Know About the Bootstrap", for the expanded percentiles.

    Examples
    --------
    >>> round(estimate(np.concatenate([[0.5], np.linspace(0, 1, 1001)]), 1000).low, 3)
    0.025
    """
    value, drawn = float(samples[0]), samples[1:]
    known = drawn[np.isfinite(drawn)]
    if np.isnan(value) or clusters < LEAST_CLUSTERS or len(known) < 0.9 * max(1, len(drawn)):
        return Estimate(value, np.nan, np.nan)
    tail = float(ndtr(-np.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, (1 + LEVEL) / 2)))
    low, high = np.quantile(known, [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def named(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    """Return estimates as columns: ``x`` with ``x_low`` and ``x_high``."""
    columns: dict[str, float] = {}
    for name, found in estimates.items():
        columns |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
    return columns


def in_percent(share: float) -> str:
    """Return a share in words that never make nearly all of all, or nearly nothing of nothing.

    >>> in_percent(0.794), in_percent(0.996), in_percent(1.0), in_percent(0.001)
    ('79 %', 'more than 99 %', '100 %', 'less than 1 %')
    """
    if 0.99 < share < 1:
        return "more than 99 %"
    return "less than 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
