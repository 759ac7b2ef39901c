"""Scores with holes: between which numbers they lie, what is missing, and the first reason that a record gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.metrics.catalogue import METRICS


def bounds(values: NDArray[np.float64], weights: NDArray[np.float64], metric: str) -> tuple[float | None, float | None]:
    """Return the least and the greatest score, whatever the missing values are."""
    info = METRICS[metric]
    if info.unbounded or info.unit not in ("fraction", "score") or np.isinf(values).any():
        return None, None
    top = 2.0 if info.unit == "score" else 1.0  # a Brier score summed over classes reaches 2
    missing = np.isnan(values)
    worst, best = np.where(weights > 0, 0.0, top), np.where(weights > 0, top, 0.0)
    low, high = (np.where(missing, fill, values) @ weights for fill in (worst, best))
    return float(low.mean()), float(high.mean())


def gaps(terms: pd.DataFrame, missing: NDArray[np.bool_], seeds: tuple[int, ...]) -> str:
    """Say what is missing: whole seeds, else the first pair."""
    partly = np.array([row.any() and not row.all() for row in missing], dtype=np.bool_)
    if not partly.any():
        without = [str(seed) for seed, row in zip(seeds, missing, strict=True) if row.all()]
        return f"nothing of seed {', '.join(without)}"
    row, column = (int(place[0]) for place in np.nonzero(missing & partly[:, None]))
    term = terms.iloc[column]
    return f"first {term['source']} to {term['target']}, seed {seeds[row]}"


def why(absent: pd.DataFrame, seeds: tuple[int, ...], *, found: int, expected: int, first_gap: str) -> str:
    """Say how much is missing, and the first reason that a record gives, or else what is missing."""
    amount = f"{found} of {expected} cells"
    told: Any = absent[absent["seed"].isin(seeds) | absent["deterministic"].astype(bool)]
    if not len(told):
        return f"{amount}; {first_gap}"
    first = told.iloc[0]
    word = {"failed": "failed", "not_applicable": "not applicable", "not_run": "not run"}.get(first["status"], "")
    if found == 0 and (told["reason"] == first["reason"]).all():
        return f"{word}: {first['reason']}"
    return f"{amount}; {first['source']} to {first['target']} {word}: {first['reason']}"
