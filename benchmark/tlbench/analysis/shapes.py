"""What does the scatter of OOD against ID accuracy look like: a rising line, a vertical one, a low one, or none?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.analysis.answer import Answer, in_percent, unanswered
from tlbench.analysis.clustered import DRAWS, PAIR, Draws, Floats, Weights, spearman, too_few

SHAPES: Final = ("low horizontal line", "vertical line", "rising line", "falling line", "no trend")
_LOW, _VERTICAL, _RISING, _FALLING, _NONE = range(5)


@dataclass(frozen=True)
class Criteria:
    """What tells the shapes apart; the first that fits, in the order of ``SHAPES``.

    Attributes
    ----------
    margin : float
        Low: the best OOD accuracy is not this far above chance.
    narrow : float
        Vertical: the range of ID accuracies is at most this,
    spread : float
        and that of OOD accuracies at least so many times it. Ranges leave out a twentieth of the runs on either side.
    trend : float
        Rising, falling: Spearman's correlation is at least this, at most minus this.
    """

    margin: float = 0.10
    narrow: float = 0.05
    spread: float = 2.0
    trend: float = 0.50


def shapes(runs: pd.DataFrame, *, criteria: Criteria | None = None, draws: int = DRAWS) -> Answer:
    """A3: sort the pairs by the shape of their scatter.

    Parameters
    ----------
    runs : DataFrame
        As from ``tidy_runs``. The column ``chance`` is what OOD accuracies are held against.
    criteria : Criteria, optional
    draws : int

    Returns
    -------
    Answer
        ``shapes``: how many pairs have each. ``pairs``: ``spearman``, ``id_range``, ``ood_range``, ``best_ood``,
        ``chance``, ``shape``, and ``certainty``: the share of bootstrap draws that come to the same shape.
    """
    rule = criteria or Criteria()
    title = "What shape has the scatter of OOD against ID accuracy?"
    drawn = Draws.of(runs, draws)
    rows = []
    known = runs.dropna(subset=["id_accuracy", "ood_accuracy", "chance"])
    for key, group in known.groupby(list(PAIR), sort=True):
        clusters = int(group["cluster"].nunique())
        row: dict[str, object] = {**dict(zip(PAIR, key, strict=True)), "runs": len(group), "clusters": clusters}
        rows.append({**row, "reason": too_few(clusters)})
        if not rows[-1]["reason"]:
            rows[-1] |= _shape(group, drawn.weights(group), rule)
    told = [row for row in rows if not row["reason"]]
    if not told:
        reason = str(rows[0]["reason"]) if rows else "there are no runs, or nobody knows what accuracy is chance"
        return unanswered("A3", title, reason)
    numbers = ["spearman", "id_range", "ood_range", "best_ood", "chance"]
    pairs = pd.DataFrame(rows)[[*PAIR, "runs", "clusters", *numbers, "shape", "certainty", "reason"]]
    counts = pairs["shape"].value_counts()
    summary = pd.DataFrame({"shape": SHAPES, "pairs": [int(counts.get(name, 0)) for name in SHAPES]})
    parts = [f"{count} {name}" for name, count in zip(SHAPES, summary["pairs"], strict=True) if count]
    sentence = (
        f"Of {len(told)} pairs: {', '.join(parts)}; on average {in_percent(pairs['certainty'].mean())} of the "
        f"bootstrap draws come to the same shape."
    )
    return Answer("A3", title, {"shapes": summary, "pairs": pairs}, sentence)


def _shape(runs: pd.DataFrame, weights: Weights, rule: Criteria) -> dict[str, object]:
    inside, outside = (runs[name].to_numpy(np.float64) for name in ("id_accuracy", "ood_accuracy"))
    chance = float(runs["chance"].iloc[0])
    rho = spearman("id_accuracy", "ood_accuracy")(runs, weights)
    ranges = [_range(values, weights) for values in (inside, outside)]
    best = np.where(weights.rows > 0, outside, -np.inf).max(axis=1)
    found = _classified(rho, ranges[0], ranges[1], best - chance, rule)
    return {
        "spearman": rho[0],
        "id_range": ranges[0][0],
        "ood_range": ranges[1][0],
        "best_ood": best[0],
        "chance": chance,
        "shape": SHAPES[found[0]],
        "certainty": float((found[1:] == found[0]).mean()) if len(found) > 1 else np.nan,
    }


def _classified(rho: Floats, inside: Floats, outside: Floats, above: Floats, rule: Criteria) -> NDArray[np.int64]:
    # A correlation that does not exist, for want of spread, is no trend.
    tests = [
        above < rule.margin,
        (inside <= rule.narrow) & (outside >= rule.spread * inside) & (outside > 0),
        rho >= rule.trend,
        rho <= -rule.trend,
    ]
    return np.select(tests, [_LOW, _VERTICAL, _RISING, _FALLING], default=_NONE)


def _range(values: Floats, weights: Weights) -> Floats:
    """Return the distance of the 5 % and 95 % quantiles of every draw, shape (draws,)."""
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(weights.rows[:, order], axis=1)
    total = sums[:, -1:]
    ends = [values[order][np.argmax(sums >= share * total - 1e-9, axis=1)] for share in (0.05, 0.95)]
    return np.asarray(ends[1] - ends[0])
