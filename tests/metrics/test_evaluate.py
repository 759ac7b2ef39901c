from __future__ import annotations

import math

import numpy as np
import pytest

from tlbench.errors import UnknownNameError
from tlbench.metrics import (
    class_bins,
    demographic_disparity,
    expected_calibration_error,
    inferred_groups,
    jackknife_standard_error,
    macro_f1,
    measure_attack,
    measure_audit,
    measure_clean,
    measure_images,
    robust_accuracy,
    standard_error_of_mean,
)
from tlbench.metrics.evaluate import CLEAN_METRICS

CLASSES = 7
EPSILONS = (0.1 / 255, 0.3 / 255)


def predictions(n=150, seed=0, classes=CLASSES):
    """A predictions table of an imaginary model, its probabilities, and its labels."""
    draw = np.random.default_rng(seed)
    label = draw.integers(classes, size=n)
    logits = draw.normal(size=(n, classes))
    logits[np.arange(n), label] += 1.5
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = probabilities[np.arange(n), label]
    columns = {
        "label": label,
        "predicted": logits.argmax(axis=1),
        "rank": (logits > logits[np.arange(n), label][:, None]).sum(axis=1),
        "confidence": probabilities.max(axis=1).astype(np.float32),
        "log_likelihood": np.log(truth).astype(np.float32),
        "brier": ((probabilities - np.eye(classes)[label]) ** 2).sum(axis=1).astype(np.float32),
        "scale_derivative": (probabilities * (logits - logits[np.arange(n), label][:, None])).sum(axis=1),
    }
    columns |= {f"{name}_scaled": columns[name] for name in ("confidence", "log_likelihood", "brier")}
    return columns, class_bins(probabilities, label, bins=10, closed="left")


def clean(columns, *, classes=CLASSES, table=None, **options):
    return measure_clean(columns, classes=classes, bins=10, closed="left", class_bins=table, **options)


def test_a_full_table_gives_every_metric_and_the_same_number_as_the_function():
    columns, table = predictions()
    columns["group"] = np.array(["north", "south", "west"])[np.arange(150) % 3]
    values = clean(columns, table=table, class_bins_scaled=table)
    assert list(values) == list(CLEAN_METRICS)
    assert {name for name, value in values.items() if value.status != "ok"} == {"top10_accuracy"}
    correct = columns["label"] == columns["predicted"]
    assert values["accuracy"].value == correct.mean()
    assert values["accuracy"].standard_error == pytest.approx(standard_error_of_mean(correct))
    assert values["macro_f1"].value == macro_f1(columns["label"], columns["predicted"])
    assert values["macro_f1"].standard_error == pytest.approx(
        jackknife_standard_error(lambda kept: macro_f1(columns["label"][kept], columns["predicted"][kept]), 150)
    )
    assert values["ece"].value == expected_calibration_error(columns["confidence"], correct, bins=10, closed="left")
    assert values["ece_scaled"] == values["ece"]
    assert values["class_wise_ece_scaled"] == values["class_wise_ece"]
    assert values["worst_group_accuracy"].value == min(correct[k::3].mean() for k in range(3))
    assert values["demographic_disparity"].value == demographic_disparity(
        columns["predicted"], inferred_groups(columns["scale_derivative"])
    )
    assert values["infinite_nll_count"].value == 0
    for name, value in values.items():
        assert value.n == 150
        if name not in ("top10_accuracy", "infinite_nll_count", "ece_if_calibrated", *CLEAN_METRICS[-2:]):
            assert value.standard_error is not None, name
            assert value.standard_error > 0, name


def test_a_predictor_of_scores_has_accuracy_and_no_calibration():
    columns, _ = predictions()
    values = clean({name: columns[name] for name in ("label", "predicted", "rank")})
    assert values["macro_f1"].status == "ok"
    for name in ("nll", "brier", "ece", "adaptive_ece", "ece_if_calibrated", "demographic_disparity"):
        assert values[name].status == "not_applicable"
        assert values[name].reason == "needs probabilities"
        assert values[name].value is None
    assert "counted by class" in values["class_wise_ece"].reason
    assert "temperature" in values["nll_scaled"].reason
    assert values["worst_group_accuracy"].reason == "needs images that carry a group"
    assert values["top10_accuracy"].reason == "needs 10 classes, the task has 7"


@pytest.mark.parametrize("seed", [1, 2])
def test_does_not_depend_on_the_order_of_images(seed):
    columns, table = predictions()
    order = np.random.default_rng(seed).permutation(150)
    shuffled = {name: column[order] for name, column in columns.items()}
    values, again = clean(columns, table=table), clean(shuffled, table=table)
    for name, value in values.items():
        assert again[name].status == value.status
        assert again[name].value == pytest.approx(value.value, abs=1e-12)


