"""Every row of a task as a point: ID accuracy against OOD accuracy, pair by pair and on average, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from tlbench.leaderboard.aggregate import combine_standard_errors, image_sets
from tlbench.leaderboard.forms import setting_key
from tlbench.leaderboard.prepared import ROW, Prepared, Row, prepare
from tlbench.suites.spec import Pair, Suite

LEVEL: Final = 0.95
_CLEAN: Final = setting_key("clean", None, None, None)
_BOTH: Final = (("id", "id-test"), ("ood", "ood-test"))
_Cell = tuple[str, str, str, str]


@dataclass(frozen=True)
class TaskPoints:
    """The points of one task.

    Attributes
    ----------
    task : str
    mean : DataFrame
        One row a row of the board that is complete on this task, best OOD accuracy first and controls last: the columns
        of ``ROW``; ``number``, by which figures call it; ``control``; and, for ``id`` and ``ood``, the accuracy,
        ``_low`` and ``_high`` (NaN where a set has no standard error) and ``_n``, the images it rests on.
    pairs : tuple of (Pair, DataFrame)
        The same for every pair, of all rows that have it, by number.
    """

    task: str
    mean: pd.DataFrame
    pairs: tuple[tuple[Pair, pd.DataFrame], ...]

    @property
    def known(self) -> pd.DataFrame:
        """Every row that has a number, once: the columns of ``ROW``, ``number`` and ``control``."""
        frames = [self.mean, *(frame for _, frame in self.pairs)]
        whole = pd.concat([frame[[*ROW, "number", "control"]] for frame in frames])
        return whole.drop_duplicates("number").sort_values("number").reset_index(drop=True)


@dataclass(frozen=True)
class Accuracies:
    """Clean accuracies of every row, seed and cell.

    Attributes
    ----------
    rows : tuple of Row
    control : bool array, shape (rows,)
    cells : mapping from (task, source, target, role) to int
    values, errors : float arrays, shape (rows, seeds, cells)
        Accuracy and its standard error of images, NaN where there is none.
    images : int array, shape (cells,)
    """

    rows: tuple[Row, ...]
    control: NDArray[np.bool_]
    cells: Mapping[_Cell, int]
    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    images: NDArray[np.int64]


def read_accuracies(records: pd.DataFrame, suite: Suite) -> Accuracies:
    """Return the clean accuracies of the ranked variant of every row.

    Where a method reads the target, a source's own accuracy is the mean over its fits, if none is missing.

    Parameters
    ----------
    records : DataFrame
        As from ``load_results``.
    suite : Suite
    """
    chosen = records[
        (records["condition"] == "clean") & (records["metric"] == "accuracy") & records["headline"].astype(bool)
    ]
    prepared = prepare(chosen, suite.protocol.seeds)
    cells = {(cell[0], cell[1], cell[2], cell[3]): place for cell, place in prepared.cells.items() if cell[4] == _CLEAN}
    values, errors = _tables(prepared, suite, cells)
    images = np.zeros(len(prepared.cells), dtype=np.int64)
    known = chosen[chosen["status"] == "ok"].groupby(["task", "source", "target", "role"], observed=True)["n"].max()
    for task, source, target, role, n in known.reset_index().itertuples(index=False, name=None):
        images[cells[str(task), str(source), str(target), str(role)]] = int(n)
    return Accuracies(prepared.rows, prepared.control, cells, values, errors, images)


def _tables(
    prepared: Prepared, suite: Suite, cells: Mapping[_Cell, int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    numbers = prepared.numbers.get("accuracy")
    seeds = suite.protocol.seeds
    shape = (len(prepared.rows), len(seeds), len(prepared.cells))
    if numbers is None or not len(numbers):
        return np.full(shape, np.nan), np.full(shape, np.nan)
    row, cell, fit = (numbers[name].to_numpy() for name in ("row", "cell", "fit"))
    # One fit of a deterministic method stands for every seed: its first.
    first = numbers.groupby("row")["seed"].transform("min").to_numpy() == numbers["seed"].to_numpy()
    place = numbers["seed"].map({seed: number for number, seed in enumerate(seeds)}).fillna(-1).to_numpy().astype(int)
    seed = np.where(prepared.deterministic[row], np.where(first, 0, -1), place)
    kept = seed >= 0
    at = (row[kept], seed[kept], cell[kept])
    count, values, errors = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    np.add.at(count, at, 1)
    np.add.at(values, at, numbers["value"].to_numpy(np.float64)[kept])
    np.add.at(errors, at, numbers["standard_error"].to_numpy(np.float64)[kept])
    wanted = np.ones(shape)
    reads_target = np.isin(np.arange(shape[0]), row[fit >= 0])
    for (task, source, _, role), number in cells.items():
        if role != "ood-test":
            fits = sum(pair.source == source for pair in suite.pairs_of(task))
            wanted[reads_target, :, number] = fits
    # A number that is there twice is no number: nobody knows which one is meant.
    whole = count == wanted
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole, values / count, np.nan), np.where(whole, errors / count, np.nan)


def task_points(accuracies: Accuracies, suite: Suite, task: str) -> TaskPoints:
    """Return the points of one task.

    The mean over the pairs weighs a source's own accuracy once for every pair that it begins, as the board's gap does.
    An interval is 1.96 standard errors to either side, those of images and those of seeds taken together; the
    standard errors of cells that share images add up in full.
    """
    pairs = suite.pairs_of(task)
    mean = _points(accuracies, pairs)
    by_pair = [_points(accuracies, (pair,)) for pair in pairs]
    # What is complete comes first, by its mean; what is not, by its name.
    numbers: dict[Row, int] = {}
    ordered = mean.sort_values(["control", "ood", *ROW], ascending=[True, False, *[True] * len(ROW)], kind="stable")
    rest = pd.concat([frame[[*ROW]] for frame in by_pair]).sort_values([*ROW], kind="stable")
    for row in [*ordered[list(ROW)].itertuples(index=False, name=None), *rest.itertuples(index=False, name=None)]:
        numbers.setdefault(row, len(numbers) + 1)
    return TaskPoints(
        task,
        _numbered(mean, numbers),
        tuple((pair, _numbered(frame, numbers)) for pair, frame in zip(pairs, by_pair, strict=True)),
    )


def _numbered(frame: pd.DataFrame, numbers: Mapping[Row, int]) -> pd.DataFrame:
    order = [numbers[row] for row in frame[list(ROW)].itertuples(index=False, name=None)]
    return frame.assign(number=np.array(order, dtype=np.int64)).sort_values("number").reset_index(drop=True)


def _points(accuracies: Accuracies, pairs: tuple[Pair, ...]) -> pd.DataFrame:
    columns: dict[str, list[object]] = {name: [] for name in (*ROW, "control")}
    columns |= {f"{name}{end}": [] for name, _ in _BOTH for end in ("", "_low", "_high", "_n")}
    weights = {name: _weights(pairs, role) for name, role in _BOTH}
    if not all(cell in accuracies.cells for chosen in weights.values() for cell in chosen):
        return _frame(columns)  # no row has all of these pairs
    places = {name: np.array([accuracies.cells[cell] for cell in chosen]) for name, chosen in weights.items()}
    both = np.concatenate([places["id"], places["ood"]])
    for number, row in enumerate(accuracies.rows):
        there = ~np.isnan(accuracies.values[number][:, both])
        ran = there.any(axis=1)
        if not ran.any() or not there[ran].all():
            continue
        for name, value in (*zip(ROW, row, strict=True), ("control", bool(accuracies.control[number]))):
            columns[name].append(value)
        for name, _ in _BOTH:
            share = np.array(list(weights[name].values()))
            by_seed = accuracies.values[number][np.ix_(ran, places[name])] @ share
            errors = accuracies.errors[number][np.ix_(ran, places[name])].mean(axis=0)
            sets = image_sets(*zip(*((cell[0], cell[2]) for cell in weights[name]), strict=True))
            value, low, high = _interval(by_seed, combine_standard_errors(share, errors, sets))
            columns[name].append(value)
            columns[f"{name}_low"].append(low)
            columns[f"{name}_high"].append(high)
            columns[f"{name}_n"].append(int(accuracies.images[places[name]].sum()))
    return _frame(columns)


def _frame(columns: Mapping[str, list[object]]) -> pd.DataFrame:
    numbers = [f"{name}{end}" for name, _ in _BOTH for end in ("", "_low", "_high")]
    kinds = {**{name: "float64" for name in numbers}, **{f"{name}_n": "int64" for name, _ in _BOTH}, "control": "bool"}
    return pd.DataFrame(columns).astype(kinds)


def _interval(by_seed: NDArray[np.float64], error: float | None) -> tuple[float, float, float]:
    """Return the mean over seeds and its interval: standard errors of images and of seeds taken together."""
    value = float(by_seed.mean())
    if error is None:
        return value, np.nan, np.nan
    of_seeds = float(by_seed.var(ddof=1)) / len(by_seed) if len(by_seed) > 1 else 0.0
    reach = float(ndtri(0.5 + LEVEL / 2)) * float(np.sqrt(error**2 + of_seeds))
    return value, max(0.0, value - reach), min(1.0, value + reach)


def _weights(pairs: tuple[Pair, ...], role: str) -> dict[_Cell, float]:
    weights: dict[_Cell, float] = {}
    for pair in pairs:
        cell = (pair.task, pair.source, pair.target if role == "ood-test" else pair.source, role)
        weights[cell] = weights.get(cell, 0.0) + 1 / len(pairs)
    return weights
