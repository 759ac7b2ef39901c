"""Does a backbone's accuracy on what it was pretrained on say how well it transfers out of distribution?"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from tlbench.analysis.answer import Answer, Estimate, estimate, named, unanswered
from tlbench.analysis.clustered import DRAWS, Draws, partial_spearman, spearman
from tlbench.analysis.ranks import shared_cells
from tlbench.errors import UsageError, nearest
from tlbench.metrics.uncertainty import LEAST_CLUSTERS

_NEEDED: Final = ("backbone", "accuracy")


def read_upstream(path: str | Path) -> pd.DataFrame:
    """Return a table of what is published of backbones.

    Parameters
    ----------
    path : path
        CSV with a header: ``backbone``, named as on the records; ``accuracy``, top-1 on ImageNet-1k, a fraction; and
        any number of other columns of numbers, such as ``imagenet_a``.

    Raises
    ------
    UsageError
        If the file cannot be read, lacks a column, names a backbone twice, or holds something else than fractions.
    """
    try:
        table = pd.read_csv(path)
    except FileNotFoundError:
        raise UsageError(f"--upstream {path}: expected a CSV file, found none") from None
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as problem:
        raise UsageError(f"--upstream {path}: expected a CSV file: {problem}") from None
    for name in _NEEDED:
        if name not in table:
            hint = nearest(name, map(str, table.columns))
            raise UsageError(f"--upstream {path}: expected columns 'backbone' and 'accuracy', got no '{name}'{hint}")
    twice = table["backbone"][table["backbone"].duplicated()]
    if len(twice):
        raise UsageError(f"--upstream {path}: backbone '{twice.iloc[0]}' is there twice")
    for name in table.columns.drop("backbone"):
        numbers = pd.to_numeric(table[name], errors="coerce")
        wrong = table[table[name].notna() & ~numbers.between(0, 1)]
        if len(wrong):
            line = int(wrong.index[0]) + 2
            raise UsageError(
                f"--upstream {path}, line {line}, column '{name}': expected a fraction between 0 and 1, "
                f"got '{wrong[name].iloc[0]}'"
            )
        table[name] = numbers.astype("float64")
    return table.astype({"backbone": "str"})


def upstream(runs: pd.DataFrame, published: pd.DataFrame | None = None, *, draws: int = DRAWS) -> Answer:
    """A14: correlate backbones' published accuracies with their mean OOD accuracy downstream.

    Parameters
    ----------
    runs : DataFrame
        As from ``tidy_runs``. A backbone's OOD accuracy is the mean over tasks of the mean over their pairs, of what
        was run with every backbone.
    published : DataFrame, optional
        As from ``read_upstream``.
    draws : int
        Bootstrap draws, of backbones.

    Returns
    -------
    Answer
        ``measures``: one row a published column: ``spearman`` with OOD accuracy, and ``partial``, the same once
        ``accuracy`` is known. ``backbones``: ``downstream`` beside what is published.
    """
    title = "Does a backbone's upstream accuracy say how it does on OOD data?"
    if published is None:
        return unanswered("A14", title, "no upstream accuracies were given; --upstream file.csv has them")
    cells = shared_cells(runs)
    by_pair = cells.groupby(["backbone", "task", "source", "target"], sort=True)["ood_accuracy"].mean()
    means = by_pair.groupby(level=["backbone", "task"]).mean().groupby(level="backbone").mean()
    table = means.rename("downstream").reset_index().merge(published, on="backbone").dropna(subset=["accuracy"])
    if len(table) < LEAST_CLUSTERS:
        missing = sorted(set(means.index) - set(published["backbone"]))
        told = f"; not in the file: {', '.join(missing)}" if missing else ""
        return unanswered("A14", title, f"{len(table)} backbones with both, at least {LEAST_CLUSTERS} are needed{told}")
    rows = []
    for name in published.columns.drop("backbone"):
        known = table.dropna(subset=[name]).rename(columns={"backbone": "cluster"})
        if len(known) < LEAST_CLUSTERS:
            continue
        drawn = Draws.of(known, draws)
        weights = drawn.weights(known)
        found = {"spearman": estimate(spearman(name, "downstream")(known, weights), len(known))}
        nothing = Estimate(np.nan, np.nan, np.nan)
        partial = partial_spearman(name, "downstream", "accuracy")
        found["partial"] = nothing if name == "accuracy" else estimate(partial(known, weights), len(known))
        rows.append({"measure": name, "backbones": len(known), **named(found)})
    measures = pd.DataFrame(rows)
    top = measures.iloc[0]
    rest = [
        f"{row['measure']} {Estimate(row['partial'], row['partial_low'], row['partial_high'])}"
        for row in measures.iloc[1:].to_dict("records")
    ]
    sentence = (
        f"Over {int(top['backbones'])} backbones upstream accuracy has a Spearman correlation of "
        f"{Estimate(top['spearman'], top['spearman_low'], top['spearman_high'])} with mean OOD accuracy"
        f"{'; once it is known: ' + ', '.join(rest) if rest else ''}."
    )
    return Answer("A14", title, {"measures": measures, "backbones": table}, sentence)
