"""A small submission whose every number follows from its predictions: logits drawn here, reduced as the engine does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tlbench.binning import class_bins
from tlbench.metrics.evaluate import MetricValue, measure_attack, measure_audit, measure_clean, measure_images
from tlbench.records.lock import write_lock
from tlbench.records.manifest import Manifest
from tlbench.records.precision import as_stored
from tlbench.records.record import FitKey, Record
from tlbench.records.store import Store
from tlbench.records.tables import audits_table, class_bins_table, predictions_table
from tlbench.seeds import derive, digest
from tlbench.submissions.pack import submit
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Suite

SUITE = """
name = "tiny"

[tasks.t]
reader = "embedded"
classes = ["p", "q", "r"]

[tasks.t.domains.a]

[tasks.t.domains.b]
cluster = "scene"
group = "region"

[protocol]
seeds = [0, 1]

[metrics]
ece_bins = 8

[[conditions]]
kind = "clean"

[[conditions]]
kind = "transform"
name = "scale"
steps = [0.9, 1.1]
max_images = 30

[[conditions]]
kind = "corruption"
name = "fog"
severities = [1, 3]

[[conditions]]
kind = "attack"
name = "apgd-dlr"
epsilons = [1, 2, 4]
denominator = 255
max_images = 20
"""
CLASSES = 3
IMAGES = {"val": 24, "test": 48}


@dataclass(frozen=True)
class Made:
    """Where everything lies."""

    suite_file: Path
    suite: Suite
    lock: Path
    run: Path
    folder: Path


def manifest(domain: str, part: str) -> Manifest:
    """Return a split of made-up images; those of b belong to scenes and regions."""
    n = IMAGES[part]
    draw = np.random.default_rng(derive(domain, part))
    return Manifest(
        task="t",
        domain=domain,
        part=part,
        classes=("p", "q", "r"),
        names=tuple(f"{domain}{part}{place}" for place in range(n)),
        labels=draw.integers(0, CLASSES, n),
        pixels=digest(domain, part),
        image_size=8,
        clusters=tuple(f"scene {place % 7}" for place in range(n)) if domain == "b" else None,
        groups=tuple(f"region {place % 2}" for place in range(n)) if domain == "b" else None,
    )


def make(place: Path) -> Made:
    """Write a suite, its lock, a run of the model ``m`` and what ``submit`` makes of it."""
    place.mkdir(parents=True, exist_ok=True)
    suite_file, lock, run = place / "tiny.toml", place / "tiny.lock.parquet", place / "runs"
    suite_file.write_text(SUITE)
    suite = load_suite(suite_file)
    write_lock(lock, [manifest(domain, part) for domain in "ab" for part in IMAGES])
    store = Store(run, suite.name, suite.hash)
    store.prepare(suite.model_dump(mode="json"))
    models = store.model("m")
    models.prepare({"name": "m", "method": "linear-probe"})
    for seed in suite.protocol.seeds:
        for source in "ab":
            key = _key(suite, source, seed)
            models.write_fit(_fit_row(key))
            for records, tables in _measurements(suite, key):
                models.write(records[0].measurement_id, records, tables)
    folder = submit(run, suite=suite, model="m", results=place / "results")
    return Made(suite_file, suite, lock, run, folder)


def _measurements(suite: Suite, key: FitKey) -> Iterator[tuple[list[Record], dict[str, Any]]]:
    other = "b" if key.source == "a" else "a"
    for role, target, part in (
        ("id-val", key.source, "val"),
        ("id-test", key.source, "test"),
        ("ood-test", other, "test"),
    ):
        whole = manifest(target, part)
        draw = np.random.default_rng(derive(key.fit_id, role))
        logits = draw.normal(0, 1, (len(whole), CLASSES)) + 1.5 * np.eye(CLASSES)[whole.labels]
        clean = reduced(logits, whole.labels)
        for condition in suite.conditions:
            if role not in condition.roles:
                continue
            own = (
                whole if condition.max_images is None else whole.take(np.arange(min(condition.max_images, len(whole))))
            )
            place = _Place(key, role, target, own.hash, digest(key.fit_id, role, condition.name)[:32])
            n = len(own)
            if condition.kind == "clean":
                yield _clean(place, clean, logits, own)
            elif condition.kind == "attack":
                yield _attack(place, {name: column[:n] for name, column in clean.items()}, condition.radii, own, draw)
            else:
                steps = condition.steps if condition.kind == "transform" else condition.severities
                noisy = [logits[:n] + draw.normal(0, 0.5, (n, CLASSES)) for _ in steps]
                before = clean["predicted"][:n] if condition.kind == "transform" else None
                yield _images(place, condition.name, steps, noisy, own, before)


@dataclass(frozen=True)
class _Place:
    key: FitKey
    role: str
    target: str
    split_hash: str
    measurement_id: str

    def record(self, condition: str, metric: str, value: MetricValue, **setting: Any) -> Record:
        strength = {"severity": None, "norm": None, "epsilon": None, **setting}
        return Record(
            **vars(self.key),
            variant="main",
            headline=True,
            target=self.target,
            role=self.role,
            split_hash=self.split_hash,
            measurement_id=self.measurement_id,
            condition=condition,
            metric=metric,
            metric_version=1,
            **strength,
            **vars(value),
        )


def reduced(logits: np.ndarray, labels: np.ndarray, *, full: bool = True) -> dict[str, np.ndarray]:
    """Return the columns of the predictions table, as the engine's reducer would."""
    n = len(labels)
    columns: dict[str, np.ndarray] = {"id": np.arange(n, dtype=np.int32), "label": labels.astype(np.int32)}
    columns["predicted"] = logits.argmax(1).astype(np.int32)
    columns["rank"] = (logits > logits[np.arange(n), labels][:, None]).sum(1).astype(np.int32)
    for suffix, temperature in (("", 1.0), ("_scaled", 1.3)) if full else (("", 1.0),):
        chances = probabilities(logits / temperature)
        true = chances[np.arange(n), labels]
        likelihood = as_stored(np.log(true))
        right = columns["rank"] == 0
        told = np.where(right, np.exp(likelihood.astype(np.float64)), chances.max(1))
        columns[f"confidence{suffix}"] = as_stored(told)
        columns[f"log_likelihood{suffix}"] = likelihood
        if full:
            columns[f"brier{suffix}"] = as_stored(((chances - np.eye(CLASSES)[labels]) ** 2).sum(1))
    if full:
        chances = probabilities(logits)
        columns["scale_derivative"] = as_stored((chances * logits).sum(1) - logits[np.arange(n), labels])
    return columns


