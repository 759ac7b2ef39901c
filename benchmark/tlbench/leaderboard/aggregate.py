"""Records to scores: pure functions of tables, so that a score depends on nobody but the row it belongs to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.leaderboard.forms import Form
from tlbench.leaderboard.missing import bounds, gaps, why
from tlbench.leaderboard.prepared import Prepared, Row


@dataclass(frozen=True)
class Score:
    """One row's score by one form.

    Attributes
    ----------
    value : float or None
        None unless every record is there, of one seed at least: of a seed that nobody has run there is none to miss,
        while one that failed is missed. May be infinite (NLL).
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
    ran : tuple of int
        The seeds on which the value rests.
    all_seeds : int
        How many there should be.
    terms, images : float array, shape (terms,), or None
        The form's terms, each the mean over seeds, and the images that each rests on; None without a value.
    """

    value: float | None
    standard_error: float | None
    seeds_sd: float | None
    found: int
    expected: int
    low: float | None
    high: float | None
    reason: str
    ran: tuple[int, ...] = ()
    all_seeds: int = 0
    terms: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)
    images: NDArray[np.float64] | None = field(default=None, compare=False, repr=False)

    @property
    def seeds(self) -> int:
        """How many seeds the value rests on."""
        return len(self.ran)


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
    found, reasons = _by_row(numbers, len(prepared.rows)), dict(tuple(absent.groupby("row")))
    weighed = _Weighed.of(form)
    return {
        row: _score(
            found[number],
            reasons.get(number, absent.iloc[:0]),
            weighed,
            () if prepared.deterministic[number] else seeds,
        )
        for number, row in enumerate(prepared.rows)
    }


_Numbers = Mapping[str, NDArray[Any]]


def _by_row(numbers: pd.DataFrame, rows: int) -> list[_Numbers]:
    """Return the numbers of every row, as columns, in the order in which they were."""
    order = np.argsort(numbers["row"].to_numpy(), kind="stable")
    columns = {
        name: numbers[name].to_numpy()[order] for name in ("row", "term", "seed", "fit", "value", "standard_error", "n")
    }
    ends = np.searchsorted(columns["row"], np.arange(rows + 1))
    return [
        {name: column[start:end] for name, column in columns.items()}
        for start, end in itertools.pairwise(ends.tolist())
    ]


@dataclass(frozen=True)
class _Weighed:
    """A form, and what is the same for every row: computed once.

    Attributes
    ----------
    form : Form
    weights : float array, shape (terms,)
    cell_of : int array, shape (terms,)
        Which cell a term belongs to.
    cells : int
    images : int array, shape (terms,)
        Which set of images a term rests on.
    fits : int array, shape (terms,)
        Values of a term where a method reads the target.
    """

    form: Form
    weights: NDArray[np.float64]
    cell_of: NDArray[np.int64]
    cells: int
    images: NDArray[np.int64]
    fits: NDArray[np.int64]

    @classmethod
    def of(cls, form: Form) -> _Weighed:
        terms = form.terms
        cell_of = np.asarray(terms.groupby(["task", "source", "target", "role"], sort=False).ngroup(), dtype=np.int64)
        pairs = terms[["task", "source"]].itertuples(index=False, name=None)
        inside = (terms["role"] != "ood-test").to_numpy()
        return cls(
            form=form,
            weights=terms["weight"].to_numpy(np.float64),
            cell_of=cell_of,
            cells=int(cell_of.max()) + 1,
            images=image_sets(terms["task"], terms["target"]),
            fits=np.where(inside, [form.fits_of[pair] for pair in pairs], 1),
        )


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


def _score(found: _Numbers, absent: pd.DataFrame, weighed: _Weighed, seeds: tuple[int, ...]) -> Score:
    if not seeds:
        # One fit stands for every seed: of several that are there, the most complete one.
        counts = pd.Series(found["seed"]).value_counts()
        seeds = (int(counts.index[0]),) if len(counts) else (0,)
    values, errors, images, twice = _tables(found, weighed, seeds)
    missing = np.isnan(values)
    all_seeds, run = len(seeds), _run_seeds(missing, absent, seeds)
    form, cells, cell_of = weighed.form, weighed.cells, weighed.cell_of
    broken = np.array([np.bincount(cell_of, weights=row, minlength=cells) > 0 for row in missing.astype(float)])
    counted: dict[str, Any] = {"found": int((~broken).sum()), "expected": int(broken.size)}
    weights = weighed.weights
    if twice:
        return Score(None, None, None, **counted, low=None, high=None, reason=twice)
    if run.any() and not missing[run].any():
        values, errors, images = values[run], errors[run], images[run]
        seeds = tuple(np.array(seeds)[run].tolist())
    elif missing.any():
        low, high = bounds(values, weights, form.metric)
        reason = why(absent, seeds, **counted, first_gap=gaps(form.terms, missing, seeds))
        return Score(None, None, None, **counted, low=low, high=high, reason=reason)
    with np.errstate(invalid="ignore"):
        by_seed = values @ weights
    value = float(by_seed.mean())
    if math.isnan(value):
        return Score(None, None, None, **counted, low=None, high=None, reason="infinite on ID-test and on OOD-test")
    spread = float(by_seed.std(ddof=1)) if len(seeds) > 1 and np.isfinite(by_seed).all() else None
    error = combine_standard_errors(weights, errors.mean(axis=0), weighed.images)
    fewer = len(seeds) < all_seeds
    return Score(
        value,
        error if math.isfinite(value) else None,
        spread,
        **counted,
        low=None if fewer else value,
        high=None if fewer else value,
        reason=f"{len(seeds)} of {all_seeds} seeds" if fewer else "",
        ran=seeds,
        all_seeds=all_seeds,
        terms=values.mean(axis=0),
        images=images.mean(axis=0),
    )


def _run_seeds(missing: NDArray[np.bool_], absent: pd.DataFrame, seeds: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return which seeds somebody has run: those of which there is a number, or a reason why there is none."""
    told = set(absent["seed"])
    return np.array([seed in told or not row.all() for seed, row in zip(seeds, missing, strict=True)], dtype=np.bool_)


