from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.metrics import (
    consistency,
    demographic_disparity,
    inferred_groups,
    mean_consistency,
    total_variation,
)

grouped = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=40).map(
    lambda rows: np.array(rows).T
)


def mean_loss(logits, label, weight, scale):
    scaled = scale * logits
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    log_p = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return np.mean(-weight * log_p[np.arange(len(label)), label])


def penalty(logits, label, weight, step=1e-4):
    """The squared derivative of a weighted mean loss by the scale of the logits at 1, by central differences."""
    difference = mean_loss(logits, label, weight, 1 + step) - mean_loss(logits, label, weight, 1 - step)
    return (difference / (2 * step)) ** 2


def scale_derivative(logits, label):
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    return (probabilities * (logits - logits[np.arange(len(label)), label][:, None])).sum(axis=1)


def outputs(seed, n=7, classes=3):
    draw = np.random.default_rng(seed)
    return 3 * draw.normal(size=(n, classes)), draw.integers(classes, size=n)


@pytest.mark.parametrize("seed", range(6))
def test_no_other_split_of_the_images_has_a_larger_penalty(seed):
    logits, label = outputs(seed)
    penalties = {
        split: penalty(logits, label, np.array(split)) + penalty(logits, label, 1 - np.array(split))
        for split in product([0.0, 1.0], repeat=len(label))
    }
    group = inferred_groups(scale_derivative(logits, label))
    assert penalties[tuple(group.astype(float))] == pytest.approx(max(penalties.values()), rel=1e-6)
    # Soft memberships do no better: the objective is convex.
    draw = np.random.default_rng(seed)
    for _ in range(50):
        soft = draw.uniform(size=len(label))
        assert penalty(logits, label, soft) + penalty(logits, label, 1 - soft) <= max(penalties.values()) + 1e-9


def test_the_derivative_by_autograd_gives_the_same_groups():
    import torch

    logits, label = outputs(11, n=200, classes=7)
    scale = torch.ones(200, 1, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(
        scale * torch.from_numpy(logits), torch.from_numpy(label), reduction="sum"
    )  # fmt: skip
    loss.backward()
    assert scale.grad is not None
    by_autograd = scale.grad[:, 0].numpy()
    np.testing.assert_allclose(scale_derivative(logits, label), by_autograd, atol=1e-12)
    assert (inferred_groups(by_autograd) == inferred_groups(scale_derivative(logits, label))).all()


def objective(derivative, share):
    """What environment inference maximises: the squared derivatives of the two weighted mean losses, halved."""
    inside, outside = np.mean(derivative * share), np.mean(derivative * (1 - share))
    return (inside**2 + outside**2) / 2


def published_by_autograd(logits, label, start, steps):
    """The published procedure as its definition says: Adam on the weights of the images, two derivatives deep."""
    import torch

    outputs, true = torch.from_numpy(logits), torch.from_numpy(label)
    weight = torch.from_numpy(start.copy()).requires_grad_()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(scale * outputs, true, reduction="none")
    adam = torch.optim.Adam([weight], lr=1e-3)
    for _ in range(steps):
        share = weight.sigmoid()
        squares = [
            torch.autograd.grad((loss * of_group).mean(), scale, create_graph=True)[0].square()
            for of_group in (share, 1 - share)
        ]
        adam.zero_grad()
        (-torch.stack(squares).mean()).backward(retain_graph=True)
        adam.step()
    return weight.detach().numpy()


def published_by_hand(derivative, start, steps, rate=1e-3, decay=0.9, decay_of_squares=0.999, floor=1e-8):
    """The same with the gradient written out: (mean(g) - 2 mean(g s)) g s (1 - s) / n with shares s."""
    weight, n, total = start.copy(), len(derivative), derivative.mean()
    mean, square = np.zeros(n), np.zeros(n)
    for step in range(1, steps + 1):
        share = 1 / (1 + np.exp(-weight))
        gradient = (total - 2 * np.mean(derivative * share)) * derivative * share * (1 - share) / n
        mean += (1 - decay) * (gradient - mean)
        square += (1 - decay_of_squares) * (gradient**2 - square)
        size = np.sqrt(square / (1 - decay_of_squares**step)) + floor
        weight -= rate / (1 - decay**step) * mean / size
    return weight


def test_the_published_steps_have_the_gradient_that_autograd_finds():
    logits, label = outputs(21, n=60, classes=7)
    start = np.random.default_rng(21).normal(size=60)
    by_hand = published_by_hand(scale_derivative(logits, label), start, 300)
    np.testing.assert_allclose(by_hand, published_by_autograd(logits, label, start, 300), atol=1e-6, rtol=0)
    assert np.abs(by_hand - start).max() > 0.1, "it went nowhere"


@pytest.mark.parametrize("seed", [31, 32])
def test_ten_thousand_published_steps_end_at_the_inferred_groups(seed):
    logits, label = outputs(seed, n=200, classes=7)
    derivative = scale_derivative(logits, label)
    weight = published_by_hand(derivative, np.random.default_rng(seed).normal(size=200), 10_000)
    group = inferred_groups(derivative)
    best = max(objective(derivative, group), objective(derivative, ~group))
    assert objective(derivative, 1 / (1 + np.exp(-weight))) <= best
    assert objective(derivative, weight > 0) == pytest.approx(best, rel=0.01)
    predicted = logits.argmax(axis=1)
    published = demographic_disparity(predicted, weight > 0)
    assert published == pytest.approx(demographic_disparity(predicted, group), abs=0.01)
    assert published > 0.01, "a score that is always zero would agree, too"


def test_the_group_is_a_subset_of_the_errors_but_not_all_of_them():
    logits, label = outputs(12, n=500, classes=7)
    group = inferred_groups(scale_derivative(logits, label))
    wrong = logits.argmax(axis=1) != label
    assert group.any()
    assert not (group & ~wrong).any()
    assert (wrong & ~group).any()


def test_a_right_prediction_is_never_in_the_group_even_where_it_is_certain_or_all_logits_tie():
    logits = np.array([[700.0, 0.1, 0.3], [0.1, 0.1, 0.1], [1e-9, 0.0, 0.0]])
    assert not inferred_groups(scale_derivative(logits, np.zeros(3, dtype=int))).any()


def test_derivatives_of_zero_go_with_the_negative_ones():
    assert inferred_groups(np.array([0.0, -0.0, 1e-300, -1e-300])).tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("predicted", "group", "disparity"),
    [
        ([0, 1, 0, 1], "TTFF", 0.0),
        ([0, 1, 0, 1, 1], "TTFFF", 0.08),
        ([0, 0, 0, 0, 1, 1], "TTFFFF", 2 / 9),
        ([0, 1, 2, 2], "TTTT", 0.0),
        ([0, 1, 2, 2], "FFFF", 0.0),
        ([3], "T", 0.0),
    ],
)
def test_disparity_matches_the_published_fixtures(predicted, group, disparity):
    mask = np.array([letter == "T" for letter in group])
    assert demographic_disparity(np.array(predicted), mask) == pytest.approx(disparity, abs=1e-12)
    assert demographic_disparity(np.array(predicted), ~mask) == pytest.approx(disparity, abs=1e-12)


