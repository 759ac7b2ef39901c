"""Records to scores: pure functions of tables, so that a score depends on nobody but the row it belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.leaderboard.forms import COSTS, Form, setting_key
from tlbench.metrics.catalogue import METRICS

ROW: Final = (
    "origin",
    "model",
    "name",
    "settings_hash",
    "backbone",
    "weights_hash",
    "protocol",
    "shots",
)
"""What makes a row of a board: equal names with other settings or weights are other rows."""

_FIT_ROW: Final = tuple(column for column in ROW if column != "name")
_SETTING: Final = ["condition", "severity", "norm", "epsilon"]
_CELL: Final = ["task", "source", "target", "role", "setting"]
_PLACE: Final = ["task", "source", "target", "role", "condition"]
_NUMBERS: Final = ["row", "cell", "seed", "fit", "value", "standard_error"]

Row = tuple[str, ...]
"""Values of the columns ``ROW``."""


@dataclass(frozen=True)
class Score:
    """One row's score by one form.

    Attributes
    ----------
    value : float or None
        None unless every record is there. May be infinite (NLL).
    standard_error : float or None
        Of measurement: how far the score would move if other images, or clusters of images, had been drawn. None where
        a cell has none.
    seeds_sd : float or None
        Standard deviation, over seeds, of the score of one seed; None for fewer than two seeds.
    found, expected : int
        Cells, each a source, target and seed; found are those with every setting.
    low, high : float or None
        Bounds of the score whatever the missing records hold; None where the metric is unbounded.
    reason : str
        Why there is no value, or why it cannot be ranked.
    """

    value: float | None
    standard_error: float | None
    seeds_sd: float | None
    found: int
    expected: int
    low: float | None
    high: float | None
    reason: str


@dataclass(frozen=True)
class Prepared:
    """Records ready to be scored.

    Attributes
    ----------
    rows : tuple of Row
    control, deterministic : bool arrays, shape (rows,)
    cells : mapping from (task, source, target, role, setting) to int
    numbers : mapping from a metric to DataFrame
        The records that have a value: ``row``, ``cell``, ``seed``, ``fit`` (which target the fit read, -1 for none),
        ``value`` and ``standard_error``.
    absent : DataFrame
        The records that have none, with their reasons.
    """

    rows: tuple[Row, ...]
    control: NDArray[np.bool_]
    deterministic: NDArray[np.bool_]
    cells: Mapping[tuple[str, ...], int]
    numbers: Mapping[str, pd.DataFrame]
    absent: pd.DataFrame

    def of(self, form: Form) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the numbers that a form weighs, with the column ``term``, and the absent records of its cells."""
        term_of = np.full(len(self.cells) + 1, -1)
        for term, cell in enumerate(form.terms[_CELL].itertuples(index=False, name=None)):
            term_of[self.cells.get(cell, len(self.cells))] = term
        term_of[-1] = -1
        metric = form.terms["metric"].iloc[0]
        numbers = self.numbers.get(metric, _NO_NUMBERS)
        term = term_of[numbers["cell"].to_numpy()]
        # A whole measurement that is absent is told by one metric of each setting, not always by the one weighed here.
        places = {
            (*place, key.partition("|")[0]) for *place, key in form.terms[_CELL].itertuples(index=False, name=None)
        }
        absent = self.absent[self.absent["metric"].isin({metric, *_SPOKESMEN})]
        told = [place in places for place in absent[_PLACE].itertuples(index=False, name=None)]
        return numbers[term >= 0].assign(term=term[term >= 0]), absent[np.array(told, dtype=np.bool_)]


_SPOKESMEN: Final = ("accuracy", "consistency", "robust_accuracy")
"""The metrics under which a measurement that is absent as a whole is recorded."""
_NO_NUMBERS: Final = pd.DataFrame({column: np.empty(0, np.int64) for column in _NUMBERS})


def prepare(records: pd.DataFrame, seeds: Iterable[int]) -> Prepared:
    """Return records ready to be scored: rows named, cells numbered, seeds outside the suite left out.

    Parameters
    ----------
    records : DataFrame
        As from ``load_results``. A variant that is not the ranked one is the row ``model/variant``.
    seeds : iterable of int
        The suite's seeds. A deterministic method is kept whole, for one fit of it stands for every seed.

    Returns
    -------
    Prepared
    """
    kept = records[records["seed"].isin(list(seeds)) | records["deterministic"].astype(bool)].copy()
    headline = kept["headline"].astype(bool)
    kept["name"] = kept["model"].where(headline, kept["model"] + "/" + kept["variant"])
    distinct = kept[_SETTING].drop_duplicates()
    keys = distinct.assign(setting=[setting_key(*values) for values in distinct.itertuples(index=False, name=None)])
    kept = kept.merge(keys, on=_SETTING, how="left", validate="many_to_one")
    kept["row"] = kept.groupby(list(ROW), sort=False).ngroup()
    kept["cell"] = kept.groupby(_CELL, sort=False).ngroup()
    kept["fit"] = kept.groupby("fit_target").ngroup()  # null, which no group holds, becomes -1
    rows = kept.drop_duplicates("row")
    cells = kept.drop_duplicates("cell")
    ok = kept["status"] == "ok"
    return Prepared(
        rows=tuple(rows[list(ROW)].itertuples(index=False, name=None)),
        control=rows["control"].to_numpy(np.bool_),
        deterministic=rows["deterministic"].to_numpy(np.bool_),
        cells={cell: number for number, cell in enumerate(cells[_CELL].itertuples(index=False, name=None))},
        numbers={str(metric): group[_NUMBERS] for metric, group in kept[ok].groupby("metric")},
        absent=kept.loc[~ok, ["row", *_PLACE, "metric", "seed", "status", "reason", "deterministic"]].sort_values(
            [*_PLACE, "seed"]
        ),
    )


