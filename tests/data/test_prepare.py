from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tlbench
from tlbench.data.prepare import SuiteData
from tlbench.errors import DataError, UsageError
from tlbench.suites.spec import Suite

Folders = Callable[..., Path]
SuiteOf = Callable[..., Suite]
TWO = {"photo": {"cat": 20, "dog": 20}, "sketch": {"cat": 10, "dog": 30}}


@pytest.fixture
def data(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> SuiteData:
    return SuiteData(suite_of(list(TWO)), base=folders(TWO), cache=tmp_path / "cache")


def test_pacs_is_split_into_the_published_counts(pacs_root: Path, tmp_path: Path) -> None:
    suite = Suite.model_validate(
        {
            "name": "pacs",
            "tasks": {
                "PACS": {
                    "reader": "folder",
                    "path": "PACS",
                    "domains": ["art_painting", "cartoon", "photo", "sketch"],
                }
            },
            "protocol": {"split": {"rule": "assaying"}},
        }
    )
    data = SuiteData(suite, data_root=pacs_root, cache=tmp_path)
    data.check()
    counts = data.counts()
    found = {
        d: tuple(counts["PACS", d, part] for part in ("train", "test", "val")) for d in suite.tasks["PACS"].domains
    }
    assert found == {
        "art_painting": (1644, 203, 201),
        "cartoon": (1880, 234, 230),
        "photo": (1339, 167, 164),
        "sketch": (3145, 393, 391),
    }
    assert data.classes("PACS") == ("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")


def test_a_split_holds_the_images_of_its_names(data: SuiteData) -> None:
    split = data.split("pets", "photo", "test")
    assert split.images.shape == (4, 8, 8, 3)
    for name, label, image in zip(split.manifest.names, split.labels, split.images, strict=True):
        with Image.open(data.root / "photo" / name) as stored:
            expected = stored.resize((8, 8), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image, np.asarray(expected))
        assert name.startswith(split.manifest.classes[label])
    batch = split.batch([2, 0])
    np.testing.assert_array_equal(batch.images[1].permute(1, 2, 0).numpy(), split.images[0])
    assert batch.names == (split.manifest.names[2], split.manifest.names[0])


def test_the_order_in_which_files_were_made_changes_nothing(
    folders: Folders, suite_of: SuiteOf, tmp_path: Path
) -> None:
    roots = [folders(TWO), folders(TWO, root="other", backwards=True)]
    hashes = [
        [m.hash for m in SuiteData(suite_of(list(TWO)), base=r, cache=tmp_path / r.name).manifests()] for r in roots
    ]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 6


def test_a_changed_pixel_changes_the_hash_of_its_split_alone(data: SuiteData, tmp_path: Path) -> None:
    before = {(m.domain, m.part): m.hash for m in data.manifests()}
    name = data.split("pets", "photo", "val").manifest.names[0]
    Image.new("RGB", (20, 16), "red").save(data.root / "photo" / name)
    after = SuiteData(data.suite, base=data.root, cache=tmp_path / "cache").manifests()
    assert {(m.domain, m.part) for m in after if m.hash != before[m.domain, m.part]} == {("photo", "val")}


def test_fewer_shots_are_a_subset_of_more(data: SuiteData) -> None:
    names = [set(data.training("pets", ("photo",), "train", shots).manifest.names) for shots in (2, 5, "full")]
    assert names[0] < names[1] < names[2]
    assert [len(n) for n in names] == [4, 10, 32]


def test_shots_count_for_every_source_and_class(data: SuiteData) -> None:
    split = data.training("pets", ("photo", "sketch"), "train", 3)
    assert split.manifest.counts() == {"cat": 6, "dog": 6}
    assert split.manifest.domain == "photo+sketch"
    one = data.training("pets", ("sketch",), "train", 3)
    np.testing.assert_array_equal(np.asarray(split.images)[6:], np.asarray(one.images))


def test_a_cap_is_part_of_the_split(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> None:
    suite = suite_of(list(TWO), protocol={"split": {"max_train_per_class": 4, "max_test_per_class": 1}})
    data = SuiteData(suite, base=folders(TWO), cache=tmp_path / "cache")
    assert data.split("pets", "sketch", "train").manifest.counts() == {"cat": 4, "dog": 4}
    assert len(data.measured("pets", ("photo",), "sketch", "ood-test")) == 2


def test_a_capped_split_reads_and_keeps_no_more_than_it_uses(
    folders: Folders, suite_of: SuiteOf, tmp_path: Path
) -> None:
    base, capped = folders(TWO), suite_of(list(TWO), protocol={"image_size": 8, "split": {"max_train_per_class": 3}})
    whole = SuiteData(suite_of(list(TWO)), base=base, cache=tmp_path / "whole")
    expected = whole.split("pets", "photo", "train").per_class(3)
    unused = set(whole.split("pets", "photo", "train").manifest.names) - set(expected.manifest.names)
    for name in unused:
        (base / "photo" / name).write_bytes(b"no image at all")
    data = SuiteData(capped, base=base, cache=tmp_path / "capped")
    split = data.split("pets", "photo", "train")
    assert split.manifest.names == expected.manifest.names
    assert np.array_equal(np.asarray(split.images), np.asarray(expected.images))
    assert len(data.used("pets", "photo")) == 6 + sum(len(data.places("pets", "photo")[p]) for p in ("val", "test"))
    kept = np.load(next((tmp_path / "capped" / "images").glob("*/images.npy")), mmap_mode="r")
    assert len(kept) == len(data.used("pets", "photo"))


def test_roles_are_the_sources_own_parts_and_the_targets_test_part(data: SuiteData) -> None:
    pair = data.suite.pairs[0]
    of = {role: data.measured(pair, ("photo",), "sketch", role) for role in ("id-val", "id-test", "ood-test")}
    assert of["id-val"].hash == data.split("pets", "photo", "val").hash
    assert of["id-test"].hash == data.split("pets", "photo", "test").hash
    assert of["ood-test"].hash == data.split("pets", "sketch", "test").hash


def test_several_sources_are_measured_in_a_fair_order(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> None:
    counts = {"a": {"cat": 200}, "b": {"cat": 200}, "c": {"cat": 20}}
    data = SuiteData(suite_of(list(counts)), base=folders(counts), cache=tmp_path / "cache")
    first = data.measured("pets", ("a", "b"), "c", "id-test", max_images=20)
    assert len(first) == 20
    assert {name.split("/")[0] for name in first.manifest.names} == {"a", "b"}
    for i, name in enumerate(first.manifest.names):
        domain, _, own = name.partition("/")
        whole = data.split("pets", domain, "test")
        np.testing.assert_array_equal(first.images[i], whole.images[whole.manifest.names.index(own)])


def test_a_pairs_classes_filter_before_the_head_is_taken(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> None:
    suite = suite_of(list(TWO), pairs=[{"source": "photo", "target": "sketch", "classes": ["cat"]}])
    data = SuiteData(suite, base=folders({d: {"cat": 40, "dog": 60} for d in TWO}), cache=tmp_path / "cache")
    data.check()
    pair = suite.pairs[0]
    target = data.measured(pair, pair.sources, pair.target, "ood-test", max_images=3)
    assert target.manifest.counts() == {"cat": 3, "dog": 0}
    assert data.measured(pair, pair.sources, pair.target, "id-test").manifest.counts() == {"cat": 4, "dog": 6}
    whole = data.split("pets", "sketch", "test")
    assert target.manifest.names == tuple(n for n in whole.manifest.names if n.startswith("cat"))[:3]
    with pytest.raises(DataError, match="no class 'cta'; did you mean 'cat'"):
        data.measured("pets", ("photo",), "sketch", "ood-test", classes=["cta"])


def test_a_subset_of_the_classes_keeps_the_tasks_labels(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> None:
    root = folders({"photo": {"cat": 10, "dog": 10, "eel": 10}, "sketch": {"dog": 10, "eel": 10}})
    suite = suite_of({"photo": {}, "sketch": {"classes": ["eel", "dog"]}})
    data = SuiteData(suite, base=root, cache=tmp_path / "cache")
    data.check()
    assert data.classes("pets") == ("cat", "dog", "eel")
    split = data.split("pets", "sketch", "train")
    assert split.manifest.counts() == {"cat": 0, "dog": 8, "eel": 8}
    assert all(
        name.startswith(split.manifest.classes[label])
        for name, label in zip(split.manifest.names, split.labels, strict=True)
    )


def test_undeclared_differences_of_classes_are_an_error(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> None:
    root = folders({"photo": {"cat": 9, "dog": 9}, "sketch": {"cat": 9, "dgo": 9}})
    data = SuiteData(suite_of(["photo", "sketch"]), base=root, cache=tmp_path / "cache")
    with pytest.raises(DataError, match="domain 'sketch' has class 'dgo', domain 'photo' has not; did you mean 'dog'"):
        data.check()


def test_listed_classes_choose_and_order_the_labels(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> None:
    root = folders({d: {"cat": 10, "dog": 10, "eel": 10} for d in TWO})
    data = SuiteData(suite_of(list(TWO), classes=["eel", "cat"]), base=root, cache=tmp_path / "cache")
    assert data.split("pets", "photo", "test").manifest.counts() == {"eel": 1, "cat": 1}
    with pytest.raises(DataError, match="class 'eeel' has no image; did you mean 'eel'"):
        SuiteData(suite_of(list(TWO), classes=["eeel", "cat"]), base=root, cache=tmp_path).check()


def test_clusters_and_groups_come_from_columns(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> None:
    options = {"pattern": r"/(?P<scene>\d)(?P<region>\d)"}
    suite = suite_of(list(TWO), cluster="region", group="scene", options=options)
    manifest = SuiteData(suite, base=folders(TWO), cache=tmp_path / "cache").split("pets", "photo", "val").manifest
    assert manifest.clusters == tuple(Path(name).name[1] for name in manifest.names)
    assert manifest.groups == ("0",) * len(manifest)
    broken = suite_of(list(TWO), cluster="regoin", options=options)
    with pytest.raises(DataError, match=r"cluster names column 'regoin'.* did you mean 'region'"):
        SuiteData(broken, base=tmp_path / "data", cache=tmp_path / "cache").check()


def test_check_decodes_no_pixel(data: SuiteData, tmp_path: Path) -> None:
    data.check()
    assert not (tmp_path / "cache").exists()


def test_check_names_a_part_that_a_pair_needs_and_has_not(folders: Folders, suite_of: SuiteOf, tmp_path: Path) -> None:
    root = folders({"photo": {"cat": 20}, "sketch": {"cat": 2}})
    data = SuiteData(suite_of(list(TWO), protocol={"split": {"rule": "assaying"}}), base=root, cache=tmp_path)
    with pytest.raises(DataError, match="pets/sketch: has no test image"):
        data.check()
    with pytest.raises(DataError, match="pets/sketch: has no val image"):
        data.training("pets", ("sketch",), "val")


@pytest.mark.parametrize(("task", "domain", "hint"), [("pats", "photo", "'pets'"), ("pets", "photos", "'photo'")])
def test_an_unknown_task_or_domain_is_answered_with_the_nearest(
    data: SuiteData, task: str, domain: str, hint: str
) -> None:
    with pytest.raises(UsageError, match=f"did you mean {hint}"):
        data.places(task, domain)


def test_the_embedded_digits_need_no_folder(tmp_path: Path) -> None:
    from tlbench.suites.load import load_suite

    data = SuiteData(load_suite("digits"), cache=tmp_path)
    data.check()
    split: Any = data.split("digits", "stroke", "val")
    assert split.images.shape == (300, 64, 64, 3)
    assert set(split.manifest.clusters) == {"scripts"}


def test_preparing_data_loads_no_library_that_it_does_not_need() -> None:
    code = "import sys, tlbench.data.prepare; print({'torch', 'torchvision', 'datasets', 'pyarrow'} & set(sys.modules))"
    path = os.pathsep.join([str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=True
    )
    assert done.stdout.strip() == "set()"
