"""Records to runs: one row a model, seed and pair of domains, with what was measured on either side of the shift."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy.special import ndtri

from tlbench.analysis.clustered import PAIR, Floats
from tlbench.analysis.configuration import SCHEDULE, Configuration, as_number, read_configuration
from tlbench.errors import UnknownNameError, listed, nearest
from tlbench.metrics.catalogue import METRICS
from tlbench.records.record import PROTOCOLS
from tlbench.suites.spec import Recipe, Suite

MEASURES: Final = (
    "accuracy", "nll", "brier", "ece", "demographic_disparity", "mean_robust_accuracy", "mean_corruption_accuracy",
    "mean_consistency",
)  # fmt: skip
"""What a run has on ID-test (``id_...``) and on OOD-test (``ood_...``), where the suite measures it there."""

_KINDS: Final = {
    "mean_robust_accuracy": ("attack", "mean_robust_accuracy"),
    "mean_corruption_accuracy": ("corruption", "accuracy"),
    "mean_consistency": ("transform", "consistency"),
}
_SIDES: Final = {"id-test": "id", "ood-test": "ood"}
_IDENTITY: Final = [
    "suite", "task", "source", "shots", "seed", "model", "variant", "method", "settings", "settings_hash", "backbone",
    "weights_hash", "protocol", "precision", "deterministic", "control", "origin",
]  # fmt: skip


@dataclass(frozen=True)
class Runs:
    """What the questions read.

    Attributes
    ----------
    table : DataFrame
        One row a run; the columns are those of ``docs/analysis.md``.
    candidates : DataFrame
        One row a point that a search, or member that a soup, tried: ``cluster``, ``model``, ``task``, ``source``,
        ``shots``, ``seed``, ``lr``, ``epochs``, ``rest`` (its other settings), ``val_accuracy``, ``selected``.
    notes : tuple of str
        What was left out, in words.
    """

    table: pd.DataFrame
    candidates: pd.DataFrame
    notes: tuple[str, ...]


def tidy_runs(
    records: pd.DataFrame,
    suite: Suite,
    fits: pd.DataFrame | None = None,
    *,
    controls: bool = False,
    protocol: str = "source-only",
    precision: str = "float32",
) -> Runs:
    """Return the runs of a suite's records.

    Parameters
    ----------
    records, fits : DataFrame
        As from ``load_results`` and ``load_fits``; without fits nothing is known of what searches tried.
    suite : Suite
    controls : bool
        Whether controls (majority, random features, shuffled labels) count as runs.
    protocol, precision : str
        Runs of others are left out: a model that saw the target relates ID and OOD in its own way.

    Returns
    -------
    Runs
        Sorted, so that equal records in any order give equal runs.

    Raises
    ------
    UnknownNameError
        If there is no such protocol; the message has the nearest name.
    """
    check_protocol(protocol, sorted(set(records["protocol"])))
    kept, notes = _kept(records, controls, protocol, precision)
    whole = _runs_of(kept, suite)
    table = whole[controls | ~whole["control"]].reset_index(drop=True)
    return Runs(table, _candidates(fits, table, suite.protocol.recipe), tuple(notes))


def check_protocol(name: str, there: Sequence[str] = ()) -> None:
    """Raise ``UnknownNameError`` unless a protocol is one of ours, several of ours, or one that is there."""
    several = [part for part in PROTOCOLS if part in name.split("+")]
    if name in there or (several and "+".join(several) == name):
        return
    names = list(dict.fromkeys([*there, *PROTOCOLS]))
    hint = nearest(name, names)
    known = f"the results are of {listed(there)}" if there else f"they are {listed(PROTOCOLS)}"
    raise UnknownNameError(f"there is no protocol {name!r}{hint}; {known}")


def measured_on(runs: pd.DataFrame, side: str, measures: Sequence[str] = MEASURES) -> list[str]:
    """Return the measures that most runs have on a side, ``"id"`` or ``"ood"``: nine in ten of them."""
    known = [name for name in measures if f"{side}_{name}" in runs and len(runs)]
    return [name for name in known if runs[f"{side}_{name}"].notna().mean() >= 0.9]


def oriented(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs whose measures are all better when higher: those of which less is better change their sign."""
    lower = [
        f"{side}_{name}"
        for name in MEASURES
        if not METRICS[name].higher_is_better
        for side in _SIDES.values()
        if f"{side}_{name}" in runs
    ]
    return runs.assign(**{name: -runs[name] for name in lower})


