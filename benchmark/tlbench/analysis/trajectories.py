"""What do learning rate and epochs do, and does training longer move ID and OOD accuracy the same way?"""

from __future__ import annotations

import pandas as pd

from tlbench.analysis.answer import Answer, Estimate, named, unanswered
from tlbench.analysis.clustered import (
    DRAWS,
    PAIR,
    Draws,
    Sampled,
    mean_of,
    over_pairs,
    pairs_table,
    tasks_table,
)
from tlbench.analysis.configuration import SCHEDULE, matching_key
from tlbench.analysis.correlations import pearson
from tlbench.analysis.effects import effects_of, matches_of, points

_TITLE = "What do learning rate and epochs do, and do ID and OOD accuracy move together within one configuration?"


def trajectories(runs: pd.DataFrame, candidates: pd.DataFrame | None = None, *, draws: int = DRAWS) -> Answer:
    """A16: effects of learning rate and epochs, and what happens within one configuration.

    Correlations over all runs tell models apart; a trade-off within one model, as it trains longer or from another
    seed, hides behind them. So runs of one configuration (equal in everything but epochs or seed) are taken relative to
    their mean before they are correlated.

    Parameters
    ----------
    runs : DataFrame
        As from ``tidy_runs``.
    candidates : DataFrame, optional
        Of ``tidy_runs``, too: what searches tried, known on ID-val only.
    draws : int

    Returns
    -------
    Answer
        ``within``: one row a task: ``epochs`` and ``seeds``, Pearson's correlation of ID and OOD accuracy within
        configurations over these; ``opposite``, the share of moves from fewest to most epochs in which one accuracy
        rises and the other falls. ``pairs``: the same by pair. ``effects``: paired differences of accuracy between a
        learning rate, or number of epochs, and the smallest one. ``selection``: the same of ID-val accuracy, over what
        searches tried. Tables for which there is nothing are not there.
    """
    tables: dict[str, pd.DataFrame] = {}
    sentences: list[str] = []
    reasons: list[str] = []
    _within(runs, draws, tables, sentences, reasons)
    _fixed(runs, draws, tables, sentences, reasons)
    if candidates is not None and len(candidates):
        _selected(candidates, draws, tables, sentences, reasons)
    if not tables:
        return unanswered("A16", _TITLE, "; ".join(dict.fromkeys(reasons)))
    left_out = f" Not answered: {'; '.join(dict.fromkeys(reasons))}." if reasons else ""
    told = "; ".join(sentences)
    return Answer("A16", _TITLE, tables, f"{told[0].upper()}{told[1:]}.{left_out}")


def _within(
    runs: pd.DataFrame, draws: int, tables: dict[str, pd.DataFrame], sentences: list[str], reasons: list[str]
) -> None:
    found: dict[str, Sampled] = {}
    drawn = Draws.of(runs, draws)
    for name, without, also in (("epochs", ("epochs",), ["seed"]), ("seeds", (), [])):
        relative = _relative(runs, without, also)
        if len(relative):
            sampled = over_pairs(
                relative, pearson("id_accuracy", "ood_accuracy"), drawn, needs=["id_accuracy", "ood_accuracy"]
            )
            if sampled.any:
                found[name] = sampled
                sentences.append(
                    f"within configurations over {name}, ID and OOD accuracy have a mean correlation of "
                    f"{sampled.overall}"
                )
            else:
                reasons.append(f"within configurations over {name}: {sampled.reason}")
        else:
            reasons.append(f"no configuration was run with several {name}")
    moves = _moves(runs)
    if len(moves):
        opposite = over_pairs(moves, mean_of("opposite"), drawn, needs=["opposite"])
        if opposite.any:
            found["opposite"] = opposite
            sentences.append(
                f"{points(opposite.overall)} % of the moves to more epochs turn them in opposite directions"
            )
    if found:
        tables["within"] = _joined(
            [tasks_table({name: sampled}).drop(columns="pairs") for name, sampled in found.items()]
        )
        columns = [pairs_table({name: one}).drop(columns=["runs", "clusters", "reason"]) for name, one in found.items()]
        tables["pairs"] = _joined(columns)


def _joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """Return tables side by side, joined by the columns that they share."""
    first = tables[0]
    for table in tables[1:]:
        first = first.merge(table, how="outer")
    return first


def _relative(runs: pd.DataFrame, without: tuple[str, ...], also: list[str]) -> pd.DataFrame:
    """Return the runs of configurations that were run more than once, relative to their configuration's mean."""
    columns = ["id_accuracy", "ood_accuracy"]
    known = runs[~runs["searched"]] if without else runs
    known = known.dropna(subset=columns)
    keys = {text: matching_key(text, without) for text in set(known["factors"])}
    known = known.assign(match=known["factors"].map(keys))
    groups = known.groupby(["match", *PAIR, *also], sort=True)
    several = groups["fit_id"].transform("nunique") > 1
    centred = known[columns] - groups[columns].transform("mean")
    return known.assign(**{name: centred[name] for name in columns})[several]


