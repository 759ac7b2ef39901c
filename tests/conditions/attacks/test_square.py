"""The square attack against torchattacks: question by question with the same draws, and in law with its own."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torchattacks
from torch.nn import functional

from tlbench.conditions.attacks.attack import Identity
from tlbench.conditions.attacks.balls import length
from tlbench.conditions.attacks.square import DRAWN_AHEAD, Search, Square, bump, lead, sides
from tlbench.setting import Setting

EPSILONS = {"linf": (0.03, 0.05, 0.07), "l2": (0.7, 1.0, 1.4)}
NORMS = {"linf": "Linf", "l2": "L2"}


@pytest.fixture(scope="module")
def some(digits, part_of):
    return part_of(digits, list(range(64)))


def right_ones(network, batch):
    x = batch.images.float() / 255
    right = network(x).argmax(1) == batch.labels
    return x[right], batch.labels[right]


def names(n, scope="s"):
    return [Identity(scope, str(i), Setting("square")) for i in range(n)]


def run(search, x, labels, epsilons, who=None):
    """Attack images together; whether each was broken."""
    search.add(range(len(x)), x, labels, epsilons, who or names(len(x)))
    broken = torch.zeros(len(x), dtype=torch.bool)
    while len(search):
        for key, verdict in search.advance():
            broken[key] = verdict
    return broken


def published(package, predict, norm, **options):
    """Return a package's attack on a function from images to outputs."""
    if package == "torchattacks":
        theirs = torchattacks.Square(torch.nn.Identity(), norm=NORMS[norm], **options)
        theirs.get_logits = predict
        return theirs
    return pytest.importorskip("autoattack.square").SquareAttack(predict, norm=NORMS[norm], device="cpu", **options)


@pytest.mark.parametrize(
    ("package", "norm", "channels", "rescaled"),
    [
        ("torchattacks", "linf", 3, False),
        ("torchattacks", "linf", 3, True),
        # With more channels than one, torchattacks gives each the norm of all of them together in `l2`.
        ("torchattacks", "l2", 1, False),
        ("torchattacks", "l2", 1, True),
        ("autoattack", "linf", 3, False),
        ("autoattack", "l2", 3, False),
    ],
)
def test_with_the_same_draws_every_question_is_the_published_one(
    package, norm, channels, rescaled, some, networks, plain_predictor, monkeypatch
):
    queries, (x, labels) = DRAWN_AHEAD + 20, right_ones(networks["wide"], some)
    epsilon, survivors = EPSILONS[norm][0], 0
    for i, who in enumerate(names(4)):
        image, label = x[i : i + 1, :channels], labels[i : i + 1]
        ours, theirs = [], []

        def predict(images, into):
            into.append(images.clone())
            return networks["wide"](images.expand(-1, 3, -1, -1)).clone()

        search = Search(plain_predictor(partial(predict, into=ours)), norm, queries, width=1, rescaled=rescaled)
        survivors += not run(search, image, label, [epsilon], [who])

        stream = np.random.default_rng(who.seed("square"))
        monkeypatch.setattr(
            torch, "rand", lambda shape, stream=stream: torch.from_numpy(stream.random(tuple(shape), dtype=np.float32))
        )
        peer = published(
            package, partial(predict, into=theirs), norm, eps=epsilon, n_queries=queries, resc_schedule=rescaled
        )
        peer.init_hyperparam(image)
        peer.attack_single_run(image, label)
        monkeypatch.undo()

        assert len(ours) == len(theirs)
        # The same numbers; in `l2` norms are summed in another order.
        assert (torch.cat(ours) - torch.cat(theirs)).abs().max() <= (0 if norm == "linf" else 5e-6)
        assert len({float(one.sum()) for one in ours}) > 10
    assert survivors


@pytest.mark.parametrize(("package", "norm"), [("torchattacks", "linf"), ("autoattack", "l2")])
def test_robust_accuracy_has_the_published_law(package, norm, some, networks, plain_predictor):
    """Means over four seeds: the survivors of one seed alone vary by one or two images of 64 from seed to seed."""
    x, labels = right_ones(networks["narrow"], some)
    epsilon, ours, theirs = EPSILONS[norm][2], [], []
    for seed in range(4):
        search = Search(plain_predictor(networks["narrow"]), norm, 80, width=64)
        broken = run(search, x, labels, [epsilon] * len(x), names(len(x), scope=str(seed)))
        ours.append(int((~broken).sum()))
        peer = published(
            package,
            lambda images: networks["narrow"](images).clone(),
            norm, eps=epsilon, n_queries=80, resc_schedule=False, seed=seed,
        )  # fmt: skip
        theirs.append(int((networks["narrow"](peer.perturb(x, labels)).argmax(1) == labels).sum()))
    assert abs(np.mean(ours) - np.mean(theirs)) <= 2
    assert 10 < min(ours) <= max(ours) < len(x)
    assert len(set(ours)) > 1


