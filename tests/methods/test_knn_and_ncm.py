from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.neighbors import KNeighborsClassifier
from torch import Generator, Tensor

from tlbench.methods.fitted import as_fitted
from tlbench.methods.knn import Knn, Vote
from tlbench.methods.ncm import Ncm, Nearest, class_means

from .conftest import MakeContext


def features(n: int, seed: int, width: int = 6) -> tuple[Tensor, Tensor]:
    g = Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return torch.eye(3, width)[labels] + 0.6 * torch.randn(n, width, generator=g), labels


def normal(values: Tensor) -> Tensor:
    return torch.nn.functional.normalize(values, dim=1)


def test_one_neighbour_knows_every_training_image(context_for: MakeContext) -> None:
    context = context_for(Knn(k=1))
    fitted = Knn(k=1).fit(context)
    assert not fitted.predictor().differentiable
    batch = next(iter(context.data("id_train").batches(100)))
    assert torch.equal(fitted.predictor().module(batch.images).argmax(1), batch.labels)


def test_leaving_an_image_out_of_its_own_neighbours_differs() -> None:
    values, labels = features(60, 0)
    bank = normal(values)
    with_itself = Vote(bank, labels, 3, k=1, temperature=0.07)(values).argmax(1)
    without = torch.stack(
        [
            Vote(bank[keep], labels[keep], 3, k=1, temperature=0.07)(values[i : i + 1])[0].argmax()
            for i in range(60)
            for keep in [torch.arange(60) != i]
        ]
    )
    assert torch.equal(with_itself, labels)
    assert 0.4 < float((without == labels).float().mean()) < 1


def test_votes_agree_with_scikit_learn() -> None:
    values, labels = features(60, 0)
    queries, _ = features(40, 1)
    found = Vote(normal(values), labels, 3, k=7, temperature=0.1)(queries).exp()
    reference = KNeighborsClassifier(7, weights=lambda d: np.exp((1 - d**2 / 2) / 0.1))
    # On the unit sphere the squared Euclidean distance is 2 - 2 * cosine.
    expected = reference.fit(normal(values).numpy(), labels).predict_proba(normal(queries).numpy())
    assert np.abs(found.numpy() - (7 * expected + 1 / 3) / 8).max() < 1e-5


def test_the_shared_vote_keeps_the_likelihood_finite_and_the_prediction() -> None:
    values, labels = features(30, 0)
    vote = Vote(normal(values), labels, 3, k=1, temperature=0.07)(values)
    assert torch.isfinite(vote).all()
    assert float(vote.min()) == pytest.approx(math.log((1 / 3) / 2), abs=1e-5)
    assert torch.equal(vote.argmax(1), labels)


def test_more_neighbours_than_images_are_all_of_them() -> None:
    values, labels = features(9, 0)
    vote = Vote(normal(values), labels, 3, k=200, temperature=0.07)(values)
    assert torch.allclose(vote.exp().sum(1), torch.ones(9))


def test_euclidean_class_means_are_discriminant_analysis_with_unit_covariance() -> None:
    values, labels = features(60, 0)
    queries, _ = features(200, 1)
    means, counts = class_means(values, labels, 3)
    found = Nearest(means, counts > 0, distance="euclidean")(queries).argmax(1)
    reference = LinearDiscriminantAnalysis(priors=[1 / 3] * 3, solver="lsqr").fit(values, labels)
    reference.covariance_ = np.eye(values.shape[1])
    reference.coef_ = reference.means_
    reference.intercept_ = -0.5 * (reference.means_**2).sum(1) + np.log(1 / 3)
    assert (found.numpy() == reference.predict(queries.numpy())).all()
    assert (found == torch.cdist(queries, means).argmin(1)).all()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_one_image_a_class_is_its_own_prototype(distance: str) -> None:
    values, labels = features(3, 0)
    means, counts = class_means(values, labels, 3)
    assert torch.equal(means, values)
    assert torch.equal(Nearest(means, counts > 0, distance=distance)(values).argmax(1), labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_a_class_without_images_is_never_predicted_and_stays_finite(distance: str) -> None:
    values, labels = features(60, 0)
    means, counts = class_means(values, labels, 5)
    logits = Nearest(means, counts > 0, distance=distance)(values)  # type: ignore[arg-type]
    assert torch.isfinite(logits).all()
    assert int(logits.argmax(1).max()) == 2


def test_the_temperature_of_class_means_is_fitted_on_validation_images(context_for: MakeContext) -> None:
    context = context_for(Ncm())
    noisy = {
        split.hash: features(len(split), i, 64)[0] for i, split in enumerate([context.train_split, context.val_split])
    }
    for split, values in noisy.items():
        key, rows = (context.backbone.weights_hash, split, ""), torch.arange(len(values))
        context._features.values(key, len(values), lambda rows=rows, values=values: [(rows, values)])  # type: ignore[misc]
    fitted = as_fitted(Ncm().fit(context))
    rule, labels = fitted.predictor().module.get_submodule("rule"), context.data("id_val").labels
    outputs = rule(noisy[context.val_split.hash])
    best = torch.nn.functional.cross_entropy(outputs, labels)
    assert float(rule.get_buffer("temperature")) != 1
    for factor in (0.9, 1.1):
        assert float(torch.nn.functional.cross_entropy(factor * outputs, labels)) > float(best)
