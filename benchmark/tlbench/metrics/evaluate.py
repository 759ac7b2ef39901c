"""Columns of a stored predictions table to numbers: the one place that evaluation and verification share.

What cannot be computed is said, never guessed: a metric whose columns are absent is ``not_applicable``, one whose
columns hold a NaN or an impossible value is ``failed``, each with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tlbench.errors import UnknownNameError, listed, nearest
from tlbench.metrics.accuracy import (
    accuracy,
    balanced_accuracy,
    brier_score,
    infinite_count,
    macro_f1,
    negative_log_likelihood,
    top_k_accuracy,
    worst_group_accuracy,
)
from tlbench.metrics.calibration import (
    ClassBins,
    Closed,
    adaptive_calibration_error,
    class_wise_calibration_error,
    expected_calibration_error,
    expected_ece_if_calibrated,
)
from tlbench.metrics.catalogue import METRICS
from tlbench.metrics.columns import Column, images_in
from tlbench.metrics.invariance import consistency, demographic_disparity, inferred_groups
from tlbench.metrics.left_out import (
    Blocks,
    Values,
    adaptive_calibration_error_left_out,
    balanced_accuracy_left_out,
    demographic_disparity_left_out,
    expected_calibration_error_left_out,
    macro_f1_left_out,
    worst_group_accuracy_left_out,
)
from tlbench.metrics.robustness import audit_reversals, mean_robust_accuracy, median_breaking_epsilon, survives
from tlbench.metrics.uncertainty import (
    NotEnoughClusters,
    jackknife_blocks,
    standard_error_left_out,
    standard_error_of_mean,
)

Columns = Mapping[str, Column]


@dataclass(frozen=True)
class MetricValue:
    """One number, or why there is none.

    Attributes
    ----------
    value : float or None
        None unless the status is ``ok``. An infinite NLL or median is ``ok`` and infinite.
    standard_error : float or None
        Clustered where the columns name clusters. None where it does not exist: fewer than five clusters or two
        images, an infinite value, a median, a count, an expectation, or a measure of counts by class.
    n : int
        Images that the number rests on.
    status : {"ok", "failed", "not_applicable"}
    reason : str
        Why there is no value; empty for ``ok``.
    """

    value: float | None
    standard_error: float | None
    n: int
    status: Literal["ok", "failed", "not_applicable"]
    reason: str = ""


@dataclass(frozen=True)
class _Measure:
    """How a metric and its standard error follow from columns."""

    value: Callable[[Columns], float]
    # Where the metric is a mean of one value per image, these values; their spread gives its standard error.
    per_image: Callable[[Columns], Column] | None = None
    # Where it is not, its values without each block of images, which give the jackknife's; None where it has none.
    left_out: Callable[[Columns, Blocks], Values] | None = None


_NEEDS = {
    "confidence": "needs probabilities",
    "log_likelihood": "needs probabilities",
    "brier": "needs probabilities",
    "scale_derivative": "needs probabilities",
    "class_bins": "needs probabilities, counted by class",
    "confidence_scaled": "needs probabilities after temperature scaling on ID-val",
    "log_likelihood_scaled": "needs probabilities after temperature scaling on ID-val",
    "brier_scaled": "needs probabilities after temperature scaling on ID-val",
    "class_bins_scaled": "needs probabilities after temperature scaling on ID-val, counted by class",
    "group": "needs images that carry a group",
}


def _right(columns: Columns) -> Column:
    return np.asarray(columns["rank"] == 0)


def _disparity(columns: Columns) -> float:
    return demographic_disparity(columns["predicted"], inferred_groups(columns["scale_derivative"]))


def _nll(column: str) -> _Measure:
    return _Measure(lambda c: negative_log_likelihood(c[column]), lambda c: -c[column])


def _brier(column: str) -> _Measure:
    return _Measure(lambda c: brier_score(c[column]), lambda c: c[column])


def _ece(column: str, bins: int, closed: Closed) -> _Measure:
    return _Measure(
        lambda c: expected_calibration_error(c[column], _right(c), bins=bins, closed=closed),
        left_out=lambda c, block: expected_calibration_error_left_out(
            c[column], _right(c), block, bins=bins, closed=closed
        ),
    )


def _adaptive_ece(column: str, bins: int) -> _Measure:
    return _Measure(
        lambda c: adaptive_calibration_error(c[column], _right(c), bins=bins),
        left_out=lambda c, block: adaptive_calibration_error_left_out(c[column], _right(c), block, bins=bins),
    )


def _top_k(k: int, classes: int) -> _Measure:
    return _Measure(lambda c: top_k_accuracy(c["rank"], k=k, classes=classes), lambda c: c["rank"] < k)


_ACCURACY = _Measure(lambda c: accuracy(_right(c)), _right)
_INFINITE = _Measure(lambda c: float(infinite_count(c["log_likelihood"])))
_CONSISTENCY = _Measure(
    lambda c: consistency(c["predicted_clean"], c["predicted"]), lambda c: c["predicted_clean"] == c["predicted"]
)


def _clean_measures(classes: int, bins: int, closed: Closed) -> dict[str, _Measure]:
    return {
        "accuracy": _ACCURACY,
        "top5_accuracy": _top_k(5, classes),
        "top10_accuracy": _top_k(10, classes),
        "balanced_accuracy": _Measure(
            lambda c: balanced_accuracy(c["label"], c["predicted"]),
            left_out=lambda c, block: balanced_accuracy_left_out(c["label"], c["predicted"], block),
        ),
        "macro_f1": _Measure(
            lambda c: macro_f1(c["label"], c["predicted"]),
            left_out=lambda c, block: macro_f1_left_out(c["label"], c["predicted"], block),
        ),
        "worst_group_accuracy": _Measure(
            lambda c: worst_group_accuracy(_right(c), c["group"]),
            left_out=lambda c, block: worst_group_accuracy_left_out(_right(c), c["group"], block),
        ),
        "nll": _nll("log_likelihood"),
        "infinite_nll_count": _INFINITE,
        "brier": _brier("brier"),
        "ece": _ece("confidence", bins, closed),
        "adaptive_ece": _adaptive_ece("confidence", bins),
        "ece_if_calibrated": _Measure(lambda c: expected_ece_if_calibrated(c["confidence"], bins=bins, closed=closed)),
        "nll_scaled": _nll("log_likelihood_scaled"),
        "brier_scaled": _brier("brier_scaled"),
        "ece_scaled": _ece("confidence_scaled", bins, closed),
        "adaptive_ece_scaled": _adaptive_ece("confidence_scaled", bins),
        "demographic_disparity": _Measure(
            _disparity,
            left_out=lambda c, block: demographic_disparity_left_out(
                c["predicted"], inferred_groups(c["scale_derivative"]), block
            ),
        ),
    }


CLEAN_METRICS = (*_clean_measures(1, 1, "right"), "class_wise_ece", "class_wise_ece_scaled")


def measure_clean(
    columns: Columns,
    *,
    classes: int,
    bins: int,
    closed: Closed,
    class_bins: ClassBins | None,
    class_bins_scaled: ClassBins | None = None,
    names: Collection[str] | None = None,
) -> dict[str, MetricValue]:
    """Compute the metrics of a clean set.

    Parameters
    ----------
    columns : mapping from a column's name to an array, shape (n,)
        ``label``, ``predicted``, ``rank`` and, as far as the predictor allows, ``confidence``, ``log_likelihood``,
        ``brier``, ``scale_derivative``, ``confidence_scaled``, ``log_likelihood_scaled``, ``brier_scaled``; optionally
        ``cluster`` and ``group``. A column that is null in the stored table is left out, for a NaN means a failure.
        Float32 columns are summed in float64, but binned as they are, with edges of their own precision.
    classes : int
        Number of classes of the task; a top-k accuracy with more guesses is not applicable.
    bins, closed
        Bins of the calibration errors.
    class_bins, class_bins_scaled : ClassBins or None
        Counts by class and bin, before and after temperature scaling.
    names : collection of str, optional
        The metrics to compute; by default all of ``CLEAN_METRICS``.

    Returns
    -------
    dict from a metric's name to MetricValue
        One entry for every metric asked for, in the order of ``CLEAN_METRICS``.

    Raises
    ------
    ValueError
        If columns differ in length, or ``cluster`` or ``group`` lack a value for some images.
    UnknownNameError
        If a name is not one of ``CLEAN_METRICS``.
    """
    wanted = _check_names(names, CLEAN_METRICS)
    columns = _check_columns(columns)
    guesses = {"top5_accuracy": 5, "top10_accuracy": 10}
    tables = {"class_wise_ece": class_bins, "class_wise_ece_scaled": class_bins_scaled}
    measures = _clean_measures(classes, bins, closed)
    clash = _rank_clash(columns)
    if clash:
        return {name: MetricValue(None, None, _length(columns), "failed", clash) for name in wanted}
    values = {}
    for name in wanted:
        if name in tables:
            values[name] = _class_wise(name, tables[name], _length(columns))
        elif guesses.get(name, 0) > classes:
            values[name] = _not_applicable(_length(columns), f"needs {guesses[name]} classes, the task has {classes}")
        else:
            values[name] = _measure(name, measures[name], columns)
    return values


def measure_images(
    columns: Columns, *, bins: int, closed: Closed, names: Collection[str] | None = None
) -> dict[str, MetricValue]:
    """Compute the metrics of a corrupted or transformed set at one setting.

    Parameters
    ----------
    columns : mapping from a column's name to an array, shape (n,)
        ``predicted``, ``rank`` and, as far as the predictor allows, ``confidence`` and ``log_likelihood``; optionally
        ``cluster``, and ``predicted_clean``, the classes predicted for the same images as they are.
    bins, closed
        Bins of the calibration error.
    names : collection of str, optional
        The metrics to compute, of ``accuracy``, ``nll``, ``infinite_nll_count``, ``ece`` and, where
        ``predicted_clean`` is given, ``consistency``; by default all of these.

    Returns
    -------
    dict from a metric's name to MetricValue

    Raises
    ------
    ValueError
        If columns differ in length, or ``cluster`` lacks a value for some images.
    UnknownNameError
        If a name is not one of these.
    """
    measures = {
        "accuracy": _ACCURACY,
        "nll": _nll("log_likelihood"),
        "infinite_nll_count": _INFINITE,
        "ece": _ece("confidence", bins, closed),
    }
    if "predicted_clean" in columns:
        measures["consistency"] = _CONSISTENCY
    wanted = _check_names(names, tuple(measures))
    columns = _check_columns(columns)
    return {name: _measure(name, measures[name], columns) for name in wanted}


def measure_attack(columns: Columns, *, epsilons: Sequence[float]) -> dict[tuple[str, float | None], MetricValue]:
    """Compute the metrics of an attacked set.

    Parameters
    ----------
    columns : mapping from a column's name to an array, shape (n,)
        ``correct_clean``, whether the image was right before the attack, and ``breaking_epsilon``, the smallest
        epsilon that broke it: infinite where none did, 0 where it was wrong when clean and where the attack could not
        begin on it; optionally ``cluster``.
    epsilons : floats
        Radii of the attack, in units of the [0, 1] pixel range.

    Returns
    -------
    dict from (metric, epsilon) to MetricValue
        ``robust_accuracy`` and ``robust_share`` at every epsilon, then ``mean_robust_accuracy`` and
        ``median_breaking_epsilon``, whose epsilon is None. ``robust_share`` and the median rest on the images that
        were right when clean and attacked, and are not applicable where there are none. An image on which the attack
        could not begin counts as broken in ``robust_accuracy``; where there is one, ``unattacked_share`` is its share
        of the images right when clean.

    Raises
    ------
    ValueError
        If a column is missing, columns differ in length, or ``cluster`` lacks a value for some images.
    """
    columns = _check_columns(columns)
    for name in ("correct_clean", "breaking_epsilon"):
        if name not in columns:
            raise ValueError(f"expected the columns of an attack, {name!r} is missing")
    breaking = columns["breaking_epsilon"]
    # Wrong when clean is a breaking epsilon of 0; NaN is neither, and fails below.
    clean = columns["correct_clean"].astype(bool)
    clash = ~clean & (breaking != 0) & ~np.isnan(breaking)
    if clash.any():
        reason = f"correct_clean contradicts breaking_epsilon on {clash.sum()} of {len(clash)} images"
        broken = MetricValue(None, None, len(clash), "failed", reason)
        return {key: broken for key in _attack_keys(epsilons)}
    right = {name: column[breaking != 0] for name, column in columns.items()}
    values: dict[tuple[str, float | None], MetricValue] = {}
    for key in _attack_keys(epsilons):
        name, epsilon = key
        conditional = name in ("robust_share", "median_breaking_epsilon")
        rows = right if conditional else columns
        if conditional and _length(columns) > 0 and _length(right) == 0:
            why = "the attack could begin on no image" if clean.any() else "no image was right when clean"
            values[key] = _not_applicable(0, why)
        elif name == "median_breaking_epsilon":
            median = _Measure(lambda c: median_breaking_epsilon(c["breaking_epsilon"]))
            values[key] = _measure(name, median, rows)
        else:
            values[key] = _measure(name, _survival(tuple(epsilons) if epsilon is None else (epsilon,)), rows)
    if (clean & (breaking == 0)).any():
        unattacked = _Measure(
            lambda c: float((c["breaking_epsilon"] == 0).mean()), lambda c: c["breaking_epsilon"] == 0
        )
        chosen = {name: column[clean] for name, column in columns.items()}
        values["unattacked_share", None] = _measure("unattacked_share", unattacked, chosen)
    return values


def measure_audit(columns: Columns) -> MetricValue:
    """Compute ``audit_reversals``, the share of audited verdicts that an independent attack turned round.

    Parameters
    ----------
    columns : mapping from a column's name to an array, shape (n,)
        One audited verdict a row: ``id``, whose it is, ``implied`` and ``found``, whether the image counts as surviving
        and whether it did; optionally ``cluster``, without which the verdicts of one image are a cluster.

    Returns
    -------
    MetricValue
        Its ``n`` counts verdicts, not images; not applicable where there are none.

    Raises
    ------
    ValueError
        If a column is missing, columns differ in length, or ``cluster`` lacks a value for some images.
    """
    for name in ("id", "implied", "found"):
        if name not in columns:
            raise ValueError(f"expected the columns of an audit, {name!r} is missing")
    columns = _check_columns({"cluster": columns["id"], **columns})
    if _length(columns) == 0:
        return _not_applicable(0, "the order of epsilons left no verdict of an audited image to be implied")
    turned = columns["implied"].astype(bool) != columns["found"].astype(bool)
    try:
        error = standard_error_of_mean(turned, cluster=columns["cluster"])
    except NotEnoughClusters:
        error = None
    return MetricValue(audit_reversals(columns["implied"], columns["found"]), error, len(turned), "ok")


def _attack_keys(epsilons: Sequence[float]) -> list[tuple[str, float | None]]:
    curves: list[tuple[str, float | None]] = [
        (name, epsilon) for name in ("robust_accuracy", "robust_share") for epsilon in epsilons
    ]
    return [*curves, ("mean_robust_accuracy", None), ("median_breaking_epsilon", None)]


def _survival(epsilons: tuple[float, ...]) -> _Measure:
    """The robust accuracy at one epsilon, or its mean over several: on all rows, or on those right when clean."""
    return _Measure(
        lambda c: mean_robust_accuracy(c["breaking_epsilon"], epsilons),
        lambda c: survives(c["breaking_epsilon"], epsilons).mean(axis=1),
    )


def _measure(name: str, measure: _Measure, columns: Columns) -> MetricValue:
    """Compute one metric and its standard error."""
    n = _length(columns)
    requires = METRICS[name].requires
    for column in requires:
        if column not in columns:
            return _not_applicable(n, _NEEDS.get(column, f"needs the column {column!r}"))
    needed = {column: columns[column] for column in requires}
    try:
        images_in(**needed)
        value = measure.value(needed)
    except ValueError as error:
        return MetricValue(None, None, n, "failed", str(error))
    return MetricValue(value, _standard_error(measure, needed, value, columns.get("cluster")), n, "ok")


def _standard_error(measure: _Measure, needed: Columns, value: float, cluster: Column | None) -> float | None:
    if not np.isfinite(value):
        return None
    try:
        if measure.per_image is not None:
            return standard_error_of_mean(measure.per_image(needed), cluster=cluster)
        if measure.left_out is not None:
            block = jackknife_blocks(_length(needed), cluster=cluster)
            return standard_error_left_out(measure.left_out(needed, block))
    except NotEnoughClusters:
        return None
    return None


def _rank_clash(columns: Columns) -> str:
    """Say where rank 0 and a right prediction, which are one fact stored twice, disagree."""
    if not {"label", "predicted", "rank"} <= set(columns):
        return ""
    clash = (columns["rank"] == 0) != (columns["label"] == columns["predicted"])
    return f"rank contradicts label and predicted on {clash.sum()} of {len(clash)} images" if clash.any() else ""


def _class_wise(name: str, table: ClassBins | None, n: int) -> MetricValue:
    if table is None:
        return _not_applicable(n, _NEEDS[METRICS[name].requires[0]])
    counted = int(table.count[0].sum()) if len(table.count) else 0
    if counted != n:
        return MetricValue(None, None, n, "failed", f"the counts by class hold {counted} images, the columns {n}")
    try:
        return MetricValue(class_wise_calibration_error(table), None, n, "ok")
    except ValueError as error:
        return MetricValue(None, None, n, "failed", str(error))


def _not_applicable(n: int, reason: str) -> MetricValue:
    return MetricValue(None, None, n, "not_applicable", reason)


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _check_names(names: Collection[str] | None, known: tuple[str, ...]) -> list[str]:
    if names is None:
        return list(known)
    for name in names:
        if name not in known:
            raise UnknownNameError(f"metric {name!r} is not one of {listed(known)} here{nearest(name, known)}")
    return [name for name in known if name in names]


def _check_columns(columns: Columns) -> Columns:
    """Return the columns with clusters and groups as integers: a jackknife would otherwise sort strings fifty times."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"expected columns of equal length, got {lengths}")
    coded = dict(columns)
    for name in ("cluster", "group"):
        if name in coded:
            column = coded[name]
            if column.dtype.kind == "O" and not all(isinstance(value, str) for value in column):
                raise ValueError(f"{name}: expected one name per image, some have none; leave the column out")
            coded[name] = np.unique(column, return_inverse=True)[1]
    return coded
