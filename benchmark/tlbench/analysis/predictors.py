"""Which number that one has before deployment tells most of OOD accuracy?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tlbench.analysis.answer import Answer, Estimate, estimate, in_percent, named, unanswered
from tlbench.analysis.clustered import DRAWS, PAIR, Draws, Sampled, over_pairs, pairs_table, spearman, tasks_table
from tlbench.analysis.runs import measured_on, oriented

TARGET = "ood_accuracy"


def predictors(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A4: rank the ID measures by how closely OOD accuracy follows them.

    Measures are turned so that higher is better. Of every task they are ranked by the size of the mean over its pairs
    of Spearman's correlation with OOD accuracy; all on the same runs, those that have every measure.

    Returns
    -------
    Answer
        ``measures``: one row a task and ID measure: ``spearman``; ``lead``, by how much its size exceeds that of ID
        accuracy; ``best_share``, the share of bootstrap draws in which it is the best; ``rank``.
    """
    title = "Which ID measure predicts OOD accuracy best?"
    measures = measured_on(runs, "id")
    found = predicting(runs, measures, draws=draws)
    if not found or not found["accuracy"].any:
        return unanswered("A4", title, found["accuracy"].reason if found else "the runs have no ID accuracy")
    if len(measures) < 2:
        return unanswered("A4", title, "the runs have no ID measure beside accuracy")
    tasks = found["accuracy"].tasks
    parts = [_ranked(found, [task], task) for task in tasks]
    if len(tasks) > 1:
        parts.insert(0, _ranked(found, tasks, "(all)"))
    table = pd.concat(parts, ignore_index=True)
    first = parts[0]
    best, own = first.iloc[0], first[first["measure"] == "accuracy"].iloc[0]
    own_value = Estimate(own["spearman"], own["spearman_low"], own["spearman_high"])
    if best["measure"] == "accuracy":
        second = first.iloc[1]
        lead = f"; next is {second['measure']} with {second['spearman']:.2f}"
    else:
        ahead = Estimate(best["lead"], best["lead_low"], best["lead_high"])
        lead = f"; ID accuracy, with {own_value}, is rank {own['rank']}, and the lead over it is {ahead}"
    sentence = (
        f"OOD accuracy follows ID {best['measure']} most closely, with a mean Spearman correlation of "
        f"{Estimate(best['spearman'], best['spearman_low'], best['spearman_high'])}, the best in "
        f"{in_percent(best['best_share'])} of the bootstrap draws{lead}."
    )
    return Answer("A4", title, {"measures": table}, sentence)


def predicting(runs: pd.DataFrame, measures: list[str], *, draws: int) -> dict[str, Sampled]:
    """Return Spearman's correlation of every ID measure with OOD accuracy, on the runs that have all of them."""
    turned, drawn = oriented(runs), Draws.of(runs, draws)
    needs = [f"id_{name}" for name in measures]
    return {
        name: over_pairs(turned, spearman(f"id_{name}", TARGET), drawn, needs=[*needs, TARGET]) for name in measures
    }


def _ranked(found: dict[str, Sampled], tasks: list[str], label: str) -> pd.DataFrame:
    clusters = found["accuracy"].clusters
    means = {name: sampled.over_tasks(tasks) for name, sampled in found.items()}
    sizes = np.column_stack([np.abs(mean) for mean in means.values()])
    # A measure without spread predicts nothing.
    best = np.argmax(np.nan_to_num(sizes[1:], nan=-1.0), axis=1)
    shares = np.bincount(best, minlength=len(means)) / len(best) if len(best) else np.full(len(means), np.nan)
    rows = [
        {
            "task": label,
            "measure": name,
            **named(
                {
                    "spearman": estimate(mean, clusters),
                    "lead": estimate(np.abs(mean) - np.abs(means["accuracy"]), clusters),
                }
            ),
            "best_share": share,
        }
        for (name, mean), share in zip(means.items(), shares, strict=True)
    ]
    frame = pd.DataFrame(rows)
    frame = frame.iloc[np.argsort(-np.nan_to_num(np.abs(frame["spearman"]), nan=-1.0), kind="stable")]
    return frame.assign(rank=np.arange(1, len(frame) + 1)).reset_index(drop=True)


def second_domain(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A5: compare ID accuracy with accuracy on a second OOD domain as predictors of OOD accuracy.

    For every pair, and every other domain to which the task has a pair from the same source; a pair's value is the mean
    over these second domains.

    Returns
    -------
    Answer
        ``tasks`` and ``pairs``: ``second_domain`` and ``id_accuracy``, each Spearman's correlation with OOD accuracy,
        and their ``difference``.
    """
    title = "Does accuracy on a second OOD domain predict OOD accuracy better than ID accuracy does?"
    joined = with_second(runs)
    if not len(joined):
        return unanswered("A5", title, "no source has two target domains that the same fits were measured on")
    drawn = Draws.of(joined, draws)
    by, needs = [*PAIR, "second"], ["id_accuracy", TARGET, "second_accuracy"]
    other, own = (
        over_pairs(joined, spearman(name, TARGET), drawn, needs=needs, by=by).averaged()
        for name in ("second_accuracy", "id_accuracy")
    )
    found = {"second_domain": other, "id_accuracy": own, "difference": other.minus(own)}
    if not found["difference"].any:
        return unanswered("A5", title, found["difference"].reason)
    ahead = found["difference"].overall
    verdict = ("neither better nor worse, as far as can be told, than", "better than", "worse than")[ahead.sign]
    sentence = (
        f"Accuracy on a second OOD domain predicts OOD accuracy {verdict} ID accuracy: mean Spearman correlations of "
        f"{other.overall} and {own.overall}, difference {ahead}, over {int((other.pairs['reason'] == '').sum())} pairs."
    )
    return Answer("A5", title, {"tasks": tasks_table(found), "pairs": pairs_table(found)}, sentence)


def with_second(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs once for every other target of their fit, which is ``second`` with ``second_accuracy``."""
    others = runs[["fit_id", "target", TARGET]].rename(columns={"target": "second", TARGET: "second_accuracy"})
    joined = runs.merge(others, on="fit_id")
    return joined[joined["second"] != joined["target"]].reset_index(drop=True)
