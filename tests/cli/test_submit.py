"""`tlbench submit` as its user meets it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tlbench
from tlbench.records.published import published_models

pytestmark = pytest.mark.skipif(not published_models("digits"), reason="no published results in this checkout")

Tlbench = Callable[..., subprocess.CompletedProcess[str]]


def _published_run() -> ModuleType:
    path = Path(__file__).parents[1] / "published_run.py"
    spec = importlib.util.spec_from_file_location("tlbench_published_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run: Path = _published_run().run_of_published("majority", tmp_path_factory.mktemp("cli") / "runs")
    return run


@pytest.fixture
def tlbench_(tmp_path: Path) -> Tlbench:
    def run(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        package = str(Path(tlbench.__file__).parents[1])
        return subprocess.run(
            [sys.executable, "-m", "tlbench", *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": package, **environment},
        )

    return run


def test_it_verifies_writes_and_says_what_to_type_next(evaluated: Path, tmp_path: Path, tlbench_: Tlbench) -> None:
    card = tmp_path / "majority.toml"
    card.write_text('name = "majority"\nmethod = "majority"\nauthors = ["A. Writer"]\nlicence = "CC-BY-4.0"\n')
    done = tlbench_("submit", evaluated, "--card", card)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "results/digits/majority\n"
    assert "verified: 1,324 numbers" in done.stderr
    assert "  git switch -c results/digits/majority\n  git add -- results/digits/majority\n" in done.stderr
    assert "  gh pr create --title 'digits: majority'" in done.stderr
    folder = tmp_path / "results" / "digits" / "majority"
    assert (folder / "card.toml").read_text() == card.read_text()
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = tlbench_("submit", evaluated, "--card", card, "--json")
    told = json.loads(again.stdout)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert told["files"] == {name: len(content) for name, content in sorted(first.items())}
    assert told["level"] == "recomputed"
    assert told["next"][0] == "git switch -c results/digits/majority"
    assert told["pull_request"] is None


def test_a_number_that_does_not_follow_is_refused_with_exit_4(
    evaluated: Path, tmp_path: Path, tlbench_: Tlbench
) -> None:
    run = tmp_path / "runs"
    shutil.copytree(evaluated, run)
    (path,) = run.glob("*/models/majority/measurements/all/records.parquet")
    table = pq.read_table(path)
    values = table.column("value").to_numpy().copy()
    values[np.flatnonzero(values == values)[3]] += 0.01
    place = table.schema.get_field_index("value")
    pq.write_table(table.set_column(place, table.schema.field(place), pa.array(values, from_pandas=True)), path)
    done = tlbench_("submit", run)
    assert done.returncode == 4
    assert "does not verify and is not submitted" in done.stderr
    assert not list((tmp_path / "results").rglob("*.parquet"))


def test_it_opens_the_pull_request_only_where_it_can(evaluated: Path, tmp_path: Path, tlbench_: Tlbench) -> None:
    done = tlbench_("submit", evaluated, "--open", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "error: --open: git is not installed; without --open the steps are printed\n"
    assert not (tmp_path / "results").exists()
