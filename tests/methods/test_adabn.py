"""BatchNorm that takes its statistics from test images."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tlbench.engine.fitting import unmet_need
from tlbench.errors import NotApplicableError
from tlbench.methods.adabn import SOURCE_ALONE, Adabn, Adapting
from tlbench.methods.base import Context, Fitted, Method, Predictor
from tlbench.methods.controls import Majority
from tlbench.methods.cost import whole_cost
from tlbench.methods.deep_ensemble import DeepEnsemble
from tlbench.methods.finetune import Finetune
from tlbench.methods.fitted import state_of
from tlbench.methods.linear_probe import LinearProbe
from tlbench.methods.temperature import Temperature
from tlbench.models.backbone import Backbone
from tlbench.suites.spec import Recipe
from tlbench.testing import assert_method, synthetic_split

from .conftest import MakeContext


class Pretrained(Method):
    """The network as it comes: tests need no training."""

    def fit(self, context: Context) -> nn.Module:
        return context.backbone.fresh(context.classes)


def images_of(domain: str, part: str = "test", n: int | None = None) -> Tensor:
    split = synthetic_split(part, domain=domain, n=n)
    return torch.from_numpy(split.images).permute(0, 3, 1, 2).float() / 255


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]


def predicted(predictor: Predictor, *batches: Tensor) -> Tensor:
    if predictor.reset is not None:
        predictor.reset()
    with torch.no_grad():
        return torch.cat([predictor.module(batch) for batch in batches])


@pytest.fixture
def fitted(context_for: MakeContext) -> Fitted:
    method = Adabn(Pretrained())
    return method.fit(context_for(method))


@pytest.fixture
def net(backbone: Backbone) -> nn.Module:
    return backbone.fresh(3)


def test_it_keeps_the_promises_of_a_plugin() -> None:
    assert_method(Adabn(LinearProbe()))


def test_its_null_setting_is_the_base_bit_for_bit(context_for: MakeContext) -> None:
    reduced, simpler = Adabn(Finetune(epochs=1)).null_config()
    assert simpler == Finetune(epochs=1)
    context = context_for(reduced)
    first, second = reduced.fit(context).predictor(), context.fitted(simpler).predictor()
    assert torch.equal(predicted(first, images_of("dark")), predicted(second, images_of("dark")))


def test_the_ranked_form_is_running_and_all_forms_are_there(fitted: Fitted) -> None:
    assert (fitted.headline, list(fitted.variants)) == ("main", ["main", "batch", "target"])
    running, batch, target = (fitted.predictor(name) for name in ("main", "batch", "target"))
    assert (running.adapts, running.order_dependent, running.batch_dependent) == (True, True, True)
    assert (batch.adapts, batch.order_dependent, batch.batch_dependent) == (False, False, True)
    assert not target.sees_test_images
    assert target.differentiable
    assert not running.differentiable
    assert {p.forward_passes for p in (running, batch, target)} == {1.0}


def test_an_enormous_prior_is_the_source_model_bit_for_bit(net: nn.Module) -> None:
    images = images_of("dark")
    with torch.no_grad():
        before = net(images)
        for cumulative in (True, False):
            adapting = Adapting(copy.deepcopy(net), prior=SOURCE_ALONE, cumulative=cumulative)
            assert torch.equal(adapting(images), before)


def test_without_a_prior_a_batch_is_standardised_as_in_training(net: nn.Module) -> None:
    images = images_of("dark")
    trained = copy.deepcopy(net).train()
    with torch.no_grad():
        apart = (Adapting(net, prior=0.0, cumulative=False)(images) - trained(images)).abs().max()
    assert float(apart) < 1e-5


@pytest.mark.parametrize("prior", [0.0, 16.0, 100.0])
def test_the_first_layer_has_the_published_mixture_of_all_images_so_far(backbone: Backbone, prior: float) -> None:
    images = images_of("dark", "train")
    batches = images[:20], images[20:27], images[27:]
    source = backbone.fresh(3)
    seen: list[Tensor] = []
    norms(source)[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        source(images)
    inputs = seen[0].double().transpose(0, 1).flatten(1)
    n, layer = len(images), norms(source)[0]
    adapting = Adapting(backbone.fresh(3), prior=prior, cumulative=True)
    with torch.no_grad():
        for batch in batches:
            adapting(batch)
    found = norms(adapting)[0]
    mean = prior / (prior + n) * layer.running_mean + n / (prior + n) * inputs.mean(1)
    variance = prior / (prior + n) * layer.running_var + n / (prior + n) * inputs.var(1, unbiased=False)
    assert torch.allclose(found.running_mean.double(), mean, atol=1e-6)
    assert torch.allclose(found.running_var.double(), variance, rtol=1e-5)


def test_images_of_training_change_nearly_nothing_and_the_shifted_ones_a_lot(context_for: MakeContext) -> None:
    method = Adabn(Finetune(epochs=6))
    context = context_for(method)
    fitted = method.fit(context)
    fixed = context.fitted(method.base).predictor()
    moved = {}
    for domain in ("plain", "dark"):
        images = images_of(domain, "train")
        before, after = predicted(fixed, images), predicted(fitted.predictor(), images)
        moved[domain] = float((before.softmax(1) - after.softmax(1)).abs().mean())
    assert moved["plain"] < 0.01
    assert moved["dark"] > 3 * moved["plain"]


def test_reset_forgets_bit_for_bit(fitted: Fitted, net: nn.Module) -> None:
    running = fitted.predictor()
    assert running.reset is not None
    images = images_of("dark")
    first = predicted(running, images[:10], images[10:])
    predicted(running, 1 - images)
    assert torch.equal(predicted(running, images[:10], images[10:]), first)
    running.reset()
    before = {f"net.{name}": tensor for name, tensor in net.state_dict().items() if name.startswith("body")}
    now = running.module.state_dict()
    assert before
    assert all(torch.equal(now[name], before[name]) for name in before)


def test_running_remembers_and_batch_does_not(fitted: Fitted) -> None:
    images = images_of("dark")
    first, second = images[:12], images[12:]
    running, batch = fitted.predictor(), fitted.predictor("batch")
    assert torch.equal(predicted(batch, first, second)[12:], predicted(batch, second))
    assert not torch.allclose(predicted(running, first, second)[12:], predicted(running, second), atol=1e-4)
    # At its first batch all there is to remember is the batch.
    assert torch.equal(predicted(running, first), predicted(batch, first))


def test_batches_sorted_by_class_are_predicted_otherwise(fitted: Fitted) -> None:
    """Why the engine's order mixes classes."""
    split = synthetic_split("train", domain="dark")
    images = images_of("dark", "train")
    by_class = torch.from_numpy(split.labels).argsort(stable=True)
    mixed = predicted(fitted.predictor("batch"), *images.split(16))
    sorted_ = predicted(fitted.predictor("batch"), *images[by_class].split(16))
    assert float((mixed[by_class] - sorted_).abs().mean()) > 0.05 * float(mixed.std())


