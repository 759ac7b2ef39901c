"""The published board: complete, small, and every number of it follows from the predictions beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.tables import load_fits, load_results
from tlbench.metrics.evaluate import MetricValue, measure_attack, measure_audit, measure_clean, measure_images
from tlbench.records.lock import read_lock
from tlbench.records.published import PublishedModel, published_models
from tlbench.records.tables import audits_of, class_bins_of, columns_of
from tlbench.suites.load import find_suite, load_suite
from tlbench.suites.spec import PART_OF_ROLE

SUITE = load_suite("digits")
MODELS = published_models("digits")
TRANSFORMS = {condition.name for condition in SUITE.conditions if condition.kind == "transform"}
CONTROLS = {"majority", "random-features", "shuffled-labels"}

pytestmark = pytest.mark.skipif(not MODELS, reason="no published results in this checkout")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return load_results("digits", run_dir=tmp_path_factory.mktemp("none"))


@pytest.fixture(scope="module")
def units() -> dict[tuple[str, str, str], np.ndarray | None]:
    """Clusters of every split, from the suite's lock."""
    lock = read_lock(find_suite("digits").with_suffix(".lock.parquet"))
    return {
        key: None if manifest.clusters is None else np.asarray(manifest.clusters, dtype=object)
        for key, manifest in lock.items()
    }


def recomputed(
    model: PublishedModel, units: dict[tuple[str, str, str], np.ndarray | None]
) -> Iterator[tuple[tuple[Any, ...], MetricValue]]:
    """Compute every number of a model from its stored predictions, as whoever doubts it would."""
    records = model.table("records").to_pandas()
    predictions, bins, audits = model.table("predictions"), model.table("class_bins"), model.table("audits")
    rows_of = pd.Series(range(len(predictions))).groupby(predictions.column("measurement_id").to_pandas())
    bins_of = pd.Series(range(len(bins))).groupby(bins.column("measurement_id").to_pandas())
    audits_by = pd.Series(range(len(audits))).groupby(audits.column("measurement_id").to_pandas())
    options = {"bins": SUITE.metrics.ece_bins, "closed": SUITE.metrics.ece_closed}
    clean_classes: dict[tuple[str, str, str, str], np.ndarray] = {}
    # Clean first: consistency is measured against it.
    measured = records.drop_duplicates("measurement_id").sort_values("condition", key=lambda c: c != "clean")
    for row in measured.itertuples():
        if row.measurement_id not in rows_of.groups:
            continue  # not applicable: no predictions
        table = predictions.take(rows_of.groups[row.measurement_id].to_numpy())
        where = (row.fit_id, row.variant, row.target, row.role)
        cluster = units[row.task, row.target, PART_OF_ROLE[row.role]]
        for severity in sorted(set(table.column("severity").to_pylist()), key=lambda s: -1 if s is None else s):
            part = table if severity is None else table.filter(np.asarray(table.column("severity")) == severity)
            columns = columns_of(part)
            if cluster is not None:
                columns["cluster"] = cluster[columns["id"]]
            if row.condition == "clean":
                clean_classes[where] = columns["predicted"][np.argsort(columns["id"])]
                # Scores are no probabilities, and have no bins.
                own = bins.take(bins_of.groups.get(row.measurement_id, pd.Index([], dtype="int64")).to_numpy())
                counts = class_bins_of(own, classes=10, bins=options["bins"])
                values = measure_clean(
                    columns, classes=10, class_bins=counts.get(False), class_bins_scaled=counts.get(True), **options
                )
                yield from (((row.measurement_id, None, None, name), value) for name, value in values.items())
            elif "correct_clean" in columns:
                epsilons = sorted(records[records.measurement_id == row.measurement_id].epsilon.dropna().unique())
                found = measure_attack(columns, epsilons=epsilons)
                yield from (((row.measurement_id, None, eps, name), value) for (name, eps), value in found.items())
                if row.measurement_id in audits_by.groups:
                    audited = audits_of(audits.take(audits_by.groups[row.measurement_id].to_numpy()))
                    if cluster is not None:
                        audited["cluster"] = cluster[audited["id"]]
                    yield (row.measurement_id, None, None, "audit_reversals"), measure_audit(audited)
            else:
                if row.condition in TRANSFORMS:
                    columns["predicted_clean"] = clean_classes[where][columns["id"]]
                values = measure_images(columns, **options)
                yield from (((row.measurement_id, severity, None, name), value) for name, value in values.items())


