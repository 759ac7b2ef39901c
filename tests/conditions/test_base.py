"""What every condition promises: one row an image and setting, randomness from the image's identity alone."""

from __future__ import annotations

import pytest
import torch

from tlbench.conditions.base import ImageCondition, image_seed
from tlbench.conditions.catalogue import build_condition, condition_names, condition_version
from tlbench.conditions.clean import Clean
from tlbench.errors import SuiteError, UnknownNameError
from tlbench.setting import CLEAN, Setting

STEPS = {"shift": (4, 8), "rotation": (10,), "scale": (0.9, 1.1)}
CHANGES = [("transform", name) for name in condition_names()["transform"]]
CHANGES += [("corruption", name) for name in condition_names()["corruption"]]


@pytest.fixture(scope="module")
def photo_batch(photos, batch_of):
    pieces = [photo[top : top + 64, left : left + 64] for photo in photos for top in (0, 80) for left in (40, 150, 10)]
    images = torch.stack([torch.from_numpy(piece.copy()).permute(2, 0, 1) for piece in pieces])
    return batch_of(images, scope="photos/plain")


def made(kind, name):
    return build_condition(kind, name, steps=STEPS.get(name))


@pytest.mark.parametrize(("kind", "name"), CHANGES)
def test_an_image_does_not_depend_on_its_batch_nor_on_its_place_in_it(kind, name, photo_batch, part_of):
    condition = made(kind, name)
    setting = condition.settings[-1]
    whole = condition.apply(photo_batch, setting)
    order = list(reversed(range(24)))
    assert torch.equal(condition.apply(part_of(photo_batch, order), setting), whole[order])
    assert torch.equal(condition.apply(part_of(photo_batch, [17]), setting), whole[[17]])
    assert torch.equal(condition.apply(part_of(photo_batch, [5, 17, 3]), setting), whole[[5, 17, 3]])


@pytest.mark.parametrize(("kind", "name"), CHANGES)
def test_images_stay_uint8_of_their_shape_and_the_batch_stays_as_it_is(kind, name, photo_batch):
    condition, before = made(kind, name), photo_batch.images.clone()
    for setting in condition.settings:
        changed = condition.apply(photo_batch, setting)
        assert changed.dtype == torch.uint8
        assert changed.shape == before.shape
        assert not torch.equal(changed, before)
    assert torch.equal(photo_batch.images, before)


@pytest.mark.parametrize("name", ["gaussian_noise", "glass_blur", "motion_blur", "fog", "snow", "elastic_transform"])
def test_randomness_comes_from_scope_name_and_severity(name, photo_batch, batch_of):
    corruption = made("corruption", name)
    twins = batch_of(photo_batch.images[[20, 20]])
    first, second = corruption.apply(twins, corruption.settings[4])
    assert not torch.equal(first, second)
    elsewhere = batch_of(photo_batch.images[[20, 20]], scope="digits/rendered")
    assert not torch.equal(corruption.apply(elsewhere, corruption.settings[4])[0], first)


def test_a_seed_tells_strengths_and_conditions_apart_but_not_kinds_of_number():
    assert image_seed("t/d", "a", Setting("fog", 1)) == image_seed("t/d", "a", Setting("fog", 1.0))
    seeds = {
        image_seed("t/d", "a", Setting("fog", 1)),
        image_seed("t/d", "a", Setting("fog", 2)),
        image_seed("t/d", "a", Setting("snow", 1)),
        image_seed("t/d", "b", Setting("fog", 1)),
        image_seed("t/e", "a", Setting("fog", 1)),
        image_seed("t/d", "a", Setting("apgd-ce", norm="linf", epsilon=0.1)),
        image_seed("t/d", "a", Setting("apgd-ce", norm="linf", epsilon=0.2)),
        image_seed("t/d", "a", Setting("apgd-ce", norm="linf", epsilon=0.2), 1),
    }
    assert len(seeds) == 8


def test_clean_hands_the_images_on(digits, networks, plain_predictor, cut):
    predictor = plain_predictor(networks["dense"])
    rows = list(Clean().observe(predictor, cut(digits, 1_000)))
    assert [row.setting for row in rows] == [CLEAN, CLEAN]
    assert torch.equal(torch.cat([row.ids for row in rows]), digits.ids)
    assert torch.equal(torch.cat([row.outputs for row in rows]), predictor.outputs(digits.images))


def test_every_image_is_observed_once_under_every_setting(photo_batch, plain_predictor, cut):
    brightness = made("corruption", "brightness")
    predictor = plain_predictor(lambda x: x.mean(dim=(2, 3)))
    rows = list(brightness.observe(predictor, cut(photo_batch, 7)))
    for setting in brightness.settings:
        mine = [row for row in rows if row.setting == setting]
        assert torch.equal(torch.cat([row.ids for row in mine]), photo_batch.ids)
    means = {s: torch.cat([row.outputs for row in rows if row.setting == s]).mean() for s in brightness.settings}
    assert list(means.values()) == sorted(means.values())


