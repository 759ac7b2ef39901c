"""Attacks against torchattacks and foolbox, and the promises of their own bookkeeping."""

from __future__ import annotations

from collections.abc import Callable

import foolbox
import numpy as np
import pytest
import torch
import torchattacks
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from tlbench.conditions.attacks.apgd import APGD, Walk
from tlbench.conditions.attacks.attack import Ladder
from tlbench.conditions.attacks.balls import directions, length
from tlbench.conditions.attacks.foolbox import TRAVEL, FoolboxPGD
from tlbench.conditions.attacks.losses import LOSSES, cross_entropy, difference_of_logits_ratio
from tlbench.conditions.base import image_seed

EPSILONS = {"linf": (0.045, 0.06, 0.08), "l2": (0.7, 1.0, 1.3)}


@pytest.fixture(scope="module")
def some(digits, part_of):
    return part_of(digits, list(range(96)))


def robust_accuracy_by_torchattacks(monkeypatch, network, batch, attack, setting, iterations):
    """Run torchattacks' APGD from the starts that our condition draws."""
    x = batch.images.float() / 255
    right = (network(x).argmax(1) == batch.labels).nonzero()[:, 0].tolist()
    seeds = [image_seed(batch.scope, batch.names[i], setting, 0) for i in right]
    toward = directions(seeds, x.shape[1:], attack.norm)
    monkeypatch.setattr(torch, "rand", lambda shape: (toward + 1) / 2)
    monkeypatch.setattr(torch, "randn", lambda shape: toward)
    theirs = torchattacks.APGD(
        network, norm="Linf" if attack.norm == "linf" else "L2", eps=setting.epsilon, steps=iterations,
        loss=attack.name.removeprefix("apgd-"),
    )  # fmt: skip
    found = theirs(x, batch.labels)
    monkeypatch.undo()
    return int((network(found).argmax(1) == batch.labels).sum())


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
@pytest.mark.parametrize("name", ["narrow", "wide", "dense"])
def test_apgd_agrees_with_torchattacks_within_one_image(
    name, loss, norm, some, networks, plain_predictor, cut, observed, monkeypatch
):
    network = networks[name]
    attack = APGD(f"apgd-{loss}", norm, EPSILONS[norm], iterations=25, mode="exact")
    survived = observed(attack, plain_predictor(network), cut(some, 40))["survived"].sum(1).tolist()
    assert all(0.2 * 96 <= count <= 0.8 * 96 for count in survived[:2])
    for count, setting in zip(survived, attack.settings, strict=True):
        theirs = robust_accuracy_by_torchattacks(monkeypatch, network, some, attack, setting, 25)
        assert abs(count - theirs) <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_apgd_takes_the_steps_of_torchattacks_one_by_one(norm, some, networks, plain_predictor, monkeypatch):
    """An epsilon too small to break anything: all points of the way are compared, through every halving of a step."""
    network, asked = networks["wide"], []
    setting = APGD("apgd-dlr", norm, (0.004,)).settings[0]
    x = some.images.float() / 255
    right = network(x).argmax(1) == some.labels
    x, labels = x[right][:16], some.labels[right][:16]
    toward = directions([image_seed("s", str(i), setting, 0) for i in range(16)], x.shape[1:], norm)

    predictor = plain_predictor(network)
    walk = Walk(predictor, LOSSES["dlr"], norm, 50)
    walk.add(torch.arange(16), x, labels, torch.full((16,), 0.004), toward)
    while len(walk):
        assert not walk.advance().broken.any()

    def recording(images):
        asked.append(images.detach().clone())
        return network(images)

    monkeypatch.setattr(torch, "rand", lambda shape: (toward + 1) / 2)
    monkeypatch.setattr(torch, "randn", lambda shape: toward)
    theirs = torchattacks.APGD(network, norm="Linf" if norm == "linf" else "L2", eps=0.004, steps=50, loss="dlr")
    monkeypatch.setattr(theirs, "get_logits", recording)
    theirs(x, labels)
    ways = asked[1:]  # the first call is the clean check
    assert len(ways) == len(predictor.asked) == 51
    moved = torch.stack(predictor.asked) - x
    difference = (moved - (torch.stack(ways) - x)).abs().amax(dim=(1, 2, 3, 4))
    assert moved[-1].abs().max() > 0
    # The sign of a gradient of almost zero may differ in the last bit: a few pixels, never the way of an image.
    assert (difference < 1e-6).float().mean() >= 0.9


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["narrow", "wide", "dense"])
def test_fast_and_exact_agree(name, norm, some, networks, plain_predictor, cut, observed):
    epsilons = (0.02, *EPSILONS[norm])
    fast, exact = (
        observed(
            APGD("apgd-dlr", norm, epsilons, iterations=20, mode=mode), plain_predictor(networks[name]), cut(some, 48)
        )["survived"]
        for mode in ("fast", "exact")
    )
    assert (fast != exact).sum() <= 1
    assert (fast >= exact).all()
    assert (exact[:-1] >= exact[1:]).all()


