"""A file of outputs, scored as the predictor that made it would be."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlbench.data.prepare import SuiteData
from tlbench.engine.score import score
from tlbench.errors import DataError, UsageError
from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.tables import load_fits, load_results
from tlbench.records.store import Store
from tlbench.submissions.pack import incompleteness
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Role, Suite

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def suite(blobs: Path) -> Suite:
    return load_suite(blobs)


@pytest.fixture(scope="module")
def rows(suite: Suite, blobs: Path) -> Rows:
    """Outputs for every clean set and seed of the suite, in no order."""
    data, draw, made = SuiteData(suite, base=blobs.parent), np.random.default_rng(0), []
    for seed in suite.protocol.seeds:
        for sources in suite.sources_of("blobs"):
            targets = [pair.target for pair in suite.pairs_of("blobs") if pair.sources == sources]
            sets: list[tuple[str, Role]] = [(sources[0], "id-val"), (sources[0], "id-test")]
            for target, role in [*sets, *((target, "ood-test") for target in targets)]:
                manifest = data.measured("blobs", sources, target, role).manifest  # type: ignore[arg-type]
                for name, label in zip(manifest.names, manifest.labels, strict=True):
                    outputs = draw.normal(size=3)
                    outputs[label] += 1
                    made.append(
                        {
                            "task": "blobs",
                            "source": sources[0],
                            "target": target,
                            "role": role,
                            "image": name,
                            "seed": seed,
                            "outputs": outputs.tolist(),
                            "label": int(label),
                        }
                    )
    draw.shuffle(made)  # type: ignore[arg-type]
    return made


def write_parquet(path: Path, rows: Rows) -> Path:
    keys = [key for key in rows[0] if key != "label"]
    pq.write_table(pa.Table.from_pylist([{key: row[key] for key in keys} for row in rows]), path)
    return path


def write_csv(path: Path, rows: Rows) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*list(rows[0])[:6], "output_0", "output_1", "output_2"])
        writer.writerows([[*list(row.values())[:6], *map(repr, row["outputs"])] for row in rows])
    return path


def test_a_file_becomes_a_complete_row_of_its_own_section(
    suite: Suite, rows: Rows, blobs: Path, tmp_path: Path
) -> None:
    outcome = score(
        write_parquet(tmp_path / "o.parquet", rows), suite, model="mine", run_dir=tmp_path, base=blobs.parent
    )
    assert (outcome.complete, outcome.sets) == (True, 2 * 7)
    records = load_results(suite, run_dir=tmp_path, published=False)
    outside = [row for row in rows if row["role"] == "ood-test"]
    right: dict[tuple[str, str, int], list[bool]] = {}
    for row in outside:
        key = (row["source"], row["target"], row["seed"])
        right.setdefault(key, []).append(int(np.argmax(row["outputs"])) == row["label"])
    board = make_board(records, load_fits(suite, run_dir=tmp_path, published=False), suite)
    (line,) = board.frame.to_dict("records")
    assert line["score"] == pytest.approx(np.mean([np.mean(values) for values in right.values()]), abs=1e-12)
    assert (line["standing"], line["protocol"]) == ("ranked", "outputs-file")
    assert np.isnan(line["fit_seconds"])
    assert np.isfinite(line["ece_scaled"])
    assert set(records.loc[records["condition"] != "clean", "status"]) == {"not_applicable"}
    assert incompleteness(records, suite) == ""
    assert len(Store(tmp_path, suite.name, suite.hash).models()) == 1


def test_csv_and_parquet_give_the_same_numbers(suite: Suite, rows: Rows, blobs: Path, tmp_path: Path) -> None:
    tables = []
    for path in (write_parquet(tmp_path / "o.parquet", rows), write_csv(tmp_path / "o.csv", rows)):
        run_dir = tmp_path / path.suffix[1:]
        score(path, suite, model="mine", run_dir=run_dir, base=blobs.parent)
        table = load_results(suite, run_dir=run_dir, published=False)
        keys = ["source", "target", "role", "seed", "condition", "severity", "epsilon", "metric"]
        tables.append(table.sort_values(keys)["value"].to_numpy())
    np.testing.assert_array_equal(*tables)


def test_part_of_a_suite_is_scored_and_said_to_be_part(suite: Suite, rows: Rows, blobs: Path, tmp_path: Path) -> None:
    some = [row for row in rows if row["source"] == "right" and row["role"] == "ood-test" and row["seed"] == 0]
    path = write_parquet(tmp_path / "o.parquet", some)
    outcome = score(path, suite, model="mine", run_dir=tmp_path, base=blobs.parent)
    assert (outcome.complete, outcome.sets, outcome.missing) == (False, 1, 6)
    records = load_results(suite, run_dir=tmp_path, published=False)
    scaled = records[records["metric"] == "ece_scaled"]
    assert set(scaled["status"]) == {"not_applicable"}  # no ID-val outputs, so no temperature


def without_first(rows: Rows) -> Rows:
    return rows[1:]


def with_first_twice(rows: Rows) -> Rows:
    return [*rows, rows[0]]


def with_another_name(rows: Rows) -> Rows:
    return [{**rows[0], "image": rows[0]["image"] + "x"}, *rows[1:]]


def with_another_target(rows: Rows) -> Rows:
    return [{**row, "target": "lleft"} if row["target"] == "left" else row for row in rows]


def with_nan(rows: Rows) -> Rows:
    return [{**rows[0], "outputs": [float("nan")] * 3}, *rows[1:]]


def with_two_outputs(rows: Rows) -> Rows:
    return [{**row, "outputs": row["outputs"][:2]} for row in rows]


def without_seed(rows: Rows) -> Rows:
    return [{key: value for key, value in row.items() if key != "seed"} for row in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_first, r"1 of \d+ images are missing, first '"),
        (with_first_twice, r"1 of \d+ images are there twice, first '"),
        (with_another_name, r"1 of \d+ images are unknown, first '.*x'; did you mean"),
        (with_another_target, r"lleft.*has no such set.*did you mean"),
        (with_nan, r"1 of \d+ images have outputs that are not finite"),
        (with_two_outputs, r"expected 3 outputs an image, got 2"),
        (without_seed, r"column 'seed' is missing"),
    ],
)
def test_a_wrong_file_is_one_line_and_nothing_is_written(
    suite: Suite, rows: Rows, blobs: Path, tmp_path: Path, change: Any, message: str
) -> None:
    path = write_parquet(tmp_path / "o.parquet", change(rows))
    with pytest.raises(DataError, match=message) as caught:
        score(path, suite, model="mine", run_dir=tmp_path / "runs", base=blobs.parent)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_other_mistakes_are_named(suite: Suite, rows: Rows, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "o.parquet", rows)
    with pytest.raises(UsageError, match="did you mean 'logits'"):
        score(path, suite, model="mine", output="logit", run_dir=tmp_path)
    with pytest.raises(DataError, match="found nothing"):
        score(tmp_path / "absent.parquet", suite, model="mine", run_dir=tmp_path)
    (tmp_path / "o.txt").write_text("x")
    with pytest.raises(DataError, match=r"ends in \.parquet or \.csv"):
        score(tmp_path / "o.txt", suite, model="mine", run_dir=tmp_path)
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(DataError, match="cannot be read"):
        score(tmp_path / "bad.parquet", suite, model="mine", run_dir=tmp_path)