def same(stored: float | None, again: float | None) -> bool:
    if stored is None or again is None:
        return stored is again
    return stored == pytest.approx(again, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.model)
def test_every_number_follows_from_the_stored_predictions(
    model: PublishedModel, units: dict[tuple[str, str, str], np.ndarray | None]
) -> None:
    stored = {}
    for row in model.table("records").to_pylist():
        severity = None if row["severity"] is None else float(np.float32(row["severity"]))
        stored[row["measurement_id"], severity, row["epsilon"], row["metric"]] = row
    again = dict(recomputed(model, units))
    numbers = {key for key, row in stored.items() if row["status"] == "ok"}
    assert numbers
    assert numbers <= set(again)
    for key, value in again.items():
        assert stored[key]["status"] == value.status
        assert stored[key]["n"] == value.n
        assert same(stored[key]["value"], value.value), key
        assert same(stored[key]["standard_error"], value.standard_error), key


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.model)
def test_predictions_stay_under_two_megabytes_and_one_for_each_unranked_variant(model: PublishedModel) -> None:
    """As much again for every further fit of a source: a method that reads the target has one a pair."""
    variants = len(model.table("records")["variant"].unique())
    fits = model.table("fits").select(["source", "seed"]).to_pandas()
    of_a_source = fits.value_counts().max()
    assert (model.folder / "predictions.parquet").stat().st_size < 1_000_000 * (1 + variants) * of_a_source


def test_at_least_nine_models_are_ranked_besides_the_controls(records: pd.DataFrame, tmp_path: Path) -> None:
    board = make_board(records, load_fits("digits", run_dir=tmp_path), SUITE)
    ranked = set(board.frame[board.frame["rank"].notna()]["model"])
    assert len(ranked) >= 9
    assert not ranked & CONTROLS
    assert {"linear-probe", "finetune", "from-scratch"} <= ranked


def test_seeds_are_those_of_the_suite_or_one_where_the_method_is_deterministic(records: pd.DataFrame) -> None:
    incomplete = {model.model for model in MODELS if (listed := model.inventory()) is not None and listed.incomplete}
    for model, rows in records.groupby("model"):
        one = rows.deterministic.all() or model in incomplete
        assert set(rows.seed) == ({0} if one else set(SUITE.protocol.seeds)), model


def test_each_corruption_costs_the_linear_probe_five_points_at_severity_five(records: pd.DataFrame) -> None:
    rows = records.query("model == 'linear-probe' and role == 'id-test' and metric == 'accuracy'")
    clean = rows.query("condition == 'clean'").value.mean()
    corruptions = [condition.name for condition in SUITE.conditions if condition.kind == "corruption"]
    assert len(corruptions) == 5
    for name in corruptions:
        assert rows[(rows.condition == name) & (rows.severity == 5)].value.mean() <= clean - 0.05, name


def test_controls_land_where_theory_says(records: pd.DataFrame) -> None:
    accuracy = records.query("condition == 'clean' and metric == 'accuracy' and role != 'id-val'")
    by_model = accuracy.groupby(["model", "role"]).value.mean()
    # The classes are balanced, so the most frequent one is as good as any.
    assert by_model["majority", "ood-test"] == pytest.approx(0.1, abs=0.005)
    assert by_model["majority", "id-test"] == pytest.approx(0.1, abs=0.005)
    # 12 fits of 4 sources: permuted labels teach nothing, give or take what 12 fits scatter.
    assert by_model["shuffled-labels", "ood-test"] == pytest.approx(0.1, abs=0.04)
    assert by_model["shuffled-labels", "id-test"] == pytest.approx(0.1, abs=0.04)
    assert by_model["random-features", "id-test"] < by_model["linear-probe", "id-test"]


def test_a_temperature_moves_no_prediction(records: pd.DataFrame) -> None:
    accuracy = records.query("condition == 'clean' and metric == 'accuracy'")
    wide = accuracy.pivot_table(index=["source", "target", "role", "seed"], columns="model", values="value")
    for scaled in [name for name in wide.columns if name.startswith("temperature(")]:
        both = wide[[scaled, scaled.removeprefix("temperature(").removesuffix(")")]].dropna()
        assert len(both) >= 20
        assert (both.iloc[:, 0] == both.iloc[:, 1]).all()