def probit(accuracy: Floats, n: Floats) -> Floats:
    """Return accuracies on the probit scale; half an image is added to the right and to the wrong ones.

    >>> probit(np.array([0.5, 1.0]), np.array([9.0, 9.0])).round(2).tolist()
    [0.0, 1.64]
    """
    return np.asarray(ndtri((accuracy * n + 0.5) / (n + 1)))


def _kept(records: pd.DataFrame, controls: bool, protocol: str, precision: str) -> tuple[pd.DataFrame, list[str]]:
    wanted = {*MEASURES, *(metric for _, metric in _KINDS.values())}
    mine = (records["status"] == "ok") & records["headline"].astype(bool) & records["role"].isin(list(_SIDES))
    kept = records[mine & records["metric"].isin(sorted(wanted))]
    # What is published and in a run folder, too, is one run.
    setting = ["measurement_id", "condition", "severity", "norm", "epsilon", "metric"]
    kept = kept.sort_values("origin", ascending=False, kind="stable").drop_duplicates(setting)
    notes = []
    names = sorted(set(kept.loc[kept["control"].astype(bool), "model"]))
    if names and not controls:
        notes.append(f"controls are left out: {', '.join(names)}")
    for column, only in (("protocol", protocol), ("precision", precision)):
        other = kept[kept[column] != only]
        if len(other):
            told = ", ".join(sorted(set(other["model"])))
            notes.append(f"of another {column} than {only}, and left out: {told}")
            kept = kept[kept[column] == only]
    return kept, notes


def _runs_of(kept: pd.DataFrame, suite: Suite) -> pd.DataFrame:
    values = _values(kept, suite)
    inside, outside = (values[values["role"] == role].drop(columns="role") for role in _SIDES)
    names = [column for column in values if column not in ("fit_id", "target", "role")]
    runs = outside.rename(columns={name: f"ood_{name}" for name in names}).merge(
        inside.rename(columns={name: f"id_{name}" for name in names}).drop(columns="target"), on="fit_id", how="left"
    )
    runs = kept.drop_duplicates("fit_id")[["fit_id", *_IDENTITY]].merge(runs, on="fit_id", how="right")
    runs = runs.astype({"control": bool, "deterministic": bool})
    runs = _with_configuration(runs, suite)
    runs["chance"] = _chance(runs, suite)
    for side in _SIDES.values():
        share, n = (runs[name].to_numpy(np.float64) for name in (f"{side}_accuracy", f"{side}_n"))
        runs[f"{side}_probit"] = probit(share, n)
    return runs.sort_values([*PAIR, "cluster", "config", "seed", "fit_id"], kind="stable").reset_index(drop=True)


def _values(kept: pd.DataFrame, suite: Suite) -> pd.DataFrame:
    """Return one row a fit and measured set, with a column for every measure and ``n``, the images of the clean one."""
    where = ["fit_id", "role", "target"]
    clean = kept[(kept["condition"] == "clean") & kept["metric"].isin(MEASURES)]
    table = clean.pivot_table(index=where, columns="metric", values="value", aggfunc="first", sort=True)
    table["n"] = clean[clean["metric"] == "accuracy"].groupby(where)["n"].first().astype("float64")
    for name, (kind, metric) in _KINDS.items():
        chosen = kept[kept["metric"] == metric]
        parts = []
        for role in _SIDES:
            # Every setting of every condition, or no mean: one over the easy corruptions alone would be another thing.
            sizes = {c.name: _settings(c) for c in suite.conditions if c.kind == kind and role in c.roles}
            rows = chosen[(chosen["role"] == role) & chosen["condition"].isin(list(sizes))]
            by_condition = rows.groupby([*where, "condition"])["value"].agg(["mean", "size"]).reset_index()
            by_condition = by_condition[by_condition["size"] == by_condition["condition"].map(sizes)]
            means = by_condition.groupby(where)["mean"].agg(["mean", "size"])
            parts.append(means.loc[means["size"] == len(sizes), "mean"])
        table[name] = pd.concat(parts)
    return table.reindex(columns=[*MEASURES, "n"]).astype("float64").reset_index()


