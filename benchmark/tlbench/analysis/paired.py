"""Two models on the same images: how far are they apart, and how far would that move with other images and seeds?

::

    from tlbench.analysis.paired import compare

    found = compare(tlbench.load_predictions("digits", "lp-ft"), tlbench.load_predictions("digits", "finetune"))
    found.pairs[["source", "target", "difference", "low", "high"]]

A pair of domains has two margins that could have been drawn otherwise: clusters of target images (the image itself
where the data name no cluster), and fits, one a seed. Both are resampled (Owen's pigeonhole bootstrap), with the same
draws for both models: what an image or a seed does to both of them cancels. Pairs onto one target share their draws of
images, pairs from one source those of fits. The draws of a margin of k units number k - 1, which makes the variance of
a mean unbiased also for three seeds, and the interval takes the t quantile that goes with so few.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from tlbench.metrics.resampling import KNOWN_DEGREES, drawn_shares, pooled_degrees, resampled_means
from tlbench.metrics.uncertainty import LEAST_CLUSTERS

Measure = Literal["accuracy", "nll", "brier"]
MEASURES: Final[tuple[Measure, ...]] = ("accuracy", "nll", "brier")

_CELL: Final = ["task", "source", "target"]
_IMAGE: Final = [*_CELL, "seed", "id", "image", "cluster", "split_hash", "deterministic"]
_COLUMNS: Final[dict[str, str]] = {"accuracy": "rank", "nll": "log_likelihood", "brier": "brier"}
_ROW: Final = ["settings_hash", "backbone", "weights_hash", "shots", "precision", "origin"]


@dataclass(frozen=True)
class Difference:
    """What the first model has more than the second.

    Attributes
    ----------
    value : float
    standard_error : float or None
        Over clusters of images and, where there are several, seeds.
    low, high : float or None
        Confidence interval; None where the data are too few for one.
    """

    value: float
    standard_error: float | None
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str | None:
        """``"higher"`` or ``"lower"`` where the interval leaves out zero, else ``"undecided"``; None without one."""
        if self.low is None or self.high is None:
            return None
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "undecided"


@dataclass(frozen=True)
class Comparison:
    """Two models on the pairs of domains that both have.

    Attributes
    ----------
    pairs : DataFrame
        One row a pair: ``task``, ``source``, ``target``, ``images``, ``clusters``, ``difference``, ``standard_error``,
        ``low``, ``high``, ``seeds_sd`` (of the difference, over seeds), ``verdict`` and ``reason``. The verdict is
        ``"higher"`` or ``"lower"`` where the interval leaves out zero, else ``"undecided"``; without an interval it is
        null, and the reason says why.
    tasks : DataFrame
        One row a task, the mean over its pairs: ``task``, ``pairs``, ``judged_pairs`` (those that have an interval),
        ``difference``, ``standard_error``, ``low``, ``high``, ``verdict`` and ``reason``, as above.
    mean : Difference
        Plain mean over tasks of the mean over their pairs. It has an interval where all of them have one.
    mean_judged : Difference or None
        The same over those pairs alone that have an interval.
    seeds : tuple of int
        Those that both models have.
    seeds_resampled : bool
        Whether the intervals tell of other seeds, too. With one seed they tell of other images only: of these two
        networks, not of the two methods.
    """

    pairs: pd.DataFrame
    tasks: pd.DataFrame
    mean: Difference
    mean_judged: Difference | None
    seeds: tuple[int, ...]
    seeds_resampled: bool


def compare(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    measure: Measure = "accuracy",
    role: str = "ood-test",
    level: float = 0.95,
    draws: int = 2000,
) -> Comparison:
    """Return how far two models are apart on clean images, pair by pair and on average.

    Parameters
    ----------
    first, second : DataFrame
        Predictions of one row of the board each, as from ``load_predictions``. Of several variants the ranked one is
        taken, unless all are of one. A deterministic model stands for every seed of the other; else the seeds that
        both have are compared, each with its like.
    measure : {"accuracy", "nll", "brier"}
        What is averaged over images.
    role : {"ood-test", "id-test", "id-val"}
    level : float
        Of the confidence intervals.
    draws : int
        Bootstrap samples. Equal ones give equal numbers: the draws are named by the data.

    Returns
    -------
    Comparison
        ``compare(b, a)`` is ``compare(a, b)`` with every sign turned.

    Raises
    ------
    ValueError
        If the two have no pair or no seed in common, an image twice, or not the same images.

    Notes
    -----
    The bootstrap of two crossed margins overstates what they do together (an image that one seed gets wrong and
    another right) up to threefold: intervals are too wide rather than too narrow. Where a target has fewer than five
    clusters there is no interval: nobody can say from three plotter faces what a fourth would do.

    References
    ----------
    Owen (2007), "The pigeonhole bootstrap"; McCarthy and Snowden (1985), "The bootstrap and finite population
    sampling", for k - 1 draws; Satterthwaite (1946), "An approximate distribution of estimates of variance
    components".
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    joined, seeds = _joined(first, second, measure, role)
    cells = _cells(joined, seeds)
    values = np.array([cell.value for cell in cells])
    many = np.array([not cell.reason for cell in cells])
    samples = np.full((draws, len(cells)), np.nan)
    samples[:, many] = _samples([cell for cell in cells if not cell.reason], draws)

    def difference(weights: NDArray[np.float64]) -> Difference:
        used = weights > 0
        value = float(weights[used] @ values[used])
        if not many[used].all():
            return Difference(value, None, None, None)
        error = float(np.std(samples[:, used] @ weights[used], ddof=1))
        margin = _quantile(cells, weights, level) * error
        return Difference(value, error, value - margin, value + margin)

    each = [difference(row) for row in np.eye(len(cells))]
    return Comparison(
        pairs=_frame(cells, each),
        tasks=_task_frame(cells, many, difference),
        mean=difference(_weights(cells, np.ones_like(many))),
        mean_judged=difference(_weights(cells, many)) if many.any() else None,
        seeds=seeds,
        seeds_resampled=len(seeds) > 1,
    )


