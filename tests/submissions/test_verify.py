"""What verification recomputes, what it catches, and what it says that it could not look at."""

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlbench.errors import StoreError, UnknownNameError, UsageError, VerificationError
from tlbench.leaderboard.tables import load_fits, load_results, load_scored
from tlbench.records.inventory import INVENTORY, FileFact, read_inventory
from tlbench.records.levels import level_of
from tlbench.records.published import published_models
from tlbench.submissions.verify import Report, verify, verify_folder, write_level
from tlbench.suites.load import load_suite


def _maker() -> ModuleType:
    name = "tlbench_recomputable"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("recomputable.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A suite with a lock, a run of it, and the submission made of the run; nobody writes here."""
    return _maker().make(tmp_path_factory.mktemp("recomputable"))


@pytest.fixture
def copy(made: Any, tmp_path: Path) -> Path:
    """A copy of the submission to tamper with."""
    return Path(shutil.copytree(made.folder, tmp_path / "results" / "tiny" / "m"))


def verified(made: Any, folder: Path, **options: Any) -> Report:
    options = {"lock": made.lock, "results": folder / "nowhere", **options}
    return verify_folder(folder, suite=made.suite, model="m", **options)


def sign(folder: Path) -> None:
    """State the hashes that the files have now, as whoever tampers would."""
    inventory = read_inventory(folder)
    assert inventory is not None
    files = {name: FileFact.of(folder / name) for name in inventory.files}
    (folder / INVENTORY).write_text(inventory.model_copy(update={"files": files}).to_json())


Frames = Callable[[pd.DataFrame], "pd.DataFrame | None"]


def edit(folder: Path, name: str, change: Frames) -> None:
    """Change a table through pandas, and sign it; what a change returns takes the table's place."""
    path = folder / f"{name}.parquet"
    table = pq.read_table(path)
    whole = [field.name for field in table.schema if pa.types.is_integer(field.type) and field.nullable]
    frame = table.to_pandas().astype(dict.fromkeys(whole, "Int64"))
    changed = change(frame)
    frame = frame if changed is None else changed
    columns = []
    for field in table.schema:
        # NaN stays NaN where the change has put one: pandas tells null and NaN apart only in objects.
        values = frame[field.name].tolist()
        absent = [value is None or value is pd.NA or (isinstance(value, float) and value != value) for value in values]
        keep = getattr(change, "keeps_nan", False) and field.name == "value"
        values = [None if gone and not keep else value for value, gone in zip(values, absent, strict=True)]
        columns.append(pa.array(values, field.type, from_pandas=False))
    pq.write_table(pa.Table.from_arrays(columns, schema=table.schema), path)
    sign(folder)


def first(frame: pd.DataFrame, **where: Any) -> Any:
    """Return the index of the first row with these values."""
    chosen = pd.Series(True, index=frame.index)
    for name, value in where.items():
        chosen &= frame[name] == value
    assert chosen.any()
    return frame.index[chosen][0]


def measurement(folder: Path, **where: Any) -> str:
    records = pq.read_table(folder / "records.parquet").to_pandas()
    return str(records.loc[first(records, **where), "measurement_id"])


def clean(folder: Path) -> str:
    return measurement(folder, condition="clean", role="ood-test", target="b")


# Each of these changes a copy in one way, as somebody with little time would.


def a_value_by_a_millionth(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="nll", status="ok"), "value"] += 1e-6

    edit(folder, "records", change)


def a_value_by_a_hundred_millionth(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="ece", condition="fog"), "value"] += 1e-8

    edit(folder, "records", change)


def an_n(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="accuracy", condition="clean"), "n"] += 1

    edit(folder, "records", change)


def a_standard_error(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="macro_f1"), "standard_error"] *= 0.999

    edit(folder, "records", change)


def a_clustered_standard_error(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="accuracy", condition="clean", target="b"), "standard_error"] *= 0.9

    edit(folder, "records", change)


def a_status(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, metric="nll", condition="clean")
        frame.loc[row, ["status", "reason"]] = "not_applicable", "needs probabilities"
        frame.loc[row, ["value", "standard_error"]] = np.nan

    edit(folder, "records", change)


def a_metric_left_out_once(folder: Path) -> None:
    edit(folder, "records", lambda frame: frame.drop(first(frame, metric="brier")))


