"""Foolbox's gradient descent through the condition, and called directly."""

from __future__ import annotations

import foolbox
import pytest
import torch

from tlbench.conditions.attacks.apgd import APGD
from tlbench.conditions.attacks.attack import Identity
from tlbench.conditions.attacks.balls import length
from tlbench.conditions.attacks.foolbox import TRAVEL, FoolboxPGD, starts
from tlbench.conditions.base import image_seed
from tlbench.setting import Setting


def direct(norm, steps, toward, monkeypatch):
    """Return foolbox's attack, beginning where our condition does."""
    kind = foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD
    attack = kind(rel_stepsize=TRAVEL / steps, steps=steps, random_start=True)
    monkeypatch.setattr(attack, "get_random_start", lambda x0, epsilon: x0 + epsilon * type(x0)(toward))
    return attack


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_point_of_the_way_is_foolboxs_own(norm, some, networks, plain_predictor, monkeypatch):
    """Epsilons too small to break anything: two of them, so that images with one are told from those with another."""
    network, sizes, asked = networks["wide"], [0.004, 0.006] * 8, []
    x = some.images.float() / 255
    right = network(x).argmax(1) == some.labels
    x, labels = x[right][:16], some.labels[right][:16]
    who = [Identity("s", str(place), Setting("foolbox", norm=norm, epsilon=size)) for place, size in enumerate(sizes)]
    predictor = plain_predictor(network)
    runner = FoolboxPGD(f"foolbox-{norm}-pgd", (0.004, 0.006), iterations=10).runner(predictor, 16)
    runner.add(range(16), x, labels, sizes, who)
    ended = []
    while len(runner):
        ended += runner.advance()
    assert sorted(ended) == [(key, False) for key in range(16)]
    assert len(predictor.asked) == 11

    def recording(images):
        asked.append(images.detach().clone())
        return network(images)

    toward = starts([one.seed() for one in who], x.shape[1:], norm)
    for place, epsilon in enumerate((0.004, 0.006)):
        rows = slice(place, None, 2)
        asked.clear()
        model = foolbox.PyTorchModel(recording_module(recording), bounds=(0, 1), device="cpu")
        direct(norm, 10, toward[rows], monkeypatch)(model, x[rows], labels[rows], epsilons=epsilon)
        ways = [images for images in asked if images.shape == x[rows].shape][:10]
        for ours, theirs in zip(predictor.asked, ways, strict=False):
            assert torch.allclose(ours[rows], theirs, atol=1e-7)


def recording_module(function):
    module = torch.nn.Identity().eval()
    module.forward = function
    return module


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_condition_is_at_least_as_strong_as_foolbox_called_directly(
    norm, some, epsilons, networks, plain_predictor, cut, observed, monkeypatch
):
    network = networks["wide"]
    attack = FoolboxPGD(f"foolbox-{norm}-pgd", epsilons[norm], iterations=10, mode="exact")
    ours = observed(attack, plain_predictor(network), cut(some, 40))["survived"]
    model, x = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), some.images.float() / 255
    broken = torch.zeros(96, dtype=torch.bool)
    for rung, setting in enumerate(attack.settings):
        toward = starts([image_seed(some.scope, name, setting) for name in some.names], x.shape[1:], norm)
        _, _, success = direct(norm, 10, toward, monkeypatch)(model, x, some.labels, epsilons=setting.epsilon)
        broken |= success  # `exact`: broken stays broken
        assert not (ours[rung] & broken).any()
        # An image that was broken on its way seldom comes back.
        assert (~ours[rung] & ~broken).sum() <= 2
    assert 0 < ours.float().mean() < 1


def test_starts_fill_the_ball(some):
    norms = length(starts(range(96), some.images.shape[1:], "l2"), "l2").flatten()
    assert (norms <= 1).all()
    assert norms.min() > 0.9  # in 768 dimensions almost all of the ball lies near its surface


def test_its_needs_are_those_of_any_attack_that_follows_gradients():
    assert FoolboxPGD("foolbox-l2-pgd", (0.1,)).needs == APGD.needs == {"labels", "gradients", "fixed_predictor"}
