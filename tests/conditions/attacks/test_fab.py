"""FAB-T against torchattacks and AutoAttack, and its projection against general solvers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchattacks
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import nn

from tlbench.conditions.attacks.fab import FAB, onto_hyperplane, wrong_classes

EPSILONS = {"linf": (0.03, 0.05, 0.07, 0.09), "l2": (0.4, 0.8, 1.1, 1.4)}
NORMS = {"linf": "Linf", "l2": "L2"}
STEPS, TARGETS = 10, 3


@pytest.fixture(scope="module")
def some(digits, part_of):
    return part_of(digits, list(range(24)))


def shortest_move(x, normal, offset, norm):
    """The length of the shortest move onto the hyperplane within the box, by a general solver."""
    if norm == "linf":
        d = len(x)
        ones = np.ones((d, 1))
        found = linprog(
            np.r_[np.zeros(d), 1],
            A_ub=np.block([[np.eye(d), -ones], [-np.eye(d), -ones]]),
            b_ub=np.zeros(2 * d),
            A_eq=np.r_[normal, 0][None],
            b_eq=[offset - normal @ x],
            bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
        )
        assert found.success
        return found.fun
    found = minimize(
        lambda move: move @ move,
        np.zeros(len(x)),
        jac=lambda move: 2 * move,
        bounds=list(zip(-x, 1 - x, strict=True)),
        constraints=[
            {"type": "eq", "fun": lambda move: normal @ (x + move) - offset, "jac": lambda move: normal}
        ],
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    return np.sqrt(found.fun)


numbers = st.integers(-8, 8).map(lambda i: i / 4)
fractions = st.integers(0, 8).map(lambda i: i / 8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(fractions, numbers), min_size=1, max_size=7), fractions, st.sampled_from(["linf", "l2"]))
def test_the_move_onto_a_hyperplane_is_the_shortest_in_the_box(values, share, norm):
    x, normal = (np.array(column) for column in zip(*values, strict=True))
    if not normal.any():
        return
    lowest, highest = np.minimum(normal, 0).sum(), np.maximum(normal, 0).sum()
    offset = lowest + share * (highest - lowest)  # from corner to corner, so that every plane meets the box
    move = onto_hyperplane(*(torch.tensor(part)[None] for part in (x, normal)), torch.tensor([offset]), norm)[0].numpy()
    assert (x + move >= -1e-12).all()
    assert (x + move <= 1 + 1e-12).all()
    assert normal @ (x + move) == pytest.approx(offset, abs=1e-9)
    size = abs(move).max() if norm == "linf" else np.linalg.norm(move)
    assert size == pytest.approx(shortest_move(x, normal, offset, norm), abs=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_hyperplane_that_misses_the_box_is_approached_at_a_corner(norm):
    x, normal = torch.tensor([[0.25, 0.5, 0.75]]), torch.tensor([[2.0, -1.0, 0.0]])
    move = onto_hyperplane(x, normal, torch.tensor([9.0]), norm)
    assert torch.allclose(x + move, torch.tensor([[1.0, 0.0, 0.75]]))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_moves_know_no_scale_of_the_normal(norm):
    generator = torch.Generator().manual_seed(0)
    x, normal = torch.rand(5, 300, generator=generator), torch.randn(5, 300, generator=generator)
    offset = (normal * x).sum(1) + torch.tensor([-3.0, -0.1, 0.0, 0.1, 3.0])
    moves = onto_hyperplane(x, normal, offset, norm)
    tiny = onto_hyperplane(x, normal * 1e-25, offset * 1e-25, norm)
    assert moves.abs().amax(1)[[0, 4]].min() > 0
    assert torch.allclose(moves, tiny, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_a_slope_nothing_moves(norm):
    x = torch.rand(2, 12, generator=torch.Generator().manual_seed(0))
    assert (onto_hyperplane(x, torch.zeros(2, 12), torch.tensor([1.0, 0.0]), norm) == 0).all()


def published(package, network, norm, steps):
    """Return one targeted run of a package, from images and labels to what it found."""
    if package == "torchattacks":
        theirs = torchattacks.FAB(network, norm=NORMS[norm], steps=steps, multi_targeted=True)
        return theirs, theirs.attack_single_run_targeted
    module = pytest.importorskip("autoattack.fab_pt")
    theirs = module.FABAttack_PT(
        network, norm=NORMS[norm], n_iter=steps, targeted=True, device="cpu", n_target_classes=9
    )
    return theirs, lambda x, y: theirs.attack_single_run(x, y, is_targeted=True)


@pytest.mark.parametrize("package", ["torchattacks", "autoattack"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["wide", "dense"])
def test_distances_are_those_of_the_published_code(name, norm, package, some, networks, plain_predictor):
    network = networks[name]
    theirs, run = published(package, network, norm, STEPS)
    x = some.images.float() / 255
    right = network(x).argmax(1) == some.labels
    x, labels = x[right], some.labels[right]
    nearest = torch.full((len(x),), torch.inf)
    for place in range(2, 2 + TARGETS):
        theirs.target_class = place
        found = run(x, labels)
        move = (found - x).flatten(1)
        size = move.abs().amax(1) if norm == "linf" else move.norm(dim=1)
        nearest = nearest.minimum(size.where(network(found).argmax(1) != labels, torch.inf))
    attack = FAB("fab-t", norm, EPSILONS[norm], iterations=STEPS, targets=TARGETS)
    ours = attack.distance(plain_predictor(network), x, labels)
    assert (ours - nearest).abs().max() < 1e-4
    assert nearest.isfinite().all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_verdicts_are_those_of_torchattacks_at_every_epsilon(norm, some, networks, plain_predictor, cut, observed):
    network = networks["wide"]
    attack = FAB("fab-t", norm, EPSILONS[norm][1:3], iterations=STEPS, targets=TARGETS)
    ours = observed(attack, plain_predictor(network), cut(some, 16))
    for setting, survived in zip(attack.settings, ours["survived"], strict=True):
        theirs = torchattacks.FAB(
            network, norm=NORMS[norm], steps=STEPS, eps=setting.epsilon, multi_targeted=True, n_classes=1 + TARGETS
        )
        assert torch.equal(network(theirs(some.images.float() / 255, some.labels)).argmax(1) == some.labels, survived)
    assert 0 < ours["survived"].float().mean() < 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_verdicts_depend_neither_on_batches_nor_on_the_order_nor_on_the_other_epsilons(
    norm, some, networks, plain_predictor, part_of, cut, observed
):
    attack = FAB("fab-t", norm, EPSILONS[norm], iterations=4, targets=TARGETS)
    whole = observed(attack, plain_predictor(networks["dense"]), cut(some, 24))
    pieces = observed(attack, plain_predictor(networks["dense"], chunk=3), cut(some, 7))
    backwards = observed(attack, plain_predictor(networks["dense"]), cut(part_of(some, list(range(23, -1, -1))), 16))
    for other in (pieces, backwards):
        assert torch.equal(other["survived"], whole["survived"])
    # The search for an image ends at the smallest epsilon; alone, each epsilon is the smallest.
    for rung, epsilon in enumerate(EPSILONS[norm]):
        attack = FAB("fab-t", norm, (epsilon,), iterations=4, targets=TARGETS)
        alone = observed(attack, plain_predictor(networks["dense"]), cut(some, 24))
        assert torch.equal(alone["survived"][0], whole["survived"][rung])


def test_as_a_member_of_a_set_every_image_has_its_own_epsilon(some, networks, plain_predictor):
    x = some.images.float() / 255
    right = networks["narrow"](x).argmax(1) == some.labels
    x, labels = x[right], some.labels[right]
    attack, predictor = FAB("fab-t", "linf", (0.1,), iterations=4, targets=TARGETS), plain_predictor(networks["narrow"])
    distance = attack.distance(predictor, x, labels)
    epsilons = torch.linspace(0.02, 0.12, len(x))
    asked = len(predictor.asked)
    broken = attack.broken(predictor, x, labels, epsilons, [0] * len(x))
    assert torch.equal(broken, distance <= epsilons)
    assert broken.any()
    assert not broken.all()
    # A broken image is not asked about again.
    assert sum(map(len, predictor.asked[asked:])) < sum(map(len, predictor.asked[:asked]))


def test_targets_are_the_likeliest_wrong_classes_and_no_more_than_there_are(plain_predictor):
    outputs = torch.tensor([[0.0, 3.0, 3.0, 1.0], [5.0, 1.0, 2.0, 4.0]])
    assert wrong_classes(outputs, torch.tensor([1, 0])).tolist() == [[2, 3, 0], [3, 2, 1]]

    torch.manual_seed(0)
    for classes, targets, runs in ((2, 9, 1), (3, 9, 2), (5, 2, 2), (5, 9, 4)):
        network = nn.Sequential(nn.Flatten(), nn.Linear(48, classes))
        predictor, x = plain_predictor(network), torch.rand(6, 3, 4, 4)
        labels = network(x).argmax(1)
        distance = FAB("fab-t", "l2", (0.1,), iterations=3, targets=targets).distance(predictor, x, labels)
        assert len(predictor.asked) == runs * 3
        assert distance.isfinite().all()


def test_on_a_linear_predictor_one_step_crosses_the_boundary_by_the_overshoot(plain_predictor):
    weight = torch.randn(48, generator=torch.Generator().manual_seed(0)) * 0.05

    def linear(x):
        height = (x.flatten(1) - 0.5) @ weight
        return torch.stack([height + 0.05, -height - 0.05], dim=1)

    x = torch.full((1, 3, 4, 4), 0.5)
    for norm, dual in (("linf", weight.abs().sum()), ("l2", weight.norm())):
        distance = FAB("fab-t", norm, (0.1,), iterations=1).distance(plain_predictor(linear), x, torch.tensor([0]))
        assert distance.item() == pytest.approx(1.05 * 0.05 / dual.item(), rel=1e-4)


def test_an_image_without_a_usable_gradient_is_not_broken(plain_predictor):
    def flat(x):
        return torch.stack([x.sum(dim=(1, 2, 3)) * 0 + 1, x.sum(dim=(1, 2, 3)) * 0], dim=1)

    def steep(x):
        return torch.stack([x.sum(dim=(1, 2, 3)) * 0, x.sum(dim=(1, 2, 3)) * 0 - torch.inf], dim=1)

    x = torch.full((2, 3, 4, 4), 0.5)
    for predict in (flat, steep):
        attack = FAB("fab-t", "linf", (0.1,), iterations=3)
        assert (attack.distance(plain_predictor(predict), x, torch.tensor([0, 0])) == torch.inf).all()


def test_an_image_that_is_wrong_when_clean_is_not_attacked(some, networks, plain_predictor, cut, observed, part_of):
    wrong = part_of(some, list(range(12)))
    wrong.labels[:] = (wrong.labels + 1) % 10
    right = networks["dense"](wrong.images.float() / 255).argmax(1) == wrong.labels
    assert not right.all()
    predictor = plain_predictor(networks["dense"])
    rows = observed(FAB("fab-t", "linf", (1e-6,), iterations=2), predictor, cut(wrong, 5))
    assert torch.equal(rows["correct_clean"], right)
    assert torch.equal(rows["survived"][0], right)
    assert sum(map(len, predictor.asked)) == 9 * 2 * int(right.sum())


def test_outputs_that_are_not_numbers_end_the_attack(some, plain_predictor, cut):
    attack = FAB("fab-t", "linf", (0.1,))
    with pytest.raises(FloatingPointError, match="fab-t: the predictor's outputs are not numbers on 24 of 24"):
        list(attack.observe(plain_predictor(lambda x: torch.full((len(x), 10), torch.nan)), cut(some, 24)))


def test_fab_needs_gradients_and_at_least_one_target():
    assert FAB("fab-t", "linf", (0.1,)).needs == {"labels", "gradients", "fixed_predictor"}
    with pytest.raises(ValueError, match="at least one target for 'fab-t', got 0"):
        FAB("fab-t", "linf", (0.1,), targets=0)


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_distances_on_a_gpu_are_those_on_the_cpu(norm, some, networks, plain_predictor):
    x, found = some.images.float() / 255, {}
    labels = networks["wide"](x).argmax(1)
    for device in ("cpu", "cuda"):
        predictor = plain_predictor(networks["wide"].to(device))
        attack = FAB("fab-t", norm, EPSILONS[norm], iterations=STEPS, targets=TARGETS)
        found[device] = attack.distance(predictor, x.to(device), labels.to(device))
        assert found[device].device.type == device
    networks["wide"].cpu()
    assert ((found["cpu"] - found["cuda"].cpu()).abs() < 1e-3 * found["cpu"]).float().mean() > 0.9
