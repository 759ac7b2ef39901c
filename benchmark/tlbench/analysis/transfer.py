"""Which measures keep their order of models under a shift?"""

from __future__ import annotations

import numpy as np
import pandas as pd

from tlbench.analysis.answer import Answer, estimate, named, unanswered
from tlbench.analysis.clustered import DRAWS, Draws, Sampled, over_pairs, pairs_table, spearman, tasks_table
from tlbench.analysis.runs import measured_on, oriented


def transfer(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A8: correlate every measure on ID-test with itself on OOD-test.

    Measures that the suite has on both are compared on the same runs, those that have all of them.

    Returns
    -------
    Answer
        ``measures``: one row a measure: ``spearman``, the mean over tasks of the mean over their pairs;
        ``best_share`` and ``worst_share``, the shares of draws in which it transfers best and worst; ``rank``.
        ``tasks``: one a task and measure.
    """
    title = "Which measure's order of models carries over to OOD data best?"
    measures = [name for name in measured_on(runs, "id") if name in measured_on(runs, "ood")]
    if len(measures) < 2:
        return unanswered("A8", title, "the suite measures fewer than two measures on both ID-test and OOD-test")
    found = transferring(runs, measures, draws=draws)
    first = found[measures[0]]
    if not any(sampled.any for sampled in found.values()):
        return unanswered("A8", title, first.reason)
    means = {name: sampled.over_tasks() for name, sampled in found.items()}
    drawn = np.column_stack(list(means.values()))[1:]
    known = drawn[np.isfinite(drawn).all(axis=1)]
    shares = [
        np.bincount(pick(known, axis=1), minlength=len(means)) / len(known)
        if len(known)
        else np.full(len(means), np.nan)
        for pick in (np.argmax, np.argmin)
    ]
    rows = [
        {"measure": name, **named({"spearman": estimate(mean, found[name].clusters)})} for name, mean in means.items()
    ]
    table = pd.DataFrame(rows).assign(best_share=shares[0], worst_share=shares[1])
    table = table.sort_values("spearman", ascending=False, kind="stable").reset_index(drop=True)
    table["rank"] = np.arange(1, len(table) + 1)
    best, worst = (table.dropna(subset=["spearman"]).iloc[place] for place in (0, -1))
    sentence = (
        f"{best['measure']} carries over best, mean Spearman correlation of ID and OOD "
        f"{found[best['measure']].overall} (best in {100 * best['best_share']:.0f} % of the draws), and "
        f"{worst['measure']} least, {found[worst['measure']].overall} (least in {100 * worst['worst_share']:.0f} %)."
    )
    by_task = pd.concat(
        [tasks_table({"spearman": sampled}).assign(measure=name) for name, sampled in found.items() if sampled.any],
        ignore_index=True,
    )
    return Answer(
        "A8", title, {"measures": table, "tasks": by_task[["task", "measure", *by_task.columns[1:-1]]]}, sentence
    )


def transferring(runs: pd.DataFrame, measures: list[str], *, draws: int) -> dict[str, Sampled]:
    """Return Spearman's correlation of every measure with itself under the shift, on the runs that have all."""
    drawn = Draws.of(runs, draws)
    needs = [f"{side}_{name}" for side in ("id", "ood") for name in measures]
    return {name: over_pairs(runs, spearman(f"id_{name}", f"ood_{name}"), drawn, needs=needs) for name in measures}


def calibration(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A9: whether ID calibration error goes with ID accuracy, and whether with OOD calibration error.

    The calibration error is turned so that higher is better, as accuracy is.

    Returns
    -------
    Answer
        ``tasks`` and ``pairs``: ``with_accuracy``, Spearman's correlation of ID calibration with ID accuracy;
        ``with_ood``, with OOD calibration; ``difference``, the first minus the second.
    """
    title = "Does calibration on ID data say more of ID accuracy than of calibration under a shift?"
    if not {"ece", "accuracy"} <= {*measured_on(runs, "id")} & {*measured_on(runs, "ood")}:
        return unanswered("A9", title, "the suite does not measure the calibration error on both ID-test and OOD-test")
    turned, drawn = oriented(runs), Draws.of(runs, draws)
    needs = ["id_ece", "id_accuracy", "ood_ece"]
    own = over_pairs(turned, spearman("id_ece", "id_accuracy"), drawn, needs=needs)
    other = over_pairs(turned, spearman("id_ece", "ood_ece"), drawn, needs=needs)
    found = {"with_accuracy": own, "with_ood": other, "difference": own.minus(other)}
    if not found["difference"].any:
        return unanswered("A9", title, found["difference"].reason)
    sentence = (
        f"ID calibration goes with ID accuracy at a mean Spearman correlation of {own.overall}, and with OOD "
        f"calibration at {other.overall}; difference {found['difference'].overall}."
    )
    return Answer("A9", title, {"tasks": tasks_table(found), "pairs": pairs_table(found)}, sentence)
