"""Every image at its own epsilon, full batches, and the audit of what was only implied."""

from __future__ import annotations

import pytest
import torch

from tlbench import seeds
from tlbench.conditions.attacks.apgd import APGD
from tlbench.conditions.attacks.foolbox import FoolboxPGD

MODES = ("fast", "exact")


def made(kind, mode, epsilons, **options):
    if kind == "apgd":
        return APGD("apgd-dlr", "linf", epsilons["linf"], iterations=8, mode=mode, **options)
    return FoolboxPGD("foolbox-linf-pgd", epsilons["linf"], iterations=8, mode=mode, **options)


def audits_of(attack, predictor, batches):
    """Return every audited verdict, (image, epsilon) to (implied, found)."""
    verdicts = {}
    for row in attack.observe(predictor, batches):
        for id_, implied, found in zip(
            row.ids[row.audited], row.survived[row.audited], row.found[row.audited], strict=True
        ):
            verdicts[int(id_), row.setting.epsilon] = (bool(implied), bool(found))
    return verdicts


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["apgd", "foolbox"])
def test_verdicts_depend_neither_on_batches_nor_on_the_order_of_images(
    kind, mode, some, epsilons, networks, plain_predictor, part_of, cut, observed
):
    attack = made(kind, mode, epsilons)
    whole = observed(attack, plain_predictor(networks["dense"]), cut(some, 96))
    pieces = observed(attack, plain_predictor(networks["dense"], chunk=5), cut(some, 7))
    backwards = observed(attack, plain_predictor(networks["dense"]), cut(part_of(some, list(range(95, -1, -1))), 32))
    assert 0 < whole["survived"].float().mean() < 1
    for other in (pieces, backwards):
        assert torch.equal(other["survived"], whole["survived"])
        assert torch.equal(other["correct_clean"], whole["correct_clean"])


def test_an_image_that_is_wrong_when_clean_is_not_attacked_and_does_not_survive(
    some, networks, plain_predictor, cut, observed, part_of
):
    wrong = part_of(some, list(range(12)))
    wrong.labels[:] = (wrong.labels + 1) % 10
    wrong.labels[:3] = some.labels[:3]
    predictor = plain_predictor(networks["dense"])
    right = networks["dense"](wrong.images.float() / 255).argmax(1) == wrong.labels
    assert 0 < right.sum() < 12
    rows = observed(APGD("apgd-ce", "linf", (1e-6,), iterations=3), predictor, cut(wrong, 5))
    assert torch.equal(rows["correct_clean"], right)
    assert torch.equal(rows["survived"][0], right)
    assert sum(len(asked) for asked in predictor.asked) == 4 * int(right.sum())


def test_freed_places_are_taken_at_once(some, epsilons, networks, plain_predictor, cut, observed):
    predictor = plain_predictor(networks["dense"])
    observed(APGD("apgd-dlr", "linf", epsilons["linf"], iterations=10, mode="exact"), predictor, cut(some, 16))
    sizes = [len(asked) for asked in predictor.asked]
    tail = 3 * 11  # the longest way of a last image: every epsilon, every step
    assert set(sizes[:-tail]) == {16}


def test_no_images_make_no_rows(some, networks, plain_predictor, cut, part_of):
    attack = APGD("apgd-ce", "linf", (0.1,), audit=0.5)
    assert list(attack.observe(plain_predictor(networks["dense"]), lambda: iter(()))) == []
    all_wrong = part_of(some, [0, 1])
    all_wrong.labels[:] = (networks["dense"](all_wrong.images.float() / 255).argmax(1) + 1) % 10
    (row,) = attack.observe(plain_predictor(networks["dense"]), cut(all_wrong, 2))
    assert not row.survived.any()
    assert not row.audited.any()


@pytest.mark.parametrize("mode", MODES)
def test_a_predictor_that_hides_nothing_passes_its_audit(
    mode, some, epsilons, networks, plain_predictor, cut, observed
):
    attack = made("apgd", mode, epsilons, audit=1.0)
    verdicts = audits_of(attack, plain_predictor(networks["dense"]), cut(some, 40))
    assert len(verdicts) > 30
    assert all(implied == found == (mode == "fast") for implied, found in verdicts.values())


def shell(x):
    """Wrong in a shell about a grey image, between distances 0.01 and 0.03, and without a slope anywhere."""
    distance = (x - 128 / 255).abs().amax(dim=(1, 2, 3))
    wrong = ((distance > 0.01) & (distance < 0.03)).float() + 0 * x.sum(dim=(1, 2, 3))
    return torch.stack([torch.full_like(wrong, 0.5), wrong, torch.full_like(wrong, -1)], dim=1)


@pytest.fixture
def grey(batch_of):
    return batch_of(torch.full((20, 3, 8, 8), 128, dtype=torch.uint8))


def test_an_audit_of_exact_finds_gradients_that_are_masked(grey, plain_predictor, cut):
    attack = APGD("apgd-ce", "linf", (0.02, 0.1), iterations=5, mode="exact", audit=1.0)
    verdicts = audits_of(attack, plain_predictor(shell), cut(grey, 6))
    assert verdicts == {(image, 0.1): (False, True) for image in range(20)}


