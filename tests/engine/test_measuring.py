"""Every record follows from the stored tables by the pure functions of ``metrics``: what ``verify`` rests on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tlbench import api
from tlbench.conditions.base import Observed
from tlbench.engine.measuring import attack_columns, audit_columns, reversals
from tlbench.metrics.evaluate import MetricValue, measure_attack, measure_audit, measure_clean, measure_images
from tlbench.records.files import read_table
from tlbench.records.schema import RECORDS
from tlbench.records.store import ModelStore, stores
from tlbench.records.tables import audits_of, audits_table, class_bins_of, columns_of
from tlbench.setting import Setting
from tlbench.suites.load import load_suite

CLASSES = 3


@pytest.fixture(scope="module")
def store(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    run_dir = tmp_path_factory.mktemp("runs")
    api.evaluate(blobs, "ncm", only=["source=right"], run_dir=run_dir, quiet=True, threads=1)
    (found,) = stores(run_dir, "blobs")
    return found.model("ncm")


def rows_of(store: ModelStore, **wanted: str) -> dict[str, list[dict]]:
    """Return the records of the measurements that are wanted, by measurement."""
    found: dict[str, list[dict]] = {}
    for row in store.records().to_pylist():
        if all(row[key] == value for key, value in wanted.items()):
            found.setdefault(row["measurement_id"], []).append(row)
    assert found
    return found


def stored(row: dict) -> MetricValue:
    return MetricValue(row["value"], row["standard_error"], row["n"], row["status"], row["reason"])


def test_clean_records_follow_from_predictions_and_class_bins(store: ModelStore, blobs: Path) -> None:
    metrics = load_suite(blobs).metrics
    for measurement, rows in rows_of(store, condition="clean").items():
        bins = class_bins_of(store.read(measurement, "class_bins"), classes=CLASSES, bins=metrics.ece_bins)
        assert set(bins) == {False, True}
        again = measure_clean(
            columns_of(store.read(measurement, "predictions")),
            classes=CLASSES,
            bins=metrics.ece_bins,
            closed=metrics.ece_closed,
            class_bins=bins[False],
            class_bins_scaled=bins[True],
        )
        assert {row["metric"]: stored(row) for row in rows} == again


@pytest.mark.parametrize("condition", ["shift", "contrast"])
def test_records_of_changed_images_follow_setting_by_setting(store: ModelStore, blobs: Path, condition: str) -> None:
    metrics = load_suite(blobs).metrics
    clean = {(rows[0]["role"], rows[0]["target"]): m for m, rows in rows_of(store, condition="clean").items()}
    for measurement, rows in rows_of(store, condition=condition).items():
        table = store.read(measurement, "predictions")
        severities = table.column("severity").to_numpy()
        assert set(severities) == {np.float32(row["severity"]) for row in rows}
        for severity in set(severities):
            columns = columns_of(table.filter(severities == severity))
            if condition == "shift":
                before = columns_of(store.read(clean[rows[0]["role"], rows[0]["target"]], "predictions"))
                columns["predicted_clean"] = before["predicted"][columns["id"]]
            again = measure_images(columns, bins=metrics.ece_bins, closed=metrics.ece_closed)
            own = [row for row in rows if np.float32(row["severity"]) == severity]
            assert {row["metric"]: stored(row) for row in own} == again
        assert ("consistency" in {row["metric"] for row in rows}) == (condition == "shift")


def test_attack_records_follow_from_breaking_epsilons(store: ModelStore) -> None:
    ((measurement, rows),) = rows_of(store, condition="apgd-dlr").items()
    epsilons = sorted({row["epsilon"] for row in rows if row["epsilon"] is not None})
    assert epsilons == [1 / 255, 16 / 255]
    again = dict(measure_attack(columns_of(store.read(measurement, "predictions")), epsilons=epsilons))
    again["audit_reversals", None] = measure_audit(audits_of(store.read(measurement, "audits")))
    assert {(row["metric"], row["epsilon"]): stored(row) for row in rows} == again


def test_a_measurement_is_whole_in_its_folder_and_says_whose_it_is(store: ModelStore) -> None:
    for folder in (store.folder / "measurements").iterdir():
        table = read_table(folder / "records.parquet", RECORDS)
        assert set(table.column("measurement_id").to_pylist()) == {folder.name}
        assert set(store.read(folder.name, "predictions").column("measurement_id").to_pylist()) == {folder.name}
        assert not list(folder.glob(".*"))


EPSILONS = (0.1, 0.2, 0.4)
SETTINGS = tuple(Setting("apgd-dlr", norm="linf", epsilon=epsilon) for epsilon in EPSILONS)


def seen(epsilon: int, ids: list[int], survived: list[bool], correct: list[bool]) -> Observed:
    labels = torch.tensor([10 + i for i in ids])
    return Observed(
        SETTINGS[epsilon],
        torch.tensor(ids),
        labels,
        survived=torch.tensor(survived),
        correct_clean=torch.tensor(correct),
    )


def test_breaking_epsilons_by_hand() -> None:
    # Image 0 was wrong when clean, 1 breaks at 0.2, 2 never, 3 at once; pieces come in any order.
    pieces = [
        seen(2, [2, 0], [True, False], [True, False]),
        seen(0, [3, 1, 0, 2], [False, True, False, True], [True, True, False, True]),
        seen(1, [0, 1, 2, 3], [False, False, True, False], [False, True, True, True]),
        seen(2, [1, 3], [False, False], [True, True]),
    ]
    columns = attack_columns(iter(pieces), SETTINGS, 4)
    assert columns["breaking_epsilon"].tolist() == [0.0, 0.2, math.inf, 0.1]
    assert columns["correct_clean"].tolist() == [False, True, True, True]
    assert columns["label"].tolist() == [10, 11, 12, 13]
    values = measure_attack(columns, epsilons=EPSILONS)
    assert [values["robust_accuracy", epsilon].value for epsilon in EPSILONS] == [0.5, 0.25, 0.25]


def test_audited_verdicts_by_hand() -> None:
    # Images 1 and 2 are audited at the largest epsilon, image 2 at the next one too.
    last = seen(2, [1, 0, 2], [False, False, True], [True, False, True])
    middle = seen(1, [2, 1], [True, True], [True, True])
    pieces = [
        replace(last, audited=torch.tensor([True, False, True]), found=torch.tensor([True, False, False])),
        replace(middle, audited=torch.tensor([True, False]), found=torch.tensor([True, False])),
    ]
    columns = audit_columns(pieces)
    assert columns is not None
    assert {name: column.tolist() for name, column in columns.items()} == {
        "id": [1, 2, 2],
        "epsilon": [0.4, 0.2, 0.4],
        "implied": [False, True, True],
        "found": [True, True, False],
    }
    masked, optimistic = reversals("apgd-dlr", columns)
    assert "of 3 audited verdicts 1 survived although a smaller epsilon broke them: gradient masking" in masked
    assert (
        "of 3 audited verdicts 1 broke although they survived a larger epsilon: `fast` is too optimistic" in optimistic
    )
    value = measure_audit(columns)
    assert (value.value, value.n, value.status) == (pytest.approx(2 / 3), 3, "ok")
    back = audits_of(audits_table("m1", columns))
    assert {name: column.tolist() for name, column in back.items()} == {
        name: column.tolist() for name, column in columns.items()
    }


def test_an_audit_that_confirms_everything_has_nothing_to_tell() -> None:
    piece = seen(1, [0, 1], [True, False], [True, True])
    columns = audit_columns([replace(piece, audited=torch.tensor([True, True]), found=torch.tensor([True, False]))])
    assert columns is not None
    assert reversals("apgd-dlr", columns) == ()
    assert measure_audit(columns).value == 0
    assert audit_columns([piece]) is None


def test_an_image_without_a_verdict_is_found_out() -> None:
    pieces = [seen(0, [0, 1], [True, True], [True, True]), seen(1, [0], [True], [True])]
    with pytest.raises(ValueError, match="observed 1 of 2 images"):
        attack_columns(iter(pieces), SETTINGS[:2], 2)