@pytest.mark.parametrize(("norm", "mode"), [("linf", "fast"), ("l2", "exact")])
def test_verdicts_depend_neither_on_batches_nor_on_the_order_of_images(
    norm, mode, some, networks, plain_predictor, part_of, cut, observed
):
    some = part_of(some, list(range(30)))
    attack = Square("square", norm, EPSILONS[norm][:2], queries=25, mode=mode)
    whole = observed(attack, plain_predictor(networks["dense"]), cut(some, 30))
    pieces = observed(attack, plain_predictor(networks["dense"], chunk=3), cut(some, 7))
    backwards = observed(attack, plain_predictor(networks["dense"]), cut(part_of(some, list(range(29, -1, -1))), 16))
    for other in (pieces, backwards):
        assert torch.equal(other["survived"], whole["survived"])
        assert torch.equal(other["correct_clean"], whole["correct_clean"])
    assert 0 < whole["survived"].float().mean() < whole["correct_clean"].float().mean()
    assert (whole["survived"][0] >= whole["survived"][1]).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_questions_stay_in_the_ball_and_in_the_box(norm, some, networks, plain_predictor):
    x, labels = right_ones(networks["narrow"], some)
    epsilons = torch.tensor(EPSILONS[norm]).repeat(len(x))[: len(x)]
    search = Search(plain_predictor(networks["narrow"]), norm, 30, width=64)
    search.add(range(len(x)), x, labels, epsilons.tolist(), names(len(x)))
    while len(search):
        rows = search.rows
        assert ((rows.x >= 0) & (rows.x <= 1)).all()
        assert (length(rows.x - rows.image, norm) <= rows.epsilon * (1 + 1e-5) + 1e-7).all()
        search.advance()


def test_a_broken_image_is_not_asked_about_again(some, networks, plain_predictor):
    asked = []

    def counted(images):
        asked.append(len(images))
        return networks["wide"](images)

    x, labels = right_ones(networks["wide"], some)
    broken = run(Search(plain_predictor(counted), "linf", 50, width=64), x, labels, [0.06] * len(x))
    assert len(asked) == 51  # the start, and every proposal
    assert asked == sorted(asked, reverse=True)
    assert asked[-1] == int((~broken).sum()) < asked[0] == len(x)


def test_freed_places_are_taken_at_once(some, networks, plain_predictor, cut, observed):
    asked = []

    def counted(images):
        asked.append(len(images))
        return networks["wide"](images)

    observed(Square("square", "linf", (0.1,), queries=20), plain_predictor(counted), cut(some, 16))
    full = [n for n in asked if n == 16]
    assert len(full) > 0.8 * len(asked[:-21])


def test_fewer_questions_are_the_beginning_of_the_same_search(some, networks, plain_predictor):
    x, labels = right_ones(networks["dense"], some)
    few, more = (
        run(Search(plain_predictor(networks["dense"]), "linf", queries, width=64), x, labels, [0.06] * len(x))
        for queries in (8, 40)
    )
    assert (few <= more).all()
    assert few.sum() < more.sum()


def test_gradients_are_never_asked_for(some, networks, plain_predictor, cut, observed):
    predictor = plain_predictor(networks["dense"])
    attack = Square("square", "l2", (1.0,), queries=5)
    observed(attack, predictor, cut(some, 32))
    assert predictor.asked == []
    assert attack.needs == {"labels", "fixed_predictor"}


def test_logits_and_their_log_probabilities_are_attacked_alike(some, networks, plain_predictor):
    x, labels = right_ones(networks["dense"], some)
    outputs = {"logits": lambda z: z, "log_probs": lambda z: functional.log_softmax(z, 1), "scores": lambda z: z / 9}
    found = [
        run(
            Search(plain_predictor(lambda z, of=of: of(networks["dense"](z)), output=output), "linf", 30, width=64),
            x, labels, [0.06] * len(x),
        )
        for output, of in outputs.items()
    ]  # fmt: skip
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert found[0].any()


