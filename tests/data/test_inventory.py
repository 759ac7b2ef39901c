"""What is there of a suite's data, whether it is right, and what the cache lacks of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tlbench.data.build import build, plan_preparation
from tlbench.data.inventory import DataPlace, find_data, take_inventory
from tlbench.data.prepare import SuiteData
from tlbench.data.verify import Verification, decode_all, verify
from tlbench.errors import DataError, StoreError, UsageError
from tlbench.suites.spec import Suite

TEN = {"cat": 10, "dog": 10}
DECLARED = {"train": 16, "val": 2, "test": 2}
BOTH = {"photo": {"counts": DECLARED}, "sketch": {"counts": DECLARED}}


def a_suite(**sketch: Any) -> Suite:
    """Return two tasks, pets and cars, of two domains each."""
    task = {"reader": "folder", "obtain": "the page of pets", "size": "1 GB", "licence": "none"}
    own = {**BOTH, "sketch": {**BOTH["sketch"], **sketch}}
    tasks = {name: {**task, "path": name, "domains": own} for name in ("pets", "cars")}
    return Suite.model_validate(
        {"name": "made", "tasks": tasks, "protocol": {"image_size": 8, "split": {"rule": "assaying"}}}
    )


@pytest.fixture
def place(folders: Callable[..., Path], tmp_path: Path) -> DataPlace:
    """The pets alone, and a cache of their own."""
    root = folders({"photo": TEN, "sketch": TEN}, root="data/pets").parent
    return DataPlace(a_suite(), root, tmp_path / "cache")


def states(place: DataPlace) -> dict[str, str]:
    return {own.task: own.state for own in take_inventory(place).tasks}


def both(place: DataPlace) -> Verification:
    return decode_all(verify(place))


def test_what_is_there_is_counted_and_what_is_not_says_where_to_get_it(place: DataPlace) -> None:
    found = take_inventory(place)
    pets, cars = found.tasks
    assert (pets.state, pets.images, pets.expected, pets.prepared) == ("present", 40, 40, 0)
    assert (cars.state, cars.images, cars.expected) == ("missing", None, 40)
    assert (cars.obtain, cars.size, cars.licence) == ("the page of pets", "1 GB", "none")
    assert found.pairs == 2


def test_nothing_is_decoded_or_read_for_an_inventory(place: DataPlace) -> None:
    for file in place.root.rglob("*.png"):
        file.write_bytes(b"no image")
    assert states(place) == {"pets": "present", "cars": "missing"}
    assert not list((place.root.parent / "cache").rglob("*.lines"))


def test_a_missing_domain_or_class_makes_a_task_incomplete(place: DataPlace) -> None:
    shutil.rmtree(place.root / "pets" / "sketch")
    pets = take_inventory(place).tasks[0]
    assert (pets.state, pets.images) == ("incomplete", 20)
    assert [bool(own.problem) for own in pets.domains] == [False, True]
    assert "pets/sketch: expected a folder" in pets.domains[1].problem
    assert pets.obtain == "the page of pets"


def test_data_that_lie_beside_where_they_are_looked_for_are_found(place: DataPlace) -> None:
    def hint(at: DataPlace) -> str:
        return take_inventory(at, ["cars"]).tasks[0].hint

    assert hint(place) == ""  # the folder of the pets is none of cars in another spelling
    pets = replace(place, root=place.root / "pets")
    assert take_inventory(pets, ["pets"]).tasks[0].hint == (
        f"; it is in {place.root}, so this data root is a folder too deep: use --data-root {place.root}"
    )
    with pytest.raises(DataError, match=f"use --data-root {place.root}; to be had"):
        verify(pets, ["pets"])
    (place.root / "cars.tar.gz").write_bytes(b"")
    assert hint(place) == f"; {place.root / 'cars.tar.gz'} is not unpacked: unpack it"
    (place.root / "cars.tar.gz").unlink()
    (place.root / "unpacked" / "cars").mkdir(parents=True)
    assert hint(place) == f"; it is in {place.root / 'unpacked'}: use --data-root {place.root / 'unpacked'}"


def test_a_domain_that_cannot_be_split_makes_a_task_incomplete(
    folders: Callable[..., Path], suite_of: Callable[..., Suite]
) -> None:
    root = folders({"photo": TEN, "sketch": TEN})
    suite = suite_of(["photo", "sketch"], protocol={"split": {"rule": "assaying-given", "max_train": 3}})
    assert states(DataPlace(suite, root, root / "cache")) == {"pets": "incomplete"}


def test_other_numbers_are_told_and_a_known_variant_is_named(place: DataPlace) -> None:
    shutil.rmtree(place.root / "pets" / "sketch" / "cat")
    assert states(place)["pets"] == "differs"
    known = replace(place, suite=a_suite(variants={"the dogs alone": 10}))
    assert states(known)["pets"] == "present"
    assert take_inventory(known).tasks[0].domains[1].variant == "the dogs alone"


def test_a_task_without_a_folder_of_its_own_is_missing_where_no_domain_is_there(
    suite_of: Callable[..., Suite], tmp_path: Path
) -> None:
    place = DataPlace(suite_of(["photo", "sketch"]), tmp_path)
    assert states(place) == {"pets": "missing"}
    (tmp_path / "photo").mkdir()
    assert states(place) == {"pets": "incomplete"}


def test_prepared_images_are_seen_without_reading_a_file(place: DataPlace) -> None:
    place.open().build("pets", "photo")
    pets = take_inventory(place).tasks[0]
    assert [own.prepared for own in pets.domains] == [20, 0]


def test_files_that_may_be_unreadable_are_not_decoded_to_find_out(place: DataPlace) -> None:
    sketch = place.root / "pets" / "sketch"
    for name in ("cat/a.png", "dog/b.png"):
        (sketch / name).write_bytes(b"no picture")
    allowed = a_suite(options={"unreadable": 2})
    tasks = {
        name: task.model_copy(update={"reader": "domainbed", "classes": ("cat", "dog")})
        for name, task in allowed.tasks.items()
    }
    lenient = replace(place, suite=allowed.model_copy(update={"tasks": tasks}))
    pets = take_inventory(lenient).tasks[0]
    assert pets.state == "present"
    assert [(own.images, own.expected, own.undecided) for own in pets.domains] == [(20, 20, 0), (22, 20, 2)]
    assert not (place.cache or place.root).exists() or not list((place.cache or place.root).rglob("*.lines"))
    (sketch / "cat" / "c.png").write_bytes(b"no picture")
    assert states(lenient)["pets"] == "differs"
    (sketch / "cat" / "c.png").unlink()
    lenient.open().own("pets", "sketch")  # looks
    assert [(own.images, own.undecided) for own in take_inventory(lenient).tasks[0].domains] == [(20, 0), (20, 0)]


def test_a_task_that_the_suite_lacks_is_told_with_the_nearest(place: DataPlace) -> None:
    with pytest.raises(UsageError, match="--task pet: suite 'made' has no such task; did you mean 'pets'"):
        take_inventory(place, ["pet"])


def test_a_data_root_is_asked_for_where_a_suite_of_ours_needs_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'ood172' reads data of yours: --data-root names the folder .* 'domain_net'"):
        find_data("ood172")
    assert find_data("digits").suite.name == "digits"
    with pytest.raises(UsageError, match="expected a folder, found nothing"):
        find_data("ood172", tmp_path / "absent")


def test_right_data_are_right(place: DataPlace) -> None:
    found = both(place)
    assert found.right
    assert found.deep
    assert [(own.name, own.decoded, own.confirmed) for own in found.domains] == [
        ("pets/photo", 20, "not confirmed"),
        ("pets/sketch", 20, "not confirmed"),
    ]
    assert list(found.missing) == ["cars"]


def test_every_unreadable_image_is_named(place: DataPlace) -> None:
    damaged = [place.root / "pets" / "photo" / name for name in ("cat/003.png", "dog/000.png")]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:150])
    found = both(place)
    assert not found.right
    assert [image.name for image in found.domains[0].unreadable] == ["cat/003.png", "dog/000.png"]
    assert [str(file) in image.reason for file, image in zip(damaged, found.domains[0].unreadable, strict=True)]
    assert verify(place).right


def test_other_numbers_stop_before_anything_is_decoded(place: DataPlace) -> None:
    (place.root / "pets" / "photo" / "cat" / "003.png").unlink()
    (place.root / "pets" / "sketch" / "cat" / "003.png").write_bytes(b"no image")
    found = both(place)
    assert [own.domain for own in found.differing] == ["photo"]
    assert (found.right, found.deep, found.unreadable) == (False, False, 0)


def test_members_are_confirmed_or_differ(place: DataPlace) -> None:
    true = verify(place).domains[1].members
    assert verify(replace(place, suite=a_suite(members=true))).domains[1].confirmed == "confirmed"
    strange = verify(replace(place, suite=a_suite(members="0" * 64)))
    assert strange.domains[1].confirmed == "differs"
    assert not strange.right
    # The same number of images under other names are other members.
    photo = place.root / "pets" / "sketch" / "cat" / "003.png"
    photo.rename(photo.with_name("3.png"))
    assert verify(replace(place, suite=a_suite(members=true))).domains[1].confirmed == "differs"


def test_what_cannot_be_listed_is_a_problem_and_the_rest_is_looked_at(place: DataPlace) -> None:
    shutil.rmtree(place.root / "pets" / "sketch")
    found = both(place)
    assert [own.name for own in found.domains] == ["pets/photo"]
    assert found.problems[0].startswith("pets/sketch: expected a folder")
    assert not found.right


def test_a_named_task_must_be_there(place: DataPlace) -> None:
    with pytest.raises(DataError, match=r"cars: no data at .*; to be had: the page of pets"):
        verify(place, ["cars"])
    shutil.rmtree(place.root / "pets")
    with pytest.raises(DataError, match="pets: no data at"):
        verify(place)


def test_the_cache_is_filled_where_a_run_looks_for_it(place: DataPlace) -> None:
    told: list[tuple[str, int, int]] = []
    made = plan_preparation(place)
    assert (made.images, made.bytes) == (40, 40 * (8 * 8 * 3 + 32))
    build(made, progress=lambda *at: told.append(at))
    assert [at for at in told if at[1] == at[2]] == [
        ("pets/photo: reading", 20, 20),
        ("pets/photo", 20, 20),
        ("pets/sketch: reading", 20, 20),
        ("pets/sketch", 20, 20),
    ]
    again = plan_preparation(place)
    assert (again.images, again.bytes) == (0, 0)
    asked: list[tuple[str, int, int]] = []
    data = SuiteData(place.suite, data_root=place.root, cache=place.cache, progress=lambda *at: asked.append(at))
    assert len(data.split("pets", "photo", "train").images) == 16
    assert asked == []


def test_images_that_do_not_fit_are_refused_before_the_first(place: DataPlace) -> None:
    made = replace(plan_preparation(place), free_bytes=1000)
    with pytest.raises(StoreError, match=r"need 0\.000009 GB, 0\.000001 GB are free; set TLBENCH_CACHE"):
        build(made)
    assert not (place.root.parent / "cache").exists()


def test_other_images_are_not_prepared(place: DataPlace) -> None:
    (place.root / "pets" / "photo" / "cat" / "003.png").unlink()
    with pytest.raises(DataError, match="1 of 2 domains do not hold the images"):
        plan_preparation(place)
