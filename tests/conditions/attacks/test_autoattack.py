"""AutoAttack's standard set: its order, who breaks what, and the package itself where it is at hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tlbench.conditions.attacks.attack import Identity
from tlbench.conditions.attacks.autoattack import MEMBERS, AutoAttack, Chain
from tlbench.setting import Setting

FEW = {"iterations": 5, "targets": 2, "queries": 20}


def test_the_standard_set_has_its_published_numbers():
    attack = AutoAttack("autoattack", "linf", (0.1,))
    ce, targeted, fab, square = attack.members.values()
    assert tuple(attack.members) == MEMBERS == tuple(member.name for member in attack.members.values())
    assert ce.iterations == targeted.iterations == fab.iterations == 100
    assert (ce.restarts, targeted.restarts) == (1, 1)
    assert (targeted.targets, fab.targets, square.iterations) == (9, 9, 5000)


class Stage:
    """Breaks the images whose first value is in a set, as many at a time as there is room for."""

    def __init__(self, width, breaks):
        self.width, self.breaks, self.held, self.met, self.who = width, breaks, {}, [], []

    def __len__(self):
        return len(self.held)

    @property
    def room(self):
        return self.width - len(self.held)

    def add(self, keys, images, labels, epsilons, who):
        assert len(keys) <= self.room
        self.held |= dict(zip(keys, images[:, 0, 0, 0].tolist(), strict=True))
        self.met += keys
        self.who += who

    def advance(self):
        ended = [(key, value in self.breaks) for key, value in self.held.items()]
        self.held.clear()
        return ended


def test_each_member_meets_what_the_earlier_ones_left():
    attack = AutoAttack("autoattack", "linf", (0.1,))
    breaks = dict(zip(MEMBERS, ({0.0, 1.0}, {2.0}, {1.0, 3.0}, {4.0}), strict=True))
    stages = {name: Stage(3, breaks[name]) for name in MEMBERS}
    chain = Chain(attack, stages)
    setting = Setting("autoattack", norm="linf", epsilon=0.1)
    images, waiting, ended = torch.arange(7.0).view(7, 1, 1, 1), list(range(7)), {}
    while waiting or len(chain):
        keys, waiting = waiting[: chain.room], waiting[chain.room :]
        if keys:
            who = [Identity("s", str(key), setting) for key in keys]
            chain.add(keys, images[keys], torch.zeros(len(keys)), [0.1] * len(keys), who)
        ended |= chain.advance()
    assert ended == {0: True, 1: True, 2: True, 3: True, 4: True, 5: False, 6: False}
    met = [sorted(stage.met) for stage in stages.values()]
    assert met == [list(range(7)), [2, 3, 4, 5, 6], [3, 4, 5, 6], [4, 5, 6]]
    # Each draws from a stream of its own.
    assert all(one.further == (name,) for name, stage in stages.items() for one in stage.who)
    broken, masking = attack.notes
    assert broken.endswith("apgd-ce 2, apgd-t 1, fab-t 1, square 1")
    assert "square" in masking and "1 of 5 times: gradient masking?" in masking  # noqa: PT018


def test_streams_of_one_image_differ_by_attack():
    one = Identity("s", "1", Setting("autoattack", norm="linf", epsilon=0.1))
    assert len({replace(one, further=(name,)).seed(0) for name in MEMBERS} | {one.seed(0)}) == 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_whole_set_breaks_what_any_member_breaks_alone(
    norm, some, epsilons, networks, plain_predictor, cut, observed, part_of
):
    few = part_of(some, list(range(32)))
    predictor = plain_predictor(networks["dense"])
    attack = AutoAttack("autoattack", norm, epsilons[norm][:2], mode="exact", **FEW)
    whole = observed(attack, predictor, cut(few, 10))
    again = observed(attack, predictor, cut(part_of(few, list(range(31, -1, -1))), 17))
    assert torch.equal(whole["survived"], again["survived"])
    assert 0 < whole["survived"].float().mean() < whole["correct_clean"].float().mean()
    for name in ("apgd-ce", "fab-t"):
        alone = observed(attack.members[name], predictor, cut(few, 10))["survived"]
        # Another start may turn one image.
        assert (whole["survived"] & ~alone).sum() <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_set_agrees_with_the_package_within_one_image(
    norm, some, epsilons, networks, plain_predictor, cut, observed, part_of
):
    package = pytest.importorskip("autoattack")
    few, network = part_of(some, list(range(32))), networks["dense"]
    x = few.images.float() / 255
    theirs = package.AutoAttack(
        network, norm={"linf": "Linf", "l2": "L2"}[norm], eps=epsilons[norm][0], seed=0, device="cpu", verbose=False
    )
    for member in (theirs.apgd, theirs.apgd_targeted, theirs.fab):
        member.n_iter = 30
    theirs.apgd_targeted.n_target_classes = theirs.fab.n_target_classes = 3
    theirs.square.n_queries = 100
    found = theirs.run_standard_evaluation(x, few.labels, bs=32)
    robust = int((network(found).argmax(1) == few.labels).sum())
    attack = AutoAttack("autoattack", norm, epsilons[norm][:1], iterations=30, targets=3, queries=100)
    ours = observed(attack, plain_predictor(network), cut(few, 32))
    assert abs(int(ours["survived"].sum()) - robust) <= 1
