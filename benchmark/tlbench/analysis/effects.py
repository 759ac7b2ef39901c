"""At equal other factors, what does an augmentation change, and what training all weights instead of a head?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from tlbench.analysis.answer import Answer, Estimate, estimate, named, unanswered
from tlbench.analysis.clustered import DRAWS, PAIR, Draws, Sampled, mean_of, over_pairs
from tlbench.analysis.configuration import AUGMENT, REGIME, matching_key

OUTCOMES: Final = ("id_accuracy", "ood_accuracy", "id_mean_corruption_accuracy", "id_mean_robust_accuracy")
_ONE_MODEL: Final = "for two given models use `tlbench compare`"


def augmentations(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A12: paired differences between an augmentation and ``identity``, by shots.

    Two runs are a match if they agree in everything but the recipe's augmentation: method, settings, backbone, shots,
    seed and pair. The differences are averaged over the matches of a pair, over the pairs of a task, and over tasks.

    Returns
    -------
    Answer
        ``effects``: one row a number of shots, augmentation and outcome: ``difference``, ``matches``, ``clusters``,
        ``pairs``. ``few_shot``: by how much the difference exceeds that with all training images.
    """
    title = "What do augmentations change?"
    matched = matches_of(runs, "augment", "identity", AUGMENT)
    if not len(matched):
        return unanswered("A12", title, "no two runs differ in their recipe's augmentation alone, one being identity")
    outcomes = _outcomes(matched)
    effects, samples = effects_of(matched, "augment", outcomes, draws)
    if not len(effects):
        return unanswered("A12", title, f"{_too_few(matched)}; {_ONE_MODEL}")
    told = effects[effects["outcome"] == "ood_accuracy"]
    best = told.iloc[int(told["difference"].argmax())]
    found = Estimate(best["difference"], best["difference_low"], best["difference_high"])
    sentence = (
        f"Of {len(told)} comparisons with identity at equal other factors, OOD accuracy gains most by "
        f"{best['augment']} with shots {best['shots']}: {points(found)} points ({best['matches']} matches); "
        f"{int((told['difference_low'] > 0).sum())} gain and {int((told['difference_high'] < 0).sum())} lose by "
        "intervals that leave out zero."
    )
    tables = {"effects": effects}
    few = _few_shot(samples)
    if len(few):
        tables["few_shot"] = few
    return Answer("A12", title, tables, sentence)


def regimes(runs: pd.DataFrame, *, draws: int = DRAWS) -> Answer:
    """A13: paired differences between training all weights and a head alone, by shots.

    Matches agree in everything but the regime (and the mode of BatchNorm, which matters to one of the two only).

    Returns
    -------
    Answer
        ``effects``: one row a number of shots and outcome: ``difference``, full minus head-only.
    """
    title = "Is training all weights better than training a head?"
    matched = matches_of(runs, "regime", "head-only", REGIME)
    matched = matched[matched["regime"] == "full"]
    if not len(matched):
        return unanswered("A13", title, "no two runs differ in training all weights or a head alone")
    effects, _ = effects_of(matched, "regime", _outcomes(matched), draws)
    if not len(effects):
        return unanswered("A13", title, f"{_too_few(matched)}; {_ONE_MODEL}")
    parts = []
    for shots, rows in effects.groupby("shots", sort=False):
        by = {
            str(row["outcome"]): Estimate(row["difference"], row["difference_low"], row["difference_high"])
            for row in rows.to_dict("records")
        }
        parts.append(
            f"with shots {shots} {points(by['id_accuracy'])} points on ID-test and {points(by['ood_accuracy'])} on "
            "OOD-test"
        )
    sentence = f"All weights instead of a head change accuracy by: {'; '.join(parts)}."
    return Answer("A13", title, {"effects": effects.drop(columns="regime")}, sentence)


def matches_of(runs: pd.DataFrame, factor: str, reference: str, without: tuple[str, ...]) -> pd.DataFrame:
    """Return one row a match: the run's own factor, and every outcome's difference from the reference."""
    mine = runs[runs[factor] != ""]
    keys = {text: matching_key(text, without) for text in set(mine["factors"])}
    mine = mine.assign(match=mine["factors"].map(keys))
    by = ["match", *PAIR, "seed"]
    outcomes = list(OUTCOMES)
    sides = mine.assign(base=mine[factor] == reference)
    left = sides[~sides["base"]]
    # Where a match has several references (the same settings under two names) their mean stands.
    right = sides[sides["base"]].groupby(by, sort=True)[outcomes].mean().reset_index()
    joined = left.merge(right, on=by, suffixes=("", "_reference"))
    differences = {name: joined[name] - joined[f"{name}_reference"] for name in outcomes}
    columns = [*by, factor, "shots", "cluster"]
    return joined[columns].assign(**differences).reset_index(drop=True)


def _outcomes(matched: pd.DataFrame) -> list[str]:
    return [name for name in OUTCOMES if matched[name].notna().mean() >= 0.9]


def effects_of(
    matched: pd.DataFrame, factor: str, outcomes: Sequence[str], draws: int
) -> tuple[pd.DataFrame, dict[tuple[str, str, str], Sampled]]:
    drawn = Draws.of(matched, draws)
    rows, samples = [], {}
    for shots in sorted(set(matched["shots"]), key=_many_first):
        for level in sorted(set(matched[factor])):
            own = matched[(matched["shots"] == shots) & (matched[factor] == level)]
            for outcome in outcomes:
                found = over_pairs(own, mean_of(outcome), drawn, needs=[outcome])
                if not found.any:
                    continue
                samples[shots, level, outcome] = found
                told = found.pairs[found.pairs["reason"] == ""]
                rows.append(
                    {
                        "shots": shots,
                        factor: level,
                        "outcome": outcome,
                        **named({"difference": found.overall}),
                        "matches": int(told["runs"].sum()),
                        "clusters": found.clusters,
                        "pairs": len(told),
                    }
                )
    return pd.DataFrame(rows), samples


def _few_shot(samples: dict[tuple[str, str, str], Sampled]) -> pd.DataFrame:
    rows = []
    for (shots, level, outcome), found in samples.items():
        whole = samples.get(("full", level, outcome))
        if shots != "full" and whole is not None:
            more = estimate(found.over_tasks() - whole.over_tasks(), min(found.clusters, whole.clusters))
            rows.append({"shots": shots, "augment": level, "outcome": outcome, **named({"more_than_full": more})})
    return pd.DataFrame(rows)


def _too_few(matched: pd.DataFrame) -> str:
    clusters = int(matched["cluster"].nunique())
    return f"matches of {clusters} (method, backbone) clusters, at least 5 are needed on a pair"


def _many_first(shots: str) -> tuple[float, str]:
    return (-np.inf, shots) if shots == "full" else (-float(shots) if shots.isdecimal() else 0.0, shots)


def points(found: Estimate) -> str:
    """Return a difference of two shares in percentage points."""
    return str(Estimate(*(100 * value for value in (found.value, found.low, found.high))))
