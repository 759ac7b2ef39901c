"""`tlbench verify` as a user types it: a line a check, honest exit codes, JSON for scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tlbench
from tlbench.records.published import published_models

SOURCE = str(Path(tlbench.__file__).parents[1])
MODELS = {found.model: found.folder for found in published_models("digits")}

pytestmark = pytest.mark.skipif("majority" not in MODELS, reason="no published results in this checkout")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "tlbench", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_published_model_is_recomputed_line_by_line() -> None:
    done = run("verify", str(MODELS["majority"]))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("digits / majority (")
    assert [line.split("  ")[1] for line in lines[1:-1] if "  values " in line] == ["ok"]
    assert lines[-1].startswith("  recomputed: 1,324 numbers from 78,167 predictions in ")
    assert "not that the model made these predictions" in done.stderr


def test_an_edited_number_ends_with_exit_code_4_and_says_where(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "digits" / "majority"
    shutil.copytree(MODELS["majority"], folder)
    path = folder / "records.parquet"
    table = pq.read_table(path)
    values = table.column("value").to_pylist()
    place = next(row for row, metric in enumerate(table.column("metric").to_pylist()) if metric == "accuracy")
    values[place] += 1e-6
    column = table.column_names.index("value")
    pq.write_table(table.set_column(column, table.schema.field(column), pa.array(values)), path)
    done = run("verify", str(folder), "--json")
    assert done.returncode == 4
    told = json.loads(done.stdout)
    assert told["ok"] is False
    (report,) = told["reports"]
    assert (report["model"], report["level"]) == ("majority", "self-reported")
    wrong = [check for check in report["checks"] if check["status"] == "mismatch" and check["name"] != "files"]
    assert [check["name"] for check in wrong] == ["outcomes", "values"]
    assert "accuracy: " in wrong[1]["summary"]
    assert "recomputed" in wrong[1]["summary"]


def test_what_is_no_submission_is_a_mistake(tmp_path: Path) -> None:
    done = run("verify", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
