from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import tlbench
from tlbench.errors import DataAccessError, NotApplicableError
from tlbench.methods.base import Context, Fitted, Method, Predictor
from tlbench.methods.finetune import Finetune
from tlbench.methods.fitted import state_of
from tlbench.methods.linear_probe import LinearProbe
from tlbench.methods.posthoc import PostHoc
from tlbench.methods.temperature import Temperature

from .conftest import MakeContext


def test_predicted_classes_stay_and_the_likelihood_never_falls(context_for: MakeContext) -> None:
    method = Temperature(Finetune())
    context = context_for(method)
    base, scaled = context.fitted(Finetune()).predictor(), method.fit(context).predictor()
    before, after = context.outputs(base, "id_val"), context.outputs(scaled, "id_val")
    labels = context.data("id_val").labels
    assert torch.equal(before.argmax(1), after.argmax(1))
    assert float(F.cross_entropy(after, labels)) < float(F.cross_entropy(before, labels))


def test_the_temperature_of_scaled_logits_is_found_again(context_for: MakeContext) -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(20000, 4, generator=g)
    labels = torch.multinomial(logits.softmax(1), 1, generator=g)[:, 0]
    context = context_for(Temperature())
    for factor in (0.2, 1.0, 7.0):
        scaled = Temperature().calibrate(factor * logits, labels, context)
        found = float(scaled.get_buffer("temperature"))
        assert found == pytest.approx(factor, rel=0.03)
    one = float(Temperature().calibrate(logits, labels, context).get_buffer("temperature"))
    assert found / one == pytest.approx(7.0, rel=1e-4)


def test_every_variant_of_a_base_gets_its_own_temperature(context_for: MakeContext) -> None:
    class Two(Method):
        def fit(self, context: Context) -> Fitted:
            net = context.train(context.backbone.fresh(context.classes), lr=1e-3, epochs=1)
            sharp = nn.Sequential(net, Times(5.0))
            return Fitted({"main": Predictor(net), "sharp": Predictor(sharp)}, state=net.state_dict())

    method = Temperature(Two())
    context = context_for(method)
    fitted = method.fit(context)
    assert set(fitted.variants) == {"main", "sharp"}
    temperature = {name: float(fitted.state[f"map/{name}/temperature"]) for name in fitted.variants}  # type: ignore[index]
    assert temperature["sharp"] == pytest.approx(5 * temperature["main"], rel=1e-3)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, outputs: Tensor) -> Tensor:
        return self.factor * outputs


def test_wraps_a_wrapped_method_and_comes_back_from_its_state(context_for: MakeContext) -> None:
    method = Temperature(Temperature(LinearProbe()))
    context = context_for(method)
    fitted = method.fit(context)
    again = method.build(context_for(method), state_of(fitted), fitted.recipe)
    images = context.example(6)
    assert torch.equal(fitted.predictor().module(images), again.predictor().module(images))
    # Tensors of the network keep their names, so that the store may leave out those that equal theta0.
    assert set(context.backbone.fresh(3).state_dict()) < set(state_of(fitted))


def test_inherits_what_its_base_is() -> None:
    class Reading(Method):
        reads = frozenset({"id_train", "target_unlabeled_train"})
        requires = frozenset({"transformer"})
        control = True

    assert Temperature(Reading()).reads == {"id_train", "id_val", "target_unlabeled_train"}
    assert Temperature(Reading()).requires == {"transformer", "id_val"}
    assert Temperature(Reading()).control
    assert not Temperature(Reading()).deterministic
    assert Temperature(LinearProbe()).deterministic
    assert not Temperature(Finetune()).deterministic


def test_settings_name_the_base() -> None:
    assert Temperature(Finetune(lr=0.1)).settings()["base"]["method"] == "finetune"
    assert Temperature(Finetune(lr=0.1)).settings()["base"]["settings"]["lr"] == 0.1


def test_scores_have_no_temperature(context_for: MakeContext) -> None:
    class Scoring(Method):
        def fit(self, context: Context) -> Predictor:
            return Predictor(context.backbone.fresh(context.classes), output="scores")

    with pytest.raises(NotApplicableError, match="returns scores"):
        Temperature(Scoring()).fit(context_for(Temperature(Scoring())))


def test_a_base_cannot_smuggle_a_tag(context_for: MakeContext) -> None:
    class Reading(Method):
        reads = frozenset({"id_train", "target_unlabeled_train"})

    class Wrapping(Method):
        def fit(self, context: Context) -> Fitted:
            return context.fitted(Reading())

    with pytest.raises(DataAccessError, match="wraps Reading, which reads 'target_unlabeled_train'"):
        Wrapping().fit(context_for(Wrapping()))


def test_the_public_name_is_this_class() -> None:
    assert tlbench.PostHoc is PostHoc