def probabilities(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def _units(columns: dict[str, Any], own: Manifest) -> dict[str, Any]:
    named = {"cluster": own.clusters, "group": own.groups}
    return {**columns, **{k: np.asarray(v, dtype=object)[columns["id"]] for k, v in named.items() if v is not None}}


def _clean(
    place: _Place, columns: dict[str, Any], logits: np.ndarray, own: Manifest
) -> tuple[list[Record], dict[str, Any]]:
    counts = {
        scaled: class_bins(probabilities(logits / temperature), own.labels, bins=8, closed="right")
        for scaled, temperature in ((False, 1.0), (True, 1.3))
    }
    values = measure_clean(
        _units(columns, own),
        classes=CLASSES,
        bins=8,
        closed="right",
        class_bins=counts[False],
        class_bins_scaled=counts[True],
    )
    records = [place.record("clean", metric, value) for metric, value in values.items()]
    return records, {
        "predictions": predictions_table(place.measurement_id, [(None, columns)]),
        "class_bins": class_bins_table(place.measurement_id, counts),
    }


def _images(
    place: _Place, name: str, steps: Any, noisy: list[np.ndarray], own: Manifest, before: np.ndarray | None
) -> tuple[list[Record], dict[str, Any]]:
    records, parts = [], []
    for step, logits in zip(steps, noisy, strict=True):
        columns = reduced(logits, own.labels, full=False)
        seen = _units(columns, own) if before is None else {**_units(columns, own), "predicted_clean": before}
        values = measure_images(seen, bins=8, closed="right")
        records += [place.record(name, metric, value, severity=float(step)) for metric, value in values.items()]
        parts.append((float(step), columns))
    return records, {"predictions": predictions_table(place.measurement_id, parts)}


def _attack(
    place: _Place, clean: dict[str, Any], radii: tuple[float, ...], own: Manifest, draw: np.random.Generator
) -> tuple[list[Record], dict[str, Any]]:
    right = clean["rank"] == 0
    columns = {
        "id": clean["id"],
        "label": clean["label"],
        "correct_clean": right,
        "breaking_epsilon": np.where(right, draw.choice([*radii, np.inf], len(right)), 0.0),
    }
    records = []
    for (metric, epsilon), value in measure_attack(_units(columns, own), epsilons=radii).items():
        records.append(place.record("apgd-dlr", metric, value, norm="linf", epsilon=epsilon))
    implied = columns["breaking_epsilon"][:3] > radii[0]
    audits = {"id": columns["id"][:3], "epsilon": np.full(3, radii[0]), "implied": implied, "found": implied.copy()}
    records.append(place.record("apgd-dlr", "audit_reversals", measure_audit(_units(audits, own)), norm="linf"))
    tables = {"predictions": predictions_table(place.measurement_id, [(None, columns)])}
    return records, {**tables, "audits": audits_table(place.measurement_id, audits)}


def _key(suite: Suite, source: str, seed: int) -> FitKey:
    return FitKey(
        suite=suite.name,
        suite_version=suite.version,
        suite_hash=suite.hash,
        task="t",
        source=source,
        fit_target=None,
        shots="full",
        seed=seed,
        model="m",
        method="linear-probe",
        settings="{}",
        settings_hash="5e77",
        backbone="efficientnet-lite0",
        weights_hash="f00d",
        protocol="source-only",
        deterministic=False,
        control=False,
        fit_id=digest("m", source, seed)[:32],
    )


def _fit_row(key: FitKey) -> dict[str, Any]:
    return {
        **vars(key),
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
        "seconds": 1.0,
        "peak_memory_bytes": 1000,
        "parameters_trained": 30,
        "parameters_stored": 30,
        "images_seen": 500,
        "saved_bytes": 0,
        "forward_passes": 1.0,
        "data_read": '["id_train"]',
        "source_hash": "beef",
        "variants": json.dumps(["main"]),
        "temperatures": json.dumps({"main": 1.3}),
        "probes": "{}",
    }
