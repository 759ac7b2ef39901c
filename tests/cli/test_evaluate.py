"""`tlbench evaluate` as a user types it: results on stdout, progress on stderr, honest exit codes."""

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

SOURCE = str(Path(tlbench.__file__).parents[1])

SUITE = """
name = "stripes"
[protocol]
image_size = 16
seeds = [0]
backbone = "small-cnn"
[tasks.stripes]
reader = "folder"
path = "stripes"
domains = ["dim", "bright"]
pairs = [{ source = "dim", target = "bright" }]
[[conditions]]
kind = "clean"
"""

PLUGIN = """
import tlbench
class Mine(tlbench.Method):
    def fit(self, context):
        raise ZeroDivisionError("nothing to divide by")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a suite over folders of images, and a plug-in that fails."""
    made = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    for domain, brightness in (("dim", 90), ("bright", 200)):
        for axis, name in enumerate(("across", "down")):
            (made / "stripes" / domain / name).mkdir(parents=True)
            for number in range(20):
                image = rng.integers(0, 40, (16, 16, 3))
                stripes = (slice(None), slice(0, 16, 4)) if axis else (slice(0, 16, 4), slice(None))
                image[stripes] += brightness
                Image.fromarray(image.astype(np.uint8)).save(made / "stripes" / domain / name / f"{number}.png")
    (made / "stripes.toml").write_text(SUITE)
    (made / "mine.py").write_text(PLUGIN)
    return made


def evaluate(folder: Path, model: str, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "tlbench", "evaluate", "--suite", "./stripes.toml", "--model", model, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_complete_is_0_with_json_alone_on_stdout_and_progress_on_stderr(folder: Path) -> None:
    done = evaluate(folder, "linear-probe", "--json", "--threads", "1")
    assert done.returncode == 0
    result = json.loads(done.stdout)
    assert result["complete"] is True
    assert result["failures"] == []
    ((pair,),) = [result["table"]]
    assert (pair["source"], pair["target"]) == ("dim", "bright")
    assert pair["id_accuracy"] > 0.6
    assert "fitted linear-probe stripes/dim seed 0 in" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_failure_is_1_and_is_told_with_its_place(folder: Path) -> None:
    done = evaluate(folder, "mine.py", "--quiet")
    assert done.returncode == 1
    assert "fit raised ZeroDivisionError: nothing to divide by (mine.py, line 5)" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["linear-probe", "--only", "target=brigth"], "did you mean 'bright'?"),
        (["linear-probe", "--backbone", "smal-cnn"], "did you mean 'small-cnn'?"),
    ],
)
def test_a_mistake_is_2_with_one_line_and_nothing_written(folder: Path, words: list[str], said: str) -> None:
    done = evaluate(folder, *words, "--run-dir", "elsewhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not (folder / "elsewhere").exists()


def test_a_results_folder_that_cannot_be_made_is_2(folder: Path) -> None:
    done = evaluate(folder, "majority", "--run-dir", "mine.py/runs", "--quiet")
    assert done.returncode == 2
    assert "expected a folder, found a file in its place" in done.stderr
    assert done.stderr.count("\n") == 1
