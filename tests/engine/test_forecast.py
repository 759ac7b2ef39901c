"""A plan in numbers: sizes with and without data, work counted by hand, speeds that are probed or remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tlbench import api
from tlbench.data.prepare import SuiteData
from tlbench.engine.forecast import Opened, forecast_row, open_place, open_plan
from tlbench.engine.probe import Speeds
from tlbench.engine.session import open_session
from tlbench.engine.summary import PlanSummary, summarise
from tlbench.errors import DataError, UsageError
from tlbench.methods.declared_grid import rows_of
from tlbench.suites.load import load_suite

# Of PACS: 1,644 + 1,880 + 1,339 + 3,145 training images, 986 validation images, 203 + 234 + 167 + 393 test images, each
# of these sets measured by its own source and as the target of three others.
TRAIN, VAL, TEST, ALL = 8_008, 986, 997, 9_991
SETTINGS_OF_AN_IMAGE = 1 + 17 * 5 + 3 * 2  # clean, corruptions by severity, transforms by step
TASKS, PAIRS, FITS = 10, 172, 36


def opened(suite: str | Path, model: str, run_dir: Path, **selection: Any) -> Opened:
    place = open_place(suite, selection, data_root=None, run_dir=run_dir)
    return open_plan(place, selection, model, threads=1)


def of_pacs(run_dir: Path, model: str = "finetune", **options: Any) -> PlanSummary:
    return api.plan("ood172", model, only=["task=PACS"], run_dir=run_dir, probe=False, threads=1, **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> PlanSummary:
    """All of ``ood172`` with neither data nor weights at hand."""
    folder = tmp_path_factory.mktemp("nothing")
    return api.plan("ood172", "finetune", run_dir=folder, probe=False, threads=1)


def test_the_published_protocol_is_counted_without_data(whole: PlanSummary) -> None:
    assert (whole.fits, whole.fits_to_do) == (3 * FITS, 3 * FITS)
    assert whole.training_images == 3 * 1_113_362
    assert whole.training_passes == 10 * whole.training_images
    # Clean ID-val; clean, corruptions, an attack and transforms on ID-test; the same without corruptions on every pair.
    assert whole.measurements == 3 * (FITS * (1 + 1 + 17 + 1 + 3) + PAIRS * (1 + 1 + 3))
    images = 703_209 + 421_050 + 121_780 + 188_068 + 115_656  # six tasks in folders, four of WILDS
    assert whole.cache_bytes == images * (224 * 224 * 3 + 32)
    assert [task.task for task in whole.tasks][:2] == ["DomainNet", "OfficeHome"]
    assert len(whole.tasks) == TASKS


def test_a_plan_without_data_or_weights_says_so(whole: PlanSummary) -> None:
    said = "\n".join(whole.notes)
    assert "no data here for DomainNet" in said
    assert "the weights of timm:resnet50d" in said
    assert whole.backbones[0].endswith("@untrained")


def test_images_of_every_kind_are_counted_as_by_hand(tmp_path: Path) -> None:
    plan = of_pacs(tmp_path, seeds=[0])
    assert (plan.fits, plan.training_images, plan.training_passes) == (4, TRAIN, 10 * TRAIN)
    assert plan.images == VAL + SETTINGS_OF_AN_IMAGE * TEST + 3 * TEST * (1 + 3 * 2)
    assert plan.attacked_images == 4 * TEST
    # Six epsilons, a hundred steps and the start; no set has more than the 1,000 images that are attacked.
    assert plan.gradients == 4 * TEST * 6 * 101
    assert plan.cache_bytes == ALL * (224 * 224 * 3 + 32)


def test_hours_on_the_declared_device_follow_from_its_rates(tmp_path: Path) -> None:
    plan = of_pacs(tmp_path, seeds=[0])
    (device,) = plan.hours
    assert device.assumed
    assert device.by_kind["train"] == pytest.approx(10 * TRAIN / 380 / 3600)
    assert device.by_kind["attack"] == pytest.approx((plan.gradients / 570 + 4 * TEST / 1150) / 3600)
    # ID-val twice: measured, and for the temperature of every fit.
    assert device.by_kind["clean"] == pytest.approx((2 * VAL + 4 * TEST) / 1150 / 3600)
    assert device.total == pytest.approx(sum(device.by_kind.values()))
    assert device.by_task == {"PACS": pytest.approx(device.total)}
    assert device.cpu_hours is None


def test_the_declared_device_is_of_the_protocols_backbone_only(tmp_path: Path) -> None:
    assert of_pacs(tmp_path, seeds=[0], backbone="small-cnn").hours == ()


def test_caps_and_shots_of_the_reduced_track_are_counted(tmp_path: Path) -> None:
    plan = api.plan("ood172-lite", "finetune", seeds=[0], only=["task=PACS,task=SVIRO"], run_dir=tmp_path, probe=False)
    # At most 100 images a class, of seven classes; attacks on 64 images of every set.
    assert plan.training_images == 14 * 700
    assert plan.attacked_images == 64 * (4 + 12 + 10 + 90)


def test_the_reduced_track_takes_about_a_day_on_the_declared_device(tmp_path: Path) -> None:
    plan = api.plan("ood172-lite", "finetune", run_dir=tmp_path, probe=False)
    assert 16 < plan.hours[0].total < 26


def test_a_method_on_features_trains_nothing_and_is_fitted_for_one_seed(tmp_path: Path) -> None:
    plan = of_pacs(tmp_path, "linear-probe")
    assert (plan.fits, plan.seeds, plan.epochs) == (4, (0,), 0)
    assert (plan.training_passes, plan.feature_passes) == (0, TRAIN + VAL)
    # A head of 2,049 numbers for each of seven classes, instead of the 24 million of a network.
    assert plan.fits_bytes == 4 * (2_000 + 4 * 2_049 * 7)
    assert of_pacs(tmp_path, seeds=[0]).fits_bytes > 4 * 90_000_000


def test_metrics_leave_out_what_they_do_not_need(tmp_path: Path) -> None:
    plan = of_pacs(tmp_path, seeds=[0], metrics=["accuracy"])
    assert (plan.images, plan.attacked_images, plan.gradients) == (VAL + TEST + 3 * TEST, 0, 0)


def test_a_grid_is_all_its_rows(tmp_path: Path) -> None:
    point = "backbone=timm:resnet50d.ra2_in1k,shots=full,augment=identity"
    plan = of_pacs(tmp_path, seeds=[0], grid=True, recipe=point)
    assert len(plan.models) == 2  # all weights, and the head alone
    assert plan.fits == 8
    # Two learning rates, each for 10 and for 100 epochs; every candidate is asked about ID-val.
    assert plan.training_passes == 220 * TRAIN
    assert plan.feature_passes == 220 * TRAIN + 2 * 4 * VAL


def test_every_candidate_of_a_grid_takes_disk_and_the_chosen_one_twice(tmp_path: Path) -> None:
    point = "backbone=timm:resnet50d.ra2_in1k,shots=full,augment=identity,regime=full"
    plan = of_pacs(tmp_path, seeds=[0], grid=True, recipe=point)
    alone = of_pacs(tmp_path, seeds=[0])
    assert (plan.fits, plan.parts) == (4, 4 * 4)
    assert plan.fits_bytes == (4 + 1) * alone.fits_bytes


def test_candidates_that_rows_share_take_disk_once(blobs: Path, tmp_path: Path) -> None:
    one = open_place(blobs, {"seeds": (0,)}, data_root=None, run_dir=tmp_path)
    searches = ("grid-search(finetune,epochs=(1,2))", "grid-search(finetune,epochs=(2,3))")
    rows = [forecast_row(open_plan(one, {"seeds": (0,)}, search), None) for search in searches]
    state = max(rows[0].fits[0].states.values())
    assert summarise(rows, 16).fits_bytes == 2 * (2 + 3) * state  # two sources; two rows and three candidates
    assert summarise(rows, 16).parts == 2 * 3


def test_a_wrapper_keeps_what_it_wraps_and_a_copy(tmp_path: Path) -> None:
    assert (
        of_pacs(tmp_path, "temperature(finetune)", seeds=[0]).fits_bytes == 2 * of_pacs(tmp_path, seeds=[0]).fits_bytes
    )


def test_images_are_prepared_once_for_all_rows_of_a_grid(tmp_path: Path) -> None:
    point = "backbone=timm:resnet50d.ra2_in1k,shots=full"
    place = open_place("ood172", {"only": {"task": ("PACS",)}}, data_root=None, run_dir=tmp_path)
    rows = rows_of(place.suite, "finetune", recipe=point)
    assert len(rows) > 2
    part = {"only": {"task": ("PACS",)}, "shots": ("full",)}
    fits = [fit for row in rows for fit in open_plan(place, part, row.model, backbone=row.backbone).fits]
    assert sum(fit.left["prepare/decode"] for fit in fits) == ALL


def test_one_point_of_a_grid_is_planned_alone(tmp_path: Path) -> None:
    plan = of_pacs(tmp_path, seeds=[0], recipe="epochs=100,shots=10")
    assert (plan.epochs, plan.training_images) == (100, 4 * 70)


def test_sizes_counted_in_listings_are_those_of_the_data(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TLBENCH_CACHE", str(tmp_path / "cache"))  # where no other test has left its speeds
    plan = api.plan(blobs, "finetune", shots=["4"], run_dir=tmp_path, probe=False)
    selection = {"shots": ("4",)}
    session = open_session(blobs, "finetune", selection=selection, run_dir=tmp_path, quiet=True)
    counted = session.count()
    assert {name: getattr(plan, name) for name in counted} == counted
    assert plan.training_images == len(session.fits) * 3 * 4
    assert plan.notes == ("the hours of this machine are not known without a probe",)


def test_what_is_stored_is_not_counted_again(blobs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"seeds": [0], "run_dir": tmp_path, "threads": 1}
    before = api.plan(blobs, "ncm", probe=False, **options)
    api.evaluate(blobs, "ncm", quiet=True, only=["source=right"], **options)
    after = api.plan(blobs, "ncm", probe=False, **options)
    assert (after.fits, after.fits_to_do) == (before.fits, before.fits - 1)
    assert after.measurements_to_do == before.measurements - 7  # one on ID-val, four on ID-test, two on the target
    assert after.feature_passes == before.feature_passes / 2
    assert after.cache_bytes_to_do == 0 < after.cache_bytes
    rest = api.plan(blobs, "ncm", probe=False, only=["source=right"], **options)
    assert (rest.fits_to_do, rest.measurements_to_do, rest.images, rest.feature_passes) == (0, 0, 0, 0)


def test_what_an_equal_model_or_another_version_has_is_not_planned_for(blobs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"seeds": [0], "metrics": ["accuracy"], "run_dir": tmp_path, "threads": 1}
    api.evaluate(blobs, "ncm", **options, quiet=True)
    equal = api.plan(blobs, "ncm", name="again", probe=False, **options)
    assert (equal.fits, equal.fits_to_do, equal.measurements_to_do, equal.images) == (2, 0, 0, 0)
    later = blobs.with_name("later.toml")
    later.write_text(f"version = 2\n{blobs.read_text()}")
    asked = {key: value for key, value in options.items() if key != "threads"}
    other = api.plan(later, "ncm", probe=False, **options)
    assert load_suite(later).hash != load_suite(blobs).hash
    assert (other.fits_to_do, other.measurements_to_do) == (0, 0)
    # What is stored under the row's own name is another question.
    assert api.status(later, "ncm", **asked).measurements_to_do == other.measurements
    assert not api.evaluate(later, "ncm", **options, quiet=True).failures
    assert api.status(later, "ncm", **asked).measurements_to_do == 0


def test_where_a_method_does_not_apply_nothing_is_planned_and_the_reason_told(tmp_path: Path) -> None:
    found = api.plan("digits", "loki(distances=hierarchy)", run_dir=tmp_path, probe=False, threads=1)
    assert (found.fits, found.measurements, found.images) == (0, 0, 0)
    (note,) = [note for note in found.notes if "does not apply" in note]
    assert note.startswith("loki(linear-probe,distances=hierarchy) does not apply to 'digits/optdigits', 'digits/")
    assert note.endswith("needs a class hierarchy, the suite has none for this task")


def test_shards_share_out_the_work_of_the_whole(tmp_path: Path) -> None:
    parts = [of_pacs(tmp_path, shard=f"{part}/5") for part in range(1, 6)]
    assert sum(part.training_passes for part in parts) == of_pacs(tmp_path).training_passes
    assert sum(part.images for part in parts) == of_pacs(tmp_path).images


def test_a_probe_finds_a_speed_for_everything_that_is_to_do(blobs: Path, tmp_path: Path, empty_cache: Path) -> None:
    plan = api.plan(blobs, "finetune", seeds=[0], run_dir=tmp_path / "runs", threads=1)
    (device,) = plan.hours
    assert not device.assumed
    assert set(device.by_kind) == {"prepare", "train", "clean", "corruption", "transform", "attack"}
    assert min(device.by_kind.values()) > 0
    assert set(device.rates) == {"forward", "train", "gradient"}
    assert not (tmp_path / "runs").exists()
    assert not (empty_cache / "images").exists()


def test_the_last_probe_is_remembered_for_such_a_network_on_this_machine(
    blobs: Path, tmp_path: Path, empty_cache: Path
) -> None:
    options: dict[str, Any] = {"seeds": [0], "run_dir": tmp_path, "threads": 1}
    assert api.plan(blobs, "finetune", probe=False, **options).hours == ()
    probed = api.plan(blobs, "finetune", **options).hours
    assert api.plan(blobs, "finetune", probe=False, **options).hours == probed
    # A speed that nobody has measured is not taken for nothing.
    assert api.plan(blobs, "linear-probe", probe=False, **options).hours == ()


def test_a_control_that_asks_no_network_costs_its_images_alone(blobs: Path, tmp_path: Path) -> None:
    (device,) = api.plan(blobs, "majority", run_dir=tmp_path, threads=1).hours
    assert "train" not in device.by_kind
    assert "clean" not in device.by_kind
    assert device.by_kind["corruption"] > 0


def test_a_plug_in_that_does_not_say_what_it_costs_is_planned_for_and_told(blobs: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("import tlbench\nclass Mine(tlbench.Method):\n    epochs: int = 2\n")
    plan = api.plan(blobs, str(file), seeds=[0], run_dir=tmp_path, probe=False)
    assert plan.epochs == 2
    assert "mine does not say what it costs: assumed is the suite's recipe on all weights" in plan.notes


def test_without_data_and_without_counts_nobody_knows_the_sizes(blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"blobs/left: no data at .* declares no counts.*--data-root"):
        api.plan(blobs, "ncm", data_root=tmp_path, run_dir=tmp_path, probe=False)


def test_a_data_root_that_holds_some_tasks_is_counted_and_the_rest_is_declared(blobs: Path, tmp_path: Path) -> None:
    (tmp_path / "blobs").symlink_to(blobs.parent / "blobs")
    more = "\n".join(
        f"[tasks.more.domains.{name}]\ncounts = {{ train = {train}, val = 10, test = 20 }}"
        for name, train in (("a", 100), ("b", 200))
    )
    head, _, rest = blobs.read_text().partition("[[conditions]]")
    task = f'[tasks.more]\nreader = "folder"\npath = "more"\nclasses = ["x", "y"]\npairs = "all"\n{more}\n\n'
    suite = tmp_path / "two.toml"
    suite.write_text(f"{head}{task}[[conditions]]{rest}".replace('name = "blobs"', 'name = "two"', 1))
    plan = api.plan(suite, "finetune", seeds=[0], run_dir=tmp_path, probe=False)
    assert {task.task: task.training_images for task in plan.tasks} == {"blobs": 2 * 36, "more": 300}
    assert any("no data here for more" in note for note in plan.notes)


def test_files_are_not_decoded_to_find_out_which_of_them_can_be(
    suite_folder: Path, tmp_path: Path, empty_cache: Path
) -> None:
    (tmp_path / "blobs").symlink_to(suite_folder / "blobs")
    text = (suite_folder / "blobs.toml").read_text().replace('"folder"', '"domainbed"', 1)
    text = text.replace('path = "blobs"', 'path = "blobs"\nclasses = ["bottom", "middle", "top"]', 1)
    text = text.replace("[protocol.split]\ntrain = 0.5\nval = 0.25\ntest = 0.25", '[protocol.split]\nrule = "assaying"')
    text = text.replace(
        'domains = ["left", "right", "dark"]',
        """domains.left.counts = { train = 59, val = 6, test = 6 }
