"""What submit writes, and what it refuses."""

from __future__ import annotations

import hashlib
import os
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

from tlbench.errors import PluginError, StoreError, UnknownNameError, UsageError, VerificationError
from tlbench.records.compact import write_compact
from tlbench.records.inventory import read_inventory
from tlbench.records.published import published_models
from tlbench.records.schema import AUDITS, CLASS_BINS, PREDICTIONS, RECORDS
from tlbench.records.tables import audits_table
from tlbench.submissions.pack import ORDERS, as_toml, locate, submission_folder, submit
from tlbench.suites.load import load_suite


def test_what_is_published_reads_as_what_was_measured(run: Any, tmp_path: Path) -> None:
    models = run.add("temperature(lp-ft)", tables=True)
    folder = submit(run.folder, suite=run.suite, model="temperature(lp-ft)", results=tmp_path / "results")
    assert folder == tmp_path / "results" / "tiny" / "temperature(lp-ft)"
    assert sorted(path.name for path in folder.iterdir()) == [
        "card.toml", "class_bins.parquet", "fits.parquet", "outcomes.parquet", "predictions.parquet",
        "records.parquet", "submission.json",
    ]  # fmt: skip
    (found,) = published_models("tiny", folder=tmp_path / "results")
    assert found.model == "temperature(lp-ft)"
    stored = {
        "records": models.records(),
        "fits": models.fits(),
        "predictions": models.table("predictions", PREDICTIONS),
        "class_bins": models.table("class_bins", CLASS_BINS),
    }
    for name, table in stored.items():
        order = [(column, "ascending") for column in table.column_names]
        assert found.table(name).sort_by(order).equals(table.sort_by(order)), name


def test_audited_verdicts_are_published_where_there_are_any(run: Any, tmp_path: Path) -> None:
    models = run.add("m", tables=True)
    (measurement, *_) = models.records().column("measurement_id").to_pylist()
    columns = {"id": [0, 3], "epsilon": [0.1, 0.1], "implied": [True, True], "found": [True, False]}
    audits = audits_table(measurement, {name: np.array(column) for name, column in columns.items()})
    pyarrow.parquet.write_table(audits, models.folder / "measurements" / measurement / "audits.parquet")
    submit(run.folder, suite=run.suite, model="m", results=tmp_path)
    (found,) = published_models(folder=tmp_path)
    assert found.table("audits").equals(audits)
    # A folder that was published before there were audits has none, and that is no error.
    (found.folder / "audits.parquet").unlink()
    assert found.table("audits").equals(AUDITS.empty_table())


def test_a_second_submission_replaces_the_first_and_leaves_nothing_else(
    run: Any, tmp_path: Path, synthetic: ModuleType
) -> None:
    results = tmp_path / "results"
    run.add("m", value=0.4, tables=True)
    submit(run.folder, suite=run.suite, model="m", results=results)
    again = synthetic.Run(tmp_path / "again", run.suite)
    again.add("m", value=0.6, tables=True)
    submit(again.folder, suite=run.suite, model="m", results=results)
    (found,) = published_models(folder=results)
    assert 0.4 not in found.table("records")["value"].to_pylist()
    assert os.listdir(results / "tiny") == ["m"]


