"""An evaluation as a user runs it: everything real, at small scale."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

import tlbench
from tlbench import api
from tlbench.errors import StoreError, UnknownNameError, UsageError
from tlbench.leaderboard.tables import load_fits

KEYS = ["task", "source", "target", "role", "seed", "variant", "condition", "severity", "norm", "epsilon", "metric"]


def numbers(run_dir: Path, suite: Path) -> pd.DataFrame:
    frame = api.load_results(suite, run_dir=run_dir, published=False)
    return frame.sort_values(["model", *KEYS]).reset_index(drop=True)


@pytest.fixture(scope="module")
def probe_run(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("runs")
    result = api.evaluate(blobs, "linear-probe", run_dir=run_dir, quiet=True, threads=1)
    assert result.complete
    assert not result.failures
    return run_dir


def test_every_role_and_condition_of_the_suite_is_measured(probe_run: Path, blobs: Path) -> None:
    frame = numbers(probe_run, blobs)
    measured = set(zip(frame.source, frame.target, frame.role, frame.condition, strict=True))
    for source, targets in {"left": ["right", "dark"], "right": ["dark"]}.items():
        assert (source, source, "id-val", "clean") in measured
        assert {(source, source, "id-test", c) for c in ("clean", "shift", "contrast", "apgd-dlr")} <= measured
        for target in targets:
            assert {(source, target, "ood-test", c) for c in ("clean", "shift")} <= measured
            assert (source, target, "ood-test", "apgd-dlr") not in measured
    assert set(frame.status) <= {"ok", "not_applicable"}
    assert not frame.duplicated(["model", *KEYS]).any()


def test_a_deterministic_method_is_fitted_once(probe_run: Path, blobs: Path) -> None:
    assert set(numbers(probe_run, blobs).seed) == {0}


def test_the_numbers_mean_something(probe_run: Path, blobs: Path) -> None:
    frame = numbers(probe_run, blobs).query("metric == 'accuracy' and condition == 'clean' and role == 'id-test'")
    assert frame.value.min() > 0.8


def test_robust_accuracy_falls_with_epsilon_and_starts_below_clean_accuracy(probe_run: Path, blobs: Path) -> None:
    frame = numbers(probe_run, blobs)
    curve = frame[(frame.metric == "robust_accuracy") & (frame.source == "left")].sort_values("epsilon")
    assert len(curve) == 2
    assert curve.value.is_monotonic_decreasing
    assert curve.n.tolist() == [8, 8]


def test_the_same_command_again_does_nothing(probe_run: Path, blobs: Path) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in probe_run.rglob("measurements/*/*.parquet")}

    before = stamps()
    result = api.evaluate(blobs, "linear-probe", run_dir=probe_run, quiet=True, threads=1)
    assert result.complete
    assert stamps() == before


def test_another_folder_gives_the_same_bits(probe_run: Path, blobs: Path, tmp_path: Path) -> None:
    api.evaluate(blobs, "linear-probe", run_dir=tmp_path, quiet=True, threads=1)
    pd.testing.assert_frame_equal(numbers(probe_run, blobs), numbers(tmp_path, blobs))


def test_a_trained_method_repeats_bit_for_bit_and_differs_by_seed(blobs: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        api.evaluate(blobs, "finetune", run_dir=tmp_path / folder, only=["source=right"], quiet=True, threads=1)
    first, second = numbers(tmp_path / "a", blobs), numbers(tmp_path / "b", blobs)
    pd.testing.assert_frame_equal(first, second)
    by_seed = first.query("metric == 'nll' and condition == 'clean' and role == 'id-test'").value
    assert by_seed.nunique() == 2


def test_a_lost_measurement_is_made_again_from_the_stored_fit(blobs: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs"
    api.evaluate(blobs, "finetune", seeds=[0], only=["source=right"], run_dir=run, quiet=True, threads=1)
    before = numbers(run, blobs)
    fits = {path: path.stat().st_mtime_ns for path in run.rglob("fits/*/fit.json")}
    lost = sorted(run.rglob("measurements/*"))[::2]
    for folder in lost:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert len(numbers(run, blobs)) < len(before)
    api.evaluate(blobs, "finetune", seeds=[0], only=["source=right"], run_dir=run, quiet=True, threads=1)
    pd.testing.assert_frame_equal(numbers(run, blobs), before)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("fits/*/fit.json")} == fits


def test_a_wrapped_method_shares_the_fit_of_the_method_inside(blobs: Path, tmp_path: Path) -> None:
    options = {"seeds": [0], "only": ["source=right"], "run_dir": tmp_path, "quiet": True, "threads": 1}
    api.evaluate(blobs, "finetune", **options)
    fits = len(list(tmp_path.rglob("fits/*/fit.json")))
    api.evaluate(blobs, "temperature(finetune)", **options)
    assert len(list(tmp_path.rglob("fits/*/fit.json"))) == fits + 1
    frame = numbers(tmp_path, blobs).query("metric == 'accuracy' and condition == 'clean'")
    wide = frame.pivot_table(index=["role", "target"], columns="model", values="value")
    assert (wide["finetune"] == wide["temperature(finetune)"]).all()
    nll = numbers(tmp_path, blobs).query("metric == 'nll' and role == 'id-val'").set_index("model").value
    assert nll["temperature(finetune)"] <= nll["finetune"] + 1e-6
    fits = load_fits(blobs, run_dir=tmp_path, published=False).set_index("model")
    assert fits.seconds["temperature(finetune)"] > fits.seconds["finetune"]
    assert fits.images_seen["temperature(finetune)"] >= fits.images_seen["finetune"]


def test_another_name_for_the_same_model_takes_over_its_measurements(probe_run: Path, blobs: Path) -> None:
    fits = len(list(probe_run.rglob("fits/*/fit.json")))
    result = api.evaluate(blobs, "linear-probe", name="mine", run_dir=probe_run, quiet=True, threads=1)
    assert result.model == "mine"
    assert len(list(probe_run.rglob("fits/*/fit.json"))) == fits
    frame = numbers(probe_run, blobs)
    ours, theirs = (
        frame[frame.model == name].drop(columns="model").reset_index(drop=True) for name in ("mine", "linear-probe")
    )
    pd.testing.assert_frame_equal(ours, theirs)


def test_trained_networks_are_measured_without_a_fit(blobs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    result = api.evaluate(blobs, predictors={"right": network}, name="given", run_dir=tmp_path, quiet=True)
    assert result.complete
    frame = numbers(tmp_path, blobs)
    assert set(frame.source) == {"right"}
    assert set(frame.status) <= {"ok", "not_applicable"}


def test_shards_are_disjoint_and_together_the_whole(blobs: Path, tmp_path: Path, probe_run: Path) -> None:
    for part in ("1/2", "2/2"):
        api.evaluate(blobs, "linear-probe", shard=part, run_dir=tmp_path, quiet=True, threads=1)
    assert len(numbers(tmp_path, blobs)) == len(numbers(probe_run, blobs).query("model == 'linear-probe'"))


def test_only_the_sources_of_a_selected_target_are_fitted(blobs: Path, tmp_path: Path) -> None:
    summary = api.plan(blobs, "finetune", seeds=[0], only=["target=right"], run_dir=tmp_path)
    assert (summary.fits, summary.measurements) == (1, 1 + 4 + 2)


def test_metrics_choose_the_conditions(blobs: Path, tmp_path: Path) -> None:
    api.evaluate(blobs, "ncm", metrics=["accuracy"], run_dir=tmp_path, quiet=True, threads=1)
    assert set(numbers(tmp_path, blobs).condition) == {"clean"}


def test_the_plan_counts_without_computing(blobs: Path, tmp_path: Path) -> None:
    summary = api.plan(blobs, "finetune", run_dir=tmp_path / "runs")
    assert (summary.fits, summary.fits_to_do) == (4, 4)
    # Two seeds; left: val 1, test 4, two targets of 2; right: val 1, test 4, one target of 2.
    assert summary.measurements == 2 * (1 + 4 + 4 + 1 + 4 + 2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"model": "linear-prob"}, UnknownNameError, "linear-probe"),
        ({"model": "knn", "backbone": "small-cn"}, UnknownNameError, "small-cnn"),
        ({"model": "knn", "metrics": ["acuracy"]}, UnknownNameError, "accuracy"),
        ({"model": "knn", "only": ["source=lefft"]}, UsageError, "left"),
        ({"model": "knn", "only": ["sauce=left"]}, UsageError, "source"),
        ({"model": "knn", "only": ["target=left"]}, UsageError, "no pair of suite 'blobs'"),
        ({"model": "knn", "only": ["source=right", "target=right"]}, UsageError, "source=right, target=right"),
        ({"model": "knn", "shard": "3/2"}, UsageError, "3/2"),
        ({"model": "knn", "settings": ["kk=3"]}, UsageError, "k"),
        ({"model": "knn", "device": "gpu"}, UsageError, "cpu"),
    ],
)
def test_a_wrong_name_stops_before_anything_is_written(
    blobs: Path, tmp_path: Path, options: dict, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        api.evaluate(blobs, run_dir=tmp_path / "runs", quiet=True, **options)
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_is_a_file_is_said(blobs: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="expected a folder"):
        api.evaluate(blobs, "knn", run_dir=tmp_path / "runs", quiet=True)


def test_six_lines_are_a_plugin(blobs: Path, tmp_path: Path) -> None:
    class MyMethod(tlbench.Method):
        lr: float = 0.003

        def fit(self, context):
            return context.train(context.backbone.fresh(context.classes), lr=self.lr)

    result = api.evaluate(blobs, MyMethod(), seeds=[0], only=["source=right"], run_dir=tmp_path, quiet=True, threads=1)
    assert result.complete
    assert result.model == "my-method"