def test_the_frozen_form_has_the_targets_statistics_and_keeps_them(context_for: MakeContext) -> None:
    method = Adabn(Pretrained(), forms=("target",), prior=0.0)
    context = context_for(method)
    frozen = method.fit(context).predictor()
    assert "target_unlabeled_test" in context.reads
    target = images_of("dark")
    with torch.no_grad():
        # All images fit into one batch: that of the pass is the whole target.
        whole = Adapting(context.backbone.fresh(3), prior=0.0, cumulative=False)
        assert torch.allclose(frozen.module(target), whole(target), atol=1e-5)
        alone = torch.cat([frozen.module(image[None]) for image in target])
        assert torch.allclose(alone, frozen.module(target), atol=1e-5)


def test_a_target_in_several_batches_is_pooled_by_images(
    context_for: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Adabn(Pretrained(), forms=("target",), prior=0.0)
    whole = method.fit(context_for(method)).predictor().module
    monkeypatch.setattr("tlbench.methods.adabn._AT_ONCE", 23)  # of 24: the last batch is a single image
    pieces = method.fit(context_for(method)).predictor().module
    first, other = norms(whole)[0], norms(pieces)[0]
    assert torch.allclose(first.running_mean, other.running_mean, atol=1e-6)
    assert torch.allclose(first.running_var, other.running_var, rtol=1e-4)


def test_it_comes_back_from_its_state_with_every_form(context_for: MakeContext) -> None:
    method = Adabn(Finetune(epochs=1))
    context = context_for(method)
    fitted = method.fit(context)
    state = {name: tensor.clone() for name, tensor in state_of(fitted).items()}
    for name in fitted.variants:
        predicted(fitted.predictor(name), images_of("dark"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in state_of(fitted).items())
    again = method.build(context_for(method), state, fitted.recipe)
    for name in fitted.variants:
        first, other = (predicted(one.predictor(name), images_of("dark")) for one in (fitted, again))
        assert torch.equal(first, other)


def test_only_the_targets_statistics_are_kept_besides_the_base(context_for: MakeContext) -> None:
    method = Adabn(Pretrained())
    context = context_for(method)
    state = state_of(method.fit(context))
    theta = context.backbone.fresh(3).state_dict()
    added = set(state) - set(theta)
    assert {name.rsplit(".", 1)[1] for name in added} == {"running_mean", "running_var"}
    assert len(added) == 2 * len(norms(context.backbone.fresh(3)))
    assert len(state_of(Adabn(Pretrained(), forms=("running",)).fit(context))) == len(theta)


def test_the_pass_over_the_target_is_counted_and_nothing_is_trained(context_for: MakeContext) -> None:
    base = Finetune(epochs=1)
    alone, with_it = context_for(base), context_for(Adabn(base))
    base.fit(alone)
    Adabn(base).fit(with_it)
    assert with_it.budget.images_seen == alone.budget.images_seen + len(synthetic_split("test"))
    assert with_it.budget.parameters_trained == alone.budget.parameters_trained
    cost, own = Adabn(base).cost(Recipe()), base.cost(Recipe())
    assert (cost.trained, cost.validated, cost.predicts, cost.also_predicts) == (0.0, 1.0, 1.0, 2.0)
    assert whole_cost(Adabn(base), Recipe()).trained == own.trained


def test_two_fits_share_nothing(fitted: Fitted) -> None:
    one, other = fitted.predictor(), fitted.predictor()
    predicted(one, images_of("dark"))
    assert torch.equal(predicted(other, images_of("plain")), predicted(fitted.predictor(), images_of("plain")))


def test_a_wrapped_map_sees_what_the_network_then_says(context_for: MakeContext) -> None:
    method = Temperature(Adabn(Finetune(epochs=1)))
    context = context_for(method)
    fitted = method.fit(context)
    assert method.reads == {"id_train", "id_val", "target_unlabeled_test"}
    scaled, plain = fitted.predictor(), context.fitted(method.base).predictor()
    assert scaled.adapts
    images = images_of("dark")
    assert torch.equal(predicted(scaled, images).argmax(1), predicted(plain, images).argmax(1))
    inside = Adabn(Temperature(Finetune(epochs=1)))
    predictor = inside.fit(context_for(inside)).predictor()
    assert torch.equal(predicted(predictor, images).argmax(1), predicted(plain, images).argmax(1))


def test_gradients_and_modes_of_the_outside_change_nothing(fitted: Fitted) -> None:
    running = fitted.predictor()
    images = images_of("dark")
    before = predicted(running, images)
    running.module.train()
    assert torch.equal(predicted(running, images), before)
    assert running.reset is not None
    running.reset()
    assert torch.equal(running.module(images.requires_grad_()).detach(), before)
    copied = copy.deepcopy(running.module)
    running.reset()
    copied.reset()
    with torch.no_grad():
        assert torch.equal(copied(images), before)
    assert torch.equal(predicted(running, images), before)


def test_a_single_image_is_no_error(fitted: Fitted) -> None:
    for name in fitted.variants:
        assert bool(predicted(fitted.predictor(name), images_of("dark")[:1]).isfinite().all())
    bare = Adapting(copy.deepcopy(fitted.predictor("target").module), prior=0.0, cumulative=False)
    with torch.no_grad():
        assert bool(bare(images_of("dark")[:1]).isfinite().all())


def test_a_base_without_batchnorm_does_not_have_it(context_for: MakeContext) -> None:
    with pytest.raises(NotApplicableError, match="the predictor of majority has no BatchNorm"):
        Adabn(Majority()).fit(context_for(Adabn(Majority())))
    twice = Adabn(Adabn(Pretrained()))
    with pytest.raises(NotApplicableError, match="looks at its test images already"):
        twice.fit(context_for(twice))
    frozen = Adabn(Adabn(Pretrained(), forms=("target",)))
    again = frozen.fit(context_for(frozen))
    rebuilt = frozen.build(context_for(frozen), state_of(again), again.recipe)
    images = images_of("dark")
    for name in again.variants:
        assert torch.equal(predicted(again.predictor(name), images), predicted(rebuilt.predictor(name), images))


def test_a_backbone_without_batchnorm_is_told_before_any_compute(backbone: Backbone) -> None:
    plain = Backbone("no-norm", 8, nn.Sequential(nn.Flatten(), nn.Linear(768, 8)))
    for found, said in ((backbone, ""), (plain, "needs a backbone with batchnorm, no-norm has none")):
        assert unmet_need(Adabn(), found, sources=1, validation=9, info={}) == said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prior": -1.0}, "expected prior >= 0, .*, got -1"),
        ({"prior": math.nan}, "got nan"),
        ({"prior": math.inf}, "got inf"),
        ({"forms": ()}, "expected forms from 'running', 'batch', 'target', each once, .*; got none"),
        ({"forms": ("batch", "batch")}, "each once"),
        ({"forms": ("whole",)}, "got 'whole'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Adabn(**settings)  # type: ignore[arg-type]


def test_it_is_what_its_base_is() -> None:
    assert Adabn(LinearProbe()).deterministic
    assert not Adabn().deterministic
    assert Adabn(LinearProbe()).requires == {"id_val", "batchnorm"}
    assert replace(Adabn(), prior=3.0).settings()["base"]["method"] == "finetune"


def test_it_costs_a_pass_over_the_target_besides_its_base() -> None:
    method, recipe = Adabn(), Recipe()
    assert list(method.asks_for(recipe, 3)) == [(Finetune(), 3)]
    assert Adabn(DeepEnsemble(members=3)).cost(recipe).validated == 3
    assert Adabn(forms=("running",)).cost(recipe).validated == 0
    assert not method.cost(recipe).attacked
    assert Adabn(forms=("target",)).cost(recipe).attacked