def test_equal_runs_give_equal_files(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True)
    first, second = (submit(run.folder, suite=run.suite, model="m", results=tmp_path / name) for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_incomplete_work_is_refused_and_says_what_is_missing(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, without=lambda cell: cell.condition == "fog" and cell.source == "b" and cell.seed == 1)
    with pytest.raises(
        StoreError, match="1 of 32 measurements are missing or failed, first t, b to b, id-test, fog, seed 1"
    ):
        submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results")
    assert not (tmp_path / "results").exists()
    submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results", allow_incomplete=True)
    assert len(published_models(folder=tmp_path / "results")) == 1


def test_what_failed_is_missing_and_what_does_not_apply_is_not(run: Any, tmp_path: Path) -> None:
    run.add("k", tables=True, status=lambda cell: ("not_applicable", "no gradients") if cell.kind == "attack" else None)
    submit(run.folder, suite=run.suite, model="k", results=tmp_path / "results")
    run.add("f", tables=True, status=lambda cell: ("failed", "it diverged") if cell.source == "a" else None)
    with pytest.raises(StoreError, match="it diverged"):
        submit(run.folder, suite=run.suite, model="f", results=tmp_path / "results")


def test_a_deterministic_method_needs_one_seed_and_others_all(run: Any, tmp_path: Path) -> None:
    run.add("d", tables=True, deterministic=True)
    submit(run.folder, suite=run.suite, model="d", results=tmp_path / "results")
    run.add("s", tables=True, seeds=(0,))
    with pytest.raises(StoreError, match="16 of 32 measurements"):
        submit(run.folder, suite=run.suite, model="s", results=tmp_path / "results")


def test_a_method_that_reads_the_target_needs_a_fit_a_pair(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, per_target=True)
    submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results")


def test_work_on_another_version_is_refused_with_both_hashes(run: Any, tmp_path: Path) -> None:
    run.add("m")
    changed = type(run.suite).model_validate({**run.suite.model_dump(mode="json"), "version": 2})
    with pytest.raises(StoreError) as caught:
        submit(run.folder, suite=changed, model="m", results=tmp_path / "results")
    assert run.suite.hash[:12] in str(caught.value)
    assert changed.hash[:12] in str(caught.value)


def test_two_versions_of_a_model_under_one_name_are_refused(run: Any, tmp_path: Path) -> None:
    run.add("m", deterministic=True)
    run.add("m", deterministic=True, settings_hash="another")
    with pytest.raises(StoreError, match="different settings or source under one name"):
        submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_line(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, deterministic=True)
    results = tmp_path / "results"
    results.mkdir(mode=0o555)
    with pytest.raises(StoreError, match="cannot be written"):
        submit(run.folder, suite=run.suite, model="m", results=results)


def test_a_results_folder_that_is_a_file_is_one_line(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, deterministic=True)
    (tmp_path / "results").write_text("")
    with pytest.raises(StoreError, match="expected a folder"):
        submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results")


def test_a_name_cannot_leave_its_folder(run: Any, tmp_path: Path) -> None:
    run.add("../../evil", tables=True, deterministic=True)
    folder = submit(run.folder, suite=run.suite, model="../../evil", results=tmp_path / "results")
    assert folder.parent == tmp_path / "results" / "tiny"
    assert [found.model for found in published_models(folder=tmp_path / "results")] == ["../../evil"]


def test_a_card_is_checked_and_published(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, deterministic=True)
    card = tmp_path / "m.toml"
    card.write_text('name = "m"\nmethod = "linear-probe"\nauthors = ["A. Writer"]\n')
    folder = submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results", card=card)
    assert (folder / "card.toml").read_text() == card.read_text()
    card.write_text('name = "m"\nmethods = "linear-probe"\n')
    with pytest.raises(PluginError, match="method"):
        submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results", card=card)


def test_without_a_card_one_is_made_from_the_run(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, deterministic=True)
    folder = submit(run.folder, suite=run.suite, model="m", results=tmp_path / "results")
    assert tomllib.loads((folder / "card.toml").read_text())["name"] == "m"


def test_toml_reads_as_what_was_written() -> None:
    document = {
        "name": 'a "b"\n\\c\x7f', "on": True, "n": 3, "x": 1e-05, "list": ["a", {"b": 1}],
        "settings": {"lr": 0.1, "a key": [1, 2], "inner": {"deep": {"deeper": "x"}}},
    }  # fmt: skip
    assert tomllib.loads(as_toml({**document, "absent": None})) == document


def test_a_run_is_found_by_its_folder_alone_where_it_is_the_only_one(run: Any) -> None:
    models = run.add("m", deterministic=True)
    for place in (run.folder, run.store.folder, models.folder):
        suite, model, run_dir = locate(place)
        assert (suite.hash, model, run_dir) == (run.suite.hash, "m", run.folder)
    run.add("n", deterministic=True)
    assert locate(models.folder)[1] == "m"
    with pytest.raises(UsageError, match="expected --model, one of 'm', 'n'"):
        locate(run.folder)
    with pytest.raises(UnknownNameError, match="did you mean 'n'"):
        locate(run.folder, run.suite, "nn")


def test_an_empty_place_is_said(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="found nothing"):
        locate(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="no work in this run folder"):
        locate(tmp_path)


def test_what_is_too_large_goes_elsewhere_and_the_submission_says_where(run: Any, tmp_path: Path) -> None:
    models = run.add("m", tables=True, deterministic=True)
    results = tmp_path / "results"
    with pytest.raises(UsageError, match=r"too large for the results.*--predictions-url"):
        submit(run.folder, suite=run.suite, model="m", results=results, carried_bytes=4000)
    assert not (results / "tiny" / "m").exists()
    folder = submit(
        run.folder, suite=run.suite, model="m", results=results, carried_bytes=4000,
        predictions_url="https://zenodo.org/records/1/files/",
    )  # fmt: skip
    large = submission_folder(models) / "predictions.parquet"
    inventory = read_inventory(folder)
    assert inventory is not None
    assert set(inventory.elsewhere) == {large.name}
    placed = inventory.elsewhere[large.name]
    assert placed.url == "https://zenodo.org/records/1/files/predictions.parquet"
    assert (placed.sha256, placed.bytes) == (hashlib.sha256(large.read_bytes()).hexdigest(), large.stat().st_size)
    assert not (folder / large.name).exists()
    assert (folder / "class_bins.parquet").exists()
    (found,) = published_models(folder=results)
    with pytest.raises(StoreError, match=r"not in this folder.*download it from 'https://zenodo.org/records/1"):
        found.table("predictions")
    # Outcomes are there whatever lies elsewhere.
    assert len(found.table("outcomes"))


def test_predictions_go_to_hosts_that_keep_them_alone(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, deterministic=True)
    for url in ("https://example.org/x", "http://zenodo.org/x", "https://zenodo.org/x?token=1"):
        with pytest.raises(UsageError):
            submit(run.folder, suite=run.suite, model="m", results=tmp_path, predictions_url=url)


def test_every_file_stands_in_the_inventory_with_its_hash(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, deterministic=True)
    folder = submit(run.folder, suite=run.suite, model="m", results=tmp_path)
    inventory = read_inventory(folder)
    assert inventory is not None
    here = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    del here["submission.json"]
    assert {name: fact.sha256 for name, fact in inventory.files.items()} == here
    assert (inventory.suite, inventory.model, inventory.suite_hash) == ("tiny", "m", run.suite.hash)


def test_outcomes_are_those_of_the_predictions(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, deterministic=True)
    folder = submit(run.folder, suite=run.suite, model="m", results=tmp_path)
    (found,) = published_models(folder=tmp_path)
    published = found.table("outcomes")
    (folder / "outcomes.parquet").unlink()
    assert found.table("outcomes").equals(published)
    assert len(published) == 6


def test_the_source_of_a_plug_in_is_published(run: Any, tmp_path: Path) -> None:
    models = run.add("m", tables=True, deterministic=True)
    source = "class Mine(Method):\n    '''é'''\n"
    for path in (models.folder / "fits").glob("*.parquet"):
        row = pyarrow.parquet.read_table(path).to_pylist()[0]
        models.write_fit({**row, "plugin_source": source})
    folder = submit(run.folder, suite=run.suite, model="m", results=tmp_path)
    assert (folder / "plugin.py").read_bytes() == source.encode()


def test_nothing_is_replaced_where_a_check_refuses(run: Any, tmp_path: Path) -> None:
    run.add("m", tables=True, deterministic=True)
    folder = submit(run.folder, suite=run.suite, model="m", results=tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    seen = []

    def refuse(written: Path) -> None:
        seen.extend(sorted(path.name for path in written.iterdir()))
        raise VerificationError("no")

    with pytest.raises(VerificationError):
        submit(run.folder, suite=run.suite, model="m", results=tmp_path, check=refuse)
    assert "predictions.parquet" in seen
    assert "submission.json" in seen
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert os.listdir(tmp_path / "tiny") == ["m"]


def test_a_card_of_another_model_is_refused_and_chooses_among_several(run: Any, tmp_path: Path) -> None:
    for name in ("mine(lr=0.1)", "mine2"):
        run.add(name, tables=True, deterministic=True)
    card = tmp_path / "mine.toml"
    card.write_text('name = "mine"\nmethod = "mine.py"\n')
    assert locate(run.folder, run.suite, card=card)[1] == "mine(lr=0.1)"
    submit(run.folder, suite=run.suite, model="mine(lr=0.1)", results=tmp_path / "results", card=card)
    with pytest.raises(PluginError, match="expected the card of model 'mine2', got one that is named 'mine'"):
        submit(run.folder, suite=run.suite, model="mine2", results=tmp_path / "results", card=card)


def records_of_ood172() -> pyarrow.Table:
    """Records of one seed of all 172 pairs: every metric of every condition, with values that nothing predicts."""
    suite = load_suite("ood172")
    clean = 22  # metrics of a clean set, in the published results of digits
    draw = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for task in suite.tasks:
        for sources in suite.sources_of(task):
            targets = [pair.target for pair in suite.pairs_of(task) if pair.sources == sources]
            fit = {"task": task, "source": "+".join(sources), "fit_id": draw.bytes(16).hex()}
            sets = [("id-val", sources[0]), ("id-test", sources[0]), *(("ood-test", target) for target in targets)]
            for role, target in sets:
                for condition in (c for c in suite.conditions if role in c.roles):
                    place = {**fit, "role": role, "target": target, "condition": condition.name}
                    place["measurement_id"], place["split_hash"] = draw.bytes(16).hex(), f"{target}{role}" * 4
                    steps: list[dict[str, Any]] = [{}]
                    metrics = clean
                    if condition.kind == "attack":
                        steps, metrics = [{"epsilon": radius, "norm": "linf"} for radius in condition.radii], 3
                    elif condition.kind != "clean":
                        given = condition.steps if condition.kind == "transform" else condition.severities
                        steps, metrics = [{"severity": float(step)} for step in given], 7
                    rows += [{**place, **step, "metric": f"metric_{m}"} for step in steps for m in range(metrics)]
    frame = pd.DataFrame(rows)
    n = len(frame)
    frame = frame.assign(
        value=draw.random(n), standard_error=draw.random(n), n=draw.integers(300, 20_000, n), suite="ood172",
        suite_hash=suite.hash, model="m", settings="{}" * 200, status="ok", variant="main", shots="full", seed=0,
        headline=True, precision="float32",
    )  # fmt: skip
    blank = {"string": "", "bool": False, "int32": 1, "int64": 1, "double": None}
    for field in RECORDS:
        if field.name not in frame:
            frame[field.name] = None if field.nullable else blank[str(field.type)]
    return pyarrow.Table.from_pandas(frame, schema=RECORDS, preserve_index=False)


def test_records_of_a_seed_of_172_pairs_stay_under_two_megabytes(tmp_path: Path) -> None:
    table = records_of_ood172()
    assert len(table.group_by("fit_id").aggregate([])) == 36
    assert len(table) > 20_000
    write_compact(tmp_path / "records.parquet", table, order=ORDERS["records"])
    size = (tmp_path / "records.parquet").stat().st_size
    assert size < 2_000_000
