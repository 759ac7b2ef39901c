"""Backbones: copies share nothing, theta0 stays, heads are drawn alike, and every tensor has its block."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tlbench.models.backbone import Backbone, Network
from tlbench.models.zoo import load_backbone

NAMES = (
    "efficientnet-lite0",
    "small-cnn",
    "timm:resnet18@untrained",
    "timm:vit_tiny_patch16_224@untrained",
    "torchvision:resnet18@untrained",
)


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return load_backbone(request.param)


@pytest.fixture
def small() -> Backbone:
    return load_backbone("small-cnn")


def images(n: int = 2, side: int = 32) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


def same(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


def train_a_step(net: Network) -> None:
    net.train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    net(images(4)).square().sum().backward()
    optimiser.step()


def test_outputs_and_features_have_their_shapes_and_the_head_joins_them(backbone: Backbone) -> None:
    net = backbone.fresh(3)
    features = net.features(images())
    assert features.shape == (2, backbone.width)
    assert net.forward_from_features(features).shape == (2, 3)
    torch.testing.assert_close(net(images()), net.forward_from_features(features))


def test_without_classes_the_network_returns_features(backbone: Backbone) -> None:
    net = backbone.fresh()
    assert torch.equal(net(images()), net.features(images()))


def test_every_tensor_is_in_exactly_one_block_in_the_order_of_execution(backbone: Backbone) -> None:
    net = backbone.fresh(3)
    blocks = net.blocks()
    assert sorted(name for b in blocks for name in b.parameters) == sorted(name for name, _ in net.named_parameters())
    tensors = [name for b in blocks for name in (*b.parameters, *b.buffers)]
    assert sorted(tensors) == sorted(net.state_dict())
    ran: list[str] = []
    for block in blocks:
        net.get_submodule(block.name).register_forward_pre_hook(lambda *_, name=block.name: ran.append(name))
    net(images())
    assert ran == [block.name for block in blocks]


def test_blocks_are_tagged_by_kind() -> None:
    kinds = {block.name: block.kind for block in load_backbone("efficientnet-lite0").fresh(3).blocks()}
    assert kinds["body.conv_stem"] == kinds["body.blocks.1.0.conv_dw"] == "conv"
    assert kinds["body.bn1"] == "norm"
    assert kinds["head"] == "linear"
    assert kinds["normalise"] == "other"
    transformer = {b.name: b.kind for b in load_backbone("timm:vit_tiny_patch16_224@untrained").fresh().blocks()}
    assert transformer["body.blocks.0.norm1"] == "norm"
    assert transformer["body"] == "other"  # class token and positions


def test_taps_have_stable_names_and_shapes() -> None:
    lite0 = load_backbone("efficientnet-lite0")
    assert lite0.stages == ("stem", "stage1", "stage2", "stage3", "stage4", "stage5")
    taps = lite0.fresh().taps(images(side=64), lite0.stages)
    channels_and_side = {name: (tap.shape[1], tap.shape[2]) for name, tap in taps.items()}
    assert channels_and_side == {
        "stem": (32, 32),
        "stage1": (16, 32),
        "stage2": (24, 16),
        "stage3": (40, 8),
        "stage4": (112, 4),
        "stage5": (320, 2),
    }


@pytest.mark.parametrize("name", ["timm:resnet18@untrained", "torchvision:resnet18@untrained"])
def test_both_libraries_name_the_stages_of_a_resnet_alike(name: str) -> None:
    backbone = load_backbone(name)
    taps = backbone.fresh().taps(images(), backbone.stages)
    assert [(name, tap.shape[1]) for name, tap in taps.items()] == [
        ("stem", 64),
        ("stage1", 64),
        ("stage2", 128),
        ("stage3", 256),
        ("stage4", 512),
    ]


def test_taps_of_a_vision_transformer_are_tokens() -> None:
    vit = load_backbone("timm:vit_tiny_patch16_224@untrained")
    assert vit.stages == ("embed", *(f"block{i}" for i in range(12)))
    taps = vit.fresh().taps(images(), ["block11", "embed"])
    assert list(taps) == ["block11", "embed"]
    assert {tuple(tap.shape) for tap in taps.values()} == {(2, 1 + (32 // 16) ** 2, 192)}


def test_taps_are_what_the_network_computes_with_and_carry_gradients(small: Backbone) -> None:
    net = small.fresh()
    leaf = images().requires_grad_()
    taps = net.taps(leaf, ["stage3", "features"])
    torch.testing.assert_close(taps["stage3"].mean((2, 3)), taps["features"])
    torch.testing.assert_close(taps["features"], net.features(images()))
    (gradient,) = torch.autograd.grad(taps["stage3"].sum(), leaf)
    assert float(gradient.abs().max()) > 0
    assert not any(layer._forward_hooks for layer in net.modules())


def test_an_unknown_tap_is_answered_with_the_nearest(small: Backbone) -> None:
    with pytest.raises(ValueError, match="did you mean 'stage3'"):
        small.fresh().taps(images(), ["stage33"])


def test_training_one_copy_changes_no_other(small: Backbone) -> None:
    trained, kept, before = small.fresh(3), small.fresh(3), small.fresh(3)
    hash_before = small.weights_hash
    train_a_step(trained)
    assert not same(trained, before)
    assert same(kept, before)
    assert same(small.fresh(3), before)
    assert small.weights_hash == hash_before


def test_theta0_cannot_be_written(small: Backbone) -> None:
    name = "body.stage1.0.weight"
    before = small.state0[name]
    small.state0[name].zero_()
    small.fresh().get_parameter(name).data.zero_()
    assert torch.equal(small.state0[name], before)
    assert torch.equal(small.fresh().get_parameter(name), before)
    with pytest.raises(TypeError):
        small.state0[name] = before  # type: ignore[index]
    with pytest.raises(AttributeError):
        small.name = "other"  # type: ignore[misc]


def test_theta0_has_the_names_of_a_fresh_network(backbone: Backbone) -> None:
    state = backbone.fresh(3).state_dict()
    assert list(backbone.state0) == [name for name in state if name.startswith("body.")]
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state0.items())


def test_equal_calls_give_equal_networks_and_a_generator_moves_them(backbone: Backbone) -> None:
    assert same(backbone.fresh(3), backbone.fresh(3))
    one, again, other = (backbone.fresh(3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert same(one, again)
    assert not torch.equal(one.head.weight, other.head.weight)  # type: ignore[arg-type]
    assert same(one.body, other.body) == backbone.pretrained


def test_nobody_elses_random_numbers_move(backbone: Backbone) -> None:
    state = torch.get_rng_state()
    backbone.fresh(3)
    backbone.fresh(3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_gives_the_next_network_with_every_call(small: Backbone) -> None:
    generator = torch.Generator().manual_seed(0)
    assert not same(small.fresh(3, generator=generator), small.fresh(3, generator=generator))


def test_a_given_head_is_copied(small: Backbone) -> None:
    head = nn.Linear(64, 3)
    net = small.with_head(head)
    assert net.head is not head
    assert same(net.head, head)
    assert same(net.body, small.fresh().body)


def test_knows_what_it_has() -> None:
    has = {
        name: {need for need in ("batchnorm", "transformer", "taps") if load_backbone(name).has(need)} for name in NAMES
    }
    convolutional = {"batchnorm", "taps"}
    assert has == {name: {"transformer", "taps"} if "vit" in name else convolutional for name in NAMES}
    assert load_backbone("efficientnet-lite0").has("pretrained")
    assert load_backbone("efficientnet-lite0").has("source_head")
    assert not load_backbone("small-cnn").has("pretrained")
    assert not load_backbone("small-cnn").has("source_head")
    with pytest.raises(ValueError, match="not a property"):
        load_backbone("small-cnn").has("batchnorms")


def test_the_hash_tells_weights_apart(small: Backbone) -> None:
    def of(body: nn.Module, *, pretrained: bool = True, mean: float = 0.5) -> str:
        initialise = None if pretrained else nn.Identity
        return Backbone("x", 64, body, initialise=initialise, mean=(mean,) * 3).weights_hash

    body = small.fresh().body
    changed = copy.deepcopy(body)
    next(changed.parameters()).data[0, 0, 0, 0] += 1e-3
    assert of(body) == of(copy.deepcopy(body))
    assert len({of(body), of(changed), of(body, mean=0.4)}) == 3
    # What is drawn anew at every fit is no part of the identity.
    assert of(body, pretrained=False) == of(changed, pretrained=False)


def test_works_under_functional_call(small: Backbone) -> None:
    net, other = small.fresh(3), small.fresh(3, generator=torch.Generator().manual_seed(5))
    called = torch.func.functional_call(net, other.state_dict(), (images(),))
    torch.testing.assert_close(called, other(images()))
