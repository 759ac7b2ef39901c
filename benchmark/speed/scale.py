"""Compacted results as large as those of the study, made up: what loads them and ranks them is timed on these."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tlbench.engine.measuring import settings_of
from tlbench.metrics.evaluate import CLEAN_METRICS
from tlbench.records.published import model_folder
from tlbench.records.schema import FITS, RECORDS
from tlbench.seeds import digest
from tlbench.setting import Setting
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Suite

SUITE = "ood172"
MODELS = 287
"""Of 108 fits each (36 sources, three seeds) on ``ood172``: 31,000 fits, 12 million records."""

_OF_KIND = {
    "clean": CLEAN_METRICS,
    "corruption": ("accuracy", "nll"),
    "transform": ("consistency",),
    "attack": ("robust_accuracy",),
}
_WHOLE_CURVE = ("mean_robust_accuracy", "median_breaking_epsilon")


@dataclass(frozen=True)
class Size:
    """What was written."""

    models: int
    fits: int
    records: int
    bytes: int


def write_results(folder: Path, *, models: int = MODELS, suite: str = SUITE) -> Size:
    """Write the published results of made-up models below a folder, to be read with ``results=folder``.

    Parameters
    ----------
    folder : Path
        An empty folder, or one that does not exist.
    models : int
        Every model has a fit for each source and seed of the suite; every measured set has all of its records.
    suite : str

    Returns
    -------
    Size
    """
    spec = load_suite(suite)
    places = _places(spec)
    rng = np.random.default_rng(0)
    fits = records = size = 0
    for number in range(models):
        model = f"model-{number:03d}"
        place = model_folder(folder, spec.name, model)
        place.mkdir(parents=True)
        tables = {"records": _records(spec, model, places, rng), "fits": _fits(spec, model, places, rng)}
        for name, table in tables.items():
            path = place / f"{name}.parquet"
            # As write_compact, but for the level of compression, which takes minutes of this many tables.
            pq.write_table(table, path, compression="zstd", row_group_size=max(len(table), 1), write_statistics=False)
            size += path.stat().st_size
        records += len(tables["records"])
        fits += len(tables["fits"])
    return Size(models, fits, records, size)


def _places(suite: Suite) -> list[dict[str, Any]]:
    """Return where the records of one seed belong, one entry a record."""
    rows = []
    for task in suite.tasks:
        for sources in suite.sources_of(task):
            source = "+".join(sources)
            targets = [pair.target for pair in suite.pairs_of(task) if pair.sources == sources]
            sets = [("id-val", source), ("id-test", source), *(("ood-test", target) for target in targets)]
            for (role, target), condition in itertools.product(sets, suite.conditions):
                if role not in condition.roles:
                    continue
                for setting, metric in _metrics(condition):
                    rows.append(
                        {
                            "task": task, "source": source, "target": target, "role": role, "metric": metric,
                            "condition": setting.condition, "severity": setting.severity, "norm": setting.norm,
                            "epsilon": setting.epsilon,
                        }
                    )  # fmt: skip
    return rows


def _metrics(condition: Any) -> Iterator[tuple[Setting, str]]:
    settings = settings_of(condition)
    for setting in settings:
        for metric in _OF_KIND[condition.kind]:
            yield setting, metric
    if condition.kind == "attack":
        whole = Setting(condition.name, norm=condition.norm)
        for metric in _WHOLE_CURVE:
            yield whole, metric


def _records(suite: Suite, model: str, places: list[dict[str, Any]], rng: np.random.Generator) -> pa.Table:
    seeds = suite.protocol.seeds
    n = len(places) * len(seeds)
    columns: dict[str, Any] = {}
    for name in places[0]:
        once = [place[name] for place in places]
        columns[name] = pa.array(once * len(seeds), RECORDS.field(name).type)
    seed = np.repeat(np.asarray(seeds), len(places))
    columns |= {
        "seed": seed,
        "value": rng.random(n),
        "standard_error": rng.random(n) / 100,
        "n": rng.integers(100, 1000, n),
        "fit_id": _ids(columns, seed, ("task", "source"), model),
        "measurement_id": _ids(columns, seed, ("task", "source", "target", "role", "condition"), model),
        "split_hash": _ids(columns, np.zeros(n, int), ("task", "target", "role"), ""),
    }
    return _table(RECORDS, n, {**_facts(suite, model), **columns})


def _fits(suite: Suite, model: str, places: list[dict[str, Any]], rng: np.random.Generator) -> pa.Table:
    pairs = list(dict.fromkeys((place["task"], place["source"]) for place in places))
    rows = [(task, source, seed) for seed in suite.protocol.seeds for task, source in pairs]
    task, source, seed = (list(column) for column in zip(*rows, strict=True))
    columns = {"task": pa.array(task), "source": pa.array(source)}
    ids = _ids(columns, np.asarray(seed), ("task", "source"), model)
    given = {**columns, "seed": seed, "fit_id": ids, "seconds": rng.random(len(rows)) * 1000}
    return _table(FITS, len(rows), {**_facts(suite, model), **given})


def _facts(suite: Suite, model: str) -> dict[str, Any]:
    return {
        "suite": suite.name, "suite_version": suite.version, "suite_hash": suite.hash, "shots": "full", "model": model,
        "method": "linear-probe", "settings": f'{{"made_up":"{model}"}}', "settings_hash": digest(model)[:16],
        "backbone": "timm:resnet50d", "weights_hash": digest("weights")[:16], "protocol": "source-only",
        "deterministic": False, "control": False, "variant": "main", "headline": True, "metric_version": 1,
        "status": "ok", "precision": "float32", "forward_passes": 1.0,
    }  # fmt: skip


def _ids(columns: dict[str, Any], seed: NDArray[Any], names: tuple[str, ...], model: str) -> list[str]:
    known: dict[tuple[Any, ...], str] = {}
    ids = []
    for key in zip(*(columns[name].to_pylist() for name in names), seed.tolist(), strict=True):
        if key not in known:
            known[key] = digest(model, *(str(part) for part in key))[:32]
        ids.append(known[key])
    return ids


def _table(schema: pa.Schema, n: int, given: dict[str, Any]) -> pa.Table:
    arrays = []
    for field in schema:
        blank = None if field.nullable else "" if field.type == pa.string() else 0
        value = given.get(field.name, blank)
        if isinstance(value, pa.Array):
            arrays.append(value)
        elif isinstance(value, list | np.ndarray):
            arrays.append(pa.array(value, field.type))
        else:
            arrays.append(pa.repeat(pa.scalar(value, field.type), n))
    return pa.Table.from_arrays(arrays, schema=schema)