@pytest.mark.parametrize("mode", ["fast", "exact"])
@pytest.mark.parametrize("kind", ["apgd", "foolbox"])
def test_verdicts_depend_neither_on_batches_nor_on_the_order_of_images(
    kind, mode, some, networks, plain_predictor, part_of, cut, observed
):
    if kind == "apgd":
        attack = APGD("apgd-dlr", "linf", EPSILONS["linf"], iterations=15, mode=mode)
    else:
        attack = FoolboxPGD("foolbox-linf-pgd", EPSILONS["linf"], iterations=8, mode=mode)
    whole = observed(attack, plain_predictor(networks["dense"]), cut(some, 96))
    pieces = observed(attack, plain_predictor(networks["dense"], chunk=5), cut(some, 7))
    backwards = observed(attack, plain_predictor(networks["dense"]), cut(part_of(some, list(range(95, -1, -1))), 32))
    assert 0 < whole["survived"].float().mean() < 1
    for other in (pieces, backwards):
        assert torch.equal(other["survived"], whole["survived"])
        assert torch.equal(other["correct_clean"], whole["correct_clean"])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_stay_in_the_ball_and_in_the_box(norm, some, networks, plain_predictor):
    epsilons = torch.tensor(EPSILONS[norm]).repeat(32)
    x = some.images.float() / 255
    seeds = list(range(96))
    predictor = plain_predictor(networks["narrow"])
    walk = Walk(predictor, LOSSES["ce"], norm, 12)
    walk.add(torch.arange(96), x, some.labels, epsilons, directions(seeds, x.shape[1:], norm))
    ended = 0
    while len(walk):
        centre, radius, points = walk.rows.image, walk.rows.epsilon, walk.rows.x
        assert ((points >= 0) & (points <= 1)).all()
        assert (length(points - centre, norm) <= radius * (1 + 1e-5) + 1e-7).all()
        done = walk.advance()
        inside = length(done.found - x[done.key], norm)[:, 0, 0, 0] <= epsilons[done.key] * (1 + 1e-5) + 1e-7
        assert inside.all()
        wrong = networks["narrow"](done.found).argmax(1) != some.labels[done.key]
        assert torch.equal(wrong, done.broken)
        ended += len(done.key)
    assert ended == 96


def test_an_image_that_is_wrong_when_clean_is_not_attacked_and_does_not_survive(
    some, networks, plain_predictor, cut, observed, part_of
):
    wrong = part_of(some, list(range(12)))
    wrong.labels[:] = (wrong.labels + 1) % 10
    predictor = plain_predictor(networks["dense"])
    right = networks["dense"](wrong.images.float() / 255).argmax(1) == wrong.labels
    assert not right.all()
    rows = observed(APGD("apgd-ce", "linf", (1e-6,), iterations=3), predictor, cut(wrong, 5))
    assert torch.equal(rows["correct_clean"], right)
    assert torch.equal(rows["survived"][0], right)
    assert sum(len(asked) for asked in predictor.asked) == 4 * int(right.sum())


def test_freed_places_are_taken_at_once(some, networks, plain_predictor, cut, observed):
    predictor = plain_predictor(networks["dense"])
    observed(APGD("apgd-dlr", "linf", EPSILONS["linf"], iterations=10, mode="exact"), predictor, cut(some, 16))
    sizes = [len(asked) for asked in predictor.asked]
    tail = 3 * 11  # the longest way of a last image: every epsilon, every step
    assert set(sizes[:-tail]) == {16}


