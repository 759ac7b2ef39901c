"""APGD against torchattacks, its runs and targets, and fast against exact."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchattacks

from tlbench.conditions.attacks.apgd import APGD
from tlbench.conditions.attacks.balls import directions
from tlbench.conditions.base import image_seed

NORMS = {"linf": "Linf", "l2": "L2"}


def starting(monkeypatch, toward):
    """Let torchattacks begin in the directions that our condition draws."""
    monkeypatch.setattr(torch, "rand", lambda shape: (toward + 1) / 2)
    monkeypatch.setattr(torch, "randn", lambda shape: toward)


def right_rows(network, batch):
    return (network(batch.images.float() / 255).argmax(1) == batch.labels).nonzero()[:, 0].tolist()


def drawn(batch, rows, attack, setting, run):
    seeds = [image_seed(batch.scope, batch.names[row], setting, run) for row in rows]
    return directions(seeds, batch.images.shape[1:], attack.norm)


def robust_by_torchattacks(monkeypatch, network, batch, attack, setting):
    """Run torchattacks' APGD from the starts that our condition draws; how many images survive."""
    x = batch.images.float() / 255
    starting(monkeypatch, drawn(batch, right_rows(network, batch), attack, setting, 0))
    theirs = torchattacks.APGD(
        network, norm=NORMS[attack.norm], eps=setting.epsilon, steps=attack.iterations,
        loss=attack.name.removeprefix("apgd-"),
    )  # fmt: skip
    found = theirs(x, batch.labels)
    monkeypatch.undo()
    return int((network(found).argmax(1) == batch.labels).sum())


def robust_by_targeted_torchattacks(monkeypatch, network, batch, attack, setting):
    """The same of its APGDT, one target after another: it draws anew for each, and so do we."""
    theirs = torchattacks.APGDT(network, norm=NORMS[attack.norm], eps=setting.epsilon, steps=attack.iterations)
    x, rows = batch.images.float() / 255, right_rows(network, batch)
    for place in range(attack.targets):
        theirs.target_class = place + 2
        starting(monkeypatch, drawn(batch, rows, attack, setting, place))
        survived = theirs.attack_single_run(x[rows], batch.labels[rows])[1]
        monkeypatch.undo()
        rows = [row for row, whole in zip(rows, survived.tolist(), strict=True) if whole]
    return len(rows)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    ("name", "loss"),
    [("narrow", "ce"), ("wide", "ce"), ("narrow", "dlr"), ("wide", "dlr"), ("dense", "dlr"), ("dense", "t")],
)
def test_apgd_agrees_with_torchattacks_within_one_image(
    name, loss, norm, some, epsilons, networks, plain_predictor, cut, observed, monkeypatch, part_of
):
    network, (steps, n) = networks[name], (20, 96) if loss != "t" else (10, 48)
    batch = part_of(some, list(range(n)))
    attack = APGD(f"apgd-{loss}", norm, epsilons[norm], iterations=steps, mode="exact", targets=3)
    survived = observed(attack, plain_predictor(network), cut(batch, 40))["survived"].sum(1).tolist()
    assert all(0.2 * n <= count <= 0.8 * n for count in survived[:2])
    theirs = robust_by_targeted_torchattacks if loss == "t" else robust_by_torchattacks
    for count, setting in zip(survived, attack.settings, strict=True):
        assert abs(count - theirs(monkeypatch, network, batch, attack, setting)) <= 1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ["narrow", "dense"])
def test_fast_and_exact_agree(name, norm, some, epsilons, networks, plain_predictor, cut, observed):
    sizes = (0.02, *epsilons[norm])
    fast, exact = (
        observed(
            APGD("apgd-dlr", norm, sizes, iterations=15, mode=mode), plain_predictor(networks[name]), cut(some, 48)
        )["survived"]
        for mode in ("fast", "exact")
    )
    assert (fast != exact).sum() <= 1
    assert (fast >= exact).all()
    assert (exact[:-1] >= exact[1:]).all()


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


def untouchable(classes):
    """A predictor that prefers class 0, then 1, 2, ..., with gradients that lead nowhere."""
    outputs = -torch.arange(float(classes))
    return lambda x: outputs + 0 * x.sum(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize(("classes", "targets", "runs"), [(2, 9, 1), (3, 9, 1), (4, 9, 3), (12, 9, 9), (12, 2, 2)])
def test_so_many_classes_are_aimed_at_as_there_are(classes, targets, runs, some, plain_predictor, cut, part_of):
    few = part_of(some, [0, 1, 2])
    few.labels[:] = 0
    attack, asked = APGD("apgd-t", "linf", (0.1,), iterations=1, targets=targets, restarts=2), []
    predictor = plain_predictor(untouchable(classes))
    gradient = predictor.gradient

    def recording(images, labels, loss):
        asked.append(labels.clone())
        return gradient(images, labels, loss)

    predictor.gradient = recording
    assert all(row.survived.all() for row in attack.observe(predictor, cut(few, 3)))
    assert len(asked) == runs * 2 * 2  # two restarts, each a start and a step
    if classes > 3:
        aims = torch.stack(asked)[::4, :, 1]  # the likeliest first
        assert torch.equal(aims, torch.arange(1, runs + 1)[:, None].expand(-1, 3))


@pytest.mark.parametrize(("classes", "instead"), [(2, "apgd-ce"), (3, "apgd-dlr")])
def test_with_few_classes_the_targeted_attack_is_the_one_that_takes_its_place(
    classes, instead, some, epsilons, networks, plain_predictor, cut, monkeypatch
):
    def few_classes(x):
        return networks["dense"](x)[:, :classes]

    verdicts = []
    for name in ("apgd-t", instead):
        attack = APGD(name, "linf", epsilons["linf"], iterations=5)
        # What an attack is called stands in the seeds of its starts.
        monkeypatch.setattr(attack, "_name", "the same")
        rows = list(attack.observe(plain_predictor(few_classes), cut(some, 40)))
        verdicts.append(torch.cat([row.survived for row in rows]))
    assert torch.equal(*verdicts)
    assert verdicts[0].any()


@pytest.mark.parametrize(("option", "value"), [("restarts", 0), ("targets", 0), ("audit", 1.5), ("iterations", 0)])
def test_options_that_mean_nothing_are_refused(option, value):
    with pytest.raises(ValueError, match="expected"):
        APGD("apgd-t", "linf", (0.1,), **{option: value})


def test_a_predictor_that_answers_nan_is_neither_right_nor_robust(some, plain_predictor, cut):
    broken: Callable = lambda x: torch.full((len(x), 10), torch.nan)  # noqa: E731
    with pytest.raises(FloatingPointError, match="not numbers on 96 of 96"):
        list(APGD("apgd-ce", "linf", (0.1,)).observe(plain_predictor(broken), cut(some, 96)))


def test_a_predictor_that_answers_nan_on_the_way_is_no_better(some, networks, plain_predictor, cut):
    def breaks_down(x):
        outputs = networks["dense"](x)
        return outputs if torch.equal(x * 255, (x * 255).round()) else outputs * torch.nan

    with pytest.raises(FloatingPointError, match="apgd-ce: the predictor's outputs are not numbers on"):
        list(APGD("apgd-ce", "linf", (0.1,)).observe(plain_predictor(breaks_down), cut(some, 96)))


def test_epsilons_become_settings_smallest_first():
    settings = APGD("apgd-dlr", "l2", (0.2, 0.1)).settings
    assert [setting.epsilon for setting in settings] == [0.1, 0.2]
    assert {setting.norm for setting in settings} == {"l2"}
