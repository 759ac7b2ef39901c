"""Logistic regression on features: convex, hence one answer, and scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from tlbench.errors import FitError
from tlbench.models.head import Scaling, fit_linear_head, fit_linear_heads


def some_features(n: int = 120, width: int = 6, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, width, generator=generator)
    return centres[labels] + 1.5 * torch.randn(n, width, generator=generator), labels


def random_head(width: int, classes: int) -> nn.Linear:
    head = nn.Linear(width, classes)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(5 * torch.randn(parameter.shape, generator=generator))
    return head


@pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
def test_equals_scikit_learn(l2: float) -> None:
    features, labels = some_features()
    ours = fit_linear_head(features.double(), labels, 3, l2=l2, steps=500)
    theirs = LogisticRegression(C=1 / (2 * len(labels) * l2), tol=1e-10, max_iter=5000)
    theirs.fit(features.double().numpy(), labels.numpy())
    np.testing.assert_allclose(ours.weight.detach().numpy(), theirs.coef_, atol=2e-5)
    difference = theirs.intercept_ - theirs.intercept_.mean() - ours.bias.detach().numpy()
    np.testing.assert_allclose(difference, 0, atol=2e-5)


def test_two_starts_reach_the_same_head() -> None:
    features, labels = some_features()
    cold = fit_linear_head(features, labels, 3, l2=1e-3, steps=500)
    warm = fit_linear_head(features, labels, 3, l2=1e-3, steps=500, init=random_head(6, 3))
    torch.testing.assert_close(cold.weight, warm.weight, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(cold.bias, warm.bias, atol=1e-5, rtol=1e-5)


def test_no_small_step_improves_the_solution() -> None:
    features, labels = (some_features()[0].double(), some_features()[1])
    head = fit_linear_head(features, labels, 3, l2=1e-2, steps=500)
    loss = F.cross_entropy(head(features), labels) + 1e-2 * head.weight.square().sum()
    loss.backward()
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) < 1e-7


def test_many_penalties_come_back_in_their_order_and_equal_single_fits() -> None:
    features, labels = some_features()
    penalties = (1e-3, 1.0, 1e-2)
    for l2, head in zip(penalties, fit_linear_heads(features, labels, 3, penalties=penalties, steps=500), strict=True):
        alone = fit_linear_head(features, labels, 3, l2=l2, steps=500)
        torch.testing.assert_close(head.weight, alone.weight, atol=1e-5, rtol=1e-5)


def test_a_folded_head_on_plain_features_equals_the_head_on_standardised_ones() -> None:
    features, labels = some_features()
    features = features * torch.tensor([1, 10, 100, 0.01, 1, 1]) + 3
    features[:, 5] = 0.1  # constant: its deviation in floating point is not exactly zero
    scaling = Scaling.of(features)
    standard = scaling.apply(features)
    torch.testing.assert_close(standard.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(0, correction=0), torch.tensor([1.0, 1, 1, 1, 1, 0]), atol=1e-5, rtol=0)
    head = fit_linear_head(standard, labels, 3, l2=1e-3, steps=200)
    torch.testing.assert_close(scaling.fold(head)(features), head(standard), atol=1e-4, rtol=1e-4)


def test_moves_no_random_numbers_and_keeps_the_type() -> None:
    features, labels = some_features()
    state = torch.get_rng_state()
    head = fit_linear_head(features, labels, 3, l2=1e-2, steps=20)
    assert torch.equal(torch.get_rng_state(), state)
    assert head.weight.dtype == torch.float32


def test_a_class_without_examples_is_never_predicted() -> None:
    features, labels = some_features()
    head = fit_linear_head(features, labels, 4, l2=1e-2, steps=100)
    assert int(head(features).argmax(1).max()) < 3
    assert torch.isfinite(head.weight).all()


def test_features_that_are_not_finite_are_counted_and_refused() -> None:
    features, labels = some_features()
    features[3, 2] = torch.nan
    features[8, 0] = torch.inf
    with pytest.raises(FitError, match="2 of 120"):
        fit_linear_head(features, labels, 3, l2=1e-2, steps=10)


def test_a_label_that_is_no_class_is_refused() -> None:
    features, labels = some_features()
    with pytest.raises(ValueError, match="labels from 0 to 1"):
        fit_linear_head(features, labels, 2, l2=1e-2, steps=10)
