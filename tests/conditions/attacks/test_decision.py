"""Decision-based attacks against foolbox called directly, and their promises about what they could not begin."""

from __future__ import annotations

import foolbox
import pytest
import torch
from foolbox.attacks import BoundaryAttack, HopSkipJumpAttack, LinearSearchBlendedUniformNoiseAttack

from tlbench.conditions.attacks.decision import STEPS, FoolboxDecision
from tlbench.engine.measuring import attack_columns
from tlbench.metrics.evaluate import measure_attack

KINDS = [("foolbox-boundary", "l2", 60), ("foolbox-hopskipjump", "l2", 2), ("foolbox-hopskipjump", "linf", 2)]


@pytest.fixture(scope="module")
def few(some, networks):
    """Four digits that the network knows, in [0, 1], and their labels."""
    x = some.images.float() / 255
    right = networks["wide"](x).argmax(1) == some.labels
    return x[right][:4], some.labels[right][:4]


def nearest_by_foolbox(network, image, label, name, norm, steps, seed):
    """Run foolbox as its users do; the distance of the nearest image that it asked about and that broke the network."""
    distances = []

    def recording(images):
        outputs = network(images)
        move = (images - image).flatten(1)
        distance = move.abs().amax(1) if norm == "linf" else move.norm(dim=1)
        distances.append(distance.where(outputs.argmax(1) != label, torch.inf))
        return outputs

    model = foolbox.PyTorchModel(torch.nn.Identity().eval(), bounds=(0, 1), device="cpu")
    model._model = recording
    start = LinearSearchBlendedUniformNoiseAttack(steps=50)
    if name == "foolbox-boundary":
        attack = BoundaryAttack(init_attack=start, steps=steps)
    else:
        attack = HopSkipJumpAttack(init_attack=start, steps=steps, constraint=norm)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = attack.run(model, image, label)
    move = found - image
    returned = move.abs().max() if norm == "linf" else move.norm()
    return torch.cat(distances).min().item(), returned.item()


@pytest.mark.parametrize(("name", "norm", "steps"), KINDS)
def test_what_is_found_is_what_foolbox_finds(name, norm, steps, few, networks, plain_predictor):
    x, labels = few
    attack = FoolboxDecision(name, norm, (0.1,), iterations=steps)
    # One image at a time, as foolbox asks: near a boundary the last bit of an output decides.
    ours = attack.distance(plain_predictor(networks["wide"], chunk=1), x, labels, range(4)).tolist()
    for i, distance in enumerate(ours):
        nearest, returned = nearest_by_foolbox(
            networks["wide"], x[i : i + 1], labels[i : i + 1], name, norm, steps, seed=i
        )  # fmt: skip
        assert distance == pytest.approx(nearest, rel=1e-5)
        assert distance <= returned * (1 + 1e-5)


@pytest.mark.parametrize(("name", "norm", "steps"), KINDS)
def test_results_depend_neither_on_company_nor_on_the_state_of_the_global_generator(
    name, norm, steps, few, networks, plain_predictor
):
    x, labels = few
    attack, predictor = FoolboxDecision(name, norm, (0.1,), iterations=steps), plain_predictor(networks["wide"])
    together = attack.distance(predictor, x, labels, [5, 6, 7, 8])
    torch.rand(3)
    state = torch.get_rng_state()
    alone = attack.distance(predictor, x[2:3], labels[2:3], [7])
    assert torch.equal(torch.get_rng_state(), state)
    assert alone[0] == together[2]
    other = attack.distance(predictor, x[2:3], labels[2:3], [9])
    assert other[0] != together[2]


def test_one_run_answers_every_epsilon_as_a_run_for_each_would(some, networks, plain_predictor, cut, observed, part_of):
    some, epsilons = part_of(some, list(range(8))), (0.05, 0.15, 0.3)
    predictor = plain_predictor(networks["wide"])
    whole = observed(
        FoolboxDecision("foolbox-hopskipjump", "linf", epsilons, iterations=3), predictor, cut(some, 3)
    )  # fmt: skip
    assert len(predictor.started) == 1
    for rung, epsilon in enumerate(epsilons):
        attack = FoolboxDecision("foolbox-hopskipjump", "linf", (epsilon,), iterations=3)
        alone = observed(attack, plain_predictor(networks["wide"]), cut(part_of(some, list(range(7, -1, -1))), 8))
        assert torch.equal(alone["survived"][0], whole["survived"][rung])
    assert (whole["survived"][:-1] >= whole["survived"][1:]).all()
    assert whole["survived"][0].any()
    assert not whole["survived"][-1].any()


def counted(network, asked):
    def ask(images):
        asked.append(len(images))
        return network(images)

    return ask