def test_clusters_widen_the_standard_error_and_fewer_than_five_leave_none():
    columns, _ = predictions(n=40)
    repeated = {name: np.repeat(column, 4) for name, column in columns.items()}
    names = ("accuracy", "macro_f1", "ece")
    alone = clean(repeated, names=names)
    clustered = clean(repeated | {"cluster": np.repeat(np.arange(40).astype(str), 4)}, names=names)
    few = clean(repeated | {"cluster": np.arange(160) % 4}, names=names)
    for name in names:
        assert clustered[name].value == alone[name].value == few[name].value
        assert clustered[name].standard_error > 1.5 * alone[name].standard_error
        assert few[name].standard_error is None
        assert (few[name].status, few[name].reason) == ("ok", "")


@pytest.mark.parametrize("column", ["confidence", "log_likelihood", "brier", "scale_derivative", "rank"])
def test_a_nan_fails_the_metrics_that_read_it_and_no_others(column):
    columns, _ = predictions()
    readers = {
        "confidence": {"ece", "adaptive_ece", "ece_if_calibrated"},
        "log_likelihood": {"nll", "infinite_nll_count"},
        "brier": {"brier"},
        "scale_derivative": {"demographic_disparity"},
        "rank": {"accuracy", "top5_accuracy", "ece", "adaptive_ece", "ece_scaled", "adaptive_ece_scaled"},
    }[column]
    broken = columns[column].astype(np.float64)
    place = int(np.flatnonzero(columns["rank"] > 0)[0])  # a wrong prediction, so that rank does not contradict label
    broken[place] = np.nan
    values = clean(columns | {column: broken})
    assert {name for name, value in values.items() if value.status == "failed"} == readers
    for name in readers:
        assert values[name].value is None
        assert values[name].reason == f"{column}: 1 of 150 values are NaN"


def test_an_infinite_nll_is_kept_with_its_count_and_without_a_standard_error():
    columns, _ = predictions()
    columns["log_likelihood"][:2] = -np.inf
    values = clean(columns)
    assert values["nll"].value == math.inf
    assert values["nll"].status == "ok"
    assert values["nll"].standard_error is None
    assert values["infinite_nll_count"].value == 2


def test_columns_that_contradict_each_other_fail():
    columns, table = predictions()
    columns["rank"] = columns["rank"].copy()
    columns["rank"][0] = 0 if columns["rank"][0] else 1
    values = clean(columns, table=table)
    assert {value.status for value in values.values()} == {"failed"}
    assert "rank contradicts label and predicted on 1 of 150 images" in values["accuracy"].reason


def test_impossible_probabilities_and_a_table_of_other_images_fail():
    columns, _ = predictions()
    _, other = predictions(n=149)
    columns["confidence"] = columns["confidence"] + 1
    values = clean(columns, table=other)
    assert values["ece"].status == "failed"
    assert "outside" in values["ece"].reason
    assert values["class_wise_ece"].reason == "the counts by class hold 149 images, the columns 150"


def test_one_image_has_values_and_no_standard_errors():
    columns, table = predictions(n=1)
    values = clean(columns, table=table)
    assert values["accuracy"].value in (0.0, 1.0)
    assert values["balanced_accuracy"].status == values["ece"].status == "ok"
    assert all(value.standard_error is None for value in values.values())


def test_no_images_fail():
    columns, _ = predictions()
    values = clean({name: column[:0] for name, column in columns.items()})
    assert values["accuracy"].status == "failed"
    assert "at least one image" in values["accuracy"].reason


def test_only_the_metrics_asked_for_are_computed_and_an_unknown_one_is_named():
    columns, _ = predictions()
    assert list(clean(columns, names=("ece", "accuracy"))) == ["accuracy", "ece"]
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        clean(columns, names=["acuracy"])
    with pytest.raises(UnknownNameError, match="'brier'"):
        measure_images(columns, bins=10, closed="left", names=["brier"])


def test_columns_of_different_length_and_clusters_with_holes_are_refused():
    columns, _ = predictions()
    with pytest.raises(ValueError, match="equal length"):
        clean(columns | {"brier": columns["brier"][:-1]})
    with pytest.raises(ValueError, match="cluster: expected one name per image"):
        clean(columns | {"cluster": np.array([None, *["a"] * 149], dtype=object)})


def test_images_give_consistency_only_beside_clean_predictions():
    columns, _ = predictions()
    kept = {name: columns[name] for name in ("predicted", "rank", "confidence", "log_likelihood")}
    corrupted = measure_images(kept, bins=10, closed="left")
    assert list(corrupted) == ["accuracy", "nll", "infinite_nll_count", "ece"]
    whole = clean(columns)
    for name, value in corrupted.items():
        assert value == whole[name]
    changed = columns["predicted"].copy()
    changed[:15] = (changed[:15] + 1) % CLASSES
    transformed = measure_images(kept | {"predicted_clean": changed}, bins=10, closed="left")
    assert transformed["consistency"].value == pytest.approx(0.9)
    assert transformed["consistency"].standard_error == pytest.approx(np.sqrt(0.09 / 149))