def test_outputs_of_minus_infinity_are_outputs(plain_predictor):
    def sure(x):
        return torch.stack([x.sum(dim=(1, 2, 3)), torch.full((len(x),), -torch.inf)], dim=1)

    x = torch.full((2, 3, 8, 8), 0.5)
    assert lead(sure(x), torch.tensor([0, 1])).tolist() == [torch.inf, -torch.inf]
    assert not run(Search(plain_predictor(sure), "linf", 3, width=2), x, torch.tensor([0, 0]), [0.1, 0.1]).any()


def test_outputs_that_are_not_numbers_end_the_attack(some, plain_predictor, cut):
    with pytest.raises(FloatingPointError, match="square: the predictor's outputs are not numbers on 64 of 64"):
        list(
            Square("square", "linf", (0.1,)).observe(
                plain_predictor(lambda x: torch.full((len(x), 10), torch.nan)), cut(some, 64)
            )
        )


@pytest.mark.parametrize("rescaled", [False, True])
def test_squares_shrink_as_in_torchattacks(rescaled):
    published = torchattacks.Square(torch.nn.Identity(), n_queries=5000, resc_schedule=rescaled)
    for norm, least in (("linf", 1), ("l2", 3)):
        ours = sides(5000, 224, 200, norm, rescaled)
        for proposal in (0, 5, 6, 10, 11, 50, 51, 100, 101, 200, 201, 999, 1000, 1001, 2001, 3000, 4000, 4001, 4999):
            side = max(round((published.p_selection(proposal) * 224 * 200) ** 0.5), least)
            side += norm == "l2" and side % 2 == 0
            assert ours[proposal] == min(side, 200)
    assert min(sides(5000, 224, 224, "linf", True)) == 9


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 12, 13, 45])
def test_a_bump_is_that_of_torchattacks(side, monkeypatch):
    published = torchattacks.Square(torch.nn.Identity(), norm="L2")
    monkeypatch.setattr(torch, "rand", lambda shape: torch.zeros(shape))  # not turned
    theirs = published.eta(side)
    monkeypatch.undo()
    assert np.allclose(bump(side), theirs.numpy(), atol=1e-6)
    assert np.linalg.norm(bump(side)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("size", [(2, 2), (4, 4), (7, 7), (14, 14), (9, 13)])
def test_small_and_odd_sizes_have_squares_too(size, norm, plain_predictor):
    direction = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))

    def linear(x):
        height = ((x - 0.5) * direction).sum(dim=(1, 2, 3))
        return torch.stack([height + 0.2, -height - 0.2], dim=1)

    x = torch.full((8, 3, *size), 0.5)
    labels = torch.zeros(8, dtype=torch.int64)
    broken = run(Search(plain_predictor(linear), norm, 60, width=8), x, labels, [0.1 if norm == "linf" else 0.7] * 8)
    assert broken.any()


def test_two_images_of_one_name_are_searched_alike_and_others_are_not(plain_predictor):
    asked = []

    def far(x):
        asked.append(x.clone())
        return torch.stack([x.sum(dim=(1, 2, 3)) + 99, x.sum(dim=(1, 2, 3))], dim=1)

    search = Search(plain_predictor(far), "linf", 10, width=3)
    who = names(2)
    search.add([0, 1, 2], torch.full((3, 3, 8, 8), 0.5), torch.tensor([0, 0, 0]), [0.1] * 3, [who[0], who[1], who[0]])
    while len(search):
        search.advance()
    assert all(torch.equal(x[0], x[2]) for x in asked)
    assert sum(not torch.equal(x[0], x[1]) for x in asked) == len(asked)


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_verdicts_on_a_gpu_are_those_on_the_cpu(norm, some, networks, plain_predictor):
    x, labels = right_ones(networks["wide"], some)
    found = {}
    for device in ("cpu", "cuda"):
        search = Search(plain_predictor(networks["wide"].to(device)), norm, 60, width=64)
        found[device] = run(search, x.to(device), labels.to(device), [EPSILONS[norm][1]] * len(x))
    networks["wide"].cpu()
    assert (found["cpu"] != found["cuda"]).sum() <= 1
