from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlbench.engine.context import FitContext
from tlbench.errors import NotApplicableError
from tlbench.methods.base import Fitted
from tlbench.methods.lst import Lst, WarmUp
from tlbench.methods.memory import saved_for_backward
from tlbench.models.backbone import Backbone
from tlbench.models.ladder import EPSILON, LadderNetwork, Rungs, Side, TransformerBlock, rungs_of, side_network
from tlbench.models.libraries import timm_taps
from tlbench.models.probes import probe_gradient
from tlbench.models.pruning import MATRICES, block_layout, magnitudes, pruned_block, token_channels
from tlbench.suites.spec import Recipe
from tlbench.testing import RECIPE, assert_method, synthetic_context

from .conftest import MakeContext

MIB = 2**20
KINDS = ("weight", "bias")


def transformer(name: str = "small-vit", **options: Any) -> Backbone:
    """A vision transformer of timm's with drawn weights; 17 tokens of width 32 for images of 16 pixels."""
    small = {"img_size": 16, "patch_size": 4, "depth": 3, "embed_dim": 32, "num_heads": 4, "num_classes": 0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = timm.create_model("vit_tiny_patch16_224", **{**small, **options})
    return Backbone(name, model.num_features, model, tap_modules=timm_taps(model))


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return transformer()


@pytest.fixture(params=["tokens", "maps"])
def either(request: pytest.FixtureRequest, vit: Backbone, backbone: Backbone) -> Backbone:
    return vit if request.param == "tokens" else backbone


def fitted(method: Lst, backbone: Backbone, **recipe: Any) -> tuple[FitContext, Fitted]:
    context = synthetic_context(method, backbone=backbone, recipe=RECIPE.model_copy(update=recipe))
    return context, method.fit(context)


def ladder_of(method: Lst, backbone: Backbone, **recipe: Any) -> LadderNetwork:
    module = fitted(method, backbone, **recipe)[1].predictor().module
    assert isinstance(module, LadderNetwork)
    return module


def images_of(backbone: Backbone, n: int = 8) -> Tensor:
    return synthetic_context(Lst(), backbone=backbone).example(n)


@pytest.mark.parametrize("method", [Lst(fisher_images=8), Lst(init="magnitude", keep=(0, 2), reduction=4)])
def test_keeps_the_promises_of_a_plug_in_beside_a_transformer(method: Lst, vit: Backbone) -> None:
    assert_method(method, backbone=vit)


def test_keeps_the_promises_of_a_plug_in_beside_a_convolutional_network() -> None:
    assert_method(Lst())


def test_no_gradient_reaches_the_backbone_in_training_and_none_of_its_outputs_asks_for_one(either: Backbone) -> None:
    ladder = ladder_of(Lst(fisher_images=2), either).train()
    ladder.to(memory_format=torch.channels_last)  # as the trainer has it
    asked: list[bool] = []
    for path in either.tap_modules.values():
        layer = ladder.backbone.body.get_submodule(path)
        layer.register_forward_hook(lambda module, inputs, output: asked.append(output.requires_grad))
    images = images_of(either).contiguous().requires_grad_()
    F.cross_entropy(ladder(images), torch.zeros(8, dtype=torch.int64)).backward()
    assert asked == [False] * len(either.stages)
    assert images.grad is None
    assert all(parameter.grad is None for parameter in ladder.backbone.parameters())
    assert all(parameter.grad is not None for parameter in ladder.side.parameters())


def test_the_backbone_comes_out_byte_identical_with_its_batch_statistics(either: Backbone) -> None:
    after = ladder_of(Lst(fisher_images=2), either, epochs=3).backbone.state_dict()
    theta0 = either.state0
    assert theta0
    assert all(torch.equal(after[name], theta0[name]) for name in theta0)


def test_an_attack_sees_the_gradient_of_the_whole_network(either: Backbone) -> None:
    ladder = ladder_of(Lst(fisher_images=2), either)
    images = images_of(either, 4)
    result = probe_gradient(ladder, images)
    assert result.passed, result.detail
    assert not probe_gradient(_TrainMode(ladder), images).passed, "the probe would let a detached backbone pass"


class _TrainMode(nn.Module):
    """A ladder that predicts as it trains, its backbone without a gradient."""

    def __init__(self, ladder: LadderNetwork) -> None:
        super().__init__()
        self.ladder = copy.deepcopy(ladder)

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.ladder.train()(images)
        return outputs


def saved_mib(net: nn.Module, images: Tensor) -> float:
    net.train()
    with saved_for_backward([*net.parameters(), *net.buffers()]) as saved:
        F.cross_entropy(net(images), torch.zeros(len(images), dtype=torch.int64))
    return saved.bytes / MIB


@pytest.mark.parametrize(
    ("activation", "full", "biases", "side"), [("relu", 112.3, 94.0, 26.4), ("gelu", 148.9, 94.0, 31.0)]
)
def test_keeps_a_quarter_of_the_bytes_that_full_fine_tuning_keeps(
    activation: str, full: float, biases: float, side: float
) -> None:
    """Twelve blocks of width 192, 65 tokens, sixteen images.

    Where the feed-forward layer has a ReLU, training biases keeps five sixths. A GELU keeps what goes in besides what
    comes out: full fine-tuning and the ladder then keep more, and biases no more than before.
    """
    options = {"img_size": 64, "patch_size": 8, "depth": 12, "embed_dim": 192, "num_heads": 3, "act_layer": activation}
    large = transformer("vit-65", **options)
    images = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    everything, bitfit = large.fresh(10), large.fresh(10)
    for name, parameter in bitfit.named_parameters():
        parameter.requires_grad_(name.endswith("bias") or name.startswith("head"))
    ladder = _untrained(large, images)
    found = [saved_mib(net, images) for net in (everything, bitfit, ladder)]
    assert found == pytest.approx([full, biases, side], rel=0.02)
    assert found[2] < 0.35 * found[0]
    if activation == "relu":
        assert found[1] > 0.7 * found[0]
    body = sum(parameter.numel() for parameter in ladder.backbone.parameters())
    trained = sum(parameter.numel() for parameter in ladder.side.parameters())
    assert trained / body == pytest.approx(0.028, abs=0.0005)


def _untrained(backbone: Backbone, images: Tensor) -> LadderNetwork:
    net = backbone.fresh(10)
    rungs = rungs_of(net, backbone.tap_modules, images[:1], reduction=8, least_width=8, temperature=0.1)
    head, net.head = net.head, nn.Identity()
    return LadderNetwork(net, side_network(rungs), head)


@pytest.mark.parametrize("gate", [1.0, 0.0])
def test_with_gates_at_one_the_first_tap_alone_is_seen_and_with_gates_at_zero_the_last(
    gate: float, either: Backbone
) -> None:
    ladder = ladder_of(Lst(fisher_images=2), either)
    with torch.no_grad():
        taps = list(ladder.backbone.taps(images_of(either), ladder.side.rungs.taps).values())
        halfway = [_seen(ladder.side, taps, i) for i in range(len(taps))]
        ladder.side.gates.fill_(1e6 if gate else -1e6)
        pinned = [_seen(ladder.side, taps, i) for i in range(len(taps))]
    assert halfway == [True] * len(taps)
    alone = 0 if gate else len(taps) - 1
    assert pinned == [i == alone for i in range(len(taps))]


def _seen(side: Side, taps: list[Tensor], i: int) -> bool:
    other = [tap + 3 if i == j else tap for j, tap in enumerate(taps)]
    return not torch.equal(side(taps), side(other))


def test_the_tokens_side_is_the_papers_recursion(vit: Backbone) -> None:
    """Written out for gates that were moved from where they start."""
    side = ladder_of(Lst(fisher_images=2, reduction=4), vit).side
    with torch.no_grad():
        side.gates.copy_(torch.tensor([0.05, -0.2, 0.0]))
        taps = list(vit.fresh().taps(images_of(vit), vit.stages).values())
        state = taps[0] @ side.get_parameter("down.0.weight").T + side.get_parameter("down.0.bias")
        for i, share in enumerate([1 / (1 + 2.718281828**-0.5), 1 / (1 + 2.718281828**2), 0.5]):
            weight, bias = (side.get_parameter(f"down.{i + 1}.{kind}") for kind in KINDS)
            rung = taps[i + 1] @ weight.T + bias
            state = side.blocks[i](share * state + (1 - share) * rung)
        expected = side.up(F.layer_norm(state, (8,), side.norm.weight, side.norm.bias)[:, 0])
        assert torch.allclose(side(taps), expected, atol=1e-6)


def test_gates_start_half_open(either: Backbone) -> None:
    assert torch.equal(ladder_of(Lst(epochs=0, init="random"), either).side.gates, torch.zeros(3))


@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_a_side_block_is_an_ordinary_transformer_block(activation: Any) -> None:
    torch.manual_seed(0)
    block = TransformerBlock(12, 3, 4, 20, activation)
    other = nn.TransformerEncoderLayer(12, 3, 20, 0.0, activation, EPSILON, batch_first=True, norm_first=True)
    own = block.state_dict()
    names = {"qkv": "self_attn.in_proj_", "proj": "self_attn.out_proj.", "fc1": "linear1.", "fc2": "linear2."}
    names |= {"norm1": "norm1.", "norm2": "norm2."}
    other.load_state_dict({f"{theirs}{kind}": own[f"{our}.{kind}"] for our, theirs in names.items() for kind in KINDS})
    tokens = torch.randn(2, 5, 12)
    assert torch.allclose(block(tokens), other(tokens), atol=1e-6)


def test_nothing_cut_away_leaves_the_backbones_blocks_with_their_scales() -> None:
    scaled = transformer(init_values=0.3)
    side = ladder_of(Lst(reduction=1, init="magnitude", epochs=0), scaled).side
    with torch.no_grad():
        taps = list(scaled.fresh().taps(images_of(scaled), scaled.stages).values())
        for before, after, block in zip(taps[:-1], taps[1:], side.blocks, strict=True):
            assert torch.allclose(block(before), after, atol=1e-5)


def test_what_matters_most_stays(vit: Backbone) -> None:
    block = vit.fresh().body.get_submodule("blocks.0")
    importance = {name: torch.zeros_like(block.get_parameter(name)) for name in MATRICES}
    importance["mlp.fc2.weight"][[5, 9]] = 1.0  # two channels of the tokens
    importance["mlp.fc1.weight"][[70, 3]] = 9.0  # two units of the feed-forward layer
    importance["attn.qkv.weight"][[1, 32 + 7, 10, 19, 24]] = 1.0  # a query or a key of each of four heads
    importance["attn.proj.weight"][:, [0, 15, 16, 31]] = 1.0  # a value of each
    channels = token_channels([importance], 2)
    assert channels.tolist() == [5, 9]
    cut = pruned_block(block, importance, channels, head_width=1, hidden=2)
    weights = dict(block.named_parameters())
    assert torch.equal(cut["fc1.weight"], weights["mlp.fc1.weight"][[3, 70]][:, [5, 9]])
    assert torch.equal(cut["fc2.weight"], weights["mlp.fc2.weight"][[5, 9]][:, [3, 70]])
    assert torch.equal(cut["proj.weight"], weights["attn.proj.weight"][[5, 9]][:, [0, 15, 16, 31]])
    # The first head of width 8 keeps query 1 and, tied with it, key 7 (32 + 7): the first of equals stays.
    rows = [1, 10, 19, 24]
    assert torch.equal(cut["qkv.weight"][:4], weights["attn.qkv.weight"][rows][:, [5, 9]])
    assert torch.equal(cut["qkv.weight"][4:8], weights["attn.qkv.weight"][[32 + row for row in rows]][:, [5, 9]])
    assert torch.equal(cut["qkv.bias"][8:], weights["attn.qkv.bias"][[64, 64 + 15, 64 + 16, 64 + 31]])


def test_side_blocks_start_from_squared_gradients_of_single_images(vit: Backbone) -> None:
    """Against products of what goes into a layer and of the gradient that comes out of it, for all images at once."""
    method = Lst(fisher_images=6, epochs=0, reduction=4)
    context, result = fitted(method, vit)
    net = context.backbone.fresh(3)
    batch = next(iter(context.data("id_train").batches(6, rng=context.rng("fisher"))))
    inputs: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}
    names = [f"body.blocks.{i}.{name.removesuffix('.weight')}" for i in range(3) for name in MATRICES]
    for name in names:
        _watch(net.get_submodule(name), name, inputs, gradients)
    F.cross_entropy(net(batch.images), batch.labels, reduction="sum").backward()
    squares = [torch.einsum("nto,nti->noi", gradients[name], inputs[name]).square().sum(dim=0) for name in names]
    importance = [dict(zip(MATRICES, squares[4 * i : 4 * i + 4], strict=True)) for i in range(3)]
    channels = token_channels(importance, 8)
    assert result.state is not None
    for i in range(3):
        block = net.body.get_submodule(f"blocks.{i}")
        expected = pruned_block(block, importance[i], channels, head_width=2, hidden=32)
        assert all(torch.equal(result.state[f"side.blocks.{i}.{name}"], expected[name]) for name in expected)
        by_size = pruned_block(block, magnitudes(block), channels, head_width=2, hidden=32)
        assert not torch.equal(by_size["fc1.weight"], expected["fc1.weight"])


