"""How much of what runs differ in is the seed, and would another seed have told another story?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
import pandas as pd
from scipy.stats import kendalltau

from tlbench.analysis.answer import Answer, named, unanswered
from tlbench.analysis.clustered import DRAWS, PAIR, Draws, Floats, Sampled, Statistic, Weights, over_pairs, spearman
from tlbench.analysis.configuration import AUGMENT
from tlbench.analysis.effects import effects_of, matches_of
from tlbench.analysis.predictors import predicting
from tlbench.analysis.ranks import shared_cells
from tlbench.analysis.runs import measured_on
from tlbench.analysis.transfer import transferring

LEAST_SEEDS: Final = 3
_Items = Mapping[str, float]


def seeds(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A17: the seeds' share of variance, and whether orderings survive a change of seed.

    A measure's variance over the runs of a pair is split into that between configurations and that between the seeds of
    one, over configurations with at least three seeds; a method without randomness has none. Then every ordering that
    the other questions lead to is made from the runs of one seed alone (where a deterministic run stands for each), and
    compared between seeds.

    Returns
    -------
    Answer
        ``variance``: one row a measure: ``seed_share``, mean over tasks of the mean over their pairs, and ``seed_sd``,
        the standard deviation between seeds in the measure's unit. ``orderings``: one row an ordering: ``question``,
        ``ordering``, ``items``, ``seeds``, ``kendall`` (mean over pairs of seeds), ``least_kendall``, ``same_first``.
    """
    title = "How much do seeds matter, and do the orderings survive them?"
    drawing = runs[~runs["deterministic"]]
    count = int(drawing["seed"].nunique())
    if count < LEAST_SEEDS:
        return unanswered("A17", title, f"{count} seeds, at least {LEAST_SEEDS} are needed")
    tables: dict[str, pd.DataFrame] = {}
    sentences = []
    variance, reason = _variance(drawing, draws)
    if len(variance):
        tables["variance"] = variance
        for name in ("ood_accuracy", "id_accuracy"):
            own = variance[variance["measure"] == name]
            for row in own.to_dict("records"):
                sentences.append(
                    f"seeds make {100 * row['seed_share']:.0f} % ({100 * row['seed_share_low']:.0f} to "
                    f"{100 * row['seed_share_high']:.0f} %) of the variance of {name.replace('_', ' ')} within a pair "
                    f"(standard deviation {100 * row['seed_sd']:.1f} points)"
                )
    else:
        sentences.append(f"the share of variance is not told: {reason}")
    orderings = pd.DataFrame(_orderings(runs))
    if len(orderings):
        tables["orderings"] = orderings
        firm = int(orderings["same_first"].sum())
        weakest = orderings.sort_values("kendall", kind="stable").iloc[0]
        sentences.append(
            f"{firm} of {len(orderings)} orderings have the same first place for every seed; the least stable is "
            f"{weakest['ordering']}, mean Kendall correlation between seeds {weakest['kendall']:.2f}"
        )
    if not tables:
        return unanswered("A17", title, reason)
    told = "; ".join(sentences)
    return Answer("A17", title, tables, f"{told[0].upper()}{told[1:]}.")


def _variance(runs: pd.DataFrame, draws: int) -> tuple[pd.DataFrame, str]:
    sizes = runs.groupby(["config", *PAIR])["seed"].transform("nunique")
    repeated = runs[sizes >= LEAST_SEEDS]
    drawn, rows, reason = Draws.of(repeated, draws), [], "no configuration has three seeds"
    for side in ("ood", "id"):
        for name in measured_on(repeated, side):
            column = f"{side}_{name}"
            finite = repeated[np.isfinite(repeated[column].to_numpy(np.float64))]
            share = over_pairs(finite, seed_share(column), drawn, needs=["config", column])
            if not share.any:
                reason = share.reason
                continue
            deviation = over_pairs(finite, seed_deviation(column), drawn, needs=["config", column])
            rows.append(
                {
                    "measure": column,
                    **named({"seed_share": share.overall, "seed_sd": deviation.overall}),
                    "clusters": share.clusters,
                }
            )
    return pd.DataFrame(rows), reason


def seed_share(column: str) -> Statistic:
    """Return the statistic "share of a column's variance that lies between the seeds of one configuration"."""

    def statistic(runs: pd.DataFrame, weights: Weights) -> Floats:
        within, between = _components(runs, weights, column)
        whole = within + between
        return np.where(whole > 0, within / np.where(whole > 0, whole, 1.0), np.nan)

    return statistic


def seed_deviation(column: str) -> Statistic:
    """Return the statistic "standard deviation between the seeds of one configuration"."""
    return lambda runs, weights: np.sqrt(_components(runs, weights, column)[0])


