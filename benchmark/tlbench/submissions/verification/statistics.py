"""Whether the statistics of an image can belong to one image: its class, its rank, its probabilities.

The stored numbers are rounded to 16 significant bits, so what follows from them holds up to that.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tlbench.submissions.verification.images import Images
from tlbench.submissions.verification.measured import Measurements, Rows
from tlbench.submissions.verification.report import Check, Findings

Flags = NDArray[np.bool_]
_ROUNDING: Final = 2.0**-15
_SLACK: Final = 2e-4
"""What rounding may move a sum of a few probabilities or their squares by."""


def check_statistics(measured: Measurements, images: Images) -> Check:
    """Answer whether class, rank, confidence, likelihood and Brier score of every image agree with each other."""
    found, rows = Findings(), measured.predictions
    if len(rows):
        known = [
            images.classes(measured.fact(number, "task")) if number >= 0 else None
            for number in rows.measurement.tolist()
        ]
        # Of a class that nobody counted there may be any number.
        classes = np.array([np.inf if count is None else count for count in known])[rows.group_of_row]
        with np.errstate(all="ignore"):
            for what, wrong in _contradictions(rows, classes):
                if wrong.any():
                    row = int(np.flatnonzero(wrong)[0])
                    number = int(rows.measurement[rows.group_of_row[row]])
                    place = measured.place(number) if number >= 0 else "an unknown measurement"
                    found.add(f"{place}, id {rows.columns['id'][row]}: {what}", int(wrong.sum()))
    done = f"class, rank and probabilities agree for {len(rows):,} predictions"
    return found.check("statistics", done, measured.submission.lacks("predictions"))


def _contradictions(rows: Rows, classes: NDArray[np.float64]) -> list[tuple[str, Flags]]:
    column = rows.columns
    there = _there(rows, "rank") & _there(rows, "predicted")
    right = column["rank"] == 0
    found = [
        ("a rank that contradicts the predicted class", there & (right != (column["predicted"] == column["label"])))
    ]
    for suffix in ("", "_scaled"):
        names = [f"{name}{suffix}" for name in ("confidence", "log_likelihood", "brier")]
        both = there & _there(rows, names[0]) & _there(rows, names[1])
        confidence, likelihood, brier = (column[name].astype(np.float64) for name in names)
        true = np.exp(likelihood)
        loose = _ROUNDING * (1 + np.abs(np.where(np.isfinite(likelihood), likelihood, 0.0)))
        squares = brier + 2 * true - 1
        least, most = _squares(true, confidence, right, classes)
        scored = both & _there(rows, names[2])
        found += [
            (
                f"{names[0]} is not the likelihood of the class, which is the true one",
                both & right & (np.abs(confidence - true) > loose * true),
            ),
            (f"{names[0]} below the likelihood of the true class", both & ~right & (true > confidence * (1 + loose))),
            (f"{names[0]} and likelihood are more than 1 together", both & ~right & (confidence + true > 1 + _SLACK)),
            (f"{names[0]} too small for the largest of its classes", both & (confidence * classes < 1 - _SLACK)),
            (
                f"a rank that {names[1]} does not allow",
                both & ((column["rank"].astype(np.float64) + 1) * true > (1 + _SLACK) * (1 + loose)),
            ),
            (f"{names[2]} that its probabilities do not allow", scored & ((squares < least) | (squares > most))),
        ]
    return found


def _squares(
    true: NDArray[np.float64], confidence: NDArray[np.float64], right: Flags, classes: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the least and the most that the squared probabilities of an image can add up to."""
    told = np.where(right, true, true + confidence)
    squared = np.where(right, true**2, true**2 + confidence**2)
    rest = np.clip(1 - told, 0, None)
    others = classes - np.where(right, 1, 2)
    # Spread evenly over the other classes at the least; at the most in as few as none being above the largest allows.
    least = squared + np.where(others > 0, rest**2 / np.maximum(others, 1), 0.0)
    return least - _SLACK, squared + rest * np.minimum(confidence, rest) + _SLACK


def _there(rows: Rows, name: str) -> Flags:
    valid = rows.valid.get(name)
    return np.ones(len(rows), dtype=bool) if valid is None else valid
