"""Losses of attacks against their definitions, torchattacks and their fall-backs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tlbench.conditions.attacks.losses import (
    cross_entropy,
    difference_of_logits_ratio,
    targeted_difference_of_logits_ratio,
)

OUTPUTS = st.lists(st.integers(-1000, 1000), min_size=4, max_size=7, unique=True)


def dlr_the_slow_way(logits, label):
    ordered = sorted(logits, reverse=True)
    best_other = max(value for i, value in enumerate(logits) if i != label)
    return -(logits[label] - best_other) / (ordered[0] - ordered[2] + 1e-12)


def targeted_dlr_the_slow_way(logits, label, aim):
    ordered = sorted(logits, reverse=True)
    return -(logits[label] - logits[aim]) / (ordered[0] - (ordered[2] + ordered[3]) / 2 + 1e-12)


@given(OUTPUTS, st.integers(0, 6), st.floats(0.1, 10), st.floats(-5, 5))
def test_dlr_is_its_definition_and_knows_neither_shift_nor_scale(logits, label, scale, shift):
    label %= len(logits)
    outputs, labels = torch.tensor([logits], dtype=torch.float64), torch.tensor([label])
    expected = dlr_the_slow_way(logits, label)
    assert difference_of_logits_ratio(outputs, labels).item() == pytest.approx(expected, rel=1e-9)
    assert difference_of_logits_ratio(outputs * scale + shift, labels).item() == pytest.approx(expected, rel=1e-6)
    assert (expected > 0) == (int(np.argmax(logits)) != label)


@given(OUTPUTS, st.integers(0, 6), st.integers(1, 3), st.floats(0.1, 10), st.floats(-5, 5))
def test_targeted_dlr_is_its_definition_and_knows_neither_shift_nor_scale(logits, label, further, scale, shift):
    label %= len(logits)
    aim = (label + further) % len(logits)
    outputs, labels = torch.tensor([logits], dtype=torch.float64), torch.tensor([[label, aim]])
    expected = targeted_dlr_the_slow_way(logits, label, aim)
    loss = targeted_difference_of_logits_ratio
    assert loss(outputs, labels).item() == pytest.approx(expected, rel=1e-9)
    assert loss(outputs * scale + shift, labels).item() == pytest.approx(expected, rel=1e-6)
    assert (expected > 0) == (logits[aim] > logits[label])


def test_losses_have_the_gradients_of_torchattacks(networks):
    torch.manual_seed(0)
    labels, further = torch.randint(10, (64,)), torch.randint(1, 10, (64,))
    aims = (labels + further) % 10
    made = [torch.randn(64, 10, generator=torch.Generator().manual_seed(1), requires_grad=True) for _ in range(4)]
    difference_of_logits_ratio(made[0], labels).sum().backward()
    torchattacks.APGD(networks["wide"]).dlr_loss(made[1], labels).sum().backward()
    targeted_difference_of_logits_ratio(made[2], torch.stack([labels, aims], dim=1)).sum().backward()
    torchattacks.APGDT(networks["wide"]).dlr_loss_targeted(made[3], labels, aims).sum().backward()
    assert torch.allclose(made[0].grad, made[1].grad, atol=1e-6)
    assert torch.allclose(made[2].grad, made[3].grad, atol=1e-6)


def test_dlr_of_two_classes_is_the_cross_entropy():
    outputs, labels = torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1])
    assert torch.equal(difference_of_logits_ratio(outputs, labels), cross_entropy(outputs, labels))
    log_probs = functional.log_softmax(outputs, 1)
    assert torch.allclose(cross_entropy(log_probs, labels), cross_entropy(outputs, labels))


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_targeted_dlr_without_a_target_is_dlr(classes):
    outputs, labels = torch.randn(5, classes), torch.tensor([0, 1, 0, 1, 1])
    found = targeted_difference_of_logits_ratio(outputs, labels)
    assert torch.equal(found, difference_of_logits_ratio(outputs, labels))


def test_targeted_dlr_needs_four_classes():
    with pytest.raises(ValueError, match=r"at least four classes .* got 3"):
        targeted_difference_of_logits_ratio(torch.randn(2, 3), torch.tensor([[0, 1], [1, 2]]))
