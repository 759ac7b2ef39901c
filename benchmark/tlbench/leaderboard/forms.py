"""Every score is a weighted sum of records: which records, and with which weights.

A cell is the mean over seeds, a task the plain mean over its pairs, a suite the plain mean over its tasks. What is
measured on ID-test alone is averaged over the sources of a task instead of its pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pandas as pd

from tlbench.errors import UnknownNameError, UsageError, nearest
from tlbench.metrics.catalogue import METRICS
from tlbench.suites.spec import Attack, Clean, Corruption, Role, Suite, Transform

Kind = Literal["clean", "transform", "corruption", "attack"]
TERM: Final = ("task", "source", "target", "role", "setting", "metric")
"""Columns by which a record finds its weight."""

COSTS: Final[Mapping[str, str]] = {
    "fit_seconds": "seconds",
    "peak_memory_bytes": "peak_memory_bytes",
    "parameters_trained": "parameters_trained",
    "parameters_stored": "parameters_stored",
    "images_seen": "images_seen",
    "forward_passes": "forward_passes",
}
"""Column of the fits table by cost metric."""

GAPS: Final[Mapping[str, str]] = {
    "accuracy_gap": "accuracy",
    "nll_gap": "nll",
    "brier_gap": "brier",
    "ece_gap": "ece",
}
_OF_CONDITIONS: Final[Mapping[str, tuple[Kind, str]]] = {
    "corruption_accuracy": ("corruption", "accuracy"),
    "mean_corruption_accuracy": ("corruption", "accuracy"),
    "consistency": ("transform", "consistency"),
    "mean_consistency": ("transform", "consistency"),
    # The attack's own mean over epsilons carries the standard error that fits it: one image, one curve.
    "robust_accuracy": ("attack", "mean_robust_accuracy"),
    "mean_robust_accuracy": ("attack", "mean_robust_accuracy"),
    "robust_share": ("attack", "robust_share"),
    "median_breaking_epsilon": ("attack", "median_breaking_epsilon"),
    "audit_reversals": ("attack", "audit_reversals"),
}
_WHOLE_CURVE: Final = ("mean_robust_accuracy", "median_breaking_epsilon", "audit_reversals")


@dataclass(frozen=True)
class Form:
    """A score as a weighted sum.

    Attributes
    ----------
    metric : str
    role : {"id-val", "id-test", "ood-test"} or None
        Where it is measured; None for a gap.
    terms : DataFrame
        The columns ``TERM``, and ``weight``. The weights of a plain score sum to 1, those of a gap to 0.
    fits_of : mapping from (task, source) to int
        Fits of a source where a method reads the target: one a pair.
    """

    metric: str
    role: Role | None
    terms: pd.DataFrame
    fits_of: Mapping[tuple[str, str], int]


def setting_key(condition: str, severity: float | None, norm: str | None, epsilon: float | None) -> str:
    """Return a setting as one word, equal for numbers that differ by rounding alone."""
    # A missing number is NaN in pandas, and NaN differs from itself.
    strength = "" if severity is None or severity != severity else f"{severity:.9g}"
    radius = "" if epsilon is None or epsilon != epsilon else f"{epsilon:.9g}"
    return f"{condition}|{strength}|{norm if isinstance(norm, str) else ''}|{radius}"


def check_metric(name: str) -> str:
    """Return the name of a metric.

    Raises
    ------
    UnknownNameError
        If there is no such metric; the message gives the nearest one.
    """
    if name not in METRICS:
        raise UnknownNameError(f"there is no metric {name!r}{nearest(name, METRICS) or '; see docs/schema.md'}")
    return name


def home_role(suite: Suite, metric: str) -> Role | None:
    """Return where a board takes a metric: OOD-test where the suite measures it there, else ID-test, else nowhere."""
    kind, _ = _OF_CONDITIONS.get(metric, ("clean", metric))
    for role in ("ood-test", "id-test"):
        if any(condition.kind == kind and role in condition.roles for condition in suite.conditions):
            return role
    return None


def form(suite: Suite, metric: str, role: Role | None = None) -> Form:
    """Return the weighted sum that a metric's score is.

    Parameters
    ----------
    suite : Suite
    metric : str
        Any metric of the catalogue but a cost. Under several conditions (corruption types, transforms, attacks) the
        score is the mean over them of each one's mean over its severities, steps or epsilons. A gap is the mean over
        pairs of the source's ID-test value minus the pair's OOD-test value.
    role : str, optional
        By default the ``home_role``.

    Returns
    -------
    Form

    Raises
    ------
    UnknownNameError
        If there is no such metric.
    UsageError
        If the suite does not measure it, or not on this role.
    """
    check_metric(metric)
    if metric in COSTS:
        raise UsageError(f"'{metric}' is a cost and makes no board; it is in the table of fits")
    fits_of: dict[tuple[str, str], int] = {}
    for pair in suite.pairs:
        fits_of[pair.task, pair.source] = fits_of.get((pair.task, pair.source), 0) + 1
    if metric in GAPS:
        plain = GAPS[metric]
        _check_measured(suite, metric, home_role(suite, plain) == "ood-test" and _measures(suite, "clean", "id-test"))
        inside = [(*cell, weight) for cell, weight in _id_cells(suite, by_pair=True)]
        outside = [(*cell, -weight) for cell, weight in _ood_cells(suite)]
        rows = [(*cell, setting_key("clean", None, None, None), plain, weight) for *cell, weight in inside + outside]
        return Form(metric, None, _frame(rows), fits_of)
    where = role or home_role(suite, metric)
    kind, plain = _OF_CONDITIONS.get(metric, ("clean", metric))
    settings = [] if where is None else list(_settings(suite, kind, plain, where))
    if where is None or not settings:
        place = f" on {role}" if role else ""
        raise UsageError(f"suite '{suite.name}' does not measure '{metric}'{place}; give another --metric")
    cells = list(_ood_cells(suite) if where == "ood-test" else _id_cells(suite, by_pair=False, role=where))
    rows = [(*cell, setting, plain, weight * share) for cell, weight in cells for setting, share in settings]
    return Form(metric, where, _frame(rows), fits_of)


def _check_measured(suite: Suite, metric: str, measured: bool) -> None:
    if not measured:
        raise UsageError(
            f"suite '{suite.name}' does not measure '{metric}', which needs clean images of id-test and of ood-test"
        )


def _measures(suite: Suite, kind: Kind, role: Role) -> bool:
    return any(condition.kind == kind and role in condition.roles for condition in suite.conditions)


_Cell = tuple[str, str, str, str]


def _ood_cells(suite: Suite) -> Iterable[tuple[_Cell, float]]:
    tasks = list(dict.fromkeys(pair.task for pair in suite.pairs))
    for task in tasks:
        pairs = suite.pairs_of(task)
        for pair in pairs:
            yield (task, pair.source, pair.target, "ood-test"), 1 / (len(tasks) * len(pairs))


def _id_cells(suite: Suite, *, by_pair: bool, role: Role = "id-test") -> Iterable[tuple[_Cell, float]]:
    tasks = list(dict.fromkeys(pair.task for pair in suite.pairs))
    for task in tasks:
        sources = [pair.source for pair in suite.pairs_of(task)]
        for source in dict.fromkeys(sources):
            share = sources.count(source) / len(sources) if by_pair else 1 / len(set(sources))
            yield (task, source, source, role), share / len(tasks)


def _settings(suite: Suite, kind: Kind, metric: str, role: Role) -> Iterable[tuple[str, float]]:
    """Yield every setting of a kind that is measured on a role, with its share; shares sum to 1."""
    chosen = [condition for condition in suite.conditions if condition.kind == kind and role in condition.roles]
    for condition in chosen:
        keys = _keys(condition, metric)
        for key in keys:
            yield key, 1 / (len(chosen) * len(keys))


def _keys(condition: Clean | Transform | Corruption | Attack, metric: str) -> list[str]:
    match condition:
        case Transform():
            return [setting_key(condition.name, step, None, None) for step in condition.steps]
        case Corruption():
            return [setting_key(condition.name, severity, None, None) for severity in condition.severities]
        case Attack():
            radii = (None,) if metric in _WHOLE_CURVE else condition.radii
            return [setting_key(condition.name, None, condition.norm, radius) for radius in radii]
    return [setting_key("clean", None, None, None)]


def _frame(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[*TERM, "weight"])
