"""What a row's fits cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import pandas as pd

from tlbench.leaderboard.forms import COSTS
from tlbench.leaderboard.prepared import ROW, Row

PRICED: Final = (
    "suite", "suite_hash", *(column for column in ROW if column not in ("origin", "name")), "status", "seed",
    "deterministic", "fit_target", "task", "source", *COSTS.values(), "batch_size", "data_notes",
)  # fmt: skip
"""Columns of the fits that costs and notes depend on."""

FIT_ROW: Final = tuple(column for column in ROW if column != "name")
"""The columns of a row's key that its fits share: one fit serves all variants."""


def costs(fits: pd.DataFrame, seeds: Iterable[int]) -> pd.DataFrame:
    """Return what a fit costs: the mean over seeds, then over the fits of a task, then over tasks.

    Parameters
    ----------
    fits : DataFrame
        As from ``load_fits``.
    seeds : iterable of int

    Returns
    -------
    DataFrame
        Indexed by the columns of ``ROW`` but the name; one column for every cost metric.
    """
    kept = fits[(fits["status"] == "ok") & (fits["seed"].isin(list(seeds)) | fits["deterministic"].astype(bool))]
    columns = list(COSTS.values())
    row = list(FIT_ROW)
    # Null targets are equal to each other here: one fit serves them all.
    by_fit = kept.assign(fit_target=kept["fit_target"].fillna(""))
    cells = by_fit.groupby([*row, "task", "source", "fit_target"], sort=False)[columns].mean()
    tasks = cells.groupby([*row, "task"], sort=False).mean()
    suite = tasks.groupby(row, sort=False).mean()
    return suite.rename(columns={column: metric for metric, column in COSTS.items()})


def fit_row(row: Row) -> Row:
    """Return the part of a row's key that its fits share."""
    return tuple(value for column, value in zip(ROW, row, strict=True) if column in FIT_ROW)