def test_the_search_for_an_image_ends_when_what_was_found_is_near_enough(few, networks, plain_predictor):
    x, labels = few
    attack = FoolboxDecision("foolbox-hopskipjump", "l2", (0.1,), iterations=3)
    asked, all_asked = [], []
    distance = attack.distance(plain_predictor(counted(networks["wide"], all_asked)), x, labels, range(4))
    broken = attack.broken(
        plain_predictor(counted(networks["wide"], asked)), x, labels, torch.full((4,), 50.0), range(4)
    )  # fmt: skip
    assert broken.all()
    assert sum(asked) < sum(all_asked) / 10
    assert (
        attack.broken(plain_predictor(networks["wide"]), x, labels, distance * 0.99, range(4)).tolist() == [False] * 4
    )


@pytest.mark.parametrize("name", list(STEPS))
@pytest.mark.parametrize("queries", [7, 150])
def test_no_image_is_asked_about_more_often_than_allowed(name, queries, few, networks, plain_predictor):
    x, labels = few
    attack, asked = FoolboxDecision(name, "l2", (0.1,), queries=queries), []
    found = attack.distance(plain_predictor(counted(networks["wide"], asked)), x[:1], labels[:1], [0])
    assert sum(asked) == queries
    assert found.isfinite().all()


def bright(x):
    """Class 1 for bright images, as hard labels: nothing to differentiate."""
    return torch.nn.functional.one_hot((x.mean(dim=(1, 2, 3)) > 0.9).long(), 2).float()


def test_an_image_without_a_start_is_told_and_never_counted_as_robust(batch_of, plain_predictor, cut, observed):
    images = torch.full((3, 3, 8, 8), 255, dtype=torch.uint8)
    images[1:] = 128  # uniform noise is as grey as these, never bright
    batch = batch_of(images, torch.tensor([1, 0, 1]))
    predictor = plain_predictor(bright, output="scores", differentiable=False)
    attack = FoolboxDecision("foolbox-boundary", "l2", (1e-6, 100.0), iterations=20)
    for size in (1, 3):
        rows = observed(attack, predictor, cut(batch, size))
        assert rows["correct_clean"].tolist() == [True, True, False]
        assert rows["survived"].tolist() == [[True, False, False], [False, False, False]]
        assert attack.notes == [
            "foolbox-boundary: no start was found for 1 of the 2 images that are right when clean; they are counted as "
            "broken at every epsilon"
        ]
    columns = attack_columns(attack.observe(predictor, cut(batch, 3)), attack.settings, 3)
    assert columns["breaking_epsilon"].tolist() == [100.0, 0.0, 0.0]
    assert measure_attack(columns, epsilons=attack.epsilons)["unattacked_share", None].value == 0.5
    observed(attack, predictor, cut(batch_of(images[:1], torch.tensor([1])), 1))
    assert attack.notes == []


def test_a_start_that_is_not_found_within_the_questions_is_unknown_too(plain_predictor):
    attack = FoolboxDecision("foolbox-hopskipjump", "linf", (0.1,), queries=9)
    grey = torch.full((1, 3, 8, 8), 0.5)
    assert attack.distance(plain_predictor(bright), grey, torch.tensor([0]), [0]).tolist() == [0]
    assert attack.broken(plain_predictor(bright), grey, torch.tensor([0]), torch.tensor([0.1]), [0]).all()


def test_outputs_that_are_not_numbers_end_the_attack(some, plain_predictor, cut, part_of):
    def silent(x):
        """Right on what it is given first, and nothing after that."""
        return torch.eye(10)[some.labels[:4]] if len(x) == 4 else torch.full((len(x), 10), torch.nan)

    attack = FoolboxDecision("foolbox-boundary", "l2", (0.1,))
    with pytest.raises(FloatingPointError, match="foolbox-boundary: the predictor's outputs are not numbers on 1 of 1"):
        list(attack.observe(plain_predictor(silent), cut(part_of(some, [0, 1, 2, 3]), 4)))


def test_only_labels_and_a_fixed_predictor_are_needed():
    assert FoolboxDecision("foolbox-boundary", "l2", (0.1,)).needs == {"labels", "fixed_predictor"}


@pytest.mark.parametrize(
    ("name", "norm", "options", "message"),
    [
        ("foolbox-boundary", "linf", {}, "expected the norm 'l2' for 'foolbox-boundary', got 'linf'"),
        ("foolbox-bound", "l2", {}, "expected one of .*'foolbox-boundary'.* got 'foolbox-bound'"),
        ("foolbox-hopskipjump", "l2", {"queries": 0}, "at least one question for 'foolbox-hopskipjump', got 0"),
    ],
)
def test_options_that_mean_nothing_are_refused(name, norm, options, message):
    with pytest.raises(ValueError, match=message):
        FoolboxDecision(name, norm, (0.1,), **options)


@pytest.mark.gpu
def test_draws_for_images_on_a_gpu_are_those_of_the_cpu(few, networks, plain_predictor):
    x, labels = few
    attack = FoolboxDecision("foolbox-boundary", "l2", (0.1,), iterations=30)
    expected = attack.distance(plain_predictor(networks["wide"]), x, labels, range(4))
    state = torch.cuda.get_rng_state()
    found = attack.distance(plain_predictor(networks["wide"]), x.cuda(), labels.cuda(), range(4))
    assert torch.equal(found.cpu(), expected)
    assert torch.equal(torch.cuda.get_rng_state(), state)
