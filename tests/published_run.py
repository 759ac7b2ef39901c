"""A published model of digits, back in a run folder and submitted again: real numbers, without measuring anything."""

from __future__ import annotations

from pathlib import Path

from tlbench.records.files import write_parquet
from tlbench.records.published import published_models
from tlbench.records.store import Store
from tlbench.submissions.pack import submit
from tlbench.suites.load import load_suite


def run_of_published(model: str, run_dir: Path) -> Path:
    """Write a published model of digits into a run folder, as if it had been evaluated here."""
    suite = load_suite("digits")
    (found,) = [one for one in published_models("digits") if one.model == model]
    store = Store(run_dir, suite.name, suite.hash)
    store.prepare(suite.model_dump(mode="json"))
    models = store.model(model)
    models.prepare({})
    together = models.folder / "measurements" / "all"
    together.mkdir()
    for name in ("records", "predictions", "class_bins"):
        write_parquet(together / f"{name}.parquet", found.table(name))
    for row in found.table("fits").to_pylist():
        models.write_fit(row)
    return run_dir


def submission_of_published(model: str, folder: Path) -> Path:
    """Submit a published model of digits again; return its folder below ``folder/results``."""
    run = run_of_published(model, folder / "runs")
    return submit(run, suite=load_suite("digits"), model=model, results=folder / "results")
