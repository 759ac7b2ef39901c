from __future__ import annotations

import pytest
import torch
from torch import Generator, Tensor, nn

from tlbench.methods.base import Budget, Features, Hooks, Step
from tlbench.methods.features import FeatureData
from tlbench.methods.linear_probe import LinearProbe
from tlbench.methods.lp_ft import LpFt
from tlbench.methods.training import train
from tlbench.suites.spec import Recipe

from .conftest import MakeContext

WIDTH, INPUTS, SEEN, EXAMPLES = 5, 20, 8, 64
RECIPE = Recipe.model_validate(
    {"optimizer": "sgd", "lr": 0.01, "epochs": 400, "batch_size": EXAMPLES, "crop": False, "flip": False}
)


def test_without_fine_tuning_it_is_the_linear_probe(context_for: MakeContext) -> None:
    reduced, simpler = LpFt().null_config()
    images = context_for(reduced).example(8)
    first = reduced.fit(context_for(reduced))
    second = simpler.fit(context_for(simpler))
    assert isinstance(first, nn.Module)
    assert isinstance(second, nn.Module)
    assert torch.equal(first(images), second(images))
    assert simpler == LinearProbe()


def test_it_starts_from_the_probe_and_goes_on(context_for: MakeContext) -> None:
    method = LpFt(lr=1e-6)
    tuned, probe = method.fit(context_for(method)), LinearProbe().fit(context_for(LinearProbe()))
    images = context_for(method).example(8)
    near = (tuned(images) - probe(images)).detach().abs().max()
    assert 0 < float(near) < 0.1


def test_batch_statistics_stay_those_under_which_the_probe_was_fitted(context_for: MakeContext) -> None:
    context = context_for(LpFt())
    state, theta0 = LpFt().fit(context).state_dict(), context.backbone.state0
    statistics = [name for name in theta0 if "running" in name]
    assert statistics
    assert all(torch.equal(state[name], theta0[name]) for name in statistics)
    moved = LpFt(batchnorm="train").fit(context_for(LpFt())).state_dict()
    assert not any(torch.equal(moved[name], theta0[name]) for name in statistics)


def test_the_rate_is_a_tenth_of_the_recipes(context_for: MakeContext) -> None:
    by_default = LpFt().fit(context_for(LpFt(), lr=0.02)).state_dict()
    said = LpFt(lr=0.002).fit(context_for(LpFt(), lr=0.5)).state_dict()
    assert all(torch.equal(by_default[name], said[name]) for name in said)


class SquaredError(Hooks):
    def __init__(self, targets: Tensor) -> None:
        self.targets = targets

    def base_loss(self, step: Step) -> Tensor:
        assert step.logits is not None
        return (step.logits[:, 0] - self.targets[step.labels]).square().mean()


class TwoLayers(nn.Module):
    """A linear network of two layers."""

    def __init__(self, body: Tensor, head: Tensor) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(INPUTS, WIDTH, bias=False), nn.Linear(WIDTH, 1, bias=False)
        with torch.no_grad():
            self.body.weight.copy_(body)
            self.head.weight.copy_(head.view(1, -1))

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.body(inputs))
        return outputs


@pytest.mark.parametrize("seed", range(5))
def test_a_fitted_head_keeps_nearly_right_features_that_a_random_one_distorts(seed: int) -> None:
    """The example of Kumar et al. (2022): inputs of training span a subspace, those of the target do not."""
    g = Generator().manual_seed(seed)
    right = torch.linalg.qr(torch.randn(INPUTS, WIDTH, generator=g)).Q.T
    pretrained = right + 0.02 * torch.randn(WIDTH, INPUTS, generator=g)
    truth = torch.randn(WIDTH, generator=g)
    subspace = torch.linalg.qr(torch.randn(INPUTS, SEEN, generator=g)).Q
    inputs = torch.randn(EXAMPLES, SEEN, generator=g) @ subspace.T
    targets = inputs @ right.T @ truth
    probe = torch.linalg.lstsq(inputs @ pretrained.T, targets.view(-1, 1)).solution[:, 0]
    random = torch.randn(WIDTH, generator=g)
    elsewhere = torch.randn(500, INPUTS, generator=g)

    def tuned_from(head: Tensor) -> tuple[float, float]:
        net = TwoLayers(pretrained, head)
        data = FeatureData(Features(inputs, torch.arange(EXAMPLES)))
        train(
            net,
            data,
            hooks=SquaredError(targets),
            recipe=RECIPE,
            rng=lambda stream: Generator().manual_seed(seed),
            streams={},
            order="order",
            device="cpu",
            budget=Budget(),
        )
        moved = float((net.body.weight.detach() - pretrained).norm())
        return moved, error(net)

    def error(net: TwoLayers) -> float:
        with torch.no_grad():
            return float((net(elsewhere)[:, 0] - elsewhere @ right.T @ truth).square().mean())

    plain_moved, plain_error = tuned_from(random)
    lp_moved, lp_error = tuned_from(probe)
    assert plain_moved > 5 * lp_moved
    assert plain_error > 5 * lp_error
    assert lp_error <= 1.05 * error(TwoLayers(pretrained, probe))