def a_metric_that_nobody_computes(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="infinite_nll_count"), "metric"] = "accuracy_gap"

    edit(folder, "records", change)


def a_younger_version_of_a_metric(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="ece"), "metric_version"] = 2

    edit(folder, "records", change)


def a_predicted_class(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, measurement_id=clean(folder), rank=0)
        frame.loc[row, "predicted"] = (frame.loc[row, "label"] + 1) % 3

    edit(folder, "predictions", change)


def a_predicted_class_and_its_rank(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, measurement_id=clean(folder), rank=1)
        frame.loc[row, "predicted"], frame.loc[row, "rank"] = frame.loc[row, "label"], 0

    edit(folder, "predictions", change)


def a_label(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, measurement_id=clean(folder), rank=1)
        frame.loc[row, "label"] = 3 - frame.loc[row, "label"] - frame.loc[row, "predicted"]

    edit(folder, "predictions", change)


def the_order_of_ids(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        rows = frame.index[frame["measurement_id"] == clean(folder)]
        frame.loc[rows, "id"] = np.roll(frame.loc[rows, "id"].to_numpy(), 1)

    edit(folder, "predictions", change)


def an_image_left_out(folder: Path) -> None:
    edit(folder, "predictions", lambda frame: frame.drop(first(frame, measurement_id=clean(folder), id=5)))


def a_prediction_twice(folder: Path) -> None:
    edit(folder, "predictions", lambda frame: pd.concat([frame, frame.iloc[[7]]], ignore_index=True))


def a_record_twice(folder: Path) -> None:
    edit(folder, "records", lambda frame: pd.concat([frame, frame.iloc[[7]]], ignore_index=True))


def a_fit_twice(folder: Path) -> None:
    edit(folder, "fits", lambda frame: pd.concat([frame, frame.iloc[[0]]], ignore_index=True))


def a_pair_left_out(folder: Path) -> None:
    records = pq.read_table(folder / "records.parquet").to_pandas()
    gone = set(records[(records["role"] == "ood-test") & (records["target"] == "a")]["measurement_id"])
    for name in ("records", "predictions", "class_bins", "outcomes"):
        edit(folder, name, lambda frame: frame[~frame["measurement_id"].isin(gone)])


def a_severity_left_out(folder: Path) -> None:
    edit(folder, "records", lambda frame: frame[frame["severity"] != 3])
    edit(folder, "predictions", lambda frame: frame[frame["severity"] != 3])


def a_severity_of_its_own(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[frame["severity"] == 3, "severity"] = 2.0

    edit(folder, "records", change)
    edit(folder, "predictions", change)


def the_hash_of_the_suite(folder: Path) -> None:
    edit(folder, "records", lambda frame: frame.assign(suite_hash="0" * 64))
    edit(folder, "fits", lambda frame: frame.assign(suite_hash="0" * 64))


def a_count_moved_to_another_bin(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        own = (frame["measurement_id"] == clean(folder)) & ~frame["scaled"] & (frame["bin"] >= 4) & (frame["n"] > 1)
        rows = frame[own].sort_values(["class", "bin"])
        one, other = rows.index[:2]
        frame.loc[one, "n"] -= 1
        frame.loc[other, "n"] += 1

    edit(folder, "class_bins", change)


def an_image_moved_across_an_edge(folder: Path) -> None:
    """Move one image and its probability to the next bin, so that every sum stays what it was."""

    def change(frame: pd.DataFrame) -> None:
        table = frame[(frame["measurement_id"] == clean(folder)) & ~frame["scaled"]].reset_index(names="index_of")
        for one, other in itertools.pairwise(table.itertuples()):
            # Eight bins: from one half on, what an image adds to a class is the confidence of its prediction.
            edge = other.bin / 8
            next_to = (
                one.bin >= 4
                and other.bin == one.bin + 1
                and table.loc[one.Index, "class"] == table.loc[other.Index, "class"]
            )
            if next_to and one.n > max(one.positives, 1) and one.probability - edge >= (one.n - 1) * one.bin / 8:
                frame.loc[one.index_of, ["n", "probability"]] = one.n - 1, one.probability - edge
                frame.loc[other.index_of, ["n", "probability"]] = other.n + 1, other.probability + edge
                return
        raise AssertionError("expected two such bins")

    edit(folder, "class_bins", change)


def a_count_moved_to_another_class(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        for of_class, by in ((0, -1), (1, 1)):
            frame.loc[first(frame, measurement_id=clean(folder), scaled=True, **{"class": of_class}), "n"] += by

    edit(folder, "class_bins", change)


def a_positive_moved_to_another_bin(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        own = (frame["measurement_id"] == clean(folder)) & (frame["class"] == 0) & ~frame["scaled"]
        giver = frame.index[own & (frame["positives"] > 0)][0]
        taker = frame.index[own & (frame["positives"] < frame["n"]) & (frame.index != giver)][0]
        frame.loc[giver, "positives"] -= 1
        frame.loc[taker, "positives"] += 1

    edit(folder, "class_bins", change)


def a_probability_of_a_bin(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder)), "probability"] += 0.01

    edit(folder, "class_bins", change)


def class_bins_left_out(folder: Path) -> None:
    edit(folder, "class_bins", lambda frame: frame[frame["measurement_id"] != clean(folder)])


def a_class_that_there_is_not(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder)), "class"] = 2**31 - 1

    edit(folder, "class_bins", change)


def an_epsilon_for_an_image_wrong_when_clean(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, correct_clean=False), "breaking_epsilon"] = np.inf

    edit(folder, "predictions", change)