def test_restarts_start_elsewhere_and_break_what_one_start_misses(some, plain_predictor, cut, observed):
    direction = torch.randn(some.images.shape[1:], generator=torch.Generator().manual_seed(0))

    def bumpy(x):
        """Wrong on narrow stripes only, which one start seldom meets."""
        height = torch.sin(3000 * (x * direction).mean(dim=(1, 2, 3))) - 0.9
        return torch.stack([torch.zeros_like(height), height, torch.full_like(height, -9)], dim=1)

    some = type(some)(some.ids, some.names, some.images, torch.zeros_like(some.labels), some.scope)
    once, often = (
        observed(
            APGD("apgd-ce", "linf", (0.06,), iterations=1, restarts=restarts), plain_predictor(bumpy), cut(some, 96)
        )["survived"]
        for restarts in (1, 10)
    )
    assert (often <= once).all()
    assert often.sum() < once.sum()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_foolbox_through_the_condition_is_foolbox_called_directly(
    norm, some, networks, plain_predictor, cut, observed, monkeypatch
):
    network = networks["wide"]
    attack = FoolboxPGD(f"foolbox-{norm}-pgd", EPSILONS[norm], iterations=10, mode="exact")
    ours = observed(attack, plain_predictor(network), cut(some, 96))

    direct = (foolbox.attacks.LinfPGD if norm == "linf" else foolbox.attacks.L2PGD)(
        rel_stepsize=TRAVEL / 10, steps=10, random_start=True
    )
    model, x = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu"), some.images.float() / 255
    broken = torch.zeros(96, dtype=torch.bool)
    for rung, setting in enumerate(attack.settings):
        starts = attack.starts(some, list(range(96)), setting)
        monkeypatch.setattr(
            direct, "get_random_start", lambda x0, epsilon, starts=starts: x0 + epsilon * type(x0)(starts)
        )
        _, _, success = direct(model, x, some.labels, epsilons=setting.epsilon)
        broken |= success  # `exact`: broken stays broken
        assert torch.equal(ours["survived"][rung], ~broken)
    assert 0 < ours["survived"].float().mean() < 1


def test_starts_of_foolbox_fill_the_ball(some):
    attack = FoolboxPGD("foolbox-l2-pgd", (1.0,))
    starts = attack.starts(some, list(range(96)), attack.settings[0])
    norms = length(starts, "l2").flatten()
    assert (norms <= 1).all()
    assert norms.min() > 0.9  # in 768 dimensions almost all of the ball lies near its surface


def dlr_the_slow_way(logits, label):
    ordered = sorted(logits, reverse=True)
    best_other = max(value for i, value in enumerate(logits) if i != label)
    return -(logits[label] - best_other) / (ordered[0] - ordered[2] + 1e-12)


@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=7, unique=True),
    st.integers(0, 6),
    st.floats(0.1, 10),
    st.floats(-5, 5),
)
def test_dlr_is_its_definition_and_knows_neither_shift_nor_scale(logits, label, scale, shift):
    label %= len(logits)
    outputs = torch.tensor([logits], dtype=torch.float64)
    labels = torch.tensor([label])
    expected = dlr_the_slow_way(logits, label)
    assert difference_of_logits_ratio(outputs, labels).item() == pytest.approx(expected, rel=1e-9)
    assert difference_of_logits_ratio(outputs * scale + shift, labels).item() == pytest.approx(expected, rel=1e-6)
    assert (expected > 0) == (int(np.argmax(logits)) != label)


def test_dlr_has_the_gradient_of_torchattacks_loss(networks):
    torch.manual_seed(0)
    labels = torch.randint(10, (64,))
    ours, theirs = (torch.randn(64, 10, generator=torch.Generator().manual_seed(1), requires_grad=True) for _ in "ab")
    difference_of_logits_ratio(ours, labels).sum().backward()
    torchattacks.APGD(networks["wide"]).dlr_loss(theirs, labels).sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_two_classes_fall_back_to_the_cross_entropy():
    outputs, labels = torch.randn(5, 2), torch.tensor([0, 1, 0, 1, 1])
    assert torch.equal(difference_of_logits_ratio(outputs, labels), cross_entropy(outputs, labels))
    log_probs = functional.log_softmax(outputs, 1)
    assert torch.allclose(cross_entropy(log_probs, labels), cross_entropy(outputs, labels))


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.sampled_from(["fast", "exact"]))
def test_a_ladder_finds_the_edge_of_any_monotone_curve(survives, mode):
    edge = sum(survives)  # an image that survives the lowest `edge` rungs and no other
    ladder = Ladder(len(survives), mode)
    rung, verdict, tried = ladder.first, None, []
    while verdict is None:
        tried.append(rung)
        rung, verdict = ladder.after(rung, rung >= edge)
    assert verdict == edge
    assert len(tried) == len(set(tried))


def test_a_predictor_that_answers_nan_is_neither_right_nor_robust(some, plain_predictor, cut):
    broken: Callable = lambda x: torch.full((len(x), 10), torch.nan)  # noqa: E731
    with pytest.raises(FloatingPointError, match="not numbers on 96 of 96"):
        list(APGD("apgd-ce", "linf", (0.1,)).observe(plain_predictor(broken), cut(some, 96)))


def test_attacks_name_their_needs():
    assert APGD("apgd-ce", "linf", (0.1,)).needs == {"labels", "gradients", "fixed_predictor"}
    assert FoolboxPGD("foolbox-l2-pgd", (0.1,)).needs == APGD.needs


def test_epsilons_become_settings_smallest_first():
    settings = APGD("apgd-dlr", "l2", (0.2, 0.1)).settings
    assert [setting.epsilon for setting in settings] == [0.1, 0.2]
    assert {setting.norm for setting in settings} == {"l2"}
