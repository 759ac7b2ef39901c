from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.metrics import (
    ClassBins,
    adaptive_calibration_error,
    class_bins,
    class_wise_calibration_error,
    expected_calibration_error,
    expected_ece_if_calibrated,
    reliability_diagram,
)
from tlbench.metrics.calibration import bin_index

SIDES = ("left", "right")

# Confidences on a grid of hundredths fall on edges and coincide, which continuous draws never would.
judged = st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=1, max_size=40).map(
    lambda rows: (np.array([c / 100 for c, _ in rows]), np.array([right for _, right in rows]))
)
sides = st.sampled_from(SIDES)
numbers_of_bins = st.integers(1, 20)


def slow_bin(confidence: Fraction, bins: int, closed: str) -> int:
    """The bin that contains a decimal, in exact arithmetic."""
    for b in range(bins):
        low, high = Fraction(b, bins), Fraction(b + 1, bins)
        inside = low <= confidence < high if closed == "left" else low < confidence <= high
        if inside or (confidence == 0 and b == 0) or (confidence == 1 and b == bins - 1):
            return b
    raise AssertionError(confidence)


def slow_ece(hundredths, correct, bins, closed):
    members: dict[int, list[int]] = {}
    for i, c in enumerate(hundredths):
        members.setdefault(slow_bin(Fraction(int(c), 100), bins, closed), []).append(i)
    total = 0.0
    for images in members.values():
        confidence = np.mean([hundredths[i] / 100 for i in images])
        total += len(images) / len(hundredths) * abs(np.mean([correct[i] for i in images]) - confidence)
    return total


