"""A grid through the engine: candidates are fits of their own, recorded, shared and never fitted twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tlbench import api
from tlbench.leaderboard.tables import load_fits

PART: dict[str, Any] = {
    "seeds": [0],
    "only": ["source=right"],
    "metrics": ["accuracy"],
    "quiet": True,
    "threads": 1,
}
GRID = """
[protocol.grid]
lr = [3e-3, 1e-9]
epochs = [1, 3]
regime = ["full", "head-only"]
"""


@pytest.fixture(scope="module")
def suite(blobs: Path) -> Path:
    file = blobs.with_name("gridded.toml")
    text = blobs.read_text().replace('name = "blobs"', 'name = "gridded"')
    file.write_text(text.replace("[tasks.blobs]", GRID + "[tasks.blobs]"))
    return file


@pytest.fixture(scope="module")
def run_dir(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    rows = api.evaluate_grid(suite, "finetune", run_dir=folder, **PART)
    assert [row.model for row in rows] == ["grid(finetune(regime=full))", "grid(finetune(regime=head-only))"]
    assert all(row.result is not None and row.result.complete and not row.failed for row in rows)
    return folder


def fits(suite: Path, run_dir: Path) -> Any:
    return load_fits(suite, run_dir=run_dir, published=False).set_index("model")


def test_every_candidate_is_recorded_and_one_is_selected(suite: Path, run_dir: Path) -> None:
    row = fits(suite, run_dir).loc["grid(finetune(regime=full))"]
    candidates = json.loads(row.candidates)
    assert [tuple(one["settings"].values()) for one in candidates] == [(3e-3, 1), (3e-3, 3), (1e-9, 1), (1e-9, 3)]
    (selected,) = [one for one in candidates if one["selected"]]
    assert selected["settings"]["lr"] == 3e-3
    assert selected["accuracy"] == max(one["accuracy"] for one in candidates)
    assert all(one["nll"] > 0 for one in candidates)


def test_images_and_seconds_are_those_of_all_candidates(suite: Path, run_dir: Path) -> None:
    row = fits(suite, run_dir).loc["grid(finetune(regime=full))"]
    seen = [one["images_seen"] for one in json.loads(row.candidates)]
    assert seen == [36, 108, 36, 108]
    assert row.images_seen == sum(seen)
    assert row.seconds >= sum(one["seconds"] for one in json.loads(row.candidates))


def test_a_candidate_is_the_fit_of_the_plain_method_and_shared_with_it(suite: Path, run_dir: Path) -> None:
    stored = {path.parent.name: path.stat().st_mtime_ns for path in run_dir.glob("*/fits/*/state.safetensors")}
    assert len(stored) == 2 * (4 + 1)
    result = api.evaluate(suite, "finetune", recipe="lr=0.003,epochs=3,regime=full", run_dir=run_dir, **PART)
    assert result.model == "finetune(regime=full,lr=0.003,epochs=3)"
    assert result.complete
    assert {path.parent.name: path.stat().st_mtime_ns for path in run_dir.glob("*/fits/*/state.safetensors")} == stored
    assert fits(suite, run_dir).loc[result.model].candidates == "[]"


def test_the_selected_candidate_is_what_is_measured(suite: Path, run_dir: Path) -> None:
    row = fits(suite, run_dir).loc["grid(finetune(regime=full))"]
    (selected,) = [one["settings"] for one in json.loads(row.candidates) if one["selected"]]
    point = f"regime=full,lr={selected['lr']},epochs={selected['epochs']}"
    plain = api.evaluate(suite, "finetune", recipe=point, run_dir=run_dir, **PART)
    frame = api.load_results(suite, run_dir=run_dir, published=False)
    keys = ["target", "role", "condition", "severity", "metric"]
    numbers = [frame[frame.model == name].set_index(keys).value for name in (plain.model, row.name)]
    assert numbers[0].sort_index().equals(numbers[1].sort_index())


def test_the_same_command_again_fits_and_measures_nothing(suite: Path, run_dir: Path) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in run_dir.glob("*/*/*/measurements/*/*.parquet")}

    before = stamps()
    assert before
    rows = api.evaluate_grid(suite, "finetune", run_dir=run_dir, recipe=None, **PART)
    assert not any(row.failed for row in rows)
    assert stamps() == before


def test_a_lost_measurement_is_made_from_the_stored_choice_without_training(suite: Path, run_dir: Path) -> None:
    name = "grid(finetune(regime=full))"
    (folder,) = run_dir.glob(f"*/models/{name}")
    shutil.rmtree(next(folder.glob("measurements/[!.]*")))
    fits_before = {path: path.stat().st_mtime_ns for path in run_dir.glob("*/fits/*/state.safetensors")}
    rows = api.evaluate_grid(suite, "finetune", run_dir=run_dir, recipe="regime=full", **PART)
    assert [row.model for row in rows] == [name]
    assert rows[0].result is not None
    assert rows[0].result.complete
    assert {path: path.stat().st_mtime_ns for path in run_dir.glob("*/fits/*/state.safetensors")} == fits_before


def test_a_wrapper_passes_on_what_was_tried_within(suite: Path, run_dir: Path) -> None:
    api.evaluate(
        suite, "temperature(grid-search(finetune(regime=full),lr=(3e-3,1e-9),epochs=1))", run_dir=run_dir, **PART
    )
    frame = fits(suite, run_dir)
    (row,) = [row for name, row in frame.iterrows() if str(name).startswith("temperature(")]
    assert [one["settings"]["lr"] for one in json.loads(row.candidates)] == [3e-3, 1e-9]


def test_a_diverged_candidate_is_recorded_and_the_rest_goes_on(suite: Path, tmp_path: Path) -> None:
    text = "grid-search(finetune(optimizer=sgd),lr=(1e30,1e-3),epochs=1)"
    result = api.evaluate(suite, text, run_dir=tmp_path, **PART)
    assert result.complete
    diverged, good = json.loads(fits(suite, tmp_path).loc[result.model].candidates)
    assert "the loss became" in diverged["reason"]
    assert (diverged["selected"], good["selected"]) == (False, True)


def test_missing_weights_cost_their_own_rows_only(suite: Path, run_dir: Path) -> None:
    file = suite.with_name("networks.toml")
    text = suite.read_text().replace('name = "gridded"', 'name = "networks"')
    file.write_text(
        text.replace('regime = ["full", "head-only"]', 'backbone = ["timm:resnet18@absent.pth", "small-cnn"]')
    )
    heard: list[str] = []
    rows = api.evaluate_grid(file, "finetune", run_dir=run_dir, recipe="lr=0.003,epochs=1", say=heard.append, **PART)
    missing, found = rows
    assert "absent.pth" in missing.problem
    assert (missing.failed, found.failed) == (True, False)
    assert missing.model == "grid(finetune(lr=0.003,epochs=1))@resnet18@absent.pth"
    assert heard[0] == f"row 1 of 2: {missing.model}, timm:resnet18@absent.pth, shots full"


def test_a_candidate_that_fails_after_its_training_still_costs_what_it_trained(suite: Path, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "import tlbench\n\n\n"
        "class Odd(tlbench.Method):\n"
        "    lr: float = 0.1\n\n"
        "    def fit(self, context):\n"
        "        net = context.train(context.backbone.fresh(context.classes), lr=0.001)\n"
        "        if self.lr == 1.0:\n"
        "            raise RuntimeError('diverged')\n"
        "        return net\n"
    )
    result = api.evaluate(suite, f"grid-search({tmp_path / 'odd.py'},lr=(1.0,0.2))", run_dir=tmp_path / "runs", **PART)
    assert result.complete
    row = fits(suite, tmp_path / "runs").iloc[0]
    failed, kept = json.loads(row.candidates)
    assert "diverged" in failed["reason"]
    assert failed["images_seen"] == kept["images_seen"] == 3 * 36
    assert row.images_seen == 2 * 3 * 36
