"""What is measured in bfloat16 is another row: nothing of it meets a number of float32."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from tlbench import api
from tlbench.engine.measured import MeasuredPredictor
from tlbench.engine.plan import PlannedMeasurement, PlannedSet
from tlbench.errors import StoreError, UsageError
from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.tables import load_fits
from tlbench.methods.base import Predictor
from tlbench.models.zoo import load_backbone
from tlbench.submissions.pack import submit
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Attack, Clean

IMAGES = torch.randint(0, 256, (20, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PART = {"only": ["source=right"], "seeds": [0], "quiet": True, "threads": 1}
PLAIN, NARROW = "finetune(epochs=1)", "finetune(epochs=1)@bfloat16"


def records(run_dir: Path, suite: Path) -> pd.DataFrame:
    return api.load_results(suite, run_dir=run_dir, published=False)


@pytest.fixture(scope="module")
def both(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a model measured in both precisions."""
    run_dir = tmp_path_factory.mktemp("runs")
    for precision in ("float32", "bfloat16"):
        result = api.evaluate(blobs, PLAIN, run_dir=run_dir, precision=precision, **PART)
        assert result.complete
        assert not result.failures
    return run_dir


def test_only_the_forward_pass_is_narrow() -> None:
    net = load_backbone("small-cnn").fresh(3)

    def measured(precision: str) -> MeasuredPredictor:
        predictor = Predictor(net)
        return MeasuredPredictor(predictor, classes=3, device="cpu", chunk=8, example=IMAGES[:4], precision=precision)  # type: ignore[arg-type]

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")

    wide, narrow = measured("float32"), measured("bfloat16")
    assert narrow.outputs(IMAGES).dtype == torch.float32
    difference = (wide.outputs(IMAGES) - narrow.outputs(IMAGES)).abs().max() / wide.outputs(IMAGES).abs().max()
    assert 1e-6 < difference < 0.05
    floats, labels = IMAGES.float() / 255, torch.zeros(20, dtype=torch.int64)
    for one, other in zip(wide.gradient(floats, labels, loss), narrow.gradient(floats, labels, loss), strict=True):
        assert torch.equal(one, other)


def test_ids_differ_except_where_nothing_else_does() -> None:
    def ids(condition: Clean | Attack, precision: str) -> str:
        where = PlannedSet("id-test", "a")
        return PlannedMeasurement(where, condition, "split", 3, precision).id_for("fit", "main")  # type: ignore[arg-type]

    clean = Clean(kind="clean")
    attack = Attack(kind="attack", name="apgd-dlr", epsilons=(1.0,))
    assert ids(clean, "float32") == PlannedMeasurement(PlannedSet("id-test", "a"), clean, "split", 3).id_for(
        "fit", "main"
    )
    assert ids(clean, "float32") != ids(clean, "bfloat16")
    assert ids(attack, "float32") == ids(attack, "bfloat16")


def test_the_two_stand_under_their_own_names_and_attacks_are_the_same(both: Path, blobs: Path) -> None:
    frame = records(both, blobs)
    assert set(zip(frame.model, frame.precision, strict=True)) == {(PLAIN, "float32"), (NARROW, "bfloat16")}
    wide, narrow = (frame[frame.model == model] for model in (PLAIN, NARROW))
    assert len(wide) == len(narrow)
    assert set(wide.fit_id) == set(narrow.fit_id)  # trained once
    shared = set(wide.measurement_id) & set(narrow.measurement_id)
    assert shared == set(frame[frame.condition == "apgd-dlr"].measurement_id)
    assert len(shared) == 1
    nll = {model: frame[(frame.model == model) & (frame.metric == "nll")].value.tolist() for model in (PLAIN, NARROW)}
    assert nll[PLAIN] != nll[NARROW]
    assert nll[PLAIN] == pytest.approx(nll[NARROW], abs=0.05)


def test_provenance_says_which_precision_and_its_own_temperature(both: Path, blobs: Path) -> None:
    fits = load_fits(blobs, run_dir=both, published=False).set_index("model")
    assert fits.loc[PLAIN, "precision"] == "float32"
    assert fits.loc[NARROW, "precision"] == "bfloat16"
    assert fits.loc[PLAIN, "temperatures"] != fits.loc[NARROW, "temperatures"]


def test_the_order_of_the_two_does_not_matter(both: Path, blobs: Path, tmp_path: Path) -> None:
    for precision in ("bfloat16", "float32"):
        api.evaluate(blobs, PLAIN, run_dir=tmp_path, precision=precision, **PART)
    keys = ["model", "measurement_id", "metric", "severity", "epsilon"]
    one, other = (records(run, blobs).sort_values(keys).reset_index(drop=True) for run in (both, tmp_path))
    pd.testing.assert_frame_equal(one, other)


def test_no_ranking_mixes_them(both: Path, blobs: Path) -> None:
    suite = load_suite(blobs)
    frame = records(both, blobs)
    board = make_board(frame, load_fits(blobs, run_dir=both, published=False), suite)
    assert sorted(zip(board.frame["name"], board.frame["precision"], strict=True)) == [
        (PLAIN, "float32"),
        (NARROW, "bfloat16"),
    ]
    assert not board.frame.duplicated(["protocol", "shots", "precision", "pretraining"]).any()


def test_submitting_refuses_a_folder_in_which_they_are_mixed(both: Path, blobs: Path, tmp_path: Path) -> None:
    api.evaluate(blobs, PLAIN, run_dir=tmp_path, precision="bfloat16", **PART)
    # Nobody is kept from calling a model so.
    api.evaluate(blobs, PLAIN, run_dir=tmp_path, name=NARROW, **PART)
    with pytest.raises(StoreError, match="2 different precisions under one name"):
        submit(tmp_path, suite=load_suite(blobs), model=NARROW, results=tmp_path / "results")


def test_status_counts_them_apart(both: Path, blobs: Path) -> None:
    asked = {"run_dir": both, "only": ["source=right"], "seeds": [0]}
    for precision in ("float32", "bfloat16"):
        assert api.status(blobs, PLAIN, precision=precision, **asked).measurements_to_do == 0
    assert api.status(blobs, "ncm", precision="bfloat16", **asked).measurements_to_do > 0


def test_an_unknown_precision_is_told_with_the_nearest(blobs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--precision bfloat: expected .*did you mean 'bfloat16'"):
        api.evaluate(blobs, PLAIN, run_dir=tmp_path, precision="bfloat", **PART)
