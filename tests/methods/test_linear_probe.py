from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor

from tlbench.errors import FitError
from tlbench.methods.base import Features
from tlbench.methods.linear_probe import LinearProbe, probe_head
from tlbench.models.head import fit_linear_head

from .conftest import MakeContext


def features(n: int, seed: int, *, separation: float = 1.0) -> Features:
    g = Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    centres = separation * torch.eye(3, 6)[labels]
    return Features(5 + 3 * (centres + torch.randn(n, 6, generator=g)), labels)


def test_is_a_plain_linear_head_on_the_pretrained_network(context_for: MakeContext) -> None:
    context = context_for(LinearProbe())
    net = LinearProbe().fit(context)
    state = net.state_dict()
    assert state.keys() == context.backbone.fresh(3).state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in context.backbone.state0.items())
    cached = context.features("id_val").values
    images = next(iter(context.data("id_val").batches(100))).images
    assert torch.allclose(net(images), net.get_submodule("head")(cached), atol=1e-5)


def test_two_initialisations_agree_for_the_problem_is_convex() -> None:
    train = features(90, 0)
    assert train.labels is not None
    start = torch.nn.Linear(6, 3)
    heads = [fit_linear_head(train.values, train.labels, 3, l2=1e-2, steps=200, init=init) for init in (None, start)]
    assert torch.allclose(heads[0].weight, heads[1].weight, atol=1e-5)


def test_agrees_with_scikit_learn_on_standardised_features() -> None:
    train, l2 = features(90, 0), 0.05
    head = probe_head(train, features(30, 1), 3, penalties=(l2,), steps=500)
    values = train.values.double().numpy()
    standard = (values - values.mean(0)) / values.std(0)
    reference = LogisticRegression(C=1 / (2 * len(values) * l2), tol=1e-10, max_iter=2000).fit(standard, train.labels)
    expected = reference.predict_log_proba(standard)
    with torch.no_grad():
        found = head(train.values).double().log_softmax(1).numpy()
    assert np.abs(found - expected).max() < 1e-4


def test_the_penalty_is_picked_on_validation_images_alone() -> None:
    train = features(12, 0, separation=0.5)

    def norm(val: Features) -> float:
        head = probe_head(train, val, 3, penalties=(1e-6, 1e-2, 10.0), steps=200)
        return float(head.weight.detach().square().sum())

    # Where the validation images are the training images, the weakest penalty is best; on noise it is not.
    assert norm(train) > 10 * norm(features(300, 5, separation=0.5))


def test_of_equally_good_penalties_the_larger_wins() -> None:
    train = features(30, 0)
    empty = Features(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64))
    chosen = probe_head(train, empty, 3, penalties=(0.1, 1.0), steps=100)
    alone = probe_head(train, empty, 3, penalties=(1.0,), steps=100)
    assert torch.equal(chosen.weight, alone.weight)


def test_accuracy_decides_before_likelihood() -> None:
    def score(head: torch.nn.Linear, val: Features) -> tuple[float, float]:
        with torch.no_grad():
            logits: Tensor = head(val.values)
        assert val.labels is not None
        return float((logits.argmax(1) == val.labels).float().mean()), -float(
            torch.nn.functional.cross_entropy(logits, val.labels)
        )

    train, val, penalties = features(20, 0, separation=0.6), features(40, 3, separation=0.6), (1e-5, 1e-3, 0.1, 5.0)
    chosen = probe_head(train, val, 3, penalties=penalties, steps=200)
    singles = [probe_head(train, val, 3, penalties=(l2,), steps=200) for l2 in penalties]
    assert score(chosen, val)[0] == max(score(single, val)[0] for single in singles)


def test_no_penalty_is_an_error() -> None:
    with pytest.raises(FitError, match="needs a penalty"):
        probe_head(features(9, 0), features(9, 1), 3, penalties=(), steps=10)
