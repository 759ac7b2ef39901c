"""How many things do all the measures measure, and do ID and OOD accuracy load on the same one?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import FactorAnalysis

from tlbench.analysis.answer import Answer, estimate, in_percent, unanswered
from tlbench.analysis.clustered import CLUSTER_WORDS, PAIR, Draws, Floats
from tlbench.analysis.incremental import normal_scores
from tlbench.analysis.runs import measured_on, oriented
from tlbench.seeds import derive

LEAST_VARIABLES: Final = 4
NULLS: Final = 200
LOADS: Final = 0.4  # a loading from here on is counted as one
_DRAWS: Final = 200
_QUANTILE: Final = 0.95


def factors(runs: pd.DataFrame, *, draws: int = _DRAWS, nulls: int = NULLS) -> Answer:
    """A11: factor analysis of the table of measures, pooled and by task.

    Variables are the measures on ID-test and on OOD-test, turned so that higher is better, as normal scores within
    every pair, so that easy and hard pairs do not make a factor; rows are runs. The number of factors is that of Horn's
    parallel analysis: eigenvalues of the correlation matrix above the 95 % quantile of those of tables in which every
    variable belongs to another model, clusters being exchanged whole. Loadings are maximum likelihood, varimax-rotated.
    There must be as many (method, backbone) clusters as variables.

    Parameters
    ----------
    runs : DataFrame
        As from ``tidy_runs``.
    draws : int
        Bootstrap draws of the loadings, each turned as close as possible to those of the runs themselves.
    nulls : int
        Tables of the parallel analysis.

    Returns
    -------
    Answer
        ``loadings``: one row a scope (``(all)`` or a task), factor and variable: ``loading``. ``factors``: one a scope
        and factor: ``explained``, the share of the variables' variance. ``eigenvalues``: one a scope and place:
        ``eigenvalue`` and ``by_chance``.

    References
    ----------
    Horn (1965), "A Rationale and Test for the Number of Factors in Factor Analysis"; Kaiser (1958), "The Varimax
    Criterion for Analytic Rotation in Factor Analysis".
    """
    title = "How many things do the measures measure, and do ID and OOD accuracy load together?"
    turned = oriented(runs)
    names = [f"{side}_{name}" for side in ("id", "ood") for name in measured_on(runs, side)]
    scopes = {"(all)": turned, **dict((str(task), rows) for task, rows in turned.groupby("task", sort=True))}
    if len(scopes) == 2:
        del scopes["(all)"]
    found, reasons = {}, []
    for scope, rows in scopes.items():
        # Streams of random numbers are dealt to rows in their order.
        known = rows.dropna(subset=names).sort_values([*PAIR, "cluster", *names], kind="stable")
        analysed = _analysed(known, names, draws, nulls)
        if isinstance(analysed, str):
            reasons.append(analysed)
        else:
            found[scope] = analysed
    if not found:
        return unanswered("A11", title, reasons[0])
    scope, first = next(iter(found.items()))
    tables = {
        "loadings": pd.concat([one.loadings.assign(scope=name) for name, one in found.items()], ignore_index=True),
        "factors": pd.concat([one.explained.assign(scope=name) for name, one in found.items()], ignore_index=True),
        "eigenvalues": pd.concat(
            [one.eigenvalues.assign(scope=name) for name, one in found.items()], ignore_index=True
        ),
    }
    tables = {name: table[["scope", *table.columns[:-1]]] for name, table in tables.items()}
    return Answer("A11", title, tables, _sentence(scope, first))


@dataclass(frozen=True)
class _Analysed:
    """One scope's factors; ``together`` is the share of draws in which ID and OOD accuracy share a factor."""

    loadings: pd.DataFrame
    explained: pd.DataFrame
    eigenvalues: pd.DataFrame
    together: float


def _sentence(scope: str, found: _Analysed) -> str:
    place = "" if scope == "(all)" else f" of task {scope}"
    count = len(found.explained)
    if not count:
        return f"No eigenvalue{place} is above chance: the measures{place} have no factor in common."
    strongest = found.loadings.loc[found.loadings["loading"].abs() >= LOADS]
    shared = [
        str(factor)
        for factor, rows in strongest.groupby("factor")
        if {"id_accuracy", "ood_accuracy"} <= set(rows["variable"])
    ]
    verdict = (
        f"ID and OOD accuracy both load on factor {shared[0]}" if shared else "ID and OOD accuracy share no factor"
    )
    return (
        f"{count} factor{'s' * (count > 1)}{place} above chance, explaining "
        f"{100 * found.explained['explained'].sum():.0f} % of the variance; {verdict} (loadings from {LOADS}); "
        f"in {in_percent(found.together)} of the bootstrap draws they share one."
    )


