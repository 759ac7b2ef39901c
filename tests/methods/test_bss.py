from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from tlbench.errors import FitError, NotApplicableError
from tlbench.methods.base import Hooks, Step
from tlbench.methods.bss import Bss, smallest_spectrum
from tlbench.methods.cost import recipe_cost
from tlbench.methods.finetune import Finetune
from tlbench.testing import RECIPE, SIZES, assert_method

from .conftest import MakeContext


def matrix(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=Generator().manual_seed(seed))


def gradient(features: Tensor, k: int) -> Tensor:
    leaf = features.clone().requires_grad_(True)
    smallest_spectrum(leaf, k).backward()
    assert leaf.grad is not None
    return leaf.grad


def equal(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_keeps_the_promises_of_a_method() -> None:
    assert_method(Bss())


@pytest.mark.parametrize("shape", [(12, 30), (30, 12), (16, 16)])
@pytest.mark.parametrize("k", [1, 3])
def test_is_the_sum_of_the_smallest_squared_singular_values(shape: tuple[int, int], k: int) -> None:
    features = matrix(*shape)
    expected = torch.linalg.svdvals(features.double())[-k:].square().sum()
    assert float(smallest_spectrum(features, k)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)])
@pytest.mark.parametrize("k", [1, 3])
def test_the_gradient_is_that_of_the_singular_vectors(shape: tuple[int, int], k: int) -> None:
    features = matrix(*shape)
    left, values, right = torch.linalg.svd(features.double(), full_matrices=False)
    expected = 2 * (left[:, -k:] * values[-k:]) @ right[-k:]
    assert float((gradient(features, k) - expected).abs().max()) < 1e-6


@pytest.mark.parametrize("k", [5, 6, 100])
def test_all_of_the_spectrum_is_the_squared_frobenius_norm(k: int) -> None:
    features = matrix(5, 9)
    assert float(smallest_spectrum(features, k)) == pytest.approx(float(features.square().sum()), rel=1e-6)
    assert float((gradient(features, k) - 2 * features).abs().max()) < 1e-5


def test_repeated_rows_are_no_spectrum_and_give_a_finite_gradient_of_none() -> None:
    features = matrix(4, 9)[[0, 0, 1, 2, 3]]
    assert 0 <= float(smallest_spectrum(features)) < 1e-10
    assert float(gradient(features, 1).abs().max()) < 1e-5
    assert float(gradient(torch.zeros(3, 4), 2).abs().max()) == 0


def test_features_of_half_precision_lose_nothing_more_under_autocast() -> None:
    features = matrix(12, 30).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = smallest_spectrum(features, 2)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, smallest_spectrum(features.float(), 2))


def test_the_order_of_images_does_not_matter_and_centring_does() -> None:
    features = matrix(8, 20) + 1
    assert float(smallest_spectrum(features[torch.arange(7, -1, -1)])) == pytest.approx(
        float(smallest_spectrum(features)), rel=1e-6
    )
    assert float(smallest_spectrum(features - features.mean(dim=0))) < 1e-6 < float(smallest_spectrum(features))


def test_nothing_on_is_fine_tuning_bit_for_bit(context_for: MakeContext) -> None:
    # 48 images in batches of 20: the last one is smaller.
    null = Bss(batch_size=20, weight_decay=0.01).null_config()
    assert null is not None
    reduced, simpler = null
    assert isinstance(reduced, Bss)
    assert isinstance(simpler, Finetune)
    first, second = reduced.fit(context_for(reduced)), simpler.fit(context_for(simpler))
    assert isinstance(second, nn.Module)
    assert equal(first, second)
    assert not equal(Bss(batch_size=20, weight_decay=0.01).fit(context_for(Bss())), first)


