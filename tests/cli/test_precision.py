"""`--precision` and `--keep-outputs` as a user types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlbench

SUITE = """
name = "shades"
[protocol]
image_size = 16
seeds = [0]
backbone = "small-cnn"
[tasks.shades]
reader = "folder"
path = "shades"
domains = ["dim", "bright"]
pairs = [{ source = "dim", target = "bright" }]
[[conditions]]
kind = "clean"
"""
MODEL = "finetune(epochs=1)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    for domain, brightness in (("dim", 60), ("bright", 160)):
        for name, more in (("low", 0), ("high", 50)):
            (made / "shades" / domain / name).mkdir(parents=True)
            for number in range(16):
                image = rng.integers(0, 40, (16, 16, 3)) + brightness + more
                Image.fromarray(image.astype(np.uint8)).save(made / "shades" / domain / name / f"{number}.png")
    (made / "shades.toml").write_text(SUITE)
    return made


def tlbench_in(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(tlbench.__file__).parents[1])
    path = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "tlbench", *words], capture_output=True, text=True, cwd=folder, env=environment
    )


def numbers(run_dir: Path, suite: Path, metric: str) -> dict[tuple[str, str, str], float]:
    frame = tlbench.load_results(suite, run_dir=run_dir, published=False)
    return frame[frame.metric == metric].set_index(["model", "role", "target"]).value.to_dict()


def test_a_row_of_its_own_whose_outputs_are_kept_and_scored(folder: Path) -> None:
    asked = ["--suite", "./shades.toml", "--model", MODEL, "--precision", "bfloat16"]
    done = tlbench_in(folder, "evaluate", *asked, "--keep-outputs", "--threads", "1", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == f"{MODEL}@bfloat16"
    (kept,) = {path.parent for path in folder.rglob("outputs/main/full/*.parquet")}
    scored = tlbench_in(folder, "score", str(kept), "--suite", "./shades.toml", "--model", "again")
    assert scored.returncode == 0, scored.stderr
    nll = numbers(folder / "tlbench-runs", folder / "shades.toml", "nll")
    assert len(nll) == 6
    assert all(nll[model, *place] == nll["again@bfloat16", *place] for model, *place in nll)


def test_help_teaches_what_they_cost(folder: Path) -> None:
    shown = " ".join(tlbench_in(folder, "evaluate", "--help").stdout.split())
    assert "AMX" in shown
    assert "it moves NLL and ECE" in shown
    assert "attacks stay float32" in shown
    assert "as `tlbench score` takes them; never submitted" in shown
    for command in ("plan", "status"):
        assert "--precision" in tlbench_in(folder, command, "--help").stdout


def test_another_precision_is_a_mistake(folder: Path) -> None:
    done = tlbench_in(folder, "evaluate", "--suite", "./shades.toml", "--model", MODEL, "--precision", "float16")
    assert done.returncode == 2
    assert "float32" in done.stderr
    assert "Traceback" not in done.stderr
