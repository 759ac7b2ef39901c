"""A row's records, seed by seed, to what stands in the tables of its page: means over seeds, and their weighted sums.

What a page shows of a cell is the mean over the seeds there are, and how many that is; what it shows of several cells
is the board's own weighted sum, and nothing where one of them is missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from tlbench.errors import UsageError
from tlbench.leaderboard.forms import TERM, Form, form, setting_key
from tlbench.suites.spec import Role, Suite

_SETTING: Final = ["condition", "severity", "norm", "epsilon"]


def seeds_of(records: pd.DataFrame, suite: Suite) -> tuple[int, ...]:
    """Return the seeds that a row's page rests on: the suite's, or the one of a deterministic method."""
    there = {int(seed) for seed in records["seed"]}
    if len(records) and bool(records["deterministic"].iloc[0]):
        return tuple(sorted(there))[:1]
    return tuple(seed for seed in suite.protocol.seeds if seed in there)


def seed_values(records: pd.DataFrame, suite: Suite) -> pd.DataFrame:
    """Return every number of a row, seed by seed.

    Parameters
    ----------
    records : DataFrame
        Of one row and variant, as from ``load_results``.
    suite : Suite

    Returns
    -------
    DataFrame
        The columns ``TERM`` and ``seed``; ``condition``, ``severity``, ``norm``, ``epsilon``;
        ``value``; ``standard_error``, of images, NaN where a record has none; ``n``. Where a method reads the target,
        the numbers of a source's own images are averaged over its fits.
    """
    ok = records[(records["status"] == "ok") & records["seed"].isin(seeds_of(records, suite))]
    settings = ok[_SETTING].drop_duplicates()
    settings = settings.assign(setting=[setting_key(*row) for row in settings.itertuples(index=False, name=None)])
    keyed = ok.merge(settings, on=_SETTING, how="left")
    once = not keyed.duplicated([*TERM, "seed"]).any()
    kept = keyed[[*TERM, "seed", *_SETTING, "value", "standard_error", "n"]].astype({"value": "float64"})
    if once:
        return kept
    means = kept.groupby([*TERM, "seed"], sort=False).agg(
        **{name: (name, "first") for name in _SETTING},
        value=("value", "mean"),
        standard_error=("standard_error", _mean_of_all),
        n=("n", "max"),
    )
    return means.reset_index()


def cell_means(values: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over seeds of every number of a row.

    Parameters
    ----------
    values : DataFrame
        As from `seed_values`.

    Returns
    -------
    DataFrame
        The columns of ``values`` but the seed; besides ``seeds``, how many have the number, and ``seeds_sd``, the
        standard deviation over them.
    """
    grouped = values.groupby(list(TERM), sort=False)
    means = grouped.agg(
        **{name: (name, "first") for name in _SETTING},
        value=("value", "mean"),
        standard_error=("standard_error", "mean"),
        errors=("standard_error", "count"),
        seeds_sd=("value", "std"),
        seeds=("value", "size"),
        n=("n", "max"),
    )
    # The mean of those errors that there are would be too small, or too large, for all of them.
    means.loc[means["errors"] < means["seeds"], "standard_error"] = np.nan
    return means.drop(columns="errors").reset_index()


@dataclass(frozen=True)
class Sum:
    """A weighted sum of a row's numbers.

    Attributes
    ----------
    value : float or None
        None where a term is missing.
    missing : int
    seeds : int
        The fewest on which a term rests.
    """

    value: float | None
    missing: int
    seeds: int


Numbers = Mapping[tuple[str, ...], tuple[float, int]]
"""A row's numbers: value and seeds by the columns ``TERM``."""


def numbers_of(means: pd.DataFrame) -> Numbers:
    """Return the numbers of a row, to be looked up by ``TERM``; from `cell_means`."""
    keys = zip(*(means[name].astype(str).tolist() for name in TERM), strict=True)
    return dict(zip(keys, zip(means["value"].tolist(), means["seeds"].tolist(), strict=True), strict=True))


def weighed(numbers: Numbers, terms: pd.DataFrame, by: Sequence[str] = ()) -> dict[tuple[str, ...], Sum]:
    """Return weighted sums of a row's numbers.

    Parameters
    ----------
    numbers : mapping
        As from `numbers_of`.
    terms : DataFrame
        Those of a ``Form`` whose weights are positive.
    by : sequence of str
        Columns of ``TERM``: within each of their combinations the weights are made to sum to 1.

    Returns
    -------
    dict from the values of ``by`` to Sum
        In the order of the terms.
    """
    places = [TERM.index(name) for name in by]
    groups: dict[tuple[str, ...], list[tuple[tuple[str, ...], float]]] = {}
    for *term, weight in terms[[*TERM, "weight"]].itertuples(index=False, name=None):
        groups.setdefault(tuple(term[place] for place in places), []).append((tuple(term), weight))
    return {group: _sum(numbers, own) for group, own in groups.items()}


def _sum(numbers: Numbers, terms: list[tuple[tuple[str, ...], float]]) -> Sum:
    found = [(numbers[term], weight) for term, weight in terms if term in numbers]
    if len(found) < len(terms):
        return Sum(None, len(terms) - len(found), 0)
    seeds = min(count for (_, count), _ in found)
    if len(found) == 1:
        return Sum(found[0][0][0], 0, seeds)  # a single number stays itself, to the last bit
    whole = math.fsum(weight for _, weight in found)
    return Sum(math.fsum(value * weight for (value, _), weight in found) / whole, 0, seeds)


def form_or_none(suite: Suite, metric: str, role: Role | None) -> Form | None:
    """Return a measure's weighted sum, None where the suite does not measure it there."""
    try:
        return form(suite, metric, role)
    except UsageError:
        return None


def _mean_of_all(values: pd.Series[float]) -> float:
    """Return the mean, NaN where one is missing."""
    return float(np.mean(values.to_numpy(np.float64)))
