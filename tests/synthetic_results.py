"""Run folders written through the store, with numbers chosen by the test: the reading wing needs no network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.binning import ClassBins
from tlbench.records.record import FitKey, Record
from tlbench.records.store import ModelStore, Store
from tlbench.records.tables import class_bins_table, predictions_table
from tlbench.seeds import derive, digest
from tlbench.suites.spec import Suite

CLEAN_METRICS = ("accuracy", "nll", "infinite_nll_count", "brier", "ece", "ece_scaled", "demographic_disparity")


@dataclass(frozen=True)
class Cell:
    """Where one number belongs."""

    task: str
    source: str
    target: str
    role: str
    seed: int
    condition: str
    kind: str
    severity: float | None
    norm: str | None
    epsilon: float | None
    metric: str


def make_suite(**changes: Any) -> Suite:
    """Return a suite of two tasks: six pairs over a, b, c, and one pair x to y."""
    document: dict[str, Any] = {
        "name": "tiny",
        "tasks": {
            "t": {"reader": "embedded", "classes": ["p", "q", "r"], "domains": ["a", "b", "c"]},
            "u": {
                "reader": "embedded",
                "classes": ["p", "q", "r"],
                "domains": ["x", "y"],
                "pairs": [{"source": "x", "target": "y"}],
            },
        },
        "protocol": {"seeds": [0, 1]},
        "conditions": [
            {"kind": "clean"},
            {"kind": "transform", "name": "shift", "steps": [4, 8]},
            {"kind": "corruption", "name": "fog", "severities": [1, 5]},
            {"kind": "corruption", "name": "contrast", "severities": [3]},
            {"kind": "attack", "name": "apgd-dlr", "epsilons": [1, 2], "denominator": 255},
        ],
    }
    return Suite.model_validate({**document, **changes})


def score_of_cell(cell: Cell) -> float:
    """Return a number that differs between cells: the default value."""
    return 0.3 + 0.5 * (derive(*(str(value) for value in vars(cell).values())) % 1000) / 1000


@dataclass(frozen=True)
class Run:
    """A run folder to write models into."""

    folder: Path
    suite: Suite

    @property
    def store(self) -> Store:
        return Store(self.folder, self.suite.name, self.suite.hash)

    def add(
        self,
        model: str,
        *,
        value: Callable[[Cell], float] | float | None = None,
        error: Callable[[Cell], float | None] | float | None = 0.01,
        status: Callable[[Cell], tuple[str, str] | None] = lambda cell: None,
        without: Callable[[Cell], bool] = lambda cell: False,
        seeds: tuple[int, ...] | None = None,
        images: int = 6,
        seconds: float = 1.0,
        variant: str = "main",
        headline: bool = True,
        per_target: bool = False,
        tables: bool = False,
        split_hash: Callable[[Cell], str] = lambda cell: digest(cell.task, cell.target, cell.role),
        **key: Any,
    ) -> ModelStore:
        """Write a model's fits and measurements.

        ``status`` may turn a cell into a failure or what is not applicable; ``without`` leaves it out. Unless
        ``tables`` asks for predictions too, the records of a model come in one file, which is much faster.
        """
        self.store.prepare(self.suite.model_dump(mode="json"))
        models = self.store.model(model)
        models.prepare({"name": model, "method": "linear-probe", "settings": {"steps": 3}})
        deterministic = bool(key.get("deterministic"))
        together: list[Record] = []
        for seed in seeds or (self.suite.protocol.seeds[:1] if deterministic else self.suite.protocol.seeds):
            for task in self.suite.tasks:
                for sources in self.suite.sources_of(task):
                    targets = [pair.target for pair in self.suite.pairs_of(task) if pair.sources == sources]
                    groups = [[target] for target in targets] if per_target else [targets]
                    for group in groups:
                        fit = self._fit(models, model, task, "+".join(sources), seed, per_target and group[0], key)
                        models.write_fit(fit_row(fit, seconds, variant))
                        for cells in self._measurements(fit, group):
                            kept = [cell for cell in cells if not without(cell)]
                            if kept:
                                records = _records(
                                    fit, kept, value, error, status, images, variant, headline, split_hash
                                )
                                together += records
                                if tables:
                                    _write(models, kept, records, images)
        if not tables:
            ok = [record for record in together if record.status != "failed"]
            failures = [record for record in together if record.status == "failed"]
            name = digest(model, variant, key)[:32]
            models.write(name, ok, {})
            if failures:
                models.write_failure(name, failures)
        return models

    def _fit(
        self, models: ModelStore, model: str, task: str, source: str, seed: int, target: str | bool, key: dict[str, Any]
    ) -> FitKey:
        facts = {
            "suite": self.suite.name,
            "suite_version": self.suite.version,
            "suite_hash": self.suite.hash,
            "task": task,
            "source": source,
            "fit_target": target or None,
            "shots": "full",
            "seed": seed,
            "model": model,
            "method": "linear-probe",
            "settings": "{}",
            "settings_hash": digest(model)[:16],
            "backbone": "efficientnet-lite0",
            "weights_hash": "f00d",
            "protocol": "source-only",
            "deterministic": False,
            "control": False,
            **key,
        }
        return FitKey(**facts, fit_id=digest(facts)[:32])

    def _measurements(self, fit: FitKey, targets: list[str]) -> Iterator[list[Cell]]:
        sets = [("id-val", fit.source), ("id-test", fit.source), *(("ood-test", target) for target in targets)]
        for role, target in sets:
            for condition in self.suite.conditions:
                if role not in condition.roles:
                    continue
                cell = Cell(
                    fit.task, fit.source, target, role, fit.seed, condition.name, condition.kind, None, None, None, ""
                )
                yield list(_cells(cell, condition))


def _records(
    fit: FitKey,
    cells: list[Cell],
    value: Callable[[Cell], float] | float | None,
    error: Callable[[Cell], float | None] | float | None,
    status: Callable[[Cell], tuple[str, str] | None],
    images: int,
    variant: str,
    headline: bool,
    split_hash: Callable[[Cell], str],
) -> list[Record]:
    """Return the records of one measurement: every metric, or one metric a setting that says why there is none."""
    main = {"clean": "accuracy", "corruption": "accuracy", "transform": "consistency", "attack": "robust_accuracy"}
    records = []
    for cell in cells:
        trouble = status(cell)
        if trouble and cell.metric != main[cell.kind]:
            continue
        number = score_of_cell(cell) if value is None else value(cell) if callable(value) else value
        if cell.metric == "infinite_nll_count" and not callable(value):
            number = 0.0
        records.append(
            Record(
                **vars(fit),
                variant=variant,
                headline=headline,
                target=cell.target,
                role=cell.role,
                split_hash=split_hash(cell),
                measurement_id=digest(fit.fit_id, variant, cell.target, cell.role, cell.condition)[:32],
                condition=cell.condition,
                severity=cell.severity,
                norm=cell.norm,
                epsilon=cell.epsilon,
                metric=cell.metric,
                metric_version=1,
                value=None if trouble else number,
                standard_error=None if trouble else error(cell) if callable(error) else error,
                n=images,
                status=trouble[0] if trouble else "ok",  # type: ignore[arg-type]
                reason=trouble[1] if trouble else "",
            )
        )
    return records


def _write(models: ModelStore, cells: list[Cell], records: list[Record], images: int) -> None:
    measurement = records[0].measurement_id
    if any(record.status == "failed" for record in records):
        models.write_failure(measurement, records)
    elif any(record.status == "not_applicable" for record in records):
        models.write(measurement, records, {})
    else:
        models.write(measurement, records, predictions_of(measurement, cells[0], [c.severity for c in cells], images))


def _cells(cell: Cell, condition: Any) -> Iterator[Cell]:
    if condition.kind == "clean":
        for metric in CLEAN_METRICS:
            yield replace(cell, metric=metric)
    elif condition.kind in ("transform", "corruption"):
        steps = condition.steps if condition.kind == "transform" else condition.severities
        for step in steps:
            for metric in ("accuracy", "nll", "infinite_nll_count", "ece", "consistency"):
                yield replace(cell, severity=float(step), metric=metric)
    else:
        for radius in condition.radii:
            for metric in ("robust_accuracy", "robust_share"):
                yield replace(cell, norm=condition.norm, epsilon=radius, metric=metric)
        for metric in ("mean_robust_accuracy", "median_breaking_epsilon"):
            yield replace(cell, norm=condition.norm, metric=metric)


def fit_row(fit: FitKey, seconds: float, variant: str = "main") -> dict[str, Any]:
    """Return a row of the table of fits."""
    return {
        **vars(fit),
        "status": "ok",
        "reason": "",
        "tlbench_version": "0.1.0",
        "git_state": "",
        "plugin_source": "",
        "packages": "{}",
        "device": "cpu",
        "precision": "float32",
        "threads": 1,
        "batch_size": 128,
        "started": "2024-01-01T00:00:00+00:00",
        "seconds": seconds,
        "peak_memory_bytes": 1000,
        "parameters_trained": 30,
        "parameters_stored": 30,
        "images_seen": 500,
        "saved_bytes": 0,
        "forward_passes": 1.0,
        "data_read": '["id_train"]',
        "source_hash": "beef",
        "variants": f'["{variant}"]',
        "temperatures": '{"main": 1.0}',
        "probes": "{}",
    }


def predictions_of(measurement: str, cell: Cell, severities: list[float | None], n: int) -> dict[str, Any]:
    """Return the stored tables of one measurement, random but consistent."""
    draw = np.random.default_rng(derive(measurement))
    parts = []
    for severity in dict.fromkeys(severities):
        columns: dict[str, Any] = {"id": np.arange(n, dtype=np.int32), "label": np.arange(n, dtype=np.int32) % 3}
        if cell.kind == "attack":
            right = draw.random(n) < 0.8
            columns["correct_clean"] = right
            columns["breaking_epsilon"] = np.where(right, draw.choice([1 / 255, 2 / 255, np.inf], n), 0.0)
        else:
            right = draw.random(n) < 0.7
            columns["rank"] = np.where(right, 0, 1).astype(np.int32)
            columns["predicted"] = np.where(right, columns["label"], (columns["label"] + 1) % 3).astype(np.int32)
            columns["confidence"] = draw.uniform(0.5, 1, n).astype(np.float32)
            columns["log_likelihood"] = np.log(
                np.where(right, columns["confidence"], 1 - columns["confidence"])
            ).astype(np.float32)
        if cell.kind == "clean":
            for name in ("brier", "scale_derivative", "confidence_scaled", "log_likelihood_scaled", "brier_scaled"):
                columns[name] = draw.uniform(0, 1, n).astype(np.float32)
        parts.append((severity, columns))
    tables = {"predictions": predictions_table(measurement, parts)}
    if cell.kind == "clean":
        counts = ClassBins(np.full((3, 2), n // 3), draw.random((3, 2)), np.full((3, 2), 1))
        tables["class_bins"] = class_bins_table(measurement, {False: counts, True: counts})
    return tables
