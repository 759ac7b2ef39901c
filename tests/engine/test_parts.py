"""Fits that are made of others: a plan knows every fit that an evaluation makes, and counts each once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tlbench import api, registry
from tlbench.engine.forecast import Place, Row, forecast_row, open_place, open_plan
from tlbench.engine.pace import pace
from tlbench.engine.parts import Part, everything
from tlbench.engine.summary import PlanSummary, summarise
from tlbench.engine.workload import Work
from tlbench.leaderboard.tables import load_results
from tlbench.methods.cost import Cost, cost_of
from tlbench.methods.lst import Lst
from tlbench.methods.resolve import example_of
from tlbench.models.zoo import load_backbone
from tlbench.suites.spec import Recipe

TRAIN, VAL = 36, 18  # images
RIGHT: dict[str, Any] = {"only": ["source=right"], "metrics": ["accuracy"], "quiet": True, "threads": 1}
WITH_SETTINGS = {
    "grid-search": "grid-search(finetune,lr=(1e-3,1e-4),epochs=(1,2))",
    "deep-ensemble": "deep-ensemble(members=3)",
}
NESTED = (
    "temperature(deep-ensemble(lp-ft,members=2))",
    "adabn(temperature(finetune(epochs=2)))",
    "model-soup(members=(lp-ft(batchnorm=train),lp-ft(batchnorm=train,lr=1e-4)))",
    "loki(grid-search(head-only,lr=(1e-3,1e-4)))",
    "wise-ft(head-only)",
    "head-only(flip=true,epochs=2)",
    "head-only(flip=true,epochs=3,cached_views=2)",
    "augmix(jsd_weight=0)",
)
# The kit's network has no layer that could be adapted.
BACKBONES = {"lora": "timm:test_efficientnet@untrained"}
# Ladders cut out of a transformer's blocks look at images for Fisher's information.
LADDERS = ("lst", "lst(fisher_images=20)", "lst(init=magnitude)", "temperature(lst(init=fisher,fisher_images=5))")
ON_A_TRANSFORMER = [(name, {"backbone": "timm:test_vit@untrained"}) for name in LADDERS]


def passes(name: str, cost: Cost) -> float:
    """Passes over the training images that a fit counts as seen."""
    if "lst(" in f"{name}(":
        return cost.forward  # its gradient is that of the side network, behind the passes forward
    # A head on kept features passes these, and no image, once an epoch.
    kept = cost.features or 0 < cost.forward < cost.gone_through
    return cost.trained + cost.forward + (cost.gone_through if kept and not cost.trained else 0)


@dataclass(frozen=True)
class Folders:
    """One folder of results for all tests, and a suite of one epoch."""

    suite: Path
    run_dir: Path

    def place(self, **only: tuple[str, ...]) -> Place:
        return open_place(self.suite, {"seeds": (0,), "only": only}, data_root=None, run_dir=self.run_dir)

    def stored(self) -> set[str]:
        return {file.parent.name for file in self.run_dir.glob("*/fits/[!.]*/fit.json")}

    def seen(self, fit_id: str) -> int:
        (file,) = self.run_dir.glob(f"*/fits/{fit_id}/fit.json")
        return int(json.loads(file.read_text())["facts"]["images_seen"])

    def seen_beside(self, fit_id: str, parts: tuple[Part, ...]) -> int:
        """Return what a fit saw beside all that it asks for, each of which costs once however it is asked for."""
        within = {part.fit_id: part.parts for part in everything(parts)}
        return self.seen(fit_id) - sum(self.seen_beside(*part) for part in within.items())


@pytest.fixture(scope="module")
def folders(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    suite = blobs.with_name("brief.toml")
    suite.write_text(blobs.read_text().replace("epochs = 3", "epochs = 1"))
    found = Folders(suite, tmp_path_factory.mktemp("runs"))
    # Ids of fits are known once the images are in the cache.
    api.evaluate(suite, "majority", name="first", run_dir=found.run_dir, seeds=[0], metrics=["accuracy"], quiet=True)
    return found


BUILT_IN = [(name, {"backbone": BACKBONES.get(name)}) for name in (*registry.BUILT_IN["methods"], *NESTED)]


@pytest.mark.parametrize(("name", "options"), [*BUILT_IN, *ON_A_TRANSFORMER])
def test_an_evaluation_makes_the_fits_and_sees_the_images_that_were_planned(
    name: str, options: dict[str, Any], folders: Folders
) -> None:
    model = WITH_SETTINGS.get(name) or (name if "(" in name else example_of(name))
    opened = open_plan(
        folders.place(source=("right",)), {"seeds": (0,), "only": {"source": ("right",)}}, model, threads=1, **options
    )
    before = folders.stored()
    api.evaluate(folders.suite, model, run_dir=folders.run_dir, seeds=[0], **RIGHT, **options)
    made = folders.stored() - before
    assert {fit_id for one in opened.fits for fit_id in one.states} == made
    recipe = opened.place.suite.protocol.recipe
    (one,) = opened.fits
    itself = cost_of(opened.work.model.method, recipe, opened.work.backbone)
    for fit_id, cost, parts in (
        (one.planned.key.fit_id, itself, one.parts),
        *((part.fit_id, part.sizing.cost, part.parts) for part in everything(one.parts)),
    ):
        own = folders.seen_beside(fit_id, parts)
        # Outputs on ID-val are no images that a fit learns from, features of it are.
        besides, rest = divmod(own - round(TRAIN * passes(name, cost)) - min(cost.sampled, TRAIN), VAL)
        assert rest == 0, (own, cost)
        assert 0 <= besides <= cost.validated, (own, cost)


def rows(place: Place, selection: dict[str, Any], *models: str) -> list[Row]:
    return [forecast_row(open_plan(place, selection, model, threads=1), None) for model in models]


def planned(blobs: Path, tmp_path: Path, *models: str, seeds: tuple[int, ...] = (0,)) -> PlanSummary:
    place = open_place(blobs, {"seeds": seeds}, data_root=None, run_dir=tmp_path)
    return summarise(rows(place, {"seeds": seeds}, *models), 16)


def test_a_fit_that_several_rows_ask_for_is_trained_once_whichever_comes_first(blobs: Path, tmp_path: Path) -> None:
    # Two sources, three epochs. Members of seeds 0 and 1 are seeds 0 to 3: two of them are fits of the other row.
    models = ("finetune", "deep-ensemble(members=2)")
    for order in (models, models[::-1]):
        both = planned(blobs, tmp_path, *order, seeds=(0, 1))
        assert (both.fits, both.parts, both.parts_to_do) == (2 * 4, 2 * 2, 2 * 2)
        assert both.training_passes == 2 * 4 * 3 * TRAIN
    alone = planned(blobs, tmp_path, models[1], seeds=(0, 1))
    assert (alone.fits, alone.parts, alone.training_passes) == (2 * 2, 2 * 4, 2 * 4 * 3 * TRAIN)


def test_a_fit_that_several_pairs_ask_for_is_trained_once(blobs: Path, tmp_path: Path) -> None:
    found = planned(blobs, tmp_path, "adabn")
    assert (found.fits, found.parts, found.training_passes) == (3, 2, 2 * 3 * TRAIN)


def test_a_fit_of_no_seed_serves_all_seeds(blobs: Path, tmp_path: Path) -> None:
    found = planned(blobs, tmp_path, "lp-ft", seeds=(0, 1))
    assert (found.fits, found.parts) == (4, 2)
    assert found.feature_passes == 2 * (TRAIN + VAL)


def test_passes_of_several_networks_and_variants_are_told_beside_predictions(blobs: Path, tmp_path: Path) -> None:
    single, double = (planned(blobs, tmp_path, name) for name in ("finetune", "deep-ensemble(members=2)"))
    assert (single.prediction_passes, double.images) == (0, single.images)
    # ID-val once more, for the temperature of either fit.
    assert double.prediction_passes == 2 * (single.images + 2 * VAL)


def test_what_is_stored_of_a_fit_is_done_with_all_that_it_had_asked_for(blobs: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"only": ["source=right"], "run_dir": tmp_path, "seeds": [0]}
    api.evaluate(blobs, "lp-ft", metrics=["accuracy"], quiet=True, threads=1, **options)
    left = api.plan(blobs, "wise-ft", probe=False, **options)
    assert (left.fits_to_do, left.parts, left.parts_to_do) == (1, 2, 0)
    assert (left.training_passes, left.feature_passes) == (0, 0)
    grown = api.plan(blobs, "deep-ensemble(lp-ft,members=2)", probe=False, **options)
    assert (grown.parts, grown.parts_to_do) == (3, 1)
    assert (grown.training_passes, grown.feature_passes) == (3 * TRAIN, 0)


def test_time_of_a_fit_that_others_ask_for_is_spent_once(
    blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tlbench.engine.pace._measured", lambda *_: iter(()))
    options: dict[str, Any] = {"only": {"source": ("left",)}, "seeds": (0,)}
    part = {**RIGHT, "only": ["source=left"]}
    api.evaluate(blobs, "adabn(finetune(epochs=2))", run_dir=tmp_path, seeds=[0], **part)
    place = open_place(blobs, options, data_root=None, run_dir=tmp_path)
    found = open_plan(place, options, "adabn(finetune(epochs=2))", threads=1)
    kept = [json.loads(file.read_text())["facts"] for file in tmp_path.glob("*/fits/*/fit.json")]
    base, *around = sorted(one["seconds"] for one in kept)
    assert len(around) == 2
    spent = 3600 * pace([(found.work, found.fits)]).spent_hours
    assert spent == pytest.approx(sum(around) - base)


def test_the_whole_of_an_evaluation_holds_what_its_fits_ask_for(blobs: Path, tmp_path: Path) -> None:
    place = open_place(blobs, {"seeds": (0,)}, data_root=None, run_dir=tmp_path)
    (row,) = rows(place, {"seeds": (0,)}, "temperature(finetune)")
    assert sum(one.whole["train/step"] for one in row.fits) == 2 * 3 * TRAIN


@pytest.mark.parametrize(("init", "sampled"), [("none", 20), ("fisher", 20), ("magnitude", 0), ("random", 0)])
def test_images_that_are_looked_at_once_are_in_the_forecast(blobs: Path, init: str, sampled: int) -> None:
    def steps(model: str, backbone: str, run_dir: Path) -> int:
        place = open_place(blobs, {"seeds": (0,)}, data_root=None, run_dir=run_dir)
        found = open_plan(place, {"seeds": (0,)}, model, backbone=backbone, threads=1)
        return sum(one.left["train/step"] for one in found.fits)

    images = partial(steps, backbone="timm:test_vit@untrained", run_dir=blobs.parent / "none")
    without = images("lst(init=random)")
    assert images(f"lst(init={init},fisher_images=20)") == without + 2 * sampled
    # No training set has more images than it has.
    assert images(f"lst(init={init})") == without + 2 * (TRAIN if sampled else 0)


def test_a_network_without_blocks_to_cut_looks_at_no_image(blobs: Path) -> None:
    recipe = Recipe()
    maps, blocks = (load_backbone(name) for name in ("small-cnn", "timm:test_vit@untrained"))
    assert [cost_of(Lst(), recipe, network).sampled for network in (maps, blocks)] == [0, 1024]
    assert cost_of(Lst(init="fisher"), recipe).sampled == 1024


@pytest.mark.parametrize("model", ["finetune", "wise-ft(curve=(0.5,1.0))", "adabn"])
def test_measurements_of_all_variants_are_counted_before_and_after(model: str, blobs: Path, tmp_path: Path) -> None:
    """What is said to be to do is what is stored in the end, with the further measurements and without them."""
    part: dict[str, Any] = {"only": ["source=right"], "run_dir": tmp_path, "seeds": [0]}
    stored, counts = 0, []
    for every in (False, True):
        before = api.plan(blobs, model, probe=False, all_variants=every, **part)
        api.evaluate(blobs, model, quiet=True, threads=1, all_variants=every, **part)
        after = api.plan(blobs, model, probe=False, all_variants=every, **part)
        made = load_results(blobs, run_dir=tmp_path, published=False).measurement_id.nunique()
        assert (before.measurements, before.measurements_to_do) == (made, made - stored)
        assert (after.measurements, after.measurements_to_do) == (made, 0)
        stored = made
        counts.append(before)
    ranked, further = counts
    assert (further.measurements > ranked.measurements) is (model != "finetune")


@pytest.mark.parametrize(("model", "others", "attacked"), [("wise-ft", 10, 10), ("adabn", 2, 1), ("star-sse", 2, 2)])
def test_with_all_variants_each_takes_the_work_that_the_ranked_one_takes(
    model: str, others: int, attacked: int, blobs: Path, tmp_path: Path
) -> None:
    place = open_place(blobs, {"seeds": (0,)}, data_root=None, run_dir=tmp_path)

    def work(every: bool) -> Work:
        opened = open_plan(place, {"seeds": (0,)}, model, threads=1, all_variants=every)
        return sum((one.left for one in opened.fits), Work())

    ranked, all_ = work(False), work(True)
    for own in ("transform/resample", "corruption/contrast"):
        assert all_[own] == (1 + others) * ranked[own] > 0
    plain = planned(blobs, tmp_path, "finetune")
    gradients = {"wise-ft": plain.gradients, "adabn": 0, "star-sse": 5 * plain.gradients}[model]
    if model != "adabn":  # has a fit a pair
        assert ranked["attack/gradient"] == gradients
        assert all_["attack/gradient"] == gradients + attacked * plain.gradients
    assert all_["attack/gradient"] > ranked["attack/gradient"]
    assert ranked["clean/forward"] == all_["clean/forward"]