def test_an_audit_of_fast_finds_that_it_is_too_optimistic(grey, plain_predictor, cut, observed):
    attack = APGD("apgd-ce", "linf", (0.02, 0.1), iterations=5, mode="fast", audit=1.0)
    verdicts = audits_of(attack, plain_predictor(shell), cut(grey, 6))
    assert verdicts == {(image, 0.02): (True, False) for image in range(20)}
    # What was found is told, and changes no verdict.
    assert observed(attack, plain_predictor(shell), cut(grey, 6))["survived"].all()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("share", [0.3, 1e-9])
def test_who_is_audited_depends_neither_on_batches_nor_on_order(
    share, mode, some, epsilons, networks, plain_predictor, cut, part_of
):
    attack = APGD("apgd-dlr", "linf", epsilons["linf"], iterations=6, mode=mode, audit=share)
    network = networks["dense"]
    whole = audits_of(attack, plain_predictor(network), cut(some, 96))
    pieces = audits_of(attack, plain_predictor(network), cut(some, 7))
    backwards = audits_of(attack, plain_predictor(network), cut(part_of(some, list(range(95, -1, -1))), 32))
    assert whole == pieces == backwards
    images = {image for image, _ in whole}
    # Where nobody is drawn, one image stands in.
    assert len(images) == 1 if share < 0.01 else 10 < len(images) < 50


def test_one_image_is_audited_where_nobody_is_drawn(grey, plain_predictor, cut):
    attack = APGD("apgd-ce", "linf", (0.02, 0.1), iterations=5, mode="exact", audit=1e-9)
    assert len(audits_of(attack, plain_predictor(shell), cut(grey, 6))) == 1


@pytest.mark.parametrize("mode", MODES)
def test_where_nobody_drawn_has_an_implied_verdict_the_next_image_that_has_one_stands_in(
    mode, some, epsilons, networks, plain_predictor, cut, part_of, observed
):
    options = {"iterations": 6, "mode": mode}
    rows = observed(
        APGD("apgd-dlr", "linf", epsilons["linf"], **options), plain_predictor(networks["dense"]), cut(some, 96)
    )
    rungs, survived = len(epsilons["linf"]), rows["survived"].sum(dim=0)
    # Climbing, who falls at the last epsilon or never implies nothing; descending, who survives one epsilon at most.
    implying = survived < rungs - 1 if mode == "exact" else survived > 1
    draws = [seeds.derive("audit", some.scope, name, "apgd-dlr", "linf") / 2**63 for name in some.names]
    by_draw = sorted(rows["correct_clean"].nonzero()[:, 0].tolist(), key=draws.__getitem__)
    mute = [image for image in by_draw if not implying[image]][:5]
    others = [image for image in by_draw if implying[image] and draws[image] > draws[mute[-1]]]
    assert len(mute) == 5
    assert len(others) > 5
    kept = sorted(mute + others)
    attack = APGD("apgd-dlr", "linf", epsilons["linf"], audit=draws[mute[-1]] + 1e-9, **options)
    for order, size in ((kept, len(kept)), (others[::-1] + mute, 7)):
        verdicts = audits_of(attack, plain_predictor(networks["dense"]), cut(part_of(some, order), size))
        assert {image for image, _ in verdicts} == {others[0]}


def test_batches_do_not_wait_for_whoever_stands_in(some, epsilons, networks, plain_predictor, cut):
    attack = APGD("apgd-dlr", "linf", epsilons["linf"], iterations=6, mode="exact", audit=1e-9)
    taken = []

    def batches():
        for batch in cut(some, 8)():
            taken.append(batch)
            yield batch

    # Rows of finished batches come while later ones are still to be read.
    open_at_once = []
    seen = set()
    for row in attack.observe(plain_predictor(networks["dense"]), batches):
        seen.add(tuple(row.ids.tolist()))
        open_at_once.append(len(taken) - len(seen))
    assert len(seen) == 12
    assert max(open_at_once) <= 4


def test_an_audit_begins_where_the_attack_alone_at_that_epsilon_would(
    some, epsilons, networks, plain_predictor, cut, observed
):
    steps = {"iterations": 2, "mode": "exact"}  # too few to break for sure: the start decides
    verdicts = audits_of(
        APGD("apgd-ce", "linf", (0.04, 0.05, 0.06), audit=1.0, **steps),
        plain_predictor(networks["dense"]),
        cut(some, 40),
    )
    for epsilon in (0.05, 0.06):
        alone = observed(
            APGD("apgd-ce", "linf", (epsilon,), **steps), plain_predictor(networks["dense"]), cut(some, 40)
        )
        found = {image: found for (image, at), (_, found) in verdicts.items() if at == epsilon}
        assert found
        assert all(found[image] == bool(alone["survived"][0, image]) for image in found)


def test_without_an_audit_nothing_is_told_about_one(some, networks, plain_predictor, cut):
    rows = list(
        APGD("apgd-ce", "linf", (0.1,), iterations=1).observe(plain_predictor(networks["dense"]), cut(some, 96))
    )
    assert all(row.audited is None and row.found is None for row in rows)
