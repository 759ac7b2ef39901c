from __future__ import annotations

import copy

import pytest
import torch

from tlbench.methods.finetune import Finetune, HeadOnly, given
from tlbench.methods.linear_probe import LinearProbe
from tlbench.models.head import fit_linear_head

from .conftest import MakeContext


def accuracy(net: torch.nn.Module, context_for: MakeContext) -> float:
    batch = next(iter(context_for(Finetune()).data("id_val").batches(100)))
    with torch.no_grad():
        return float((net(batch.images).argmax(1) == batch.labels).float().mean())


def test_learns_by_the_recipe(context_for: MakeContext) -> None:
    assert accuracy(Finetune(epochs=8).fit(context_for(Finetune())), context_for) > 0.7


def test_settings_win_over_the_recipe_and_none_leaves_it(context_for: MakeContext) -> None:
    assert given(Finetune(lr=0.5, augment="augmix")) == {"lr": 0.5, "augment": "augmix"}
    said = Finetune(lr=0.02, epochs=1).fit(context_for(Finetune()))
    recipe = Finetune().fit(context_for(Finetune(), lr=0.02, epochs=1))
    assert all(torch.equal(a, b) for a, b in zip(said.state_dict().values(), recipe.state_dict().values(), strict=True))


@pytest.mark.parametrize("augmentation", [{"crop": True}, {"augment": "color-jitter"}, {}])
def test_head_only_leaves_the_backbone_byte_identical(
    context_for: MakeContext, augmentation: dict[str, object]
) -> None:
    context = context_for(HeadOnly(), **augmentation)
    before = copy.deepcopy(dict(context.backbone.fresh(3).state_dict()))
    after = HeadOnly().fit(context).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}


def test_cached_features_train_the_head_that_the_loop_over_images_trains(context_for: MakeContext) -> None:
    context = context_for(HeadOnly(), epochs=5)
    loop = context.train(context.backbone.fresh(3), regime="head-only").state_dict()
    context = context_for(HeadOnly(), epochs=5)
    cached = HeadOnly().fit(context).state_dict()
    assert float((loop["head.weight"] - cached["head.weight"]).abs().max()) < 1e-5
    assert float((loop["head.bias"] - cached["head.bias"]).abs().max()) < 1e-5
    assert not torch.equal(loop["head.weight"], context.backbone.fresh(3).head.weight)


AUGMENTED = {"crop": True, "flip": True, "augment": "color-jitter"}


def apart(first: torch.nn.Module, second: torch.nn.Module) -> float:
    one, other = first.state_dict(), second.state_dict()
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)


@pytest.mark.parametrize("views", [4, 9])
def test_as_many_cached_views_as_epochs_train_the_head_that_the_loop_over_images_trains(
    context_for: MakeContext, views: int
) -> None:
    loop_context, context = (context_for(HeadOnly(), epochs=4, **AUGMENTED) for _ in range(2))
    loop = HeadOnly().fit(loop_context)
    cached = HeadOnly(cached_views=views).fit(context)
    assert apart(loop, cached) < 1e-5
    assert apart(loop, loop_context.backbone.fresh(3)) > 1e-3, "nothing was learnt"


