"""The measurement bootstrap on real tables: against analytic standard errors, and whoever else takes part."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlbench.analysis.paired import compare
from tlbench.leaderboard.board import Board, make_board
from tlbench.leaderboard.intervals import resample
from tlbench.leaderboard.measured import Measured, Part, load_measured
from tlbench.leaderboard.prepared import ROW
from tlbench.leaderboard.tables import load_fits, load_predictions, load_results
from tlbench.leaderboard.units import Census, Margin, Place, Units
from tlbench.records.lock import write_lock
from tlbench.records.manifest import Manifest

ROWS = [tuple(f"{name}{number}" for name in ROW) for number in range(3)]


@pytest.fixture
def clean(synthetic: ModuleType, tmp_path: Any) -> Any:
    """An empty run folder of a suite that measures clean OOD images alone: few files."""
    conditions = [{"kind": "clean", "roles": ["ood-test"]}]
    return synthetic.Run(tmp_path / "runs", synthetic.make_suite(conditions=conditions))


@pytest.fixture
def attacked(synthetic: ModuleType, tmp_path: Any) -> Any:
    conditions = [{"kind": "attack", "name": "apgd-dlr", "epsilons": [1, 2], "denominator": 255}]
    return synthetic.Run(tmp_path / "runs", synthetic.make_suite(conditions=conditions))


def one_set(values: np.ndarray, name: str = "a") -> Measured:
    """Values of shape (rows, seeds, images) on one pair."""
    units = Units(Margin(("t", name), np.zeros(values.shape[2], np.int64), ("",)), np.arange(values.shape[2]))
    part = Part(("t", "s"), units)
    for row, own in zip(ROWS, values, strict=False):
        part.sums[row] = dict(enumerate(own))
    return Measured((part,), {})


def scores_of(values: np.ndarray) -> dict[Any, float]:
    return {row: float(own.mean()) for row, own in zip(ROWS, values, strict=False)}


def board_of(run: Any, *, metric: str | None = None, measured: bool = True) -> Board:
    """The board of a run whose records say what its predictions give."""
    options = {"run_dir": run.folder, "published": False}
    records = load_results(run.suite, **options)
    for model in records["model"].unique():
        rows = load_predictions(run.suite, model, **options)
        rows = rows.assign(accuracy=rows["rank"] == 0, nll=-rows["log_likelihood"], brier=rows["brier"])
        for name in ("accuracy", "nll", "brier"):
            mean = rows[rows["condition"] == "clean"].groupby("measurement_id")[name].mean()
            own = (records["metric"] == name) & records["measurement_id"].isin(mean.index)
            records.loc[own, "value"] = records.loc[own, "measurement_id"].map(mean).astype(float)
    images = load_measured(run.suite, metric, **options) if measured else None
    return make_board(records, load_fits(run.suite, **options), run.suite, metric=metric, measured=images)


def test_of_one_fit_the_interval_is_the_binomial_one() -> None:
    right = (np.random.default_rng(0).random((1, 1, 400)) < 0.7).astype(float)
    found = resample(one_set(right), scores_of(right), {ROWS[0]: (0,)})
    low, high = found.intervals()[ROWS[0]]
    p = right.mean()
    assert (low + high) / 2 == pytest.approx(p)
    assert (high - low) / 2 == pytest.approx(1.966 * np.sqrt(p * (1 - p) / 399), rel=0.05)


def test_of_seeds_alone_the_interval_is_student_s_of_two_degrees() -> None:
    values = np.repeat(np.array([0.2, 0.3, 0.55])[None, :, None], 50, axis=2)
    low, high = resample(one_set(values), scores_of(values), {ROWS[0]: (0, 1, 2)}).intervals()[ROWS[0]]
    error = np.std([0.2, 0.3, 0.55], ddof=1) / np.sqrt(3)
    assert (high - low) / 2 == pytest.approx(4.3027 * error, rel=0.05)


def test_many_units_are_dealt_into_blocks_of_nearly_the_same_error(synthetic: ModuleType) -> None:
    right = (np.random.default_rng(1).random(3000) < 0.4).astype(float)
    place = Place("t", "a", "b", "ood-test", "hash")
    units = Census(synthetic.make_suite(), {}).units(place, 3000)
    assert units is not None
    assert len(units.sizes) == 400
    part = Part(("t", "s"), units, {ROWS[0]: {0: units.sums(right)}})
    low, high = resample(Measured((part,), {}), {ROWS[0]: right.mean()}, {ROWS[0]: (0,)}).intervals()[ROWS[0]]
    assert (high - low) / 2 == pytest.approx(1.966 * np.sqrt(0.24 / 3000), rel=0.1)


def test_images_that_say_otherwise_than_the_records_bound_nothing() -> None:
    values = np.random.default_rng(2).random((2, 1, 40))
    scores = {**scores_of(values), ROWS[1]: 0.123}
    assert resample(one_set(values), scores, dict.fromkeys(ROWS[:2], (0,))).rows == (ROWS[0],)


def test_a_row_s_interval_does_not_depend_on_who_else_takes_part(clean: Any) -> None:
    clean.add("m", tables=True, images=30)
    columns = ["score", "measurement_low", "measurement_high", "generalisation_low", "seeds_sd"]
    alone = board_of(clean).frame.set_index("name").loc["m", columns]
    clean.add("n", tables=True, images=30)
    clean.add("deterministic", tables=True, images=30, deterministic=True)
    clean.add("control", tables=True, images=30, control=True)
    among = board_of(clean)
    pd.testing.assert_series_equal(among.frame.set_index("name").loc["m", columns], alone)
    assert among.frame["measurement_low"].notna().all()
    assert set(among.differences["first"]) | set(among.differences["second"]) == {"m", "n", "deterministic"}


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_a_difference_has_the_error_of_the_paired_comparison(clean: Any, metric: Any) -> None:
    for model in ("m", "n"):
        clean.add(model, tables=True, images=60)
    options = {"run_dir": clean.folder, "published": False}
    tables = [load_predictions(clean.suite, model, **options) for model in ("m", "n")]
    found = compare(tables[0], tables[1], measure=metric).mean
    row = board_of(clean, metric=metric).differences.iloc[0]
    assert found.value is not None
    assert abs(row["difference"]) == pytest.approx(abs(found.value), abs=1e-9)
    # One pair: its simultaneous interval is that of Student's t, from other draws of the same images.
    assert row["high"] - row["low"] == pytest.approx(found.high - found.low, rel=0.12)


def test_a_robust_accuracy_has_an_interval_of_its_images(attacked: Any) -> None:
    attacked.add("m", tables=True, images=40)
    options = {"run_dir": attacked.folder, "published": False}
    measured = load_measured(attacked.suite, "mean_robust_accuracy", **options)
    assert measured is not None
    rows = load_predictions(attacked.suite, "m", **options, condition="apgd-dlr")
    curve = (rows["breaking_epsilon"].astype(np.float32) > np.float32(1 / 255)).astype(float)
    curve += rows["breaking_epsilon"].astype(np.float32) > np.float32(2 / 255)
    rows = rows.assign(value=curve / 2)
    by_source = rows[rows["role"] == "id-test"].groupby(["task", "source"])["value"].mean()
    wanted = by_source.groupby("task").mean().mean()
    total = sum(
        own[seed].sum() / part.units.sizes.sum() / 2
        for part in measured.parts
        for own in part.sums.values()
        for seed in own
    )
    assert total == pytest.approx(wanted)
    assert load_measured(attacked.suite, "robust_share", **options) is None


def test_clusters_of_the_lock_are_drawn_whole_and_few_are_kept(synthetic: ModuleType, tmp_path: Any) -> None:
    def manifest(domain: str, clusters: int) -> Manifest:
        names = tuple(f"{domain}/{n}" for n in range(40))
        of = tuple(f"c{n % clusters}" for n in range(40))
        return Manifest("t", domain, "test", ("p", "q", "r"), names, np.arange(40) % 3, "0" * 64, 64, of)

    many, few = manifest("a", 8), manifest("b", 3)
    census = Census(synthetic.make_suite(), {("t", m.domain, "test"): m for m in (many, few)})
    drawn = census.units(Place("t", "b", "a", "ood-test", many.hash), 40)
    kept = census.units(Place("t", "a", "b", "ood-test", few.hash), 40)
    assert drawn is not None
    assert kept is not None
    assert (len(drawn.sizes), set(drawn.sizes)) == (8, {5})
    assert (len(kept.sizes), census.few) == (40, {"b": 3})
    shares = kept.margin.shares(50)
    for stratum in range(3):  # no cluster is drawn more or less often than it is there
        own = kept.margin.strata == stratum
        np.testing.assert_allclose(shares[:, own].sum(axis=1), own.mean(), rtol=1e-5)
    write_lock(tmp_path / "x.parquet", [many, few])  # and such manifests are what a lock holds


def test_unknown_clusters_give_no_units(synthetic: ModuleType) -> None:
    tasks = {"t": {"reader": "embedded", "classes": ["p"], "domains": ["a", "b"], "cluster": "face"}}
    census = Census(synthetic.make_suite(tasks=tasks), {})
    assert census.units(Place("t", "a", "b", "ood-test", "hash"), 9) is None