def an_image_attacked_though_wrong(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, correct_clean=False)
        frame.loc[row, "correct_clean"], frame.loc[row, "breaking_epsilon"] = True, np.inf

    edit(folder, "predictions", change)


def an_epsilon_that_the_suite_has_not(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, correct_clean=True), "breaking_epsilon"] = 3 / 255

    edit(folder, "predictions", change)


def an_audited_verdict(folder: Path) -> None:
    edit(folder, "audits", lambda frame: frame.assign(implied=~frame["implied"], found=~frame["found"]))


def no_number_where_there_should_be_one(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="accuracy", condition="clean"), "value"] = np.nan

    change.keeps_nan = True  # type: ignore[attr-defined]
    edit(folder, "records", change)


def a_sentinel(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="accuracy", condition="clean"), "value"] = 999.0

    edit(folder, "records", change)


def a_sentinel_class(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=1), "predicted"] = -1

    edit(folder, "predictions", change)


def a_label_of_two_billion(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=1), "label"] = 2**31 - 1

    edit(folder, "predictions", change)


def an_infinite_accuracy(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="brier"), "value"] = np.inf

    edit(folder, "records", change)


def a_confidence_for_some_alone(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=1), "log_likelihood"] = np.nan

    edit(folder, "predictions", change)


def a_brier_score(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=0), "brier"] = 0.0

    edit(folder, "predictions", change)


def a_confidence(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, measurement_id=clean(folder), rank=1), "confidence"] = 0.999

    edit(folder, "predictions", change)