def _analysed(rows: pd.DataFrame, names: list[str], draws: int, nulls: int) -> _Analysed | str:
    clusters = int(rows["cluster"].nunique())
    scores = _scores(rows, names)
    kept = [place for place in range(len(names)) if scores[:, place].std() > 1e-9]
    names, scores = [names[place] for place in kept], scores[:, kept]
    if len(names) < LEAST_VARIABLES:
        return f"{len(names)} measures with spread, at least {LEAST_VARIABLES} are needed"
    if clusters < len(names):
        return f"{clusters} {CLUSTER_WORDS} for {len(names)} variables, at least as many are needed"
    eigenvalues = _eigenvalues(scores)
    by_chance = np.quantile([_eigenvalues(null) for null in _nulls(rows, scores, nulls)], _QUANTILE, axis=0)
    above = eigenvalues > by_chance
    count = int(above.argmin()) if not above.all() else len(names) - 1
    table = pd.DataFrame({"place": np.arange(1, len(names) + 1), "eigenvalue": eigenvalues, "by_chance": by_chance})
    columns = ["factor", "variable", "loading", "loading_low", "loading_high"]
    if not count:
        return _Analysed(pd.DataFrame(columns=columns), pd.DataFrame(columns=["factor", "explained"]), table, np.nan)
    loadings = _loadings(scores, count)
    drawn = Draws.of(rows, draws)
    samples = np.stack([loadings, *_redrawn(scores, rows, drawn, loadings)])
    accuracies = [names.index(name) for name in ("id_accuracy", "ood_accuracy") if name in names]
    both = np.abs(samples[1:][:, accuracies]) >= LOADS
    rows_of = []
    for factor in range(count):
        for place, name in enumerate(names):
            one = estimate(samples[:, place, factor], clusters)
            rows_of.append((factor + 1, name, one.value, one.low, one.high))
    explained = (loadings**2).sum(axis=0) / len(names)
    return _Analysed(
        pd.DataFrame(rows_of, columns=columns),
        pd.DataFrame({"factor": np.arange(1, count + 1), "explained": explained}),
        table,
        float(np.any(np.all(both, axis=1), axis=1).mean()) if len(accuracies) == 2 and draws else np.nan,
    )


def _scores(rows: pd.DataFrame, names: list[str]) -> Floats:
    """Return normal scores within every pair, shape (runs, variables); where a pair has no spread they are zero."""
    scores = np.zeros((len(rows), len(names)))
    for where in rows.reset_index(drop=True).groupby(list(PAIR)).indices.values():
        values = rows[names].to_numpy(np.float64)[where]
        scores[where] = np.column_stack([normal_scores(column) for column in values.T])
    return scores


def _eigenvalues(scores: Floats) -> Floats:
    return np.asarray(np.linalg.eigvalsh(np.corrcoef(scores, rowvar=False))[::-1], dtype=np.float64)


def _nulls(rows: pd.DataFrame, scores: Floats, nulls: int) -> list[Floats]:
    """Return tables whose variables have nothing to do with each other, but keep what runs of a cluster share."""
    clusters = sorted(set(rows["cluster"]))
    code = np.searchsorted(clusters, rows["cluster"].to_numpy(str))
    pair = rows.groupby(list(PAIR)).ngroup().to_numpy()
    order = np.lexsort((code, pair))  # runs of one pair and cluster stand together, those of one pair too
    edges = np.arange(len(clusters) * (int(pair.max()) + 1) + 1)
    starts = np.searchsorted((pair * len(clusters) + code)[order], edges)
    rng = np.random.default_rng(derive("parallel", *clusters))
    made = []
    for _ in range(nulls):
        table = np.empty_like(scores)
        for column in range(scores.shape[1]):
            lender = pair * len(clusters) + rng.permutation(len(clusters))[code]
            first, end = starts[lender], starts[lender + 1]
            # A model that was not run on this pair lends a value of any that was.
            empty = first == end
            first = np.where(empty, starts[pair * len(clusters)], first)
            end = np.where(empty, starts[(pair + 1) * len(clusters)], end)
            place = first + (rng.random(len(rows)) * (end - first)).astype(np.int64)
            table[:, column] = scores[order[place], column]
        made.append(table)
    return made


def _loadings(scores: Floats, count: int) -> NDArray[np.float64]:
    """Return loadings of standardised variables, shape (variables, factors), factors by what they explain."""
    standard = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    model = FactorAnalysis(n_components=count, rotation="varimax", svd_method="lapack", max_iter=10_000, tol=1e-3)
    loadings = model.fit(standard).components_.T
    loadings = loadings[:, np.argsort(-(loadings**2).sum(axis=0), kind="stable")]
    largest = loadings[np.abs(loadings).argmax(axis=0), np.arange(count)]
    return np.asarray(loadings * np.where(largest < 0, -1.0, 1.0))


def _redrawn(scores: Floats, rows: pd.DataFrame, drawn: Draws, target: Floats) -> list[Floats]:
    """Return the loadings of every draw, turned towards those of the runs themselves."""
    found = []
    for weights in drawn.weights(rows).rows[1:].astype(np.int64):
        table = np.repeat(scores, weights, axis=0)
        if (table.std(axis=0) < 1e-9).any():
            found.append(np.full_like(target, np.nan))
            continue
        loadings = _loadings(table, target.shape[1])
        turn, _ = orthogonal_procrustes(loadings, target)
        found.append(loadings @ turn)
    return found