def score_rows(prepared: Prepared, form: Form, seeds: tuple[int, ...]) -> dict[Row, Score]:
    """Return every row's score.

    Parameters
    ----------
    prepared : Prepared
    form : Form
    seeds : tuple of int
        The suite's seeds.

    Returns
    -------
    dict from Row to Score
        One entry for every row, those without a single record of the metric included.
    """
    numbers, absent = prepared.of(form)
    found, reasons = dict(tuple(numbers.groupby("row"))), dict(tuple(absent.groupby("row")))
    return {
        row: _score(
            found.get(number, numbers.iloc[:0]),
            reasons.get(number, absent.iloc[:0]),
            form,
            () if prepared.deterministic[number] else seeds,
        )
        for number, row in enumerate(prepared.rows)
    }


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
    row = list(_FIT_ROW)
    # Null targets are equal to each other here: one fit serves them all.
    by_fit = kept.assign(fit_target=kept["fit_target"].fillna(""))
    cells = by_fit.groupby([*row, "task", "source", "fit_target"], sort=False)[columns].mean()
    tasks = cells.groupby([*row, "task"], sort=False).mean()
    suite = tasks.groupby(row, sort=False).mean()
    return suite.rename(columns={column: metric for metric, column in COSTS.items()})


def fit_row(row: Row) -> Row:
    """Return the part of a row's key that its fits share."""
    return tuple(value for column, value in zip(ROW, row, strict=True) if column in _FIT_ROW)


def infinite_images(prepared: Prepared, form: Form) -> dict[Row, int]:
    """Return, by row, how many predictions of a form's cells gave the true class probability zero."""
    counts, _ = prepared.of(replace(form, terms=form.terms.assign(metric="infinite_nll_count")))
    totals = counts.groupby("row")["value"].sum()
    return {prepared.rows[int(number)]: int(total) for number, total in zip(totals.index, totals, strict=True)}


def combine_standard_errors(
    weights: NDArray[np.float64], errors: NDArray[np.float64], images: NDArray[np.int64]
) -> float | None:
    """Return the standard error of a weighted sum of cells that may share images.

    Cells that rest on the same images (three sources on one target, a clean set and its corruptions, the seeds) move
    together by an amount that their standard errors alone do not tell. They are taken as fully correlated, which
    bounds the error from above: absolute terms add within a set of images, and squares add between sets.

    Parameters
    ----------
    weights, errors : float arrays, shape (n,)
        Weight and standard error of every cell; NaN where a cell has none.
    images : int array, shape (n,)
        Which set of images a cell rests on.

    Returns
    -------
    float or None
        None where a cell has no standard error.

    Examples
    --------
    >>> combine_standard_errors(np.array([0.5, 0.5]), np.array([0.03, 0.04]), np.array([0, 1]))
    0.025
    >>> combine_standard_errors(np.array([0.5, 0.5]), np.array([0.03, 0.04]), np.array([0, 0]))
    0.035
    """
    if not np.isfinite(errors).all():
        return None
    sums = np.bincount(images, weights=np.abs(weights) * errors)
    return float(np.sqrt((sums**2).sum()))