def other_settings_for_one_fit(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[frame["fit_id"] == frame["fit_id"].iloc[0], "settings_hash"] = "bad"

    edit(folder, "records", change)


def other_weights_for_one_seed(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[frame["seed"] == 1, "weights_hash"] = "bad"

    edit(folder, "records", change)
    edit(folder, "fits", change)


def a_fit_left_out(folder: Path) -> None:
    edit(folder, "fits", lambda frame: frame.iloc[1:])


def an_outcome(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        row = first(frame, measurement_id=clean(folder))
        bits = frame.loc[row, "correct"]
        frame.loc[row, "correct"] = bytes([bits[0] ^ 128, *bits[1:]])

    edit(folder, "outcomes", change)


def a_split(folder: Path) -> None:
    edit(folder, "records", lambda frame: frame.assign(split_hash=frame["split_hash"].str[::-1]))


def half_a_file(folder: Path) -> None:
    path = folder / "predictions.parquet"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    sign(folder)


def another_schema(folder: Path) -> None:
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    names = ["place" if name == "id" else name for name in table.column_names]
    pq.write_table(table.rename_columns(names).replace_schema_metadata(table.schema.metadata), path)
    sign(folder)


def another_version_of_the_schema(folder: Path) -> None:
    path = folder / "fits.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata({"tlbench_schema": "99"}), path)
    sign(folder)


def texts_that_are_none(folder: Path) -> None:
    path = folder / "records.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("reason")
    broken = pa.Array.from_buffers(
        pa.string(),
        len(table),
        [None, pa.py_buffer(np.arange(len(table) + 1, dtype=np.int32).tobytes()), pa.py_buffer(b"\xff" * len(table))],
    )
    pq.write_table(table.set_column(place, table.schema.field(place), broken), path)
    sign(folder)


def an_unsigned_file(folder: Path) -> None:
    with (folder / "card.toml").open("a") as file:
        file.write("\n# more\n")


def a_file_more(folder: Path) -> None:
    (folder / "run.sh").write_text("echo\n")


def a_link(folder: Path) -> None:
    target = folder.parent / "elsewhere.parquet"
    (folder / "audits.parquet").rename(target)
    (folder / "audits.parquet").symlink_to(target)


def an_inventory_of_another_model(folder: Path) -> None:
    document = json.loads((folder / INVENTORY).read_text())
    (folder / INVENTORY).write_text(json.dumps({**document, "model": "n"}))


def an_inventory_that_climbs_out(folder: Path) -> None:
    document = json.loads((folder / INVENTORY).read_text())
    document["files"]["../../other.parquet"] = document["files"]["fits.parquet"]
    (folder / INVENTORY).write_text(json.dumps(document))


def an_inventory_nested_too_deeply(folder: Path) -> None:
    (folder / INVENTORY).write_text("[" * 50_000)


def a_card_that_is_none(folder: Path) -> None:
    (folder / "card.toml").write_text("name = [")
    sign(folder)


def a_card_of_a_megabyte(folder: Path) -> None:
    (folder / "card.toml").write_text("x = 1\n" * 200_000)
    sign(folder)


TAMPERED = [
    (a_value_by_a_millionth, "values", "recomputed"),
    (a_value_by_a_hundred_millionth, "values", "fog, seed 0, at 1, ece"),
    (an_n, "values", ": n "),
    (a_standard_error, "standard errors", "macro_f1"),
    (a_clustered_standard_error, "standard errors", "accuracy: standard error"),
    (a_status, "values", "status not_applicable, recomputed ok"),
    (a_metric_left_out_once, "values", "brier: follows from the predictions, but there is no record of it"),
    (a_metric_that_nobody_computes, "values", "accuracy_gap: 0.0 does not follow"),
    (a_younger_version_of_a_metric, "values", "version 2 of the metric, this tlbench has 1"),
    (a_predicted_class, "statistics", "a rank that contradicts the predicted class"),
    (a_predicted_class_and_its_rank, "values", "accuracy"),
    (a_predicted_class_and_its_rank, "statistics", "confidence is not the likelihood of the class"),
    (a_predicted_class_and_its_rank, "outcomes", "not those of the predictions"),
    (a_label, "images", "1 labels differ"),
    (the_order_of_ids, "images", "labels differ"),
    (an_image_left_out, "images", "expected every id from 0 to 46 once"),
    (an_image_left_out, "values", "n 48, recomputed 47"),
    (a_prediction_twice, "duplicates", "predictions: t, "),
    (a_record_twice, "duplicates", "records: "),
    (a_fit_twice, "duplicates", "fits: fit_id"),
    (a_pair_left_out, "completeness", "t, b to a, ood-test, clean, seed 0"),
    (a_severity_left_out, "completeness", "1 of 2 settings"),
    (a_severity_of_its_own, "completeness", "severity 2, epsilon nan is no setting of it"),
    (the_hash_of_the_suite, "suite", "rows of suite_hash 000000000000, expected"),
    (a_count_moved_to_another_bin, "class bins", ""),
    (an_image_moved_across_an_edge, "class bins", "images, the predictions give"),
    (a_count_moved_to_another_class, "class bins", "its bins hold"),
    (a_positive_moved_to_another_bin, "class bins", "images of the class, the predictions give"),
    (a_probability_of_a_bin, "class bins", ""),
    (class_bins_left_out, "class bins", "not both there"),
    (class_bins_left_out, "values", "class_wise_ece: status ok, recomputed not_applicable"),
    (a_class_that_there_is_not, "class bins", "expected a class below 3"),
    (an_epsilon_for_an_image_wrong_when_clean, "attacks", "an epsilon that broke it, wrong when clean (1 images)"),
    (an_image_attacked_though_wrong, "attacks", "unlike the clean set (1 images)"),
    (an_epsilon_that_the_suite_has_not, "attacks", "a breaking epsilon that the suite does not have"),
    (an_audited_verdict, "attacks", "does not imply"),
    (no_number_where_there_should_be_one, "ranges", "no value, expected a number"),
    (no_number_where_there_should_be_one, "values", "accuracy: nan"),
    (a_sentinel, "ranges", "999.0 is a value outside its range"),
    (a_sentinel_class, "ranges", "predicted -1"),
    (a_label_of_two_billion, "ranges", "label 2147483647"),
    (a_label_of_two_billion, "class bins", "label: expected 0 to 2, got 2147483647"),
    (a_label_of_two_billion, "values", "cannot be recomputed: label: expected 0 to 2"),
    (an_infinite_accuracy, "ranges", "inf is a value outside its range"),
    (a_confidence_for_some_alone, "ranges", "log_likelihood is there for some images only"),
    (a_brier_score, "statistics", "brier that its probabilities do not allow"),
    (a_confidence, "statistics", "more than 1 together"),
    (other_settings_for_one_fit, "fits", "values of settings_hash under one name"),
    (other_weights_for_one_seed, "fits", "values of weights_hash under one name"),
    (a_fit_left_out, "fits", "is not among the fits"),
    (an_outcome, "outcomes", "accuracy"),
    (a_split, "images", "the manifest is"),
    (half_a_file, "schema", "not a readable Parquet file"),
    (another_schema, "schema", "column 'id' is missing"),
    (another_version_of_the_schema, "schema", "expected schema version 1, got 99"),
    (texts_that_are_none, "schema", "records.parquet"),
    (an_unsigned_file, "files", "card.toml: "),
    (a_file_more, "files", "run.sh: not a file of a submission"),
    (a_link, "files", "audits.parquet: expected a plain file"),
    (a_link, "schema", "got a link"),
    (an_inventory_of_another_model, "files", "model 'n', expected 'm'"),
    (an_inventory_that_climbs_out, "files", "expected files of a submission, got '../../other.parquet'"),
    (an_inventory_nested_too_deeply, "files", "expected JSON"),
    (a_card_that_is_none, "schema", "card.toml"),
    (a_card_of_a_megabyte, "schema", "expected at most 64,000 bytes"),
]


@pytest.mark.parametrize(("tamper", "name", "told"), TAMPERED, ids=lambda value: getattr(value, "__name__", None))
def test_what_was_tampered_with_is_caught_by_the_check_for_it(
    made: Any, copy: Path, tamper: Callable[[Path], None], name: str, told: str
) -> None:
    tamper(copy)
    report = verified(made, copy)
    check = report.check(name)
    assert check.status == "mismatch", report.to_text()
    assert told in " ".join(check.details), check
    assert check.count >= 1
    assert (report.ok, report.level) == (False, "self-reported")


def test_a_good_submission_verifies_in_every_point(made: Any) -> None:
    report = verified(made, made.folder)
    status = {check.name: check.status for check in report.checks}
    assert status.pop("earlier version") == "not checked"
    assert set(status.values()) == {"ok"}, report.to_text()
    assert (report.ok, report.level) == (True, "recomputed")
    assert report.numbers == len(pq.read_table(made.folder / "records.parquet"))
    assert report.predictions == len(pq.read_table(made.folder / "predictions.parquet"))
    assert set(report.files) == {path.name for path in made.folder.iterdir()}


def test_signing_a_copy_again_changes_nothing(made: Any, copy: Path) -> None:
    # Otherwise the table of tampered copies would prove nothing.
    for name in ("records", "predictions", "class_bins", "fits", "audits", "outcomes"):
        edit(copy, name, lambda frame: None)
    assert verified(made, copy).ok


def test_the_order_of_rows_does_not_matter(made: Any, copy: Path) -> None:
    for name in ("records", "predictions", "class_bins", "fits", "audits", "outcomes"):
        edit(copy, name, lambda frame: frame.sample(frac=1, random_state=3))
    assert verified(made, copy).level == "recomputed"


@pytest.mark.skipif(not published_models("digits"), reason="no published results in this checkout")
def test_a_published_model_of_digits_verifies() -> None:
    (folder,) = [found.folder for found in published_models("digits") if found.model == "ncm"]
    (report,) = verify(folder)
    assert (report.ok, report.level) == (True, "recomputed"), report.to_text()
    assert not [check for check in report.checks if check.status == "mismatch"]
    assert report.numbers > 1000


def test_a_run_is_verified_whole_or_by_model(made: Any) -> None:
    for path, options in (
        (made.run, {}),
        (made.run, {"model": "m"}),
        (next(made.run.glob("*/suite.json")).parent, {}),
        (next(made.run.glob("*/models/m")), {}),
    ):
        (report,) = verify(path, suite=made.suite_file, **options)
        assert (report.model, report.ok, report.level) == ("m", True, "recomputed")
        assert report.check("files").status == "not checked"


def test_a_folder_of_results_is_verified_model_by_model(made: Any, copy: Path) -> None:
    shutil.copytree(copy, copy.parent / "n")
    reports = verify(copy.parent, suite=made.suite_file)
    assert [(report.model, report.ok) for report in reports] == [("m", True), ("n", False)]
    # Records that name another model than the folder are somebody else's.
    assert "expected 'n', got 'm'" in reports[1].check("schema").summary
    (only,) = verify(copy.parent, suite=made.suite_file, model="m")
    assert only.model == "m"


def test_what_cannot_be_checked_is_said_and_is_no_mismatch(made: Any) -> None:
    report = verified(made, made.folder, lock=made.lock.with_name("absent.parquet"))
    assert report.ok
    assert report.level == "self-reported"
    for name, told in (
        ("images", "no manifest of 2 sets, such as t/a: the suite has no lock"),
        ("standard errors", "rest on clusters that no manifest here tells"),
        ("values", "rest on groups that no manifest here tells"),
    ):
        assert report.check(name).status == "not checked"
        assert told in report.check(name).summary


def test_without_a_manifest_labels_are_held_against_each_other(made: Any, copy: Path) -> None:
    a_label(copy)
    report = verified(made, copy, lock=made.lock.with_name("absent.parquet"))
    assert "other labels than another measurement of the same split" in report.check("images").summary


def test_predictions_that_lie_elsewhere_leave_the_outcomes_to_be_checked(made: Any, copy: Path) -> None:
    inventory = read_inventory(copy)
    assert inventory is not None
    document = json.loads(inventory.to_json())
    for name in ("predictions.parquet", "class_bins.parquet", "audits.parquet"):
        document["elsewhere"][name] = {**document["files"].pop(name), "url": "https://zenodo.org/x"}
        (copy / name).rename(copy.parent / name)
    (copy / INVENTORY).write_text(json.dumps(document))
    report = verified(made, copy)
    assert (report.ok, report.level) == (True, "self-reported"), report.to_text()
    assert report.check("values").summary == "predictions lie elsewhere"
    assert report.check("outcomes").status == "ok"
    an_outcome_is_caught = shutil.copytree(copy, copy.parent / "n")
    document["files"].pop("outcomes.parquet")
    an_outcome_in(an_outcome_is_caught)
    assert verified(made, an_outcome_is_caught).check("outcomes").status == "mismatch"
    # Once fetched they are held against the hashes that were stated.
    for name in ("predictions.parquet", "class_bins.parquet", "audits.parquet"):
        (copy.parent / name).rename(copy / name)
    assert verified(made, copy).level == "recomputed"
    (copy / "audits.parquet").write_bytes(b"PAR1")
    assert "audits.parquet: 4 bytes" in verified(made, copy).check("files").summary


def an_outcome_in(folder: Path) -> None:
    path = folder / "outcomes.parquet"
    table = pq.read_table(path)
    bits = table.column("correct").to_pylist()
    bits[0] = bytes([bits[0][0] ^ 128, *bits[0][1:]])
    place = table.column_names.index("correct")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(bits, pa.binary())), path)


def test_incomplete_work_may_be_allowed(made: Any, copy: Path) -> None:
    a_pair_left_out(copy)
    report = verified(made, copy, allow_incomplete=True)
    assert report.check("completeness").status == "warning"
    assert "the row is not ranked" in report.check("completeness").summary
    assert (report.ok, report.level) == (True, "recomputed"), report.to_text()


def test_an_earlier_version_that_differs_is_a_warning(made: Any, copy: Path) -> None:
    a_value_by_a_millionth(copy)
    report = verified(made, made.folder, results=copy.parents[1])
    check = report.check("earlier version")
    assert check.status == "warning"
    assert check.summary.startswith("1 of ")
    assert "nll" in check.summary
    assert report.level == "recomputed"
    same = verified(made, copy, results=made.folder.parents[1]).check("earlier version")
    assert same.status == "warning"


def test_equal_predictions_of_two_seeds_and_one_class_for_all_are_suspicious(made: Any, copy: Path) -> None:
    one, other = (measurement(copy, condition="clean", role="id-val", source="a", seed=seed) for seed in (0, 1))

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        twin = frame[frame["measurement_id"] == one].assign(measurement_id=other)
        return pd.concat([frame[frame["measurement_id"] != other], twin], ignore_index=True)

    edit(copy, "predictions", change)
    assert "the same predictions as with seed" in " ".join(verified(made, copy).check("ranges").details)
    edit(
        copy,
        "predictions",
        lambda frame: frame.assign(predicted=frame["predicted"].where(frame["predicted"].isna(), 1)),
    )
    assert "every image is given class 1" in " ".join(verified(made, copy).check("ranges").details)


def test_no_damage_to_a_file_ends_in_an_error(made: Any, copy: Path) -> None:
    draw = np.random.default_rng(0)
    names = ("records.parquet", "predictions.parquet", "class_bins.parquet", "outcomes.parquet", "fits.parquet")
    for name in names:
        whole = (copy / name).read_bytes()
        for _ in range(3):
            damaged = bytearray(whole)
            for place in draw.integers(0, len(whole), 8):
                damaged[place] = draw.integers(0, 256)
            (copy / name).write_bytes(bytes(damaged))
            assert verified(made, copy).check("files").status == "mismatch"
        (copy / name).write_bytes(whole)
    assert verified(made, copy).ok


def test_the_report_is_json_and_one_line_a_check(made: Any) -> None:
    report = verified(made, made.folder)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [check["name"] for check in told["checks"]] == [check.name for check in report.checks]
    assert len(report.to_text().splitlines()) == len(report.checks) + 1


def test_a_hostile_name_cannot_steer_a_terminal(made: Any, copy: Path) -> None:
    edit(copy, "records", lambda frame: frame.assign(task="\x1b[2J\nok"))
    text = verified(made, copy).to_text()
    assert "\x1b" not in text
    assert len(text.splitlines()) == len(verified(made, copy).checks) + 1


def test_mistakes_of_the_user_are_told(made: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="found nothing"):
        verify(tmp_path / "nowhere")
    with pytest.raises(StoreError, match="expected a run folder or results/<suite>/<model>, found neither"):
        verify(tmp_path)
    with pytest.raises(UsageError, match="expected --suite, for no suite of ours is called 'tiny'; ours are 'digits'"):
        verify(made.folder)
    with pytest.raises(UnknownNameError, match="no results of model 'mm'; did you mean 'm'"):
        verify(made.folder.parent, suite=made.suite_file, model="mm")
    with pytest.raises(UnknownNameError, match="no work of model 'mm'; did you mean 'm'"):
        verify(made.run, suite=made.suite_file, model="mm")


def test_the_level_is_on_every_record_as_long_as_the_files_fit(made: Any, copy: Path, tmp_path: Path) -> None:
    def levels() -> set[str]:
        where: dict[str, Any] = {"run_dir": tmp_path / "none", "results": copy.parents[1]}
        scored = load_scored(made.suite, {("clean", "accuracy")}, **where)
        return {*load_results(made.suite, **where)["level"], *load_fits(made.suite, **where)["level"], *scored["level"]}

    assert levels() == {"self-reported"}
    path = write_level(copy, verified(made, copy))
    assert levels() == {"recomputed"}
    # What a maintainer says of the same files is not taken back by the workflow.
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "level": "reproduced", "by": "a maintainer"}))
    assert level_of(copy) == "reproduced"
    write_level(copy, verified(made, copy))
    assert json.loads(path.read_text())["by"] == "a maintainer"
    assert levels() == {"reproduced"}
    a_value_by_a_millionth(copy)
    assert levels() == {"self-reported"}
    with pytest.raises(VerificationError, match="not every number was recomputed: values: "):
        write_level(copy, verified(made, copy))


def test_own_work_is_self_reported(made: Any) -> None:
    assert set(load_results(made.suite, run_dir=made.run, published=False)["level"]) == {"self-reported"}


def test_the_example_suite_is_one(made: Any) -> None:
    assert tomllib.loads(made.suite_file.read_text())["name"] == load_suite(made.suite_file).name
