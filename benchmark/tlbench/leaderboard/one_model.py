"""One model's numbers, as far as they go: what a finished evaluation shows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from tlbench.leaderboard.beside import scores_beside
from tlbench.leaderboard.costs import costs, fit_row
from tlbench.leaderboard.prepared import prepare
from tlbench.suites.spec import Suite


def line_of(records: pd.DataFrame, fits: pd.DataFrame, suite: Suite, model: str) -> dict[str, Any]:
    """Return a model's measures by name, over the seeds that it has; what is incomplete or absent is left out."""
    own = records[(records["model"] == model) & records["headline"].astype(bool)]
    if not len(own):
        return {}
    seeds = tuple(sorted({int(seed) for seed in own["seed"]}))
    prepared = prepare(own, seeds)
    row = prepared.rows[0]
    beside = scores_beside(prepared, suite, seeds)
    line = {column: table[row].value for column, table in beside.items() if row in table}
    cost = costs(fits[fits["model"] == model], seeds)
    line["fit_seconds"] = cost["fit_seconds"].get(fit_row(row))
    return {column: value for column, value in line.items() if value is not None}


def pairs_of(records: pd.DataFrame, suite: Suite, model: str) -> list[dict[str, Any]]:
    """Return one row a pair that has been measured: ID and OOD accuracy, each the mean over the seeds there are."""
    kept = records[
        (records["model"] == model)
        & records["headline"].astype(bool)
        & (records["condition"] == "clean")
        & (records["metric"] == "accuracy")
        & (records["status"] == "ok")
    ]
    mean = kept.groupby(["task", "source", "target", "role"])["value"].mean().to_dict()
    rows = []
    for pair in suite.pairs:
        inside = mean.get((pair.task, pair.source, pair.source, "id-test"))
        outside = mean.get((pair.task, pair.source, pair.target, "ood-test"))
        if outside is not None:
            rows.append(
                {
                    "task": pair.task,
                    "source": pair.source,
                    "target": pair.target,
                    "id_accuracy": None if inside is None else float(inside),
                    "ood_accuracy": float(outside),
                }
            )
    return rows
