"""Soups: the mean of everything, and the mean of what helps on ID-val."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tlbench.errors import FitError, NotApplicableError, UsageError
from tlbench.methods.averaging import averaged, soup
from tlbench.methods.base import Context, Fitted, Method, Predictor
from tlbench.methods.cost import cost_of, whole_cost
from tlbench.methods.finetune import Finetune, HeadOnly
from tlbench.methods.fitted import state_of
from tlbench.methods.from_scratch import FromScratch
from tlbench.methods.knn import Knn
from tlbench.methods.linear_probe import LinearProbe
from tlbench.methods.lp_ft import LpFt
from tlbench.methods.model_soup import ModelSoup, greedy_soup
from tlbench.methods.resolve import model_of, resolve_model
from tlbench.methods.temperature import Temperature
from tlbench.models.zoo import load_backbone
from tlbench.testing import SIZES, assert_method

from .conftest import MakeContext

State = dict[str, Tensor]
THREE = (0.5, 1.0, 2.0)


def state_at(fitted: Fitted, name: str) -> State:
    return dict(fitted.predictor(name).module.state_dict())


def alike(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_keeps_every_promise_of_a_method() -> None:
    assert_method(ModelSoup(members=(HeadOnly(), LinearProbe(penalties=(0.1,)))))


def test_members_are_fine_tuned_around_the_suite_s_learning_rate_from_one_head(context_for: MakeContext) -> None:
    context = context_for(ModelSoup(), lr=5e-4)
    rates = [member.lr for member in ModelSoup().ingredients(context.recipe)]  # type: ignore[attr-defined]
    assert rates == [1.25e-4, 2.5e-4, None, 1e-3, 2e-3]
    assert ModelSoup().ingredients(context.recipe)[2] == Finetune(), "the very fit of the row 'finetune'"
    heads: list[Tensor] = []

    class Watched(Method):
        lr: float = 0.01

        def fit(self, context: Context) -> nn.Module:
            net = context.backbone.fresh(context.classes)
            heads.append(net.head.get_parameter("weight").detach().clone())
            return context.train(net, lr=self.lr, epochs=1)

    method = ModelSoup(members=(Watched(), Watched(lr=0.02)))
    method.fit(context_for(method, seed=3))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], context_for(method, seed=4).backbone.fresh(3).head.weight)


def test_the_uniform_soup_is_the_mean_of_all_members(context_for: MakeContext) -> None:
    method = ModelSoup(lr_factors=THREE)
    context = context_for(method)
    fitted = method.fit(context)
    members = [one.fit(context_for(one)) for one in method.ingredients(context.recipe)]
    states = [dict(net.state_dict()) for net in members if isinstance(net, nn.Module)]
    mean = averaged(states)
    cooked = state_at(fitted, "uniform")
    assert all(torch.equal(cooked[name], mean[name]) for name in mean if "running" not in name and "num_" not in name)
    assert alike(cooked, soup(context, states))
    assert any(not torch.equal(cooked[name], mean[name]) for name in mean if "running_mean" in name)


def test_the_greedy_soup_is_at_least_as_accurate_on_id_val_as_the_best_member(context_for: MakeContext) -> None:
    method = ModelSoup(lr_factors=(0.03, 0.1, 0.3, 1.0))
    context = context_for(method, epochs=1)
    fitted = method.fit(context)
    reached = float(
        (context.outputs(fitted.predictor(), "id_val").argmax(1) == context.data("id_val").labels).float().mean()
    )
    told = [dict(one) for one in fitted.candidates]
    assert fitted.headline == "greedy"
    assert [one["settings"]["lr"] for one in told] == pytest.approx([3e-4, 1e-3, 3e-3, None])
    assert reached >= max(one["accuracy"] for one in told) - 1e-6
    assert any(one["selected"] for one in told)


NUMBERS = st.lists(st.integers(0, 8), min_size=1, max_size=7)


def near_four(state: State) -> float:
    return -abs(float(state["w"]) - 4.0)


@given(NUMBERS)
def test_greedy_takes_what_strictly_helps_best_first(values: list[int]) -> None:
    """Written the slow way, on numbers whose mean should be four."""
    chosen = greedy_soup([{"w": torch.tensor(float(v))} for v in values], cook=averaged, accuracy=near_four)
    order = sorted(range(len(values)), key=lambda i: abs(values[i] - 4))
    kept = [order[0]]
    for place in order[1:]:
        with_it = [values[i] for i in (*kept, place)]
        without = [values[i] for i in kept]
        now, before = (abs(float(torch.tensor(sum(own) / len(own))) - 4) for own in (with_it, without))
        if now < before:
            kept.append(place)
    assert chosen.kept == tuple(kept)
    assert chosen.accuracy >= max(chosen.accuracies)
    assert chosen.accuracy == pytest.approx(near_four(chosen.state))


def test_a_member_that_does_not_help_is_left_out_and_one_that_hurts_is_too() -> None:
    states = [{"w": torch.tensor(value)} for value in (4.0, 4.0, 1.0)]
    assert greedy_soup(states, cook=averaged, accuracy=near_four).kept == (0,), "as good is not better"


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=8), st.integers(1, 9))
def test_the_mean_of_equal_networks_is_that_network_exactly(values: list[float], times: int) -> None:
    state = {"w": torch.tensor(values), "n": torch.tensor(5)}
    assert alike(averaged([state] * times), state)


def test_a_soup_of_equal_networks_keeps_their_statistics(context_for: MakeContext) -> None:
    context = context_for(ModelSoup())
    state = dict(context.train(context.backbone.fresh(3)).state_dict())
    seen = context.budget.images_seen
    assert alike(soup(context, [state] * 3), state)
    assert context.budget.images_seen == seen


def test_frozen_statistics_stay_as_the_members_have_them(context_for: MakeContext) -> None:
    context = context_for(ModelSoup())
    states = [
        {name: tensor.clone() for name, tensor in net.state_dict().items()}
        for net in (context.train(context.backbone.fresh(3), lr=lr, batchnorm="eval") for lr in (1e-3, 1e-2))
    ]
    assert alike(soup(context, states), averaged(states))
    assert not alike(states[0], states[1])


def test_one_member_is_that_member_bit_for_bit(context_for: MakeContext) -> None:
    reduced, simpler = ModelSoup().null_config()
    fitted, tuned = reduced.fit(context_for(reduced)), simpler.fit(context_for(simpler))
    assert isinstance(fitted, Fitted)
    assert isinstance(tuned, nn.Module)
    assert list(fitted.variants) == ["main"]
    assert alike(state_at(fitted, "main"), dict(tuned.state_dict()))


def test_comes_back_from_its_state_as_two_networks(context_for: MakeContext) -> None:
    method = ModelSoup(lr_factors=THREE)
    fitted = method.fit(context_for(method))
    again = method.build(context_for(method), state_of(fitted), fitted.recipe)
    assert set(again.variants) == {"greedy", "uniform"}
    assert again.headline == "greedy"
    assert all(alike(state_at(again, name), state_at(fitted, name)) for name in again.variants)
    assert {key.split("/")[0] for key in state_of(fitted)} == {"greedy", "uniform"}


def test_the_images_seen_are_the_sum_and_the_forecast_says_so(context_for: MakeContext) -> None:
    method = ModelSoup(lr_factors=THREE)
    context = context_for(method)
    method.fit(context)
    cost = cost_of(method, context.recipe)
    whole = whole_cost(method, context.recipe)
    assert (
        context.budget.backward_passes == whole.trained * SIZES["train"] == 3 * context.recipe.epochs * SIZES["train"]
    )
    # Statistics of two soups on the way, and of the uniform one.
    assert context.budget.images_seen == (whole.trained + whole.forward) * SIZES["train"]
    assert (cost.trained, cost.forward) == (0, 3)
    assert (cost.validated, cost.predicts, cost.also_predicts, cost.networks) == (5, 1, 1, 2)
    alone = ModelSoup(lr_factors=(1.0,))
    assert whole_cost(alone, context.recipe).trained == cost_of(Finetune(), context.recipe).trained
    assert cost_of(alone, context.recipe) == cost_of(Finetune(), context.recipe).already_made()


def test_members_are_named_on_the_command_line() -> None:
    model = resolve_model("model-soup(members=(finetune(lr=1e-4),finetune(augment=augmix),lp-ft))")
    assert model.method == ModelSoup(members=(Finetune(lr=1e-4), Finetune(augment="augmix"), LpFt()))
    assert resolve_model(model.name).method == model.method
    assert resolve_model("temperature(model-soup)").method == Temperature(ModelSoup())


def test_a_stranger_s_member_is_known_by_its_source() -> None:
    class Stranger(Method):
        def fit(self, context: Context) -> nn.Module:
            return context.backbone.fresh(context.classes)

    assert "class Stranger(Method)" in model_of(ModelSoup(members=(Finetune(), Stranger()))).source


def test_a_soup_of_what_draws_nothing_draws_nothing() -> None:
    probes = ModelSoup(members=(LinearProbe(penalties=(0.1,)), LinearProbe(penalties=(1.0,))))
    assert probes.deterministic
    assert not ModelSoup().deterministic
    assert not ModelSoup(members=(LinearProbe(), LpFt())).deterministic
    assert ModelSoup(members=(HeadOnly(),)).requires == {"id_val"}, "the greedy choice needs it"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"lr_factors": ()}, "members or lr_factors, one or more, got none"),
        ({"lr_factors": (1.0, 0.0)}, "lr_factors above 0, got 1.0, 0.0"),
        ({"members": (Finetune(),), "lr_factors": (1.0,)}, "got both"),
        ({"lr_factors": (0.5, 1.0, 0.5)}, "lr_factors: 0.5 is given twice"),
        ({"members": (Finetune(lr=0.1), Finetune(), Finetune(lr=0.1))}, r"members: finetune\(lr=0.1\) is given twice"),
        ({"members": (Finetune(), FromScratch())}, "from-scratch does not start from the pretrained weights"),
        ({"members": (Temperature(Finetune()),)}, "temperature maps outputs, and weights are averaged"),
    ],
)
def test_refuses_what_is_no_soup_before_anything_runs(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ModelSoup(**settings)
    with pytest.raises(UsageError, match="from-scratch does not start from the pretrained weights"):
        resolve_model("model-soup(members=(finetune,from-scratch))")


def refused(context_for: MakeContext, member: Method) -> str:
    """Return why a member is refused, and make sure that what comes after it is not trained first."""
    later: list[int] = []

    class Later(Method):
        def fit(self, context: Context) -> nn.Module:
            later.append(1)
            return context.backbone.fresh(context.classes)

    method = ModelSoup(members=(HeadOnly(), member, Later()))
    with pytest.raises(NotApplicableError) as problem:
        method.fit(context_for(method))
    assert not later
    assert "\n" not in str(problem.value)
    return str(problem.value)


def test_members_of_another_form_are_refused_as_soon_as_they_are_seen(context_for: MakeContext) -> None:
    class Wider(Method):
        def fit(self, context: Context) -> nn.Module:
            return context.backbone.fresh(context.classes + 1)

    class Elsewhere(Method):
        def fit(self, context: Context) -> nn.Module:
            return load_backbone("efficientnet-lite0").fresh(context.classes)

    class Wrapped(Method):
        def fit(self, context: Context) -> nn.Module:
            return nn.Sequential(context.backbone.fresh(context.classes))

    class Several(Method):
        def fit(self, context: Context) -> Fitted:
            net = context.backbone.fresh(context.classes)
            return Fitted({"main": Predictor(net), "other": Predictor(net)}, state=net.state_dict())

    class Scoring(Method):
        def fit(self, context: Context) -> Predictor:
            return Predictor(context.backbone.fresh(context.classes), output="scores")

    class Adapting(Method):
        def fit(self, context: Context) -> Predictor:
            return Predictor(context.backbone.fresh(context.classes), batch_dependent=True)

    form = "no network of the form of small-cnn with 3 outputs"
    assert f"wider returns {form} (it has another 'head.bias')" in refused(context_for, Wider())
    assert f"elsewhere returns {form}" in refused(context_for, Elsewhere())
    assert f"wrapped returns {form}" in refused(context_for, Wrapped())
    with pytest.raises(ValueError, match="knn is not a single network of the backbone's own form"):
        ModelSoup((Finetune(), Knn()))
    assert "several gives several predictors ('main', 'other')" in refused(context_for, Several())
    assert "scoring returns scores" in refused(context_for, Scoring())
    assert "adapting adapts to what it predicts" in refused(context_for, Adapting())


def test_averages_nothing() -> None:
    empty: Sequence[State] = []
    with pytest.raises(ValueError, match="at least one state"):
        averaged(empty)


def test_a_member_that_diverges_is_left_out_and_said(context_for: MakeContext) -> None:
    context = context_for(ModelSoup())
    fitted = ModelSoup(lr_factors=(1.0, 1e30)).fit(context)
    kept, failed = fitted.candidates
    assert (kept["selected"], failed["selected"]) == (True, False)
    assert "the loss became" in failed["problem"]
    alone = context_for(Finetune())
    images = alone.example(8)
    tuned = Finetune().fit(alone)
    assert torch.allclose(fitted.predictor("greedy").module(images), tuned(images), atol=1e-6)
    with pytest.raises(FitError, match="no member of the soup can be used: the loss became"):
        ModelSoup(lr_factors=(1e30, 2e30)).fit(context_for(ModelSoup()))