def side_by_side(
    first: pd.DataFrame, second: pd.DataFrame, *, measure: Measure = "accuracy", role: str = "ood-test"
) -> pd.DataFrame:
    """Return what is compared, image by image.

    Parameters, errors as for `compare`.

    Returns
    -------
    DataFrame
        One row an image, pair and seed: ``task``, ``source``, ``target``, ``seed``, ``id``, ``image``, ``cluster``, and
        the measure's values ``first`` and ``second``; 1 or 0 for accuracy.
    """
    joined, _ = _joined(first, second, measure, role)
    named = joined.rename(columns={"value": "first", "value_other": "second"})
    columns = [*_CELL, "seed", "id", "image", "cluster", "first", "second"]
    return named[columns].sort_values([*_CELL, "seed", "id"], ignore_index=True)


def compare_clusters(
    first: pd.DataFrame, second: pd.DataFrame, *, measure: Measure = "accuracy", role: str = "ood-test"
) -> pd.DataFrame:
    """Return the difference on every cluster of every target: what there is to see where they are too few.

    Parameters, errors as for `compare`.

    Returns
    -------
    DataFrame
        ``task``, ``source``, ``target``, ``cluster``, ``images``, ``difference``: the mean over seeds. Targets whose
        data name no clusters are not among them.
    """
    joined, seeds = _joined(first, second, measure, role)
    rows = [
        {"task": cell.task, "source": cell.source, "target": cell.target, "cluster": name, "images": n, "difference": d}
        for cell in _cells(joined[joined["cluster"].notna()], seeds)
        for name, n, d in zip(cell.units, cell.images, cell.sums.mean(axis=0) / cell.images, strict=True)
    ]
    return pd.DataFrame(rows, columns=[*_CELL, "cluster", "images", "difference"])


@dataclass(frozen=True)
class _Cell:
    """One pair of domains.

    Attributes
    ----------
    drawn_from : tuple of str
        Which images the target's are: pairs that agree in it share their draws.
    units : array of str, shape (clusters,)
    images : int array, shape (clusters,)
    sums : float array, shape (seeds, clusters)
        Of the differences of a cluster's images.
    """

    task: str
    source: str
    target: str
    drawn_from: tuple[str, ...]
    units: NDArray[np.object_]
    images: NDArray[np.int64]
    sums: NDArray[np.float64]

    @property
    def by_seed(self) -> NDArray[np.float64]:
        return np.asarray(self.sums.sum(axis=1) / self.images.sum())

    @property
    def value(self) -> float:
        return float(self.by_seed.mean())

    @property
    def reason(self) -> str:
        """Why there is no interval, or nothing."""
        if not np.isfinite(self.sums).all():
            return "an infinite value"
        few = len(self.units) < LEAST_CLUSTERS
        return f"{len(self.units)} clusters, an interval needs at least {LEAST_CLUSTERS}" if few else ""