domains.left.options.unreadable = 1
domains.right.counts = { train = 60, val = 6, test = 6 }
domains.dark.counts = { train = 60, val = 6, test = 6 }""",
    )
    suite = tmp_path / "blobs.toml"
    suite.write_text(text)
    plan = api.plan(suite, "ncm", seeds=[0], run_dir=tmp_path, probe=False)
    assert plan.training_images == 59 + 60
    assert any(note.startswith("blobs: which files can be decoded is not known") for note in plan.notes)
    assert not list(empty_cache.rglob("unreadable*"))
    assert not list(empty_cache.rglob("*.lines"))
    # An evaluation looks, and the plan then counts what there is.
    SuiteData(load_suite(suite), data_root=tmp_path).own("blobs", "left")
    with pytest.raises(DataError, match=r"blobs/left +59/6/6 +60/6/6"):
        api.plan(suite, "ncm", seeds=[0], run_dir=tmp_path, probe=False)


@pytest.mark.parametrize("budget", ["24", "h", "-3h", "0h", "1w", "", "nan h"])
def test_a_budget_that_means_nothing_is_refused(budget: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a time such as 24h, 90m or 2d"):
        of_pacs(tmp_path, budget=budget)


def test_crops_of_whole_pictures_are_cut_while_a_gpu_is_busy_and_not_otherwise() -> None:
    work = {"train/step": 3600, "train/crop": 3600}
    seconds = {"step": 2.0, "crop": 3.0}
    assert Speeds("cpu", seconds).hours_of(work) == {"train": 5.0}
    assert Speeds("a GPU", seconds, overlaps=True).hours_of(work) == {"train": 3.0}
    assert Speeds("a GPU", {"step": 4.0, "crop": 3.0}, overlaps=True).hours_of(work) == {"train": 4.0}


def test_whole_pictures_are_cropped_where_the_protocol_cuts_their_centre(blobs: Path, tmp_path: Path) -> None:
    cut = opened("ood172", "finetune", tmp_path, only={"task": ("PACS",)}, seeds=(0,))
    assert sum(fit.left["train/crop"] for fit in cut.fits) == 10 * TRAIN
    assert not any(fit.left["train/crop"] for fit in opened(blobs, "finetune", tmp_path).fits)
