"""An ensemble's members are fits of other seeds; its probability is the mean of theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tlbench.errors import NotApplicableError, UsageError
from tlbench.methods.averaging import Ensemble, ensembled
from tlbench.methods.base import Context, Fitted, Method, Predictor
from tlbench.methods.cost import cost_of, whole_cost
from tlbench.methods.deep_ensemble import DeepEnsemble
from tlbench.methods.finetune import Finetune, HeadOnly
from tlbench.methods.fitted import state_of
from tlbench.methods.linear_probe import LinearProbe
from tlbench.methods.posthoc import PostHoc
from tlbench.methods.resolve import resolve_model
from tlbench.methods.star_sse import StarSse
from tlbench.testing import SIZES, assert_method

from .conftest import MakeContext


class Says(nn.Module):
    """The same logits for every image, which may be moved in proportion to its mean."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.logits * (1 + images.mean(dim=(1, 2, 3)).view(-1, 1))


def says(seed: int, output: Any = "logits", **facts: Any) -> Predictor:
    return Predictor(Says(3 * torch.randn(4, generator=torch.Generator().manual_seed(seed))), output=output, **facts)


IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def test_keeps_every_promise_of_a_method() -> None:
    assert_method(resolve_model("deep-ensemble(temperature(head-only),members=2)").method)


def test_members_are_the_method_s_own_fits_of_neighbouring_seeds(context_for: MakeContext) -> None:
    method = DeepEnsemble(Finetune(epochs=1), members=3)
    fitted = method.fit(context_for(method, seed=2))
    images = context_for(method).example(8)
    nets = [Finetune(epochs=1).fit(context_for(Finetune(), seed=seed)) for seed in (6, 7, 8)]
    with torch.no_grad():
        expected = torch.stack([net(images).double().softmax(1) for net in nets]).mean(0)
        outputs = fitted.predictor().module(images)
    assert torch.allclose(outputs.double().exp(), expected, atol=1e-6)
    assert torch.allclose(outputs.exp().sum(1), torch.ones(8), atol=1e-6)
    assert (fitted.predictor().output, fitted.predictor().forward_passes) == ("log_probs", 3)


def test_seeds_of_different_ensembles_do_not_overlap(context_for: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    method = DeepEnsemble(HeadOnly(), members=3)
    for seed in (0, 1, 2):
        context = context_for(method, seed=seed)
        made = context.fitted

        def watched(base: Method, *, repeat: int, made: Any = made) -> Fitted:
            asked.append(repeat)
            found: Fitted = made(base, repeat=repeat)
            return found

        monkeypatch.setattr(context, "fitted", watched)
        method.fit(context)
    assert asked == list(range(9))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(["logits", "log_probs"])), min_size=2, max_size=6))
def test_is_never_less_likely_than_its_members_on_average(members: list[tuple[int, Any]]) -> None:
    """Jensen's inequality, whatever the members are."""
    predictors = [_normalised(says(seed)) if output == "log_probs" else says(seed) for seed, output in members]
    with torch.no_grad():
        whole = F.nll_loss(ensembled(predictors).module(IMAGES).double(), LABELS)
        each = [F.cross_entropy(one.module(IMAGES).double(), LABELS) for one in predictors]
    assert float(whole) <= float(torch.stack(each).mean()) + 1e-5


def _normalised(predictor: Predictor) -> Predictor:
    return Predictor(nn.Sequential(predictor.module, nn.LogSoftmax(dim=1)).eval(), output="log_probs")


def test_the_order_of_its_members_does_not_matter() -> None:
    predictors = [says(seed) for seed in range(4)]
    first, second = (ensembled(own).module(IMAGES) for own in (predictors, predictors[::-1]))
    assert torch.allclose(first, second, atol=1e-6)


def test_logits_of_any_size_stay_numbers() -> None:
    far = Predictor(Says(torch.tensor([0.0, 500.0, -500.0, 0.0])))
    outputs = ensembled([far, Predictor(Says(torch.tensor([900.0, 0.0, 0.0, -900.0])))]).module(IMAGES)
    assert bool(torch.isfinite(outputs).all())
    assert torch.allclose(outputs.exp().sum(1), torch.ones(6), atol=1e-6)
    outputs.sum().backward()
    assert bool(torch.isfinite(far.module.logits.grad).all())  # type: ignore[arg-type]


def test_equal_members_predict_what_each_does() -> None:
    twice = ensembled([says(1), says(1)]).module(IMAGES)
    assert torch.allclose(twice, F.log_softmax(says(1).module(IMAGES), dim=1), atol=1e-6)