def _settings(condition: Any) -> int:
    match condition.kind:
        case "transform":
            return len(condition.steps)
        case "corruption":
            return len(condition.severities)
    return 1  # the attack's own mean over its epsilons


def _with_configuration(runs: pd.DataFrame, suite: Suite) -> pd.DataFrame:
    recipe = suite.protocol.recipe
    keys = list(zip(runs["method"], runs["settings"], strict=True))
    read: dict[tuple[str, str], Configuration] = {key: read_configuration(*key, recipe) for key in set(keys)}
    found = [read[key] for key in keys]
    outer = runs[["backbone", "weights_hash", "shots", "settings_hash", "variant"]].to_dict("records")
    return runs.assign(
        core=[one.core for one in found],
        cluster=[f"{one.trained} on {own['backbone']}" for one, own in zip(found, outer, strict=True)],
        regime=[one.regime for one in found],
        augment=[one.augment for one in found],
        lr=np.array([one.lr for one in found], dtype=np.float64),
        epochs=np.array([one.epochs for one in found], dtype=np.float64),
        searched=np.array([one.searched for one in found], dtype=bool),
        factors=[
            json.dumps(
                {**one.factors, **{key: own[key] for key in ("backbone", "weights_hash", "shots", "variant")}},
                sort_keys=True,
            )
            for one, own in zip(found, outer, strict=True)
        ],
        config=["|".join(map(str, own.values())) + f"|{key[0]}" for own, key in zip(outer, keys, strict=True)],
    )


def _chance(runs: pd.DataFrame, suite: Suite) -> Floats:
    """Return the OOD accuracy of knowing nothing: one in so many classes, or that of the majority class if it is more.

    The latter is the control's, where it was run.
    """
    classes = {name: spec.classes for name, spec in suite.tasks.items()}
    uniform = [1 / len(classes[task] or ()) if classes.get(task) else np.nan for task in runs["task"]]
    majority = runs[runs["control"] & (runs["method"] == "majority")].groupby(list(PAIR))["ood_accuracy"].mean()
    seen = majority.reindex(pd.MultiIndex.from_frame(runs[list(PAIR)])).to_numpy(np.float64)
    return np.asarray(np.fmax(np.array(uniform, dtype=np.float64), seen))


def _candidates(fits: pd.DataFrame | None, table: pd.DataFrame, recipe: Recipe) -> pd.DataFrame:
    """Return what searches and soups tried, settings at None filled in from the suite's recipe."""
    of_fit = ["model", "task", "source", "shots", "seed"]
    columns = ["cluster", *of_fit, *SCHEDULE, "rest", "val_accuracy", "selected"]
    defaults = recipe.model_dump()
    rows: list[dict[str, Any]] = []
    cluster_of = dict(zip(table["fit_id"], table["cluster"], strict=True))
    if fits is not None:
        for fit in fits[fits["fit_id"].isin(list(cluster_of))].drop_duplicates("fit_id").to_dict("records"):
            for one in json.loads(fit["candidates"]):
                settings = one.get("settings") if isinstance(one, dict) else None
                if not isinstance(settings, dict) or one.get("accuracy") is None:
                    continue  # some methods note other things there
                filled = {key: defaults.get(key) if value is None else value for key, value in settings.items()}
                rows.append(
                    {
                        **{key: fit[key] for key in of_fit},
                        "cluster": cluster_of[fit["fit_id"]],
                        **{key: as_number(filled.pop(key, None)) for key in SCHEDULE},
                        "rest": json.dumps(filled, sort_keys=True),
                        "val_accuracy": float(one["accuracy"]),
                        "selected": bool(one.get("selected")),
                    }
                )
    found = pd.DataFrame(rows, columns=columns)
    return found.sort_values(columns[:-2], kind="stable").reset_index(drop=True)
