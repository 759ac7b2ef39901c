from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from tlbench.methods.base import Budget, Features, Hooks, Step
from tlbench.methods.cost import recipe_cost
from tlbench.methods.features import FeatureData
from tlbench.methods.finetune import Finetune, HeadOnly
from tlbench.methods.l2_sp import HeldAtStart, L2Sp
from tlbench.methods.training import train
from tlbench.suites.spec import Recipe
from tlbench.testing import RECIPE, assert_method

from .conftest import MakeContext

SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.05, "batch_size": 16}


def equal(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def moved(net: nn.Module, start: nn.Module) -> float:
    """Return the distance of the backbone's parameters."""
    before = dict(start.named_parameters())
    apart = [(p - before[name]).square().sum() for name, p in net.named_parameters() if not name.startswith("head.")]
    return float(torch.stack(apart).sum().sqrt().detach())


def test_keeps_the_promises_of_a_method() -> None:
    assert_method(L2Sp())


def test_nothing_on_is_fine_tuning_without_weight_decay_bit_for_bit(context_for: MakeContext) -> None:
    null = L2Sp(epochs=3).null_config()
    assert null is not None
    reduced, simpler = null
    assert isinstance(reduced, L2Sp)
    assert isinstance(simpler, Finetune)
    assert simpler.weight_decay == 0
    first, second = reduced.fit(context_for(reduced)), simpler.fit(context_for(simpler))
    assert isinstance(second, nn.Module)
    assert equal(first, second)
    assert not equal(L2Sp(epochs=3).fit(context_for(L2Sp())), first)


def test_the_recipes_weight_decay_has_no_effect(context_for: MakeContext) -> None:
    plain, decayed = (L2Sp().fit(context_for(L2Sp(), weight_decay=decay)) for decay in (0.0, 0.5))
    assert equal(plain, decayed)
    assert not equal(*(Finetune().fit(context_for(Finetune(), weight_decay=d)) for d in (0.0, 0.5)))


class _Quadratic(Hooks):
    """Half of (w - best)' H (w - best) in place of cross-entropy, and the penalty behind it."""

    def __init__(self, curvature: Tensor, best: Tensor, held: HeldAtStart) -> None:
        self.curvature, self.best, self.held = curvature, best, held

    def base_loss(self, step: Step) -> Tensor:
        net = step.net
        away = net.body.weight.flatten() - self.best
        head: Tensor = (net.head.weight - 1).square().sum()
        body: Tensor = away @ self.curvature @ away
        return 0.5 * (body + head)

    def loss(self, step: Step) -> Tensor | None:
        return self.held.loss(step)


class _TwoLayers(nn.Module):
    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(len(start), 1, bias=False), nn.Linear(1, 3, bias=False)
        with torch.no_grad():
            self.body.weight.copy_(start.view(1, -1))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.body(inputs))
        return outputs


@pytest.mark.parametrize("alpha", [0.1, 3.0])
def test_a_quadratic_loss_ends_where_its_closed_form_says(alpha: float) -> None:
    """(H + alpha I)^-1 (H best + alpha start) for the backbone, 1 / (1 + beta) for a head whose best is 1."""
    g, size, beta = Generator().manual_seed(0), 6, 0.25
    root = torch.randn(size, size, generator=g)
    curvature = root @ root.T / size
    best, start = torch.randn(size, generator=g), torch.randn(size, generator=g)
    net = _TwoLayers(start)
    train(
        net,
        FeatureData(Features(torch.zeros(4, size), torch.zeros(4, dtype=torch.int64))),
        hooks=_Quadratic(curvature, best, HeldAtStart(alpha=alpha, beta=beta)),
        recipe=Recipe(optimizer="sgd", lr=0.05, epochs=500, batch_size=4, crop=False, flip=False),
        rng=lambda stream: Generator().manual_seed(0),
        streams={},
        order="order",
        device="cpu",
        budget=Budget(),
    )
    expected = torch.linalg.solve(curvature + alpha * torch.eye(size), curvature @ best + alpha * start)
    assert float((net.body.weight.detach().flatten() - expected).abs().max()) < 1e-5
    assert float((net.head.weight.detach() - 1 / (1 + beta)).abs().max()) < 1e-5