def _joined(
    first: pd.DataFrame, second: pd.DataFrame, measure: Measure, role: str
) -> tuple[pd.DataFrame, tuple[int, ...]]:
    """Return one row an image, pair and seed with its difference, and the seeds."""
    tables = [_chosen(table, measure, role) for table in (first, second)]
    fixed = [bool(len(table)) and bool(table["deterministic"].all()) for table in tables]
    own = [set(table["seed"]) for table in tables]
    seeds = own[0] & own[1]
    for mine, other in ((0, 1), (1, 0)):
        if fixed[mine]:
            one = tables[mine][tables[mine]["seed"] == min(own[mine])]
            seeds = {min(own[other], default=0)} if fixed[other] else own[other]
            tables[mine] = pd.concat([one.assign(seed=seed) for seed in sorted(seeds)], ignore_index=True)
    if not seeds:
        raise ValueError(f"expected models with a seed in common, got seeds {sorted(own[0])} and {sorted(own[1])}")
    left, right = (table[table["seed"].isin(seeds)] for table in tables)
    # A pair that one of them lacks is not compared; an image that one of them lacks is a mistake.
    shared = left[_CELL].drop_duplicates().merge(right[_CELL].drop_duplicates())
    if not len(shared):
        raise ValueError("expected models with a pair of domains in common, got none")
    both = left.merge(shared).merge(
        right.merge(shared), on=[*_CELL, "seed", "id"], how="outer", suffixes=("", "_other"), indicator="side"
    )
    alone = both[(both["side"] != "both") | (both["split_hash"] != both["split_hash_other"])]
    if len(alone):
        at = alone.iloc[0]
        raise ValueError(
            f"{at['source']} to {at['target']}: expected the same images for every seed of both models, got "
            f"{len(alone)} rows of one that the other has not"
        )
    return both.assign(difference=both["value"] - both["value_other"]), tuple(sorted(int(seed) for seed in seeds))


def _chosen(table: pd.DataFrame, measure: Measure, role: str) -> pd.DataFrame:
    if measure not in _COLUMNS:
        raise ValueError(f"measure: expected accuracy, nll or brier, got {measure!r}")
    mine = (table["condition"] == "clean") & (table["role"] == role)
    if table.loc[mine, "variant"].nunique() > 1:
        mine &= table["headline"].astype(bool)
    several = [
        f"{name} {', '.join(map(str, table.loc[mine, name].unique()))}"
        for name in _ROW
        if table.loc[mine, name].nunique() > 1
    ]
    if several:
        raise ValueError(f"expected predictions of one row of a board, got several: {'; '.join(several)}")
    rows = table.loc[mine, [*_IMAGE, _COLUMNS[measure]]]
    if rows.duplicated([*_CELL, "seed", "id"]).any():
        raise ValueError("expected one prediction for every pair, seed and image, got several for some")
    numbers = rows[_COLUMNS[measure]].to_numpy(np.float64)
    value = {"accuracy": numbers == 0, "nll": -numbers, "brier": numbers}[measure]
    return rows[_IMAGE].assign(value=np.asarray(value, dtype=np.float64))


def _cells(joined: pd.DataFrame, seeds: Sequence[int]) -> list[_Cell]:
    cells = []
    for where, rows in joined.groupby(_CELL, sort=True):
        task, source, target = map(str, where)
        named, clustered = bool(rows["image"].notna().all()), bool(rows["cluster"].notna().all())
        unit = rows["cluster" if clustered else "image" if named else "id"].astype("str").to_numpy(object)
        units, unit_of = np.unique(unit, return_inverse=True)
        place = np.searchsorted(np.asarray(seeds), rows["seed"].to_numpy())
        shape = (len(seeds), len(units))
        differences = rows["difference"].to_numpy(np.float64)
        sums = np.bincount(place * shape[1] + unit_of, weights=differences, minlength=shape[0] * shape[1])
        cells.append(
            _Cell(
                task,
                source,
                target,
                # Without names, images of one place in two splits would be taken for each other.
                (task, target) if named else (task, target, str(rows["split_hash"].iloc[0])),
                units,
                np.bincount(unit_of[place == 0]).astype(np.int64),
                sums.reshape(shape).astype(np.float64),
            )
        )
    return cells


