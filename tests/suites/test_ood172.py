"""The suite of the 2022 study: its pairs, counts, conditions and grid, to the digit."""

from __future__ import annotations

from math import prod

import pytest

from tlbench.conditions.catalogue import condition_names
from tlbench.data.readers.catalogue import READERS
from tlbench.data.splits import quotas
from tlbench.methods.augment import AUGMENTATIONS
from tlbench.metrics.catalogue import METRICS
from tlbench.suites.load import check_names, load_suite
from tlbench.suites.spec import Suite

FULL, LITE = load_suite("ood172"), load_suite("ood172-lite")
BOTH = pytest.mark.parametrize("suite", [FULL, LITE], ids=lambda suite: suite.name)

# Task: pairs, sources, classes, images of the published splits.
PUBLISHED = {
    "DomainNet": (30, 6, 345, 586_575),
    "OfficeHome": (12, 4, 65, 15_588),
    "PACS": (12, 4, 7, 9_991),
    "SVIRO": (90, 10, 7, 56_000),
    "TerraIncognita": (12, 4, 10, 24_330),
    "VLCS": (12, 4, 5, 10_725),
    "Camelyon17": (1, 1, 2, 335_996 + 85_054),
    "FMoW": (1, 1, 62, 99_672 + 22_108),
    "iWildCam": (1, 1, 182, 145_277 + 42_791),
    "RxRx1": (1, 1, 1139, 81_224 + 34_432),
}
CORRUPTIONS = [
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "speckle_noise",
    "gaussian_blur",
    "spatter",
    "saturate",
]


@BOTH
def test_ten_tasks_have_the_published_pairs_sources_classes_and_images(suite: Suite) -> None:
    found = {
        name: (
            len(suite.pairs_of(name)),
            len(suite.sources_of(name)),
            len(task.classes or ()),
            sum(domain.counts.all for domain in task.domains.values() if domain.counts),
        )
        for name, task in suite.tasks.items()
    }
    assert found == PUBLISHED
    assert len(suite.pairs) == 172
    assert len({(pair.task, pair.source) for pair in suite.pairs}) == 36
    assert len({(pair.task, pair.source, pair.target) for pair in suite.pairs}) == 172


@BOTH
def test_the_training_sets_together_hold_the_published_number_of_images(suite: Suite) -> None:
    trained = {(task, source) for task in suite.tasks for (source,) in suite.sources_of(task)}
    counts = [suite.tasks[task].domains[source].counts for task, source in trained]
    assert sum(one.train for one in counts if one) == 1_113_362


def test_quickdraw_follows_from_its_500_images_a_class() -> None:
    counts = FULL.tasks["DomainNet"].domains["quickdraw"].counts
    assert counts is not None
    assert (counts.train, counts.test, counts.val) == tuple(345 * quotas(500)[p] for p in ("train", "test", "val"))


@BOTH
def test_every_name_that_a_suite_uses_exists(suite: Suite) -> None:
    check_names(suite, readers=READERS, conditions=condition_names(), metrics=METRICS, augmentations=AUGMENTATIONS)


@BOTH
def test_classes_are_told_apart(suite: Suite) -> None:
    for task in suite.tasks.values():
        assert task.classes is not None
        assert len(set(task.classes)) == len(task.classes)


def test_the_conditions_are_the_published_ones_and_the_others_are_marked() -> None:
    by_kind: dict[str, list] = {}
    for condition in FULL.conditions:
        by_kind.setdefault(condition.kind, []).append(condition)
    (clean,), (attack,) = by_kind["clean"], by_kind["attack"]
    assert clean.roles == ("id-val", "id-test", "ood-test")
    assert sorted(c.name for c in by_kind["corruption"]) == sorted(CORRUPTIONS)
    assert all(
        (c.severities, c.table, c.roles, c.max_images) == ((1, 2, 3, 4, 5), 224, ("id-test",), None)
        for c in by_kind["corruption"]
    )
    assert (attack.name, attack.norm, attack.mode, attack.steps, attack.restarts) == (
        "apgd-dlr",
        "linf",
        "exact",
        100,
        1,
    )
    assert attack.radii == pytest.approx([1.96e-5, 1.96e-4, 3.92e-4, 5.88e-4, 1.18e-3, 1.96e-3], rel=4e-3)
    assert (attack.roles, attack.max_images) == (("id-test", "ood-test"), 1000)
    assert [c.name for c in FULL.conditions if c.addition] == ["shift", "rotation", "scale"]
    assert (FULL.metrics.ece_bins, FULL.metrics.ece_closed) == (10, "left")


def test_the_grid_has_the_published_number_of_runs() -> None:
    grid = FULL.protocol.grid
    # Of the two colour changes, what was meant and what ran, the study had one.
    colours = {"color-jitter", "random-color-as-published"}
    assert colours < set(grid.augment)
    sizes = {name: len(values) for name, values in grid} | {"augment": len(grid.augment) - 1}
    assert 36 * prod(sizes.values()) == 31_104
    assert len(grid.backbone) == 9


def test_units_of_resampling_and_groups_are_named_where_the_data_name_them() -> None:
    named = {name: (task.cluster, task.group) for name, task in FULL.tasks.items() if task.cluster or task.group}
    assert named == {
        "SVIRO": ("scene", None),
        "Camelyon17": ("slide", "hospital"),
        "FMoW": (None, "region"),
        "iWildCam": ("sequence", None),
        "RxRx1": ("experiment", None),
    }


def test_everybody_is_told_where_the_data_are_had() -> None:
    for task in FULL.tasks.values():
        assert all((task.title, task.licence, task.citation, task.obtain, task.size))


def test_the_lite_suite_differs_by_its_caps_alone() -> None:
    assert {name: task.domains for name, task in LITE.tasks.items()} == {n: t.domains for n, t in FULL.tasks.items()}
    assert [c.model_dump(exclude={"max_images"}) for c in LITE.conditions] == [
        c.model_dump(exclude={"max_images"}) for c in FULL.conditions
    ]
    caps = {"max_train_per_class", "max_val", "max_test"}
    for name in FULL.tasks:
        assert LITE.split_of(name).model_dump(exclude=caps) == FULL.split_of(name).model_dump(exclude=caps)
    differing = {"grid", "split"}
    assert LITE.protocol.model_dump(exclude=differing) == FULL.protocol.model_dump(exclude=differing)
    assert LITE.hash != FULL.hash
