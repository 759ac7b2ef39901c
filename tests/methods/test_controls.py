from __future__ import annotations

import pytest
import torch

from tlbench.errors import NotApplicableError
from tlbench.methods.controls import Majority, RandomFeatures, Relabelled, ShuffledLabels
from tlbench.methods.from_scratch import FromScratch, untrained
from tlbench.models.backbone import Backbone

from .conftest import MakeContext


def accuracy(net: torch.nn.Module, context_for: MakeContext, *, seed: int = 0) -> float:
    batch = next(iter(context_for(RandomFeatures()).data("id_val").batches(100)))
    with torch.no_grad():
        return float((net(batch.images).argmax(1) == batch.labels).float().mean())


def test_majority_says_the_class_frequencies_to_every_image(context_for: MakeContext) -> None:
    context = context_for(Majority())
    predictor = Majority().fit(context)
    outputs = predictor.module(context.example(5))  # type: ignore[union-attr]
    counts = torch.bincount(context.data("id_train").labels).double()
    assert torch.allclose(outputs.exp().double(), ((counts + 1 / 3) / (counts.sum() + 1)).expand(5, 3), atol=1e-6)
    assert torch.allclose(outputs.exp().sum(1), torch.ones(5))


def test_majority_has_a_gradient_that_is_zero(context_for: MakeContext) -> None:
    context = context_for(Majority())
    images = context.example(3).requires_grad_()
    outputs = Majority().fit(context).module(images)  # type: ignore[union-attr]
    (gradient,) = torch.autograd.grad(outputs[:, 1].sum(), images)
    assert not gradient.any()


def test_shuffled_labels_are_a_permutation_that_teaches_nothing(context_for: MakeContext) -> None:
    found = [
        accuracy(ShuffledLabels(epochs=8).fit(context_for(ShuffledLabels(), seed=s)), context_for) for s in range(5)
    ]
    assert 0.1 < sum(found) / len(found) < 0.57


def test_a_relabelled_split_keeps_images_and_order(context_for: MakeContext) -> None:
    data = context_for(ShuffledLabels()).data("id_train")
    labels = data.labels.flip(0)
    plain = list(data.batches(7, rng=torch.Generator().manual_seed(0), views=2))
    changed = list(Relabelled(data, labels).batches(7, rng=torch.Generator().manual_seed(0), views=2))
    for before, after in zip(plain, changed, strict=True):
        assert torch.equal(before.images, after.images)
        assert torch.equal(after.labels, labels[after.ids])
    with pytest.raises(ValueError, match="one label per image"):
        Relabelled(data, labels[1:])


def test_random_features_never_look_at_the_weights(context_for: MakeContext) -> None:
    context = context_for(RandomFeatures())
    state = RandomFeatures().fit(context).state_dict()
    theta0 = context.backbone.state0
    weights = [name for name in theta0 if theta0[name].ndim >= 2]
    assert weights
    assert not any(torch.equal(state[name], theta0[name]) for name in weights)


def test_random_features_are_better_than_nothing(context_for: MakeContext) -> None:
    assert accuracy(RandomFeatures().fit(context_for(RandomFeatures())), context_for) > 0.6


def test_from_scratch_learns_for_longer_at_a_higher_rate(context_for: MakeContext) -> None:
    context = context_for(FromScratch(lr=1e-2), epochs=2)
    assert accuracy(FromScratch(lr=1e-2).fit(context), context_for) > 0.6
    assert context.budget.images_seen == 5 * 2 * len(context.train_split)


def pretend_pretrained(backbone: Backbone, *layers: torch.nn.Module) -> Backbone:
    return Backbone(
        "pretend", backbone.width, torch.nn.Sequential(backbone.fresh().body, *layers), tap_modules={}, mean=(0.5,) * 3
    )


def test_an_architecture_is_initialised_anew_layer_by_layer(backbone: Backbone) -> None:
    learned = pretend_pretrained(backbone)
    assert learned.pretrained
    first, again, other = (untrained(learned, 3, torch.Generator().manual_seed(s)).state_dict() for s in (0, 0, 1))
    for name, value in learned.state0.items():
        assert torch.equal(first[name], again[name])
        if value.ndim >= 2:
            assert not torch.equal(first[name], value)
            assert not torch.equal(first[name], other[name])


def test_a_layer_that_cannot_initialise_itself_is_not_applicable(backbone: Backbone) -> None:
    class Token(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.zeros(64))

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features + self.shift

    with pytest.raises(NotApplicableError, match="has no reset_parameters"):
        untrained(pretend_pretrained(backbone, Token()), 3, torch.Generator())
