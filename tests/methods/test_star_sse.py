"""Members around one parent: where they start, how fast they learn, what is made of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlbench.errors import UsageError
from tlbench.methods.averaging import averaged, part
from tlbench.methods.base import Fitted, Hooks, Step
from tlbench.methods.cost import cost_of
from tlbench.methods.finetune import Finetune
from tlbench.methods.fitted import state_of
from tlbench.methods.resolve import resolve_model
from tlbench.methods.star_sse import CosineByEpoch, StarSse
from tlbench.methods.training import recompute_batchnorm
from tlbench.suites.spec import Recipe
from tlbench.testing import RECIPE, SIZES, assert_method

from .conftest import MakeContext

State = dict[str, Tensor]


def states(fitted: Fitted, members: int) -> list[State]:
    assert fitted.state is not None
    return [part(str(k), fitted.state) for k in range(members)]


def alike(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_keeps_every_promise_of_a_method() -> None:
    assert_method(StarSse(members=2, restart="previous"))


def test_one_member_without_a_cosine_is_fine_tuning_bit_for_bit(context_for: MakeContext) -> None:
    reduced, simpler = StarSse(lr=0.02, augment="color-jitter").null_config()
    alone = reduced.fit(context_for(reduced))
    assert isinstance(alone, Fitted)
    tuned = simpler.fit(context_for(simpler))
    assert isinstance(tuned, nn.Module)
    assert list(alone.variants) == ["main"]
    assert alike(dict(alone.predictor().module.state_dict()), dict(tuned.state_dict()))
    images = context_for(simpler).example(8)
    assert torch.equal(alone.predictor().module(images), tuned(images))


def test_one_member_is_fine_tuning_with_a_cosine_bit_for_bit(context_for: MakeContext) -> None:
    method = StarSse(members=1, epochs=3)
    alone = method.fit(context_for(method)).predictor().module
    context = context_for(Finetune())
    tuned = context.train(context.backbone.fresh(3), CosineByEpoch(3), epochs=3)
    assert alike(dict(alone.state_dict()), dict(tuned.state_dict()))


@pytest.mark.parametrize("restart", ["parent", "previous"])
def test_cycles_without_learning_under_frozen_statistics_leave_the_parent(
    context_for: MakeContext, restart: Any
) -> None:
    method = StarSse(members=3, restart=restart, cycle_lr_ratio=0.0, batchnorm="eval")
    context = context_for(method)
    fitted = method.fit(context)
    first, *others = states(fitted, 3)
    assert all(alike(first, other) for other in others)
    assert alike(dict(fitted.predictor("soup").module.state_dict()), first)
    images = context.example(8)
    parent, soup = (fitted.predictor(name).module(images) for name in ("parent", "soup"))
    assert torch.equal(parent, soup)
    assert torch.allclose(fitted.predictor().module(images), F.log_softmax(parent, dim=1), atol=1e-5)


def test_cycles_without_learning_move_statistics_that_train(context_for: MakeContext) -> None:
    method = StarSse(members=2, cycle_lr_ratio=0.0)
    first, second = states(method.fit(context_for(method)), 2)
    moved = {name for name in first if not torch.equal(first[name], second[name])}
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)


@pytest.mark.parametrize("restart", ["parent", "previous"])
def test_a_cycle_starts_where_it_should_with_its_own_order_of_the_data(
    context_for: MakeContext, monkeypatch: pytest.MonkeyPatch, restart: Any
) -> None:
    method = StarSse(members=4, restart=restart)
    context = context_for(method)
    starts: list[State] = []
    orders: list[str] = []

    train = context.train

    def watched(net: nn.Module, hooks: Hooks, *, order: str = "order", **recipe: Any) -> nn.Module:
        starts.append({name: tensor.clone() for name, tensor in net.state_dict().items()})
        orders.append(order)
        trained: nn.Module = train(net, hooks, order=order, **recipe)
        return trained

    monkeypatch.setattr(context, "train", watched)
    ends = states(method.fit(context), 4)
    assert alike(starts[0], dict(context.backbone.fresh(3).state_dict()))
    for k in range(1, 4):
        assert alike(starts[k], ends[0 if restart == "parent" else k - 1]), "buffers included"
        assert not alike(starts[k], ends[k])
    assert not alike(ends[1], ends[2])
    assert orders[0] == "order", "the parent sees the images in the order of every other method"
    assert len(set(orders)) == 4


def test_the_learning_rate_follows_half_a_cosine_by_epoch_in_every_cycle(
    context_for: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    steps_before: list[int] = []
    optimizers: list[torch.optim.Optimizer] = []

    def watched(self: Hooks, step: Step) -> None:
        assert step.optimizer is not None
        seen.append(step.optimizer.param_groups[0]["lr"])
        steps_before.append(step.index)
        optimizers.append(step.optimizer)

    monkeypatch.setattr(CosineByEpoch, "after_step", watched)
    method = StarSse(members=2, lr=0.01, epochs=4, cycle_epochs=2, cycle_lr_ratio=0.5)
    method.fit(context_for(method))
    steps = SIZES["train"] // RECIPE.batch_size
    parent = [0.01 * 0.5 * (1 + math.cos(math.pi * e / 4)) for e in range(4) for _ in range(steps)]
    cycle = [0.005 * 0.5 * (1 + math.cos(math.pi * e / 2)) for e in range(2) for _ in range(steps)]
    assert seen == pytest.approx(parent + cycle)
    assert steps_before == [*range(4 * steps), *range(2 * steps)]
    first, second = (optimizers[0], optimizers[-1])
    assert first is not second, "the optimiser's state is that of the cycle alone"


def test_the_ensemble_is_the_logarithm_of_the_mean_probability(context_for: MakeContext) -> None:
    method = StarSse(members=3)
    context = context_for(method)
    fitted = method.fit(context)
    main = fitted.predictor()
    images = context.example(12)
    with torch.no_grad():
        outputs = main.module(images)
        expected = torch.zeros(12, 3, dtype=torch.float64)
        for own in states(fitted, 3):
            net = context.backbone.fresh(3)
            net.load_state_dict(own)
            expected += net(images).double().softmax(1) / 3
    assert (main.output, main.forward_passes) == ("log_probs", 3)
    assert torch.allclose(outputs.exp().sum(1), torch.ones(12), atol=1e-6)
    assert torch.allclose(outputs.double().exp(), expected, atol=1e-6)
    assert [fitted.predictor(name).forward_passes for name in ("soup", "parent")] == [1, 1]


def test_the_ensemble_is_never_less_likely_than_its_members_on_average(context_for: MakeContext) -> None:
    method = StarSse(members=3, cycle_lr_ratio=4)
    context = context_for(method)
    fitted = method.fit(context)
    labels = context.data("id_val").labels
    whole = float(F.nll_loss(context.outputs(fitted.predictor(), "id_val"), labels))
    members = []
    for own in states(fitted, 3):
        net = context.backbone.fresh(3)
        net.load_state_dict(own)
        with torch.no_grad():
            images = next(iter(context.data("id_val").batches(100))).images
            members.append(float(F.cross_entropy(net.eval()(images), labels)))
    assert whole <= sum(members) / 3 + 1e-6


def test_the_soup_is_the_mean_of_weights_under_recomputed_statistics(context_for: MakeContext) -> None:
    method = StarSse(members=3)
    context = context_for(method)
    fitted = method.fit(context)
    soup = dict(fitted.predictor("soup").module.state_dict())
    members = states(fitted, 3)
    for name, tensor in soup.items():
        if "running" not in name and tensor.is_floating_point():
            mean = torch.stack([own[name].double() for own in members]).mean(0)
            assert torch.allclose(tensor.double(), mean, atol=1e-7), name
    plain = context.backbone.fresh(3)
    plain.load_state_dict(averaged(members))
    recompute_batchnorm(plain, context.data("id_train"))
    assert alike(soup, dict(plain.state_dict()))
    assert not alike(soup, averaged(members))


def test_every_variant_comes_back_from_the_state(context_for: MakeContext) -> None:
    method = StarSse(members=2)
    fitted = method.fit(context_for(method))
    again = method.build(context_for(method), state_of(fitted), {})
    images = context_for(method).example(8)
    assert set(again.variants) == {"main", "soup", "parent"}
    for name in again.variants:
        assert torch.equal(fitted.predictor(name).module(images), again.predictor(name).module(images))
    stored = [key for key in state_of(fitted) if key.startswith("soup/")]
    assert stored
    assert all("running" in key or "num_batches" in key for key in stored), "weights are stored once, with the members"


def test_the_images_seen_are_the_sum_and_the_forecast_says_so(context_for: MakeContext) -> None:
    method = StarSse(members=3, epochs=2, cycle_epochs=1)
    context = context_for(method)
    method.fit(context)
    cost = cost_of(method, context.recipe)
    assert (cost.trained, cost.forward) == (2 + 1 + 1, 1)
    assert context.budget.images_seen == (cost.trained + cost.forward) * SIZES["train"]
    assert context.budget.backward_passes == cost.trained * SIZES["train"]
    assert context.budget.parameters_trained == sum(p.numel() for p in context.backbone.fresh(3).parameters())
    assert (cost.predicts, cost.also_predicts, cost.networks) == (3, 2, 3)
    alone = cost_of(StarSse(members=1), context.recipe)
    assert (alone.trained, alone.forward, alone.predicts, alone.also_predicts) == (context.recipe.epochs, 0, 1, 0)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"members": 0}, "members of at least 1, got 0"),
        ({"cycle_epochs": 0}, "cycle_epochs of at least 1 or none, got 0"),
        ({"cycle_lr_ratio": -1.0}, "cycle_lr_ratio of at least 0, got -1.0"),
        ({"augment": "augmixx"}, "did you mean 'augmix'"),
    ],
)
def test_refuses_settings_out_of_range(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        StarSse(**settings)


def test_a_word_that_is_no_way_to_restart_is_told_on_the_command_line() -> None:
    assert resolve_model("star-sse(restart=previous)").name == "star-sse(restart=previous)"
    with pytest.raises(UsageError, match="'parent', 'previous'"):
        resolve_model("star-sse(restart=parents)")


def test_every_variant_gets_its_own_temperature(context_for: MakeContext) -> None:
    method = resolve_model("temperature(star-sse(members=2))").method
    fitted = method.fit(context_for(method))
    assert isinstance(fitted, Fitted)
    assert set(fitted.variants) == {"main", "soup", "parent"}
    assert fitted.predictor().forward_passes == 2


def test_all_weights_train_whatever_the_suites_recipe() -> None:
    recipe = Recipe(regime="head-only", epochs=3)
    assert StarSse(members=1).cost(recipe).trained == 3
    assert StarSse().null_config()[1].settings()["regime"] == "full"