@pytest.mark.parametrize("batch_size", [20, 47])
def test_a_last_smaller_batch_is_trained_on_without_the_penalty(context_for: MakeContext, batch_size: int) -> None:
    """Written out: the same steps, with the penalty on full batches alone."""

    class Written(Hooks):
        def loss(self, step: Step) -> Tensor | None:
            assert step.features is not None
            if len(step.features) < batch_size:
                return None
            smallest: Tensor = torch.linalg.svdvals(step.features.double())[-1]
            return 30 * smallest.square().float()

    # By SGD, since Adam's first step is of one length however small the gradient: a few last bits would grow.
    recipe: dict[str, Any] = {"batch_size": batch_size, "epochs": 1, "optimizer": "sgd", "lr": 1e-3}
    method = Bss(eta=30, **recipe)
    context = context_for(method)
    by_hand = context.train(context.backbone.fresh(3), Written(), **recipe)
    context = context_for(method)
    fitted = method.fit(context)
    difference = [
        float((a.double() - b.double()).abs().max())
        for a, b in zip(fitted.state_dict().values(), by_hand.state_dict().values(), strict=True)
    ]
    assert max(difference) < 1e-4  # with the penalty on the last batch as well: above 0.03
    assert context.budget.images_seen == SIZES["train"]


def test_with_fewer_images_than_a_batch_the_penalty_is_on_all_of_them(context_for: MakeContext) -> None:
    method = Bss(eta=0.3, batch_size=64, epochs=1)
    assert not equal(method.fit(context_for(method)), Bss(eta=0.0, batch_size=64, epochs=1).fit(context_for(method)))


def test_a_step_shrinks_the_smallest_and_leaves_the_others() -> None:
    features, rate = matrix(8, 20).double(), 0.1
    values = torch.linalg.svdvals(features)
    after = torch.linalg.svdvals(features - rate * gradient(features, 2))
    expected = values * torch.tensor([1.0] * 6 + [1 - 2 * rate] * 2)
    assert float((after - expected).abs().max()) < 1e-6


def test_training_shrinks_what_the_loss_does_not_hold(context_for: MakeContext) -> None:
    """From the same start, the end of the spectrum of the training batch; one full batch, so that nothing is noise."""

    def left(eta: float) -> float:
        method = Bss(eta=eta, k=40, epochs=10, batch_size=48, lr=1e-3, batchnorm="eval")
        context = context_for(method)
        net = method.fit(context)
        batch = next(iter(context.data("id_train").batches(48)))
        with torch.no_grad():
            return float(smallest_spectrum(net.features(batch.images), 40))  # type: ignore[operator]

    # The small network's spectrum ends at 1e-3, so that it takes a large weight to be heard beside cross-entropy.
    assert left(3.0) < 0.5 * left(0.0)


def test_a_diverged_training_says_so(context_for: MakeContext) -> None:
    method = Bss(lr=1e30, optimizer="sgd")
    with pytest.raises(FitError, match="the loss became"):
        method.fit(context_for(method))


def test_batches_of_one_image_are_not_applicable_before_any_training(context_for: MakeContext) -> None:
    context = context_for(Bss())
    with pytest.raises(NotApplicableError, match="at least 2 images, they have 1"):
        Bss(batch_size=1).fit(context)
    assert context.budget.images_seen == 0


@pytest.mark.parametrize("wrong", [{"eta": -0.1}, {"eta": float("nan")}, {"eta": float("inf")}, {"k": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected (a finite eta of at least 0|k >= 1), got"):
        Bss(**wrong)  # type: ignore[arg-type]


def test_no_matrix_and_no_k_are_refused() -> None:
    for features, k in ((matrix(3, 4), 0), (torch.zeros(0, 4), 1), (torch.zeros(4), 1)):
        with pytest.raises(ValueError, match="expected a matrix and k of at least 1"):
            smallest_spectrum(features, k)


def test_costs_what_fine_tuning_costs_and_a_spectrum(context_for: MakeContext) -> None:
    assert Bss(epochs=3).cost(RECIPE) == recipe_cost(RECIPE.model_copy(update={"epochs": 3}))
    contexts = {method: context_for(method) for method in (Bss(), Finetune())}
    for method, context in contexts.items():
        method.fit(context)
    ours, plain = (context.budget for context in contexts.values())
    assert (ours.images_seen, ours.backward_passes) == (plain.images_seen, plain.backward_passes)
    assert ours.parameters_trained == plain.parameters_trained
    assert plain.saved_bytes < ours.saved_bytes < 1.1 * plain.saved_bytes
