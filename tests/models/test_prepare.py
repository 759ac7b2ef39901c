"""A prepared network predicts what the trained one does, at a lower price, or stays as it was and says why."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tlbench.models.prepare import TOLERANCE, PreparedModule, prepare
from tlbench.models.zoo import load_backbone


def images(n: int = 4, side: int = 64) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def settled(net: nn.Module) -> nn.Module:
    """Return the network after a few batches in train mode, so that BatchNorm has something to fold."""
    net.train()
    with torch.no_grad():
        for seed in range(3):
            net(torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(seed)))
    return net.eval()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def gradient(module: nn.Module) -> Tensor:
    leaf = images().requires_grad_()
    (by_images,) = torch.autograd.grad(F.cross_entropy(module(leaf), torch.arange(4)), leaf)
    return by_images


@pytest.mark.parametrize(
    ("name", "norms"),
    [
        ("efficientnet-lite0", 49),
        ("small-cnn", 4),
        ("timm:resnet18@untrained", 20),
        ("torchvision:resnet18@untrained", 20),
    ],
)
def test_folds_every_batchnorm_and_keeps_outputs_and_gradients(name: str, norms: int) -> None:
    net = load_backbone(name).fresh(5)
    if not load_backbone(name).pretrained:
        settled(net)
    prepared = prepare(net, images(2))
    assert prepared.folded
    assert prepared.note == f"folded {norms} of {norms} BatchNorm layers"
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in prepared.module.modules())
    with torch.inference_mode():
        outputs, expected = prepared.module(images()), net(images())
    assert float((outputs - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())
    assert relative(gradient(prepared.module), gradient(net)) < 1e-2
    double = copy.deepcopy(net).double()
    with torch.inference_mode():
        assert relative(outputs.double(), double(images().double())) < 1e-5


def test_leaves_the_network_as_it_was() -> None:
    net = settled(load_backbone("small-cnn").fresh(5)).train()
    before = copy.deepcopy(net.state_dict())
    prepared = prepare(net, images())
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not prepared.module.training
    assert not any(parameter.requires_grad for parameter in prepared.module.parameters())
    assert not any(layer._forward_hooks for layer in prepared.module.modules())


def test_a_transformer_has_nothing_to_fold_and_says_so() -> None:
    net = load_backbone("timm:vit_tiny_patch16_224@untrained").fresh(5)
    prepared = prepare(net, images())
    assert not prepared.folded
    assert "no BatchNorm" in prepared.note
    with torch.inference_mode():
        torch.testing.assert_close(prepared.module(images()), net(images()))


class Twice(nn.Module):
    """A convolution whose output goes into BatchNorm and past it."""

    def __init__(self, second_reader: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.second_reader = second_reader

    def forward(self, x: Tensor) -> Tensor:
        raw = self.first(x)
        return (self.norm(raw) + self.second_reader(raw)).mean((2, 3))


class Residual(nn.Module):
    """As ``Twice``, but what goes past is seen by no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        raw = self.first(x)
        return (self.norm(raw) + raw).mean((2, 3))


class Peeking(nn.Sequential):
    """Reads the BatchNorm itself."""

    def forward(self, x: Tensor) -> Tensor:
        norm: nn.BatchNorm2d = self[1]
        assert norm.running_mean is not None
        return super().forward(x).mean((2, 3)) + norm.running_mean


def check_unchanged(prepared: PreparedModule, module: nn.Module) -> None:
    assert not prepared.folded
    with torch.inference_mode():
        torch.testing.assert_close(prepared.module(images()), module.eval()(images()))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Twice(nn.ReLU()), "no BatchNorm"),
        (Residual(), "outputs would differ"),
        (Peeking(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "the network then fails"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), "no BatchNorm"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), "no BatchNorm"),
        (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), "no BatchNorm"),
    ],
)
def test_what_cannot_be_folded_stays_and_says_why(module: nn.Module, reason: str) -> None:
    settled(module)
    prepared = prepare(module, images())
    assert reason in prepared.note
    check_unchanged(prepared, module)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("small-cnn", True), ("timm:resnet18@untrained", True), ("timm:vit_tiny_patch16_224@untrained", False)],
)
def test_channels_come_last_only_where_there_are_convolutions(name: str, expected: bool) -> None:
    prepared = prepare(load_backbone(name).fresh(5), images())
    assert prepared.channels_last == expected


def test_the_largest_tensor_is_told_for_one_image() -> None:
    module = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1), nn.MaxPool2d(2), nn.Flatten())
    assert prepare(module, images(3, 16)).largest_bytes == 7 * 16 * 16 * 4


def test_a_layer_that_is_used_twice_is_not_folded() -> None:
    shared = nn.Conv2d(3, 3, 3, padding=1)
    module = settled(nn.Sequential(shared, nn.BatchNorm2d(3), nn.ReLU(), shared, nn.BatchNorm2d(3), nn.Flatten()))
    check_unchanged(prepare(module, images()), module)


def test_a_weight_that_is_computed_when_called_is_not_folded() -> None:
    convolution = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    module = settled(nn.Sequential(convolution, nn.BatchNorm2d(4), nn.Flatten()))
    check_unchanged(prepare(module, images()), module)


def test_a_network_that_returns_nan_is_left_alone() -> None:
    module = settled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))
    with torch.no_grad():
        module[0].weight[0] = torch.nan  # type: ignore[index]
    prepared = prepare(module, images())
    assert not prepared.folded
    assert "nan" in prepared.note


def test_grouped_convolutions_and_batchnorm_without_weights_are_folded() -> None:
    module = settled(
        nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=True), nn.BatchNorm2d(6, affine=False), nn.ReLU(), nn.Flatten())
    )
    prepared = prepare(module, images())
    assert prepared.folded
    with torch.inference_mode():
        torch.testing.assert_close(prepared.module(images()), module(images()), rtol=1e-4, atol=1e-5)
