"""Which backbones are better, on blocks that could have come out otherwise?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from tlbench.analysis.answer import Answer, unanswered
from tlbench.analysis.clustered import PAIR
from tlbench.analysis.configuration import BACKBONE, matching_key

LEAST_BLOCKS: Final = 5
LEAST_TASKS: Final = 6
ALPHA: Final = 0.05


@dataclass(frozen=True)
class CriticalDifference:
    """Mean ranks and what sets them apart.

    Attributes
    ----------
    mean_ranks : float array, shape (treatments,)
        1 is best.
    statistic, p : float
        Friedman's test that all are alike.
    difference : float
        Nemenyi's critical difference at 5 %: mean ranks closer than this are not told apart.
    """

    mean_ranks: np.ndarray[tuple[int], np.dtype[np.float64]]
    statistic: float
    p: float
    difference: float


def critical_difference(scores: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> CriticalDifference:
    """Return mean ranks over blocks, Friedman's test and Nemenyi's critical difference.

    Parameters
    ----------
    scores : float array, shape (blocks, treatments)
        Higher is better; at least three treatments.

    References
    ----------
    Demsar (2006), "Statistical Comparisons of Classifiers over Multiple Data Sets".

    Examples
    --------
    >>> critical_difference(np.tile([0.9, 0.8, 0.7, 0.6], (14, 1))).difference.round(2)
    np.float64(1.25)
    """
    blocks, treatments = scores.shape
    mean_ranks = rankdata(-scores, axis=1).mean(axis=0)
    if np.ptp(scores, axis=1).max() == 0:
        statistic, p = 0.0, 1.0  # all tied everywhere
    else:
        statistic, p = (float(value) for value in friedmanchisquare(*scores.T))
    quantile = float(studentized_range.ppf(1 - ALPHA, treatments, np.inf)) / np.sqrt(2)
    return CriticalDifference(
        mean_ranks, statistic, p, quantile * np.sqrt(treatments * (treatments + 1) / (6 * blocks))
    )


def backbone_ranks(runs: pd.DataFrame) -> Answer:
    """A15: rank backbones by ID and by OOD accuracy, at equal other factors.

    A backbone's accuracy in a block is the mean over everything that was run with every backbone there: method,
    settings, shots, seed and target. Blocks are tasks where the suite has at least six, else training sets (a task and
    source), whose fits share no image; at least five are needed, and three backbones.

    Returns
    -------
    Answer
        ``ranks``: one row a measure and backbone: ``mean_rank``, ``mean``, ``groups`` (letters: backbones that share
        one are not told apart). ``tests``: ``blocks``, ``backbones``, ``statistic``, ``p``, ``critical_difference``.
        ``tasks``: mean rank over the training sets of every task, without a test.
    """
    title = "Which backbones are better, on ID and on OOD data?"
    cells = shared_cells(runs)
    backbones = sorted(set(cells["backbone"]))
    if len(backbones) < 3:
        count = runs["backbone"].nunique()
        return unanswered(
            "A15",
            title,
            f"{count} backbone{'s' * (count != 1)}, and {len(backbones)} with runs that agree in all else; at least 3 "
            "are needed",
        )
    by_source = cells.groupby(["task", "source", "backbone"], sort=True)[["id_accuracy", "ood_accuracy"]].mean()
    tasks = by_source.index.get_level_values("task").nunique()
    whole = tasks >= LEAST_TASKS
    blocks = by_source.groupby(level=["task", "backbone"], sort=True).mean() if whole else by_source
    count = len(blocks) // len(backbones)
    if count < LEAST_BLOCKS:
        return unanswered("A15", title, f"{count} training sets, at least {LEAST_BLOCKS} are needed as blocks")
    ranks, tests, sentences = [], [], []
    for column, words in (("ood_accuracy", "OOD"), ("id_accuracy", "ID")):
        table = blocks[column].unstack("backbone")[backbones]
        found = critical_difference(table.to_numpy(np.float64))
        groups = _groups(found)
        for place in np.argsort(found.mean_ranks, kind="stable"):
            ranks.append(
                (column, backbones[place], found.mean_ranks[place], float(table.iloc[:, place].mean()), groups[place])
            )
        tests.append((column, count, len(backbones), found.statistic, found.p, found.difference))
        best = backbones[int(found.mean_ranks.argmin())]
        tied = int((found.mean_ranks <= found.mean_ranks.min() + found.difference).sum()) - 1
        sentences.append(
            f"by {words} accuracy {best} has the best mean rank, {found.mean_ranks.min():.2f} of {len(backbones)} "
            f"(Friedman p {found.p:.2g}; {tied} others are within the critical difference of {found.difference:.2f})"
        )
    by_task = (
        by_source.groupby(level=["task", "source"]).rank(ascending=False).groupby(level=["task", "backbone"]).mean()
    )
    tables = {
        "ranks": pd.DataFrame(ranks, columns=["measure", "backbone", "mean_rank", "mean", "groups"]),
        "tests": pd.DataFrame(
            tests, columns=["measure", "blocks", "backbones", "statistic", "p", "critical_difference"]
        ),
        "tasks": by_task.add_suffix("_rank").reset_index(),
    }
    unit = "tasks" if whole else "training sets"
    sentence = f"Over {count} {unit}, {'; '.join(sentences)}."
    return Answer("A15", title, tables, sentence)


def shared_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of cells (all but the backbone) that every backbone of at least three has.

    Backbones that share no cell with the others are left out, fewest cells first, until some are shared.
    """
    known = runs.dropna(subset=["id_accuracy", "ood_accuracy"])
    keys = {text: matching_key(text, BACKBONE) for text in set(known["factors"])}
    known = known.assign(match=known["factors"].map(keys))
    known = known[known["backbone"] != "none"]
    cell = ["match", *PAIR, "seed"]
    while True:
        backbones = known["backbone"].nunique()
        counts = known.groupby(cell)["backbone"].nunique()
        shared = counts[counts == backbones].index
        if len(shared) and _covers(shared, known):
            rows = known.set_index(cell).loc[shared].reset_index()
            return rows.groupby([*cell, "backbone"], sort=True)[["id_accuracy", "ood_accuracy"]].mean().reset_index()
        if backbones < 2:
            return known.iloc[:0]
        sizes = known.groupby("backbone").size().sort_index().sort_values(kind="stable")
        known = known[known["backbone"] != sizes.index[0]]


def _covers(shared: pd.Index[Any], known: pd.DataFrame) -> bool:
    """Whether every training set has a shared cell: blocks must be complete."""
    sources = shared.to_frame(index=False)[["task", "source"]].drop_duplicates()
    return len(sources) == len(known[["task", "source"]].drop_duplicates())


def _groups(found: CriticalDifference) -> list[str]:
    """Return the letters of every treatment's groups: the longest runs of ranks within the critical difference."""
    order = np.argsort(found.mean_ranks, kind="stable")
    ranks = found.mean_ranks[order]
    letters = [""] * len(ranks)
    last, number = -1, 0
    for first in range(len(ranks)):
        end = int(np.flatnonzero(ranks <= ranks[first] + found.difference)[-1])
        if end > last:
            for place in order[first : end + 1]:
                letters[place] += _letter(number)
            last, number = end, number + 1
    return letters


def _letter(number: int) -> str:
    return chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