def _tables(
    found: _Numbers, weighed: _Weighed, seeds: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], str]:
    """Return values, standard errors and images, shape (seeds, terms), NaN where missing, and a word on doubles."""
    terms = weighed.form.terms
    shape = (len(seeds), len(terms))
    values, errors, images = np.full((3, *shape), np.nan)
    place_of = {seed: place for place, seed in enumerate(seeds)}
    place = np.full(len(found["seed"]), -1)
    for seed, number in place_of.items():
        place[found["seed"] == seed] = number
    mine = place >= 0
    rows, columns, fit = place[mine], found["term"][mine], found["fit"][mine]
    doubled = _doubled((rows * shape[1] + columns) * (int(fit.max(initial=-1)) + 2) + fit + 1)
    if len(doubled):
        term = terms.iloc[int(columns[doubled[0]])]
        where = f"{term['source']} to {term['target']}, seed {int(found['seed'][mine][doubled[0]])}"
        told = f"{len(doubled)} numbers are there twice, first {where}: remove the fits of one version"
        return values, errors, images, told
    # Where a method reads the target there is one fit a pair, and as many values on the source's own images.
    reads_target = bool((fit >= 0).any())
    counts = np.zeros(shape)
    np.add.at(counts, (rows, columns), 1)
    whole = counts == (weighed.fits if reads_target else 1)
    for table, name in ((values, "value"), (errors, "standard_error"), (images, "n")):
        sums = np.zeros(shape)
        np.add.at(sums, (rows, columns), found[name][mine].astype(np.float64))
        table[whole] = sums[whole] / counts[whole]
    return values, errors, images, ""


def _doubled(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places of keys that have come before."""
    _, first = np.unique(keys, return_index=True)
    return np.delete(np.arange(len(keys)), first)