def attacked(n=60, seed=0):
    breaking = np.random.default_rng(seed).choice([0.0, *EPSILONS, np.inf], size=n, p=[0.2, 0.3, 0.2, 0.3])
    return {"correct_clean": breaking > 0, "breaking_epsilon": breaking}


def test_an_attack_gives_two_curves_a_mean_and_a_median():
    columns = attacked()
    values = measure_attack(columns, epsilons=EPSILONS)
    right = int(columns["correct_clean"].sum())
    assert list(values) == [
        *((name, epsilon) for name in ("robust_accuracy", "robust_share") for epsilon in EPSILONS),
        ("mean_robust_accuracy", None),
        ("median_breaking_epsilon", None),
    ]
    curve = robust_accuracy(columns["breaking_epsilon"], EPSILONS)
    for epsilon, share in zip(EPSILONS, curve, strict=True):
        value = values["robust_accuracy", epsilon]
        survived = columns["breaking_epsilon"] > epsilon
        assert (value.value, value.n) == (pytest.approx(share), 60)
        assert value.standard_error == pytest.approx(standard_error_of_mean(survived))
        conditional = values["robust_share", epsilon]
        assert (conditional.value, conditional.n) == (pytest.approx(share * 60 / right), right)
        assert conditional.standard_error == pytest.approx(standard_error_of_mean(survived[columns["correct_clean"]]))
    assert values["mean_robust_accuracy", None].value == pytest.approx(curve.mean())
    assert values["median_breaking_epsilon", None].value in EPSILONS
    assert values["median_breaking_epsilon", None].standard_error is None


def test_an_attack_on_a_model_that_is_always_wrong_leaves_the_share_undefined():
    values = measure_attack(
        {"correct_clean": np.zeros(8, dtype=bool), "breaking_epsilon": np.zeros(8)}, epsilons=EPSILONS
    )
    assert values["robust_accuracy", EPSILONS[0]].value == 0.0
    for key in (("robust_share", EPSILONS[0]), ("median_breaking_epsilon", None)):
        assert values[key].status == "not_applicable"
        assert values[key].reason == "no image was right when clean"
        assert values[key].n == 0


def test_an_image_on_which_an_attack_could_not_begin_is_not_robust_and_is_counted_apart():
    columns = {
        "correct_clean": np.array([True, True, True, True, False]),
        "breaking_epsilon": np.array([0.0, np.inf, np.inf, EPSILONS[0], 0.0]),
    }
    values = measure_attack(columns, epsilons=EPSILONS)
    assert values["robust_accuracy", EPSILONS[0]].value == pytest.approx(2 / 5)
    assert values["robust_share", EPSILONS[0]].value == pytest.approx(2 / 3)
    assert values["unattacked_share", None].value == pytest.approx(1 / 4)
    assert values["unattacked_share", None].n == 4
    none = {"correct_clean": np.ones(3, dtype=bool), "breaking_epsilon": np.zeros(3)}
    values = measure_attack(none, epsilons=EPSILONS)
    assert values["unattacked_share", None].value == 1.0
    assert values["robust_share", EPSILONS[0]].reason == "the attack could begin on no image"
    assert ("unattacked_share", None) not in measure_attack(attacked(), epsilons=EPSILONS)


def test_an_attack_that_contradicts_itself_or_holds_a_nan_fails():
    columns = attacked()
    flipped = columns | {"correct_clean": ~columns["correct_clean"]}
    broken = columns["breaking_epsilon"].copy()
    broken[0] = np.nan
    for wrong, reason in ((flipped, "contradicts"), (columns | {"breaking_epsilon": broken}, "NaN")):
        values = measure_attack(wrong, epsilons=EPSILONS)
        assert {value.status for value in values.values()} == {"failed"}
        assert all(reason in value.reason for value in values.values())
    with pytest.raises(ValueError, match="'correct_clean' is missing"):
        measure_attack({"breaking_epsilon": broken}, epsilons=EPSILONS)


def test_the_verdicts_of_one_image_are_a_cluster_of_an_audit():
    columns = {
        "id": np.repeat(np.arange(10), 3),
        "implied": np.ones(30, dtype=bool),
        "found": np.repeat(np.arange(10) % 2 == 0, 3),
    }
    value = measure_audit(columns)
    assert (value.value, value.n, value.status) == (0.5, 30, "ok")
    # All three verdicts of an image agree: there are ten observations, not thirty.
    assert value.standard_error == pytest.approx(standard_error_of_mean(np.arange(10) % 2 == 0))
    assert measure_audit({**columns, "cluster": np.arange(30)}).standard_error < value.standard_error


def test_an_audit_of_nothing_is_not_applicable_and_one_without_its_columns_is_refused():
    nothing = {name: np.empty(0, dtype=bool) for name in ("id", "implied", "found")}
    value = measure_audit(nothing)
    assert (value.value, value.n, value.status) == (None, 0, "not_applicable")
    with pytest.raises(ValueError, match="'found' is missing"):
        measure_audit({"id": np.zeros(1), "implied": np.ones(1, dtype=bool)})
