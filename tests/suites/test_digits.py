"""The embedded suite says what it promises."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import pytest

from tlbench.conditions.catalogue import condition_names
from tlbench.suites.load import check_names, load_suite
from tlbench.suites.spec import Attack, Corruption, ListedSplit, Suite, Transform


@pytest.fixture(scope="module")
def digits() -> Suite:
    return load_suite("digits")


def test_it_has_twelve_pairs_of_four_domains(digits: Suite) -> None:
    assert list(digits.tasks["digits"].domains) == ["optdigits", "mnist", "printed", "stroke"]
    assert len({(pair.source, pair.target) for pair in digits.pairs}) == 12


def test_its_protocol_is_small_and_leaves_digits_as_they_are(digits: Suite) -> None:
    protocol = digits.protocol
    assert (protocol.image_size, protocol.seeds, protocol.split.max_train_per_class) == (64, (0, 1, 2), 50)
    assert (protocol.split.train, protocol.split.val, protocol.split.test) == (0.5, 0.1, 0.4)
    assert (protocol.recipe.epochs, protocol.recipe.crop, protocol.recipe.flip) == (10, False, False)
    assert (digits.metrics.ece_bins, digits.metrics.ece_closed) == (15, "right")


def test_its_conditions_exist_and_are_bounded(digits: Suite) -> None:
    check_names(digits, conditions=condition_names())
    transforms = {c.name: c.steps for c in digits.conditions if isinstance(c, Transform)}
    assert transforms == {"shift": (4, 8), "rotation": (10, 20), "scale": (0.9, 1.1)}
    corruptions = [c for c in digits.conditions if isinstance(c, Corruption)]
    assert len(corruptions) == 5
    assert all(c.table == 64 and c.roles == ("id-test",) and c.max_images == 300 for c in corruptions)
    (attack,) = [c for c in digits.conditions if isinstance(c, Attack)]
    assert (attack.name, attack.norm, attack.steps, attack.mode, attack.max_images) == (
        "apgd-dlr",
        "linf",
        100,
        "fast",
        128,
    )
    assert attack.radii == pytest.approx(np.array([0.05, 0.15, 0.5, 1, 2, 4, 8]) / 255)
    assert attack.roles == ("id-test",)


@pytest.mark.parametrize("domain", ["printed", "stroke"])
def test_every_face_of_a_rendered_domain_is_in_one_part(digits: Suite, domain: str) -> None:
    spec = digits.tasks["digits"].domains[domain]
    assert isinstance(spec.split, ListedSplit)
    assert spec.cluster == "face"
    listed = [*spec.split.train, *spec.split.val, *spec.split.test]
    with np.load(str(files("tlbench.data.embedded") / f"{domain}.npz"), allow_pickle=False) as arrays:
        column = arrays[spec.split.by]
    assert sorted(listed) == sorted(set(column.tolist()))
    train = np.isin(column, spec.split.train).mean()
    assert 0.4 < train < 0.6