def test_is_what_its_members_are() -> None:
    calls: list[str] = []
    first = says(0, adapts=True, reset=lambda: calls.append("first"), forward_passes=2.0)
    second = says(1, differentiable=False, batch_dependent=True, reset=lambda: calls.append("second"))
    both = ensembled([first, second])
    assert (both.adapts, both.batch_dependent, both.differentiable, both.forward_passes) == (True, True, False, 3)
    assert both.reset is not None
    both.reset()
    assert calls == ["first", "second"]
    plain = ensembled([says(0), says(1)])
    assert (plain.adapts, plain.differentiable, plain.reset) == (False, True, None)
    module = says(2).module.train()
    assert Ensemble([module, says(3).module], ["logits", "logits"]).training
    assert not Ensemble([says(3).module], ["logits"]).training


def test_one_member_is_the_method_itself(context_for: MakeContext) -> None:
    reduced, simpler = DeepEnsemble(StarSse(members=2)).null_config()
    fitted, alone = (method.fit(context_for(method)) for method in (reduced, simpler))
    assert isinstance(fitted, Fitted)
    assert isinstance(alone, Fitted)
    images = context_for(reduced).example(8)
    assert set(fitted.variants) == set(alone.variants) == {"main", "soup", "parent"}
    for name in fitted.variants:
        assert torch.equal(fitted.predictor(name).module(images), alone.predictor(name).module(images))
    with pytest.raises(ValueError, match="at least one predictor"):
        ensembled([])


def test_of_a_method_with_several_predictors_the_ranked_one_is_taken(context_for: MakeContext) -> None:
    method = DeepEnsemble(StarSse(members=2, epochs=1), members=2)
    fitted = method.fit(context_for(method))
    assert list(fitted.variants) == ["main"]
    assert fitted.predictor().forward_passes == 4


def test_comes_back_from_its_state(context_for: MakeContext) -> None:
    method = resolve_model("temperature(deep-ensemble(lp-ft(epochs=1),members=2))").method
    fitted = method.fit(context_for(method))
    assert isinstance(fitted, Fitted)
    again = method.build(context_for(method), state_of(fitted), fitted.recipe)
    images = context_for(method).example(8)
    assert torch.equal(fitted.predictor().module(images), again.predictor().module(images))


def test_the_images_seen_are_the_sum_and_the_forecast_says_so(context_for: MakeContext) -> None:
    method = DeepEnsemble(Finetune(), members=3)
    context = context_for(method)
    method.fit(context)
    cost, whole = cost_of(method, context.recipe), whole_cost(method, context.recipe)
    assert context.budget.images_seen == whole.trained * SIZES["train"] == 3 * context.recipe.epochs * SIZES["train"]
    assert cost.trained == cost.forward == 0
    assert list(method.asks_for(context.recipe, 2)) == [(method.base, seed) for seed in (6, 7, 8)]
    assert (cost.predicts, cost.also_predicts, cost.networks) == (3, 0, 3)
    stars = cost_of(DeepEnsemble(StarSse(members=2), members=3), context.recipe)
    assert (stars.predicts, stars.also_predicts, stars.networks) == (6, 0, 6)


def test_inherits_what_its_base_is() -> None:
    class Reading(Method):
        reads = frozenset({"id_train", "target_unlabeled_train"})
        requires = frozenset({"transformer"})
        control = True
        pretrained = False

    method = DeepEnsemble(Reading())
    assert method.reads >= Reading.reads
    assert method.requires == {"transformer"}
    assert (method.control, method.pretrained) == (True, False)
    assert not method.deterministic


def test_members_that_would_all_be_equal_are_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="linear-probe does not depend on the seed: its 5 members"):
        DeepEnsemble(LinearProbe())
    with pytest.raises(UsageError, match="knn does not depend on the seed"):
        resolve_model("deep-ensemble(knn)")
    with pytest.raises(UsageError, match="temperature does not depend on the seed"):
        resolve_model("deep-ensemble(temperature(ncm))")
    with pytest.raises(ValueError, match="members of at least 1, got 0"):
        DeepEnsemble(members=0)


def test_scores_are_no_probabilities_and_are_refused_after_the_first_fit(context_for: MakeContext) -> None:
    fits: list[int] = []

    class Scoring(Method):
        def fit(self, context: Context) -> Predictor:
            fits.append(context.seed)
            return Predictor(context.backbone.fresh(context.classes), output="scores")

    with pytest.raises(NotApplicableError, match="scoring returns scores"):
        DeepEnsemble(Scoring()).fit(context_for(DeepEnsemble(Scoring())))
    assert fits == [0]

    class Deciding(PostHoc):
        gives = "scores"
        base: Method = Finetune()

    with pytest.raises(ValueError, match="deciding returns scores; wrap the ensemble instead"):
        DeepEnsemble(Deciding())
    with pytest.raises(NotApplicableError, match="return scores"):
        ensembled([says(0), says(1, output="scores")])