def test_fewer_cached_views_come_again_in_turn(context_for: MakeContext) -> None:
    """Written out: the images of the first two epochs, shown in the order of every epoch."""
    context = context_for(HeadOnly(), epochs=5, **AUGMENTED)
    cached = HeadOnly(cached_views=2).fit(context)
    context = context_for(HeadOnly(), epochs=5, **AUGMENTED)
    data, net = context.data("id_train"), context.backbone.fresh(3).eval()
    first = context.rng("order")
    seen = []
    for _ in range(2):
        images = torch.zeros(len(data), 3, 32, 32)
        for batch in data.batches(context.recipe.batch_size, rng=first, **AUGMENTED):  # type: ignore[arg-type]
            images = (
                images
                if images.shape[1:] == batch.images.shape[1:]
                else images.new_zeros(len(data), *batch.images.shape[1:])
            )
            images[batch.ids] = batch.images
        seen.append(images)
    head = torch.optim.Adam if context.recipe.optimizer == "adam" else None
    shuffle, parameters = context.rng("order"), list(net.head.parameters())
    optimizer = (
        head(parameters, lr=context.recipe.lr, weight_decay=context.recipe.weight_decay)
        if head
        else torch.optim.SGD(parameters, lr=context.recipe.lr, momentum=0.9, weight_decay=context.recipe.weight_decay)
    )
    for epoch in range(5):
        for batch in data.batches(context.recipe.batch_size, rng=shuffle):
            with torch.no_grad():
                features = net.features(seen[epoch % 2][batch.ids])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(net.head(features), batch.labels).backward()
            optimizer.step()
    assert apart(net, cached) < 1e-5
    assert apart(cached, HeadOnly().fit(context_for(HeadOnly(), epochs=5, **AUGMENTED))) > 1e-4


def test_cached_views_are_counted_as_what_they_cost(context_for: MakeContext) -> None:
    context = context_for(HeadOnly(), epochs=5, **AUGMENTED)
    n = len(context.data("id_train"))
    HeadOnly(cached_views=2).fit(context)
    assert context.budget.images_seen == (2 + 5) * n  # two views through the backbone, five epochs of the head
    plain = context_for(HeadOnly(), epochs=5)
    HeadOnly(cached_views=2).fit(plain)
    assert plain.budget.images_seen == (1 + 5) * n, "without augmentation there is one view"


def test_cached_views_stand_in_no_settings_at_their_default_and_must_be_at_least_one() -> None:
    assert "cached_views" not in HeadOnly().settings()
    assert HeadOnly(cached_views=3).settings()["cached_views"] == 3
    with pytest.raises(ValueError, match="at least 1 or None, got 0"):
        HeadOnly(cached_views=0)


def test_probes_see_the_features_of_a_loop_over_images(context_for: MakeContext) -> None:
    context = context_for(LinearProbe())
    net = context.backbone.fresh().eval()
    for tag in ("id_train", "id_val"):
        data = context.data(tag)
        with torch.no_grad():
            looped = torch.cat([net.features(batch.images) for batch in data.batches(7)])
        features = context.features(tag)
        assert features.values.shape == looped.shape
        assert float((features.values - looped).abs().max()) < 1e-5
        assert features.labels is not None
        assert torch.equal(features.labels, data.labels)


def test_finetune_with_a_frozen_backbone_is_head_only(context_for: MakeContext) -> None:
    first = Finetune(regime="head-only").fit(context_for(Finetune())).state_dict()
    second = HeadOnly().fit(context_for(HeadOnly())).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_head_only_run_long_enough_is_the_unpenalised_probe(context_for: MakeContext) -> None:
    """With a penalty on the weights as the optimiser's decay has it: half the squared norm, bias included."""
    context = context_for(HeadOnly())
    method = HeadOnly(optimizer="sgd", lr=0.5, epochs=1500, batch_size=48, weight_decay=0.02)
    head = method.fit(context).get_submodule("head")
    features = context.features("id_train")
    assert features.labels is not None
    exact = fit_linear_head(features.values, features.labels, 3, l2=0.01, steps=500)
    with torch.no_grad():
        apart = head(features.values).softmax(1) - exact(features.values).softmax(1)
    # The decay also holds the bias, which the probe leaves free: hence the tolerance.
    assert float(apart.abs().max()) < 0.02


def test_the_data_order_and_the_head_are_the_same_for_every_method(context_for: MakeContext) -> None:
    for name in ("head", "order"):
        draws = [torch.rand(3, generator=context_for(m).rng(name)) for m in (Finetune(), HeadOnly(), LinearProbe())]
        assert torch.equal(draws[0], draws[1])
        assert torch.equal(draws[0], draws[2])
    heads = [context_for(m, seed=s).backbone.fresh(3).head.weight for m, s in ((Finetune(), 0), (HeadOnly(), 0))]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], context_for(Finetune(), seed=1).backbone.fresh(3).head.weight)