def test_the_gradient_is_the_pull_on_every_parameter_and_none_on_statistics(context_for: MakeContext) -> None:
    net = context_for(L2Sp()).backbone.fresh(3).train()
    assert any("running" in name for name in net.state_dict())
    held = HeldAtStart(alpha=0.3, beta=0.7)
    step = Step(net, torch.zeros(0), torch.zeros(0), {}, 0, 2)
    first = held.loss(step)
    assert first is not None
    norm = sum(float(p.detach().square().sum()) for p in net.head.parameters())
    assert first.item() == pytest.approx(0.35 * norm)
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor += 1
    later = held.loss(Step(net, torch.zeros(0), torch.zeros(0), {}, 1, 2))
    assert later is not None
    later.backward()
    kinds = {block.kind for block in net.blocks()}
    assert "norm" in kinds, "scale and shift of a norm are held as well"
    for name, parameter in net.named_parameters():
        pull = 0.7 * (start[name] + 1) if name.startswith("head.") else torch.full_like(parameter, 0.3)
        assert parameter.grad is not None
        assert float((parameter.grad - pull).abs().max()) < 1e-6


def test_the_stronger_the_nearer_and_at_the_end_stands_the_head_alone(context_for: MakeContext) -> None:
    """With BatchNorm's statistics left alone, which no penalty holds."""
    recipe = SGD | {"lr": 0.01, "epochs": 4}
    methods = [L2Sp(alpha=alpha, beta=0.0, batchnorm="eval", **recipe) for alpha in (0.0, 1.0, 20.0)]
    nets = [method.fit(context_for(method)) for method in methods]
    start = context_for(L2Sp()).backbone.fresh(3)
    distances = [moved(net, start) for net in nets]
    assert distances[0] > distances[1] > 2 * distances[2]
    head_only = HeadOnly(**recipe)
    context = context_for(head_only)
    images = context.example(8)
    alone = head_only.fit(context)
    with torch.no_grad():
        apart = [float((net(images) - alone(images)).abs().max()) for net in nets]
    assert apart[2] < 0.2 * apart[0]


def test_beta_shrinks_the_head(context_for: MakeContext) -> None:
    norms = []
    for beta in (0.0, 5.0):
        net = L2Sp(beta=beta, epochs=6, **SGD).fit(context_for(L2Sp()))
        norms.append(float(net.get_submodule("head").weight.detach().norm()))  # type: ignore[operator]
    assert norms[1] < 0.5 * norms[0]


def test_costs_what_fine_tuning_costs_and_a_copy_of_the_weights(context_for: MakeContext) -> None:
    assert L2Sp(epochs=3).cost(RECIPE) == recipe_cost(RECIPE.model_copy(update={"epochs": 3}))
    contexts = {method: context_for(method) for method in (L2Sp(), Finetune())}
    for method, context in contexts.items():
        method.fit(context)
    ours, plain = (context.budget for context in contexts.values())
    assert (ours.images_seen, ours.backward_passes) == (plain.images_seen, plain.backward_passes)
    assert ours.parameters_trained == plain.parameters_trained
    weights = 4 * ours.parameters_trained
    assert 0 < ours.saved_bytes - plain.saved_bytes < 1.1 * weights


@pytest.mark.parametrize("wrong", [{"alpha": -1.0}, {"beta": -0.1}, {"alpha": float("inf")}, {"beta": float("nan")}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected a finite (alpha|beta) of at least 0, got"):
        L2Sp(**wrong)  # type: ignore[arg-type]


def test_there_is_no_weight_decay_to_set() -> None:
    with pytest.raises(TypeError, match="weight_decay"):
        L2Sp(weight_decay=0.1)  # type: ignore[call-arg]