def _watch(layer: nn.Module, name: str, inputs: dict[str, Tensor], gradients: dict[str, Tensor]) -> None:
    def keep(module: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        inputs[name] = given[0].detach()
        output.register_hook(_into(gradients, name))

    layer.register_forward_hook(keep)


def _into(gradients: dict[str, Tensor], name: str) -> Callable[[Tensor], None]:
    def keep(gradient: Tensor) -> None:
        gradients[name] = gradient

    return keep


def test_the_three_starts_differ_in_the_side_blocks_only(vit: Backbone) -> None:
    states = {}
    for init in ("fisher", "magnitude", "random"):
        result = fitted(Lst(init=init, epochs=0, fisher_images=6), vit)[1]
        assert result.state is not None
        assert result.recipe["init"] == init
        states[init] = dict(result.state)
    for name, drawn in states["random"].items():
        same = [torch.equal(drawn, states[init][name]) for init in ("fisher", "magnitude")]
        assert same == [True, True] if "blocks" not in name else not all(same) or "norm" in name or "bias" in name


def test_the_start_is_fisher_where_blocks_can_be_cut_and_random_elsewhere(vit: Backbone, backbone: Backbone) -> None:
    assert fitted(Lst(fisher_images=2, epochs=0), vit)[1].recipe["init"] == "fisher"
    assert fitted(Lst(epochs=0), backbone)[1].recipe["init"] == "random"
    normed = transformer(qk_norm=True)
    assert block_layout(normed.fresh().body.get_submodule("blocks.0")) is None
    assert fitted(Lst(epochs=0), normed)[1].recipe["init"] == "random"
    for other in (backbone, normed):
        context = synthetic_context(Lst(init="magnitude"), backbone=other)
        with pytest.raises(NotApplicableError, match="init = 'magnitude' cuts side blocks out of transformer blocks"):
            Lst(init="magnitude").fit(context)
        assert context.budget.images_seen == 0


def test_what_fisher_costs_is_counted_apart_from_what_training_keeps(vit: Backbone) -> None:
    spent = {}
    for method in (Lst(init="random"), Lst(fisher_images=20), Lst()):
        context, result = fitted(method, vit)
        assert result.state is not None
        n, budget = len(context.data("id_train")), context.budget
        spent[method] = budget
        extra = 0 if method.init == "random" else min(method.fisher_images, n)
        assert budget.images_seen == budget.backward_passes == n * context.recipe.epochs + extra
        assert budget.parameters_trained == sum(tensor.numel() for tensor in result.state.values())
    kept = {budget.saved_bytes for budget in spent.values()}
    assert len(kept) == 1
    assert 0 < kept.pop() < 2 * MIB


def test_only_side_network_and_head_are_stored(either: Backbone) -> None:
    result = fitted(Lst(fisher_images=2), either)[1]
    assert result.state is not None
    assert {name.split(".")[0] for name in result.state} == {"side", "head"}


def test_left_out_blocks_lose_their_rung_too(vit: Backbone) -> None:
    whole, part = (ladder_of(Lst(init="random", keep=keep, epochs=0), vit).side for keep in (None, (0, 2)))
    assert part.rungs.taps == ("embed", "block0", "block2")
    assert (len(whole.blocks), len(whole.down), len(whole.gates)) == (3, 4, 3)
    assert (len(part.blocks), len(part.down), len(part.gates)) == (2, 3, 2)
    cut = ladder_of(Lst(init="magnitude", keep=(2,), epochs=0, reduction=1), vit).side
    assert torch.equal(cut.get_parameter("blocks.0.qkv.weight"), vit.state0["body.blocks.2.attn.qkv.weight"])


def test_the_side_of_maps_is_as_narrow_as_said_and_no_narrower_than_that(backbone: Backbone) -> None:
    rungs = ladder_of(Lst(epochs=0), backbone).side.rungs
    assert rungs.widths == (16, 32, 64, 64)
    assert rungs.side_widths == (8, 8, 8, 8)
    assert ladder_of(Lst(epochs=0, reduction=4, least_width=6), backbone).side.rungs.side_widths == (6, 8, 16, 16)


def test_the_head_is_drawn_as_for_every_method_and_reads_as_many_features(either: Backbone) -> None:
    context, result = fitted(Lst(init="random", epochs=0), either)
    ladder = result.predictor().module
    assert torch.equal(ladder.get_parameter("head.weight"), context.backbone.fresh(3).get_parameter("head.weight"))


def test_that_is_pooled_which_the_backbone_pools(vit: Backbone) -> None:
    assert ladder_of(Lst(epochs=0, init="random"), vit).side.rungs.class_token
    mean = transformer(global_pool="avg")
    side = ladder_of(Lst(epochs=0, init="random"), mean).side
    assert not side.rungs.class_token
    state = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(side.pooled(state), side.norm(state).mean(dim=1))


@pytest.mark.parametrize(("steps", "total", "expected"), [(500, 10_000, 500), (500, 300, 30), (500, 4, 1), (0, 50, 1)])
def test_the_rate_rises_for_so_many_steps_or_a_tenth_of_a_short_run(steps: int, total: int, expected: int) -> None:
    rates = [WarmUp(steps).lr_factor(index, total) for index in range(total)]
    assert rates[:expected] == pytest.approx([(i + 1) / expected for i in range(expected)])
    assert set(rates[expected:]) <= {1.0}


def test_learns_beside_a_network_that_was_not_pretrained(context_for: MakeContext) -> None:
    context = context_for(Lst())
    net = Lst(epochs=12, batch_size=8).fit(context).predictor().module
    batch = next(iter(context.data("id_val").batches(100)))
    with torch.no_grad():
        assert float((net(batch.images).argmax(1) == batch.labels).float().mean()) > 0.8


def test_a_backbone_without_fitting_taps_is_refused_before_any_training(vit: Backbone, backbone: Backbone) -> None:
    assert Lst.requires == {"taps"}
    bare = Backbone("bare", 64, backbone.fresh().body)
    shifted = Backbone("mixed", 32, vit.fresh().body, tap_modules={"embed": "patch_embed", "block0": "blocks.0"})
    for other, method, reason in (
        (bare, Lst(), "at least two taps of the backbone, it has 0"),
        (shifted, Lst(), r"all tokens of one shape; here embed is \(16, 32\) and block0 is \(17, 32\)"),
        (vit, Lst(reduction=5), "width 32 cannot be divided by reduction 5"),
        (vit, Lst(keep=(1, 3)), r"keep names block 3, the backbone has 3 \(0 to 2\)"),
    ):
        context = synthetic_context(method, backbone=other)
        with pytest.raises(NotApplicableError, match=reason):
            method.fit(context)
        assert context.budget.images_seen == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"reduction": 0}, "reduction of at least 1, got 0"),
        ({"least_width": 0}, "least_width of at least 1, got 0"),
        ({"fisher_images": 0}, "fisher_images of at least 1, got 0"),
        ({"temperature": 0.0}, "temperature that is finite and above 0, got 0"),
        ({"temperature": float("nan")}, "temperature that is finite and above 0, got nan"),
        ({"warmup": -1}, "warmup of at least 0 steps, got -1"),
        ({"init": "zero"}, "init 'fisher', 'magnitude', 'random' or None, got 'zero'"),
        ({"keep": ()}, "keep to name blocks"),
        ({"keep": (2, 1)}, "keep to name blocks"),
        ({"keep": (-1,)}, "keep to name blocks"),
        ({"lr": -1.0}, "lr"),
    ],
)
def test_settings_out_of_range_are_refused_when_the_method_is_made(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Lst(**options)


def test_rungs_come_back_from_json(vit: Backbone) -> None:
    side = ladder_of(Lst(epochs=0, init="random"), vit).side
    again = Rungs.of_json(side.rungs.to_json())
    assert again == side.rungs
    assert side_network(again).state_dict().keys() == side.state_dict().keys()


def test_costs_passes_forward_for_every_epoch_and_a_tenth_of_a_step_beside() -> None:
    cost = Lst(epochs=7).cost(Recipe())
    assert (cost.forward, cost.viewed, cost.epochs, cost.keeps, cost.networks) == (7, 7, 7, "network", 0.03)
    assert cost.trained == pytest.approx(0.7)