def _samples(cells: Sequence[_Cell], draws: int) -> NDArray[np.float64]:
    """Return bootstrap samples of the cells' differences, shape (draws, cells)."""
    samples = np.empty((draws, len(cells)))
    all_units = _all_units(cells)
    for column, cell in enumerate(cells):
        known = all_units[cell.drawn_from]
        images = drawn_shares(len(known), draws, ("images", *cell.drawn_from))
        if len(cell.units) < len(known):
            images = images[:, np.searchsorted(known, cell.units)]
        fits = drawn_shares(len(cell.sums), draws, ("fits", cell.task, cell.source))
        samples[:, column] = resampled_means(images, fits, cell.sums, cell.images)
    return samples


def _all_units(cells: Sequence[_Cell]) -> dict[tuple[str, ...], NDArray[np.object_]]:
    """Return, sorted, the clusters of every target: a pair of fewer classes may not have all of them."""
    units: dict[tuple[str, ...], NDArray[np.object_]] = {}
    for cell in cells:
        units[cell.drawn_from] = np.union1d(units.get(cell.drawn_from, cell.units), cell.units)
    return units


def _quantile(cells: Sequence[_Cell], weights: NDArray[np.float64], level: float) -> float:
    """Return the t quantile for a weighted mean of cells, its degrees of freedom by Satterthwaite's rule.

    The variance of every margin is that of its units' influence on the mean.
    """
    used = [(cell, weight) for cell, weight in zip(cells, weights, strict=True) if weight > 0]
    all_units = _all_units([cell for cell, _ in used])
    images = {name: np.zeros(len(units)) for name, units in all_units.items()}
    fits: dict[tuple[str, str], NDArray[np.float64]] = {}
    for cell, weight in used:
        moved = (cell.sums.mean(axis=0) - cell.value * cell.images) / cell.images.sum()
        images[cell.drawn_from][np.searchsorted(all_units[cell.drawn_from], cell.units)] += weight * moved
        own = fits.setdefault((cell.task, cell.source), np.zeros(len(cell.sums)))
        own += weight * (cell.by_seed - cell.value) / len(cell.sums)
    margins = [influence for influence in (*images.values(), *fits.values()) if len(influence) > 1]
    degrees = np.array([len(influence) - 1.0 for influence in margins])
    variances = np.array([float(influence @ influence) for influence in margins]) * (degrees + 1) / degrees
    together = pooled_degrees(variances, degrees) if len(margins) else KNOWN_DEGREES
    return float(stdtrit(together, (1 + level) / 2))


def _weights(cells: Sequence[_Cell], chosen: NDArray[Any]) -> NDArray[np.float64]:
    """Return the weights of a mean over tasks of the mean over their chosen pairs."""
    tasks = [cell.task if own else "" for cell, own in zip(cells, chosen, strict=True)]
    named = set(tasks) - {""}
    return np.array([1 / (len(named) * tasks.count(task)) if task else 0.0 for task in tasks])


def _frame(cells: Sequence[_Cell], differences: Sequence[Difference]) -> pd.DataFrame:
    rows = [
        {
            "task": cell.task,
            "source": cell.source,
            "target": cell.target,
            "images": int(cell.images.sum()),
            "clusters": len(cell.units),
            "difference": found.value,
            "standard_error": found.standard_error,
            "low": found.low,
            "high": found.high,
            "seeds_sd": float(np.std(cell.by_seed, ddof=1)) if len(cell.by_seed) > 1 else None,
            "verdict": found.verdict,
            "reason": cell.reason,
        }
        for cell, found in zip(cells, differences, strict=True)
    ]
    return pd.DataFrame(rows).astype({name: "float64" for name in ("standard_error", "low", "high", "seeds_sd")})


def _task_frame(
    cells: Sequence[_Cell], many: NDArray[np.bool_], difference: Callable[[NDArray[np.float64]], Difference]
) -> pd.DataFrame:
    rows = []
    for task in dict.fromkeys(cell.task for cell in cells):
        own = np.array([cell.task == task for cell in cells])
        found = difference(_weights(cells, own))
        pairs, judged = int(own.sum()), int((own & many).sum())
        rows.append(
            {
                "task": task,
                "pairs": pairs,
                "judged_pairs": judged,
                "difference": found.value,
                "standard_error": found.standard_error,
                "low": found.low,
                "high": found.high,
                "verdict": found.verdict,
                "reason": "" if judged == pairs else f"{pairs - judged} of {pairs} pairs have no interval",
            }
        )
    return pd.DataFrame(rows).astype({name: "float64" for name in ("standard_error", "low", "high")})