@given(judged, numbers_of_bins, sides)
def test_ece_is_its_definition_on_edges_and_between(rows, bins, closed):
    confidence, correct = rows
    expected = slow_ece(np.rint(confidence * 100), correct, bins, closed)
    assert expected_calibration_error(confidence, correct, bins=bins, closed=closed) == pytest.approx(
        expected, abs=1e-12
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("closed", SIDES)
@pytest.mark.parametrize("bins", [1, 2, 3, 7, 10, 15, 20, 100])
def test_the_nearest_float_of_an_edge_lies_in_the_bin_of_its_decimal(kind, closed, bins):
    edges = [Fraction(m, bins) for m in range(bins + 1)]
    found = bin_index(np.array([float(edge) for edge in edges], dtype=kind), bins=bins, closed=closed)
    assert found.tolist() == [slow_bin(edge, bins, closed) for edge in edges]


def test_ece_depends_on_the_closed_side_where_a_confidence_is_an_edge():
    confidence, correct = np.array([0.5, 0.6]), np.array([True, False])
    assert expected_calibration_error(confidence, correct, bins=2, closed="left") == pytest.approx(0.05)
    assert expected_calibration_error(confidence, correct, bins=2, closed="right") == pytest.approx(0.55)


def test_ece_matches_the_published_fixtures():
    confidence = np.array([0.51, 0.55, 0.61, 0.66, 0.68, 0.71, 0.81, 0.85])
    correct = np.array([1, 0, 1, 1, 0, 0, 1, 1], dtype=bool)
    assert expected_calibration_error(confidence, correct, bins=10, closed="left") == pytest.approx(0.145, abs=1e-12)
    wrong = np.array([False, False])
    for closed in SIDES:
        assert expected_calibration_error(np.array([0.5, 1.0]), wrong, bins=3, closed=closed) == 0.75


@pytest.mark.parametrize("measure", [expected_calibration_error, adaptive_calibration_error])
@given(rows=judged, bins=numbers_of_bins, order=st.randoms(use_true_random=False))
def test_lies_in_the_unit_interval_and_ignores_order_and_duplication(measure, rows, bins, order):
    confidence, correct = rows
    value = measure(confidence, correct, bins=bins)
    places = list(range(len(confidence)))
    order.shuffle(places)
    assert 0 <= value <= 1
    assert measure(confidence[places], correct[places], bins=bins) == pytest.approx(value, abs=1e-12)
    assert measure(np.tile(confidence, 3), np.tile(correct, 3), bins=bins) == pytest.approx(value, abs=1e-12)


@given(judged)
def test_adaptive_error_lies_between_the_gap_of_the_means_and_the_gaps_of_single_confidences(rows):
    confidence, correct = rows
    one = adaptive_calibration_error(confidence, correct, bins=1)
    some = adaptive_calibration_error(confidence, correct, bins=4)
    finest = sum(abs((confidence - correct)[confidence == c].sum()) for c in np.unique(confidence)) / len(confidence)
    assert one == pytest.approx(abs(confidence.mean() - correct.mean()), abs=1e-12)
    assert one - 1e-12 <= some <= finest + 1e-12


def test_adaptive_error_sorts_into_bins_of_equal_mass():
    draw = np.random.default_rng(0)
    confidence = draw.uniform(size=60)
    correct = draw.random(60) < confidence**2
    order = np.argsort(confidence)
    parts = np.split(order, 6)
    expected = np.mean([abs(confidence[part].mean() - correct[part].mean()) for part in parts])
    assert adaptive_calibration_error(confidence, correct, bins=6) == pytest.approx(expected, abs=1e-12)


def test_adaptive_error_cuts_an_image_that_lies_on_a_border():
    # Three images in two bins: the middle one is half in either.
    confidence, correct = np.array([0.2, 0.5, 0.9]), np.array([False, True, True])
    expected = (abs(0.2 + 0.25 - 0.5) + abs(0.25 + 0.9 - 1.5)) / 3
    assert adaptive_calibration_error(confidence, correct, bins=2) == pytest.approx(expected, abs=1e-12)


def test_reliability_diagram_adds_up_to_the_ece():
    draw = np.random.default_rng(1)
    confidence = draw.uniform(0.5, 1.0, size=200).astype(np.float32)
    correct = draw.random(200) < 0.7
    diagram = reliability_diagram(confidence, correct, bins=10, closed="left")
    assert diagram.count.sum() == 200
    assert len(diagram.edges) == 11
    assert np.isnan(diagram.accuracy[:5]).all()
    gaps = np.nan_to_num(np.abs(diagram.accuracy - diagram.confidence)) * diagram.count / 200
    assert gaps.sum() == pytest.approx(
        expected_calibration_error(confidence, correct, bins=10, closed="left"), abs=1e-12
    )


def slow_expected_ece(confidence, bins, closed):
    """The mean of the ECE over every outcome, weighted by its probability."""
    expected = 0.0
    for outcome in range(2 ** len(confidence)):
        correct = np.array([bool(outcome >> i & 1) for i in range(len(confidence))])
        probability = np.prod(np.where(correct, confidence, 1 - confidence))
        expected += probability * expected_calibration_error(confidence, correct, bins=bins, closed=closed)
    return expected


@given(
    st.lists(st.integers(0, 20), min_size=1, max_size=7).map(lambda rows: np.array(rows) / 20),
    st.integers(1, 5),
    sides,
)
def test_expected_ece_is_the_mean_over_every_outcome(confidence, bins, closed):
    value = expected_ece_if_calibrated(confidence, bins=bins, closed=closed)
    assert value == pytest.approx(slow_expected_ece(confidence, bins, closed), abs=1e-12)


def test_expected_ece_stays_exact_on_many_images():
    # De Moivre: the mean absolute deviation of m fair coins is m / 2 times the probability of exactly half heads.
    coins = 20_000
    log_ratio = np.log(np.arange(1, coins // 2) + coins // 2) - np.log(np.arange(1, coins // 2))
    half = np.exp(log_ratio.sum() + np.log(2.0) - coins * np.log(2.0))
    assert expected_ece_if_calibrated(np.full(coins, 0.5)) == pytest.approx(half / 2, rel=1e-9)


def test_expected_ece_falls_as_one_over_the_root_of_the_number_of_images():
    confidence = np.linspace(0.3, 0.99, 400)
    ratio = expected_ece_if_calibrated(confidence) / expected_ece_if_calibrated(np.tile(confidence, 16))
    assert ratio == pytest.approx(4.0, rel=0.02)


def test_certainty_is_expected_to_be_calibrated_exactly():
    assert expected_ece_if_calibrated(np.ones(1000)) == pytest.approx(0.0, abs=1e-15)


def probabilities_and_labels(n=60, classes=4, seed=2):
    draw = np.random.default_rng(seed)
    return draw.dirichlet(np.ones(classes), size=n), draw.integers(classes, size=n)


@pytest.mark.parametrize("closed", SIDES)
def test_class_wise_error_is_the_mean_over_classes_of_a_binary_ece(closed):
    probabilities, label = probabilities_and_labels()
    counts = class_bins(probabilities, label, bins=10, closed=closed)
    each = [
        expected_calibration_error(probabilities[:, k], label == k, bins=10, closed=closed)
        for k in range(probabilities.shape[1])
    ]
    assert class_wise_calibration_error(counts) == pytest.approx(np.mean(each), abs=1e-12)


def test_counts_by_class_add_up_over_chunks():
    probabilities, label = probabilities_and_labels()
    whole = class_bins(probabilities, label)
    summed = class_bins(probabilities[:25], label[:25]) + class_bins(probabilities[25:], label[25:])
    assert (summed.count == whole.count).all()
    assert (summed.positive == whole.positive).all()
    np.testing.assert_allclose(summed.probability, whole.probability, atol=1e-12)
    with pytest.raises(ValueError, match="cannot add"):
        whole + class_bins(probabilities, label, bins=3)


def test_one_class_is_always_calibrated():
    assert class_wise_calibration_error(class_bins(np.ones((5, 1)), np.zeros(5, dtype=int))) == 0.0


def test_tables_that_are_no_counts_of_one_set_are_refused():
    probabilities, label = probabilities_and_labels()
    counts = class_bins(probabilities, label)
    lost = counts.count.copy()
    lost[0] = 0
    with pytest.raises(ValueError, match="same images for every class"):
        class_wise_calibration_error(ClassBins(lost, counts.probability, counts.positive))
    with pytest.raises(ValueError, match="NaN"):
        class_wise_calibration_error(ClassBins(counts.count, counts.probability * np.nan, counts.positive))
    with pytest.raises(ValueError, match="one shape"):
        ClassBins(counts.count, counts.probability, counts.positive[:2])
    with pytest.raises(ValueError, match="labels from 0 to 3"):
        class_bins(probabilities, label + 1)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1, np.inf])
@pytest.mark.parametrize(
    "measure",
    [
        expected_calibration_error,
        adaptive_calibration_error,
        reliability_diagram,
        lambda confidence, _: expected_ece_if_calibrated(confidence),
        lambda confidence, correct: class_bins(confidence[:, None], correct.astype(int) * 0),
    ],
)
def test_what_is_no_probability_is_refused(measure, value):
    with pytest.raises(ValueError, match=r"NaN|outside"):
        measure(np.array([0.5, value]), np.array([True, False]))


@pytest.mark.parametrize("measure", [expected_calibration_error, adaptive_calibration_error])
def test_no_images_and_unequal_columns_are_refused(measure):
    with pytest.raises(ValueError, match="at least one image"):
        measure(np.array([]), np.array([], dtype=bool))
    with pytest.raises(ValueError, match="confidence 2, correct 1"):
        measure(np.array([0.5, 0.5]), np.array([True]))


def test_no_bins_and_an_unknown_side_are_refused():
    with pytest.raises(ValueError, match="at least one bin"):
        bin_index(np.array([0.5]), bins=0, closed="left")
    with pytest.raises(ValueError, match="'left' or 'right'"):
        bin_index(np.array([0.5]), bins=2, closed="both")