def test_a_batch_dependent_predictor_sees_one_setting_at_a_time(photo_batch, plain_predictor, cut):
    brightness = made("corruption", "brightness")
    predictor = plain_predictor(lambda x: x.mean(dim=(2, 3)), batch_dependent=True)
    order = [row.setting for row in brightness.observe(predictor, cut(photo_batch, 12))]
    assert predictor.started == list(brightness.settings)
    assert order == [setting for setting in brightness.settings for _ in range(2)]


def test_every_name_of_the_catalogue_is_built_under_its_name():
    for kind, names in condition_names().items():
        for name in names:
            condition = build_condition(kind, name, steps=(2,), epsilons=(0.1,))
            assert condition.name == name
            assert all(setting.condition == name for setting in condition.settings)
            assert condition_version(kind, name) >= 1


def test_the_catalogue_lists_what_the_modules_hold():
    from tlbench.conditions.corruptions.corruption import CORRUPTIONS
    from tlbench.conditions.transforms import TRANSFORMS

    assert set(condition_names()["corruption"]) == set(CORRUPTIONS)
    assert condition_names()["transform"] == TRANSFORMS


@pytest.mark.parametrize(
    ("kind", "name", "options", "error", "message"),
    [
        ("corruption", "gausian_noise", {}, UnknownNameError, "did you mean 'gaussian_noise'"),
        ("corruptions", "fog", {}, UnknownNameError, "did you mean 'corruption'"),
        ("corruption", "fog", {"severities": (0,)}, SuiteError, "severities"),
        ("corruption", "fog", {"image_size": 96}, SuiteError, "name the table"),
        ("corruption", "fog", {"table": 96}, SuiteError, "not 96"),
        ("transform", "shift", {}, SuiteError, "expected steps, got none"),
        ("transform", "shift", {"steps": (0,)}, SuiteError, "positive steps"),
        ("attack", "apgd-dlr", {}, SuiteError, "expected epsilons, got none"),
        ("attack", "apgd-dlr", {"epsilons": (0.1,), "norm": "l1"}, SuiteError, "norm"),
        ("attack", "apgd-dlr", {"epsilons": (0.1,), "mode": "quick"}, SuiteError, "mode"),
        ("attack", "apgd-dlr", {"epsilons": (0.1, 0.1)}, SuiteError, "each once"),
        ("attack", "foolbox-l2-pgd", {"epsilons": (0.1,), "norm": "linf"}, SuiteError, "its norm is 'l2'"),
        ("attack", "foolbox-boundary", {"epsilons": (0.1,), "norm": "linf"}, SuiteError, "norm 'l2'"),
        ("attack", "apgd-ce", {"epsilons": (0.1,), "targets": 3}, SuiteError, "'targets' means nothing to apgd-ce"),
        (
            "attack",
            "square",
            {"epsilons": (0.1,), "targets": 3},
            SuiteError,
            "leave it out, it is for 'apgd-t', 'fab-t'",
        ),
        ("attack", "apgd-t", {"epsilons": (0.1,), "queries": 30}, SuiteError, "'queries' means nothing to apgd-t"),
        ("attack", "square", {"epsilons": (0.1,), "restarts": 3}, SuiteError, "runs once, not 3 times"),
        ("attack", "apgd-t", {"epsilons": (0.1,), "targets": 0}, SuiteError, "at least one target"),
        ("attack", "autoattack", {"epsilons": (0.1,), "audit": -1}, SuiteError, "audited share"),
    ],
)
def test_a_wrong_description_is_told_with_the_way_out(kind, name, options, error, message):
    with pytest.raises(error, match=message):
        build_condition(kind, name, **options)


def test_a_condition_that_only_applies_does_all_of_it_on_the_images_it_is_given(photo_batch):
    class Inverted(ImageCondition):
        name = "inverted"
        settings = (Setting("inverted", 1.0),)

        def apply(self, batch, setting):
            return 255 - batch.images

    drawn = Inverted().drawn(photo_batch, Inverted.settings[0], torch.device("cpu"))
    assert drawn.tensors == ()
    moved = photo_batch.images.flip(3)
    assert torch.equal(Inverted().applied(moved, drawn, Inverted.settings[0]), 255 - moved)


def test_the_two_halves_of_a_condition_make_the_whole(photo_batch):
    for kind, name in [("transform", "rotation"), ("corruption", "fog"), ("corruption", "impulse_noise")]:
        condition = made(kind, name)
        setting = condition.settings[0]
        drawn = condition.drawn(photo_batch, setting, photo_batch.images.device).on("cpu")
        assert torch.equal(condition.applied(photo_batch.images, drawn, setting), condition.apply(photo_batch, setting))
