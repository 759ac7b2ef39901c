"""What an attack asks of an image at most: no attack asks for more, and one that breaks nothing asks for as much."""

from __future__ import annotations

import pytest
import torch

from tlbench.conditions.catalogue import condition_names
from tlbench.data.domain import Batch
from tlbench.engine.measuring import make_condition
from tlbench.engine.workload import attack_questions
from tlbench.suites.spec import Attack

CLASSES = 5
ASKING = ("square", "autoattack", "foolbox-boundary", "foolbox-hopskipjump")
NORMS = {"foolbox-l2-pgd": "l2", "foolbox-boundary": "l2", "foolbox-hopskipjump": "l2"}


class Counting:
    """A predictor that is never wrong, and counts what it is asked."""

    output = "logits"
    batch_dependent = False
    differentiable = True

    def __init__(self):
        self.gradients = self.predictions = 0

    def start(self, setting):
        pass

    def answer(self, images):
        scores = torch.arange(float(CLASSES), 0, -1).repeat(len(images), 1)
        return scores + 0.01 * images.mean(dim=(1, 2, 3))[:, None] * torch.arange(CLASSES)

    def outputs(self, images):
        self.predictions += len(images)
        return self.answer(images / 255 if images.dtype == torch.uint8 else images)

    def gradient(self, images, labels, loss):
        self.gradients += len(images)
        leaf = images.clone().requires_grad_()
        outputs = self.answer(leaf)
        return outputs.detach(), torch.autograd.grad(loss(outputs, labels).sum(), leaf)[0]


def spec(name, **options):
    return Attack(
        kind="attack",
        name=name,
        norm=NORMS.get(name, "linf"),
        epsilons=(0.01, 0.02, 0.05),
        steps=4,
        **({"queries": 30} if name in ASKING else {}),
        **options,
    )


def asked(attack):
    """Return the gradients and predictions that two images are asked for, without their clean predictions."""
    images = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    batch = Batch(torch.arange(2), ("a", "b"), images, torch.zeros(2, dtype=torch.int64), "counted")
    predictor = Counting()
    rows = list(make_condition(attack, 64).observe(predictor, lambda: iter([batch])))
    assert len(rows) == 3
    return predictor.gradients, predictor.predictions - 2


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("name", condition_names()["attack"])
def test_no_attack_asks_for_more_than_is_planned(name, mode):
    attack = spec(name, mode=mode, audit=1.0)
    gradients, predictions = attack_questions(attack, CLASSES)
    found = asked(attack)
    assert found[0] <= 2 * gradients
    assert found[1] <= 2 * predictions


@pytest.mark.parametrize("name", ["apgd-ce", "apgd-dlr", "apgd-t", "square", "autoattack", "foolbox-linf-pgd"])
def test_where_nothing_breaks_all_of_it_is_asked(name):
    attack = spec(name, mode="exact")
    assert asked(attack) == tuple(2 * count for count in attack_questions(attack, CLASSES))
    # `fast` is spared all epsilons but the largest, and the audit asks about them after all.
    assert asked(spec(name, mode="fast", audit=1.0)) == asked(attack)
    assert sum(asked(spec(name, mode="fast", audit=0.0))) * 3 == sum(asked(attack))


def test_targets_and_restarts_count():
    once = attack_questions(spec("apgd-t"), 100)[0]
    assert once == 3 * 5 * 9
    assert attack_questions(spec("apgd-t", restarts=2), 100)[0] == 2 * once
    assert attack_questions(spec("apgd-t"), 3)[0] < once
    assert attack_questions(spec("fab-t"), 100) == (4 * 9, 4 * 9 + 1)