def slow_disparity(predicted, group):
    total = 0.0
    for g in set(group.tolist()):
        inside = predicted[group == g]
        distance = 0.5 * sum(abs(np.mean(predicted == k) - np.mean(inside == k)) for k in range(5))
        total += len(inside) / len(predicted) * distance
    return total


@given(grouped, st.randoms(use_true_random=False))
def test_disparity_is_its_definition_and_ignores_order_and_duplication(rows, order):
    value = demographic_disparity(*rows)
    places = list(range(rows.shape[1]))
    order.shuffle(places)
    assert 0 <= value <= 1
    assert value == pytest.approx(slow_disparity(*rows), abs=1e-12)
    assert demographic_disparity(*rows[:, places]) == pytest.approx(value, abs=1e-12)
    assert demographic_disparity(*np.tile(rows, 2)) == pytest.approx(value, abs=1e-12)


def test_a_constant_prediction_wins_consistency_and_disparity():
    constant = np.full(6, 2)
    assert consistency(constant, constant) == 1.0
    assert demographic_disparity(constant, np.array([0, 1, 0, 1, 1, 1])) == 0.0


def test_consistency_counts_unchanged_predictions_right_or_wrong():
    assert consistency(np.array([0, 1, 2, 3]), np.array([0, 1, 3, 2])) == 0.5
    assert mean_consistency([0.5, 0.75, 1.0]) == 0.75


def test_total_variation_is_symmetric_and_at_most_one():
    first, second = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.5, 0.5])
    assert total_variation(first, second) == total_variation(second, first) == 1.0
    assert total_variation(second, second) == 0.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: inferred_groups(np.array([0.1, np.nan])),
        lambda: mean_consistency([0.5, np.nan]),
        lambda: mean_consistency([]),
        lambda: consistency(np.array([0, 1]), np.array([0])),
        lambda: total_variation(np.array([1.0]), np.array([0.5, 0.5])),
        lambda: demographic_disparity(np.array([], dtype=int), np.array([], dtype=bool)),
    ],
)
def test_nan_nothing_and_unequal_columns_are_refused(call):
    with pytest.raises(ValueError, match=r"NaN|at least one|equal length"):
        call()