def _moves(runs: pd.DataFrame) -> pd.DataFrame:
    """Return one row a configuration, seed and pair that was trained for several numbers of epochs."""
    known = runs[~runs["searched"]].dropna(subset=["epochs", "id_accuracy", "ood_accuracy"])
    keys = {text: matching_key(text, ("epochs",)) for text in set(known["factors"])}
    by = ["match", *PAIR, "seed"]
    ordered = known.assign(match=known["factors"].map(keys)).sort_values([*by, "epochs"], kind="stable")
    columns = ["epochs", "id_accuracy", "ood_accuracy"]
    groups = ordered.groupby(by, sort=True)
    first, last = groups[["cluster", *columns]].first(), groups[columns].last()
    moves = (last - first[columns]).reset_index()
    product = moves["id_accuracy"] * moves["ood_accuracy"]
    moves = moves.assign(cluster=first["cluster"].to_numpy(), opposite=(product < 0).astype("float64"))
    return moves[moves["epochs"] > 0].reset_index(drop=True)


def _fixed(
    runs: pd.DataFrame, draws: int, tables: dict[str, pd.DataFrame], sentences: list[str], reasons: list[str]
) -> None:
    parts = []
    for name in SCHEDULE:
        known = runs[~runs["searched"]].dropna(subset=[name])
        if known[name].nunique() < 2:
            reasons.append(f"no runs differ in {_WORDS[name]} alone")
            continue
        least = known[name].min()
        matched = matches_of(known.assign(level=known[name].map("{:g}".format)), "level", f"{least:g}", (name,))
        if not len(matched):
            reasons.append(f"no runs differ in {_WORDS[name]} alone")
            continue
        effects, _ = effects_of(matched, "level", ["id_accuracy", "ood_accuracy"], draws)
        if not len(effects):
            clusters = matched["cluster"].nunique()
            reasons.append(f"{_WORDS[name]}: {clusters} (method, backbone) clusters, at least 5 are needed")
            continue
        parts.append(effects.assign(setting=name, reference=f"{least:g}"))
        outside = effects[effects["outcome"] == "ood_accuracy"]
        most = outside.iloc[int(outside["difference"].abs().argmax())]
        found = Estimate(most["difference"], most["difference_low"], most["difference_high"])
        sentences.append(
            f"{_WORDS[name]} {most['level']} instead of {least:g} changes OOD accuracy by {points(found)} points "
            f"(shots {most['shots']})"
        )
    if parts:
        table = pd.concat(parts, ignore_index=True)
        front = ["setting", "level", "reference"]
        tables["effects"] = table[[*front, *(column for column in table if column not in front)]]


_WORDS = {"lr": "learning rate", "epochs": "epochs"}


def _selected(
    candidates: pd.DataFrame, draws: int, tables: dict[str, pd.DataFrame], sentences: list[str], reasons: list[str]
) -> None:
    rows = []
    fit = ["cluster", "model", "task", "source", "shots", "seed", "rest"]  # but for the schedule, one configuration
    drawn = Draws.of(candidates, draws)
    for name, other in (("lr", "epochs"), ("epochs", "lr")):
        known = candidates.dropna(subset=[name])
        if known[name].nunique() < 2:
            continue
        least = known[name].min()
        filled = known.assign(other=known[other].fillna(-1.0), target=known["source"])
        base = filled[filled[name] == least][[*fit, "other", "val_accuracy"]]
        joined = filled[filled[name] != least].merge(base, on=[*fit, "other"], suffixes=("", "_base"))
        joined["difference"] = joined["val_accuracy"] - joined["val_accuracy_base"]
        for level, own in joined.groupby(name, sort=True):
            found = over_pairs(own, mean_of("difference"), drawn, needs=["difference"])
            if found.any:
                front = {"setting": name, "level": f"{level:g}", "reference": f"{least:g}"}
                rows.append({**front, **named({"difference": found.overall}), "clusters": found.clusters})
    if rows:
        tables["selection"] = pd.DataFrame(rows)
        most = max(rows, key=lambda row: abs(float(str(row["difference"]))))
        sentences.append(
            f"over what searches and soups tried, {_WORDS[str(most['setting'])]} {most['level']} instead of "
            f"{most['reference']} changes ID-val accuracy most, by {100 * float(str(most['difference'])):.1f} points"
        )
    else:
        count = candidates["cluster"].nunique()
        reasons.append(f"what searches or soups tried: {count} (method, backbone) clusters, at least 5 are needed")