def image_sets(task: Iterable[str], target: Iterable[str]) -> NDArray[np.int64]:
    """Return which set of images every cell rests on, shape (n,): cells that share a domain of a task share a number.

    >>> image_sets(["t", "t", "t", "u"], ["a", "b", "a", "a"])
    array([0, 1, 0, 2])
    >>> image_sets(["t", "t", "t"], ["a", "b", "a+b"])
    array([0, 0, 0])
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    cells = [[(of, domain) for domain in name.split("+")] for of, name in zip(task, target, strict=True)]
    for domains in cells:
        for domain in domains[1:]:
            parent[root(domain)] = root(domains[0])
    numbers: dict[tuple[str, str], int] = {}
    return np.array([numbers.setdefault(root(domains[0]), len(numbers)) for domains in cells], dtype=np.int64)


def _score(found: pd.DataFrame, absent: pd.DataFrame, form: Form, seeds: tuple[int, ...]) -> Score:
    terms = form.terms
    if not seeds:
        # One fit stands for every seed: of several that are there, the most complete one.
        counts = found["seed"].value_counts()
        seeds = (int(counts.index[0]),) if len(counts) else (0,)
    values, errors, twice = _tables(found, form, seeds)
    missing = np.isnan(values)
    cell_of = terms.groupby(["task", "source", "target", "role"], sort=False).ngroup().to_numpy()
    cells = int(cell_of.max()) + 1
    broken = np.array([np.bincount(cell_of, weights=row, minlength=cells) > 0 for row in missing.astype(float)])
    counted = {"found": int((~broken).sum()), "expected": int(broken.size)}
    weights = terms["weight"].to_numpy(np.float64)
    if twice:
        return Score(None, None, None, **counted, low=None, high=None, reason=twice)
    if missing.any():
        low, high = _bounds(values, weights, form.metric)
        reason = _why(absent, seeds, **counted, gaps=_gaps(terms, missing, seeds))
        return Score(None, None, None, **counted, low=low, high=high, reason=reason)
    with np.errstate(invalid="ignore"):
        by_seed = values @ weights
    value = float(by_seed.mean())
    if math.isnan(value):
        return Score(None, None, None, **counted, low=None, high=None, reason="infinite on ID-test and on OOD-test")
    spread = float(by_seed.std(ddof=1)) if len(seeds) > 1 and np.isfinite(by_seed).all() else None
    error = combine_standard_errors(weights, errors.mean(axis=0), image_sets(terms["task"], terms["target"]))
    return Score(value, error if math.isfinite(value) else None, spread, **counted, low=value, high=value, reason="")


def _tables(
    found: pd.DataFrame, form: Form, seeds: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return values and standard errors, shape (seeds, terms), NaN where missing, and a word on doubled records."""
    shape = (len(seeds), len(form.terms))
    values, errors = np.full(shape, np.nan), np.full(shape, np.nan)
    used = found[found["seed"].isin(seeds)]
    doubled = used.duplicated(["term", "seed", "fit"])
    if doubled.any():
        first = used[doubled].iloc[0]
        term = form.terms.iloc[int(first["term"])]
        place = f"{term['source']} to {term['target']}, seed {int(first['seed'])}"
        return values, errors, f"{doubled.sum()} numbers are there twice, first {place}: remove the fits of one version"
    pairs = form.terms[["task", "source"]].itertuples(index=False, name=None)
    inside = (form.terms["role"] != "ood-test").to_numpy()
    wanted = np.where(inside, [form.fits_of[pair] for pair in pairs], 1)
    # Where a method reads the target there is one fit a pair, and as many values on the source's own images.
    reads_target = bool((used["fit"] >= 0).any())
    place_of = {seed: place for place, seed in enumerate(seeds)}
    rows, columns = used["seed"].map(place_of).to_numpy(np.int64), used["term"].to_numpy(np.int64)
    counts, sums, error_sums = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (rows, columns), 1)
    np.add.at(sums, (rows, columns), used["value"].to_numpy(np.float64))
    np.add.at(error_sums, (rows, columns), used["standard_error"].to_numpy(np.float64))
    whole = counts == (wanted if reads_target else 1)
    values[whole], errors[whole] = sums[whole] / counts[whole], error_sums[whole] / counts[whole]
    return values, errors, ""


def _bounds(
    values: NDArray[np.float64], weights: NDArray[np.float64], metric: str
) -> tuple[float | None, float | None]:
    """Return the least and the greatest score, whatever the missing values are."""
    info = METRICS[metric]
    if info.unbounded or info.unit not in ("fraction", "score") or np.isinf(values).any():
        return None, None
    top = 2.0 if info.unit == "score" else 1.0  # a Brier score summed over classes reaches 2
    missing = np.isnan(values)
    worst, best = np.where(weights > 0, 0.0, top), np.where(weights > 0, top, 0.0)
    low, high = (np.where(missing, fill, values) @ weights for fill in (worst, best))
    return float(low.mean()), float(high.mean())


def _gaps(terms: pd.DataFrame, missing: NDArray[np.bool_], seeds: tuple[int, ...]) -> str:
    """Say what is missing: whole seeds, else the first pair."""
    without = [str(seed) for seed, row in zip(seeds, missing, strict=True) if row.all()]
    if without:
        return f"nothing of seed {', '.join(without)}"
    row, column = (int(place[0]) for place in np.nonzero(missing))
    term = terms.iloc[column]
    return f"first {term['source']} to {term['target']}, seed {seeds[row]}"


def _why(absent: pd.DataFrame, seeds: tuple[int, ...], *, found: int, expected: int, gaps: str) -> str:
    """Say how much is missing, and the first reason that a record gives, or else what is missing."""
    amount = f"{found} of {expected} cells"
    told: Any = absent[absent["seed"].isin(seeds) | absent["deterministic"].astype(bool)]
    if not len(told):
        return f"{amount}; {gaps}"
    first = told.iloc[0]
    word = {"failed": "failed", "not_applicable": "not applicable", "not_run": "not run"}.get(first["status"], "")
    if found == 0 and (told["reason"] == first["reason"]).all():
        return f"{word}: {first['reason']}"
    return f"{amount}; {first['source']} to {first['target']} {word}: {first['reason']}"
