from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.metrics import (
    audit_reversals,
    mean_corruption_accuracy,
    mean_robust_accuracy,
    median_breaking_epsilon,
    robust_accuracy,
    robust_share,
)

EPSILONS = [s / 255 for s in (0.005, 0.05, 0.1, 0.15, 0.3, 0.5)]
broken = st.lists(st.sampled_from([0.0, *EPSILONS, np.inf]), min_size=1, max_size=30).map(np.array)


@given(broken)
def test_robust_accuracy_is_its_definition(breaking):
    expected = [np.mean([b > epsilon for b in breaking]) for epsilon in EPSILONS]
    np.testing.assert_allclose(robust_accuracy(breaking, EPSILONS), expected, atol=1e-12)
    assert mean_robust_accuracy(breaking, EPSILONS) == pytest.approx(np.mean(expected))


@given(broken, st.randoms(use_true_random=False))
def test_the_curve_falls_from_clean_accuracy_and_ignores_order_and_duplication(breaking, order):
    curve = robust_accuracy(breaking, [0.0, *EPSILONS])
    shuffled = breaking.tolist()
    order.shuffle(shuffled)
    assert curve[0] == np.mean(breaking > 0)
    assert (np.diff(curve) <= 0).all()
    np.testing.assert_allclose(robust_accuracy(np.array(shuffled * 2), [0.0, *EPSILONS]), curve, atol=1e-12)


@given(broken)
def test_robust_share_times_clean_accuracy_is_robust_accuracy(breaking):
    clean = np.mean(breaking > 0)
    if clean == 0:
        with pytest.raises(ValueError, match="right when clean"):
            robust_share(breaking, EPSILONS)
    else:
        product = robust_share(breaking, EPSILONS) * clean
        np.testing.assert_allclose(product, robust_accuracy(breaking, EPSILONS), atol=1e-12)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_an_image_broken_at_exactly_an_epsilon_does_not_survive_it_in_either_precision(kind):
    breaking = np.array(EPSILONS, dtype=kind)
    expected = [(len(EPSILONS) - 1 - i) / len(EPSILONS) for i in range(len(EPSILONS))]
    np.testing.assert_allclose(robust_accuracy(breaking, EPSILONS), expected, atol=1e-12)
    np.testing.assert_allclose(robust_accuracy(breaking.astype(np.float64), EPSILONS), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("breaking", "median"),
    [
        ([0.1], 0.1),
        ([0.0, 0.0, 0.0, 0.1], 0.1),
        ([0.1, 0.2], 0.1),
        ([0.1, np.inf], 0.1),
        ([0.1, np.inf, np.inf], np.inf),
        ([0.3, 0.1, 0.2], 0.2),
    ],
)
def test_median_is_the_smallest_epsilon_that_breaks_half_of_what_was_right(breaking, median):
    assert median_breaking_epsilon(np.array(breaking)) == median


def test_without_a_right_image_there_is_no_median():
    with pytest.raises(ValueError, match="none of 2 images was right when clean"):
        median_breaking_epsilon(np.zeros(2))


@pytest.mark.parametrize("value", [np.nan, -1.0])
def test_what_is_no_epsilon_is_refused(value):
    for function in (lambda b: robust_accuracy(b, EPSILONS), median_breaking_epsilon):
        with pytest.raises(ValueError, match=r"NaN|at least 0"):
            function(np.array([0.1, value]))
    with pytest.raises(ValueError, match="epsilons of at least 0"):
        robust_accuracy(np.array([0.1]), [value])
    with pytest.raises(ValueError, match="epsilons of at least 0"):
        robust_accuracy(np.array([0.1]), [])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30), st.randoms())
def test_audit_reversals_are_the_share_of_verdicts_that_did_not_hold(verdicts, order):
    share = sum(implied != found for implied, found in verdicts) / len(verdicts)
    order.shuffle(verdicts)
    assert audit_reversals(*np.array(verdicts).T) == pytest.approx(share)


@pytest.mark.parametrize(("implied", "found"), [([], []), ([True], [True, False])])
def test_an_audit_needs_one_outcome_a_verdict(implied, found):
    with pytest.raises(ValueError, match="one outcome per audited verdict"):
        audit_reversals(np.array(implied, dtype=bool), np.array(found, dtype=bool))


def test_every_corruption_type_counts_the_same_however_many_severities_it_has():
    assert mean_corruption_accuracy({"fog": [0.2, 0.4, 0.6], "snow": [0.8]}) == pytest.approx(0.6)


@pytest.mark.parametrize("table", [{}, {"fog": []}, {"fog": [0.5, np.nan]}])
def test_a_hole_in_the_table_of_corruptions_is_refused(table):
    with pytest.raises(ValueError, match=r"fog|at least one"):
        mean_corruption_accuracy(table)