def _components(runs: pd.DataFrame, weights: Weights, column: str) -> tuple[Floats, Floats]:
    """Return variances within and between configurations, each shape (draws,): one-way analysis of variance."""
    groups = runs.groupby("config", sort=True)
    number = groups.ngroup().to_numpy()
    values = runs[column].to_numpy(np.float64)
    sizes = np.bincount(number).astype(np.float64)
    means = np.bincount(number, weights=values) / sizes
    squares = np.bincount(number, weights=(values - means[number]) ** 2)
    _, first = np.unique(number, return_index=True)
    mine = weights.counts[:, weights.code[first]]  # runs of a configuration are of one cluster: they weigh the same
    total = mine.sum(axis=1)
    centre = mine @ means / np.maximum(total, 1)
    spread = (mine * (means - centre[:, None]) ** 2).sum(axis=1) / np.maximum(total - 1, 1)
    within = (mine @ squares) / np.maximum(mine @ (sizes - 1), 1)
    # Means of few seeds carry some of the seeds' variance.
    between = np.maximum(spread - within * (mine @ (1 / sizes)) / np.maximum(total, 1), 0.0)
    return within, between


def _orderings(runs: pd.DataFrame) -> Iterator[dict[str, object]]:
    seeds_of = sorted(set(runs.loc[~runs["deterministic"], "seed"]))
    parts = [runs[runs["deterministic"] | (runs["seed"] == seed)] for seed in seeds_of]
    for question, ordering, items_of in _ORDERINGS:
        tables = [pd.Series(dict(items_of(part)), dtype="float64").dropna() for part in parts]
        shared = sorted(set.intersection(*(set(table.index) for table in tables)))
        if len(shared) < 2:
            continue
        taus = []
        for first, second in itertools.combinations(tables, 2):
            a, b = first[shared].to_numpy(), second[shared].to_numpy()
            # Kendall's correlation of what is tied throughout does not exist.
            taus.append(float(kendalltau(a, b).statistic) if np.ptp(a) > 0 and np.ptp(b) > 0 else np.nan)
        known = [tau for tau in taus if np.isfinite(tau)]
        if not known:
            continue
        yield {
            "question": question,
            "ordering": ordering,
            "items": len(shared),
            "seeds": len(tables),
            "kendall": float(np.mean(known)),
            "least_kendall": float(np.min(known)),
            "same_first": len({table[shared].idxmax() for table in tables}) == 1,
            "first": ", ".join(dict.fromkeys(str(table[shared].idxmax()) for table in tables)),
        }


def _models(runs: pd.DataFrame) -> _Items:
    by_pair = runs.groupby(["model", "config", "task", "source", "target"], sort=True)["ood_accuracy"].mean()
    complete = by_pair.groupby(level=["model", "config"]).size()
    whole = complete[complete == runs[list(PAIR)].drop_duplicates().shape[0]].index
    by_task = by_pair.groupby(level=["model", "config", "task"], sort=True).mean()
    means = by_task.groupby(level=["model", "config"], sort=True).mean().reindex(whole)
    names = [model for model, _ in means.index]
    # A name may stand for rows of several shots or backbones.
    labels = [model if names.count(model) == 1 else f"{model} ({config})" for model, config in means.index]
    return dict(zip(labels, means.to_numpy(), strict=True))


def _pairs(runs: pd.DataFrame) -> _Items:
    needs = ["id_accuracy", "ood_accuracy"]
    found = over_pairs(runs, spearman(*needs), Draws.of(runs, 0), needs=needs)
    names = [f"{row['task']}: {row['source']} to {row['target']}" for row in found.pairs.to_dict("records")]
    return dict(zip(names, found.samples[0].tolist(), strict=True))


def _sizes(found: Mapping[str, Sampled], *, signed: bool) -> _Items:
    values = {name: float(sampled.over_tasks()[0]) for name, sampled in found.items()}
    return values if signed else {name: abs(value) for name, value in values.items()}


def _predictors(runs: pd.DataFrame) -> _Items:
    return _sizes(predicting(runs, measured_on(runs, "id"), draws=0), signed=False)


def _transfer(runs: pd.DataFrame) -> _Items:
    both = [name for name in measured_on(runs, "id") if name in measured_on(runs, "ood")]
    return _sizes(transferring(runs, both, draws=0), signed=True)


def _backbones(runs: pd.DataFrame) -> _Items:
    cells = shared_cells(runs)
    by_pair = cells.groupby(["backbone", *PAIR], sort=True)["ood_accuracy"].mean()
    by_task = by_pair.groupby(level=["backbone", "task"]).mean()
    means = by_task.groupby(level="backbone").mean()
    return {str(name): float(value) for name, value in means.items()}


def _augmentations(runs: pd.DataFrame) -> _Items:
    matched = matches_of(runs, "augment", "identity", AUGMENT)
    if not len(matched):
        return {}
    effects, _ = effects_of(matched, "augment", ["ood_accuracy"], 0)
    names = [f"{row['augment']} (shots {row['shots']})" for row in effects.to_dict("records")]
    return dict(zip(names, effects["difference"], strict=True)) if names else {}


_ORDERINGS: Final[tuple[tuple[str, str, Callable[[pd.DataFrame], _Items]], ...]] = (
    ("the board", "models by OOD accuracy", _models),
    ("A1", "pairs by the correlation of ID and OOD accuracy", _pairs),
    ("A4", "ID measures by how well they predict OOD accuracy", _predictors),
    ("A8", "measures by how well they transfer", _transfer),
    ("A12", "augmentations by their effect on OOD accuracy", _augmentations),
    ("A15", "backbones by OOD accuracy", _backbones),
)
