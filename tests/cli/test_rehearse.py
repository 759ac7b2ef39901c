"""`tlbench data rehearse`, then the command that it prints: from nothing to results, in a shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench
from tlbench.cli import main

SOURCE = str(Path(tlbench.__file__).parents[1])

SUITE = """
name = "small"
[protocol]
image_size = 224
resize = "center-crop"
backbone = "timm:resnet50d"
[protocol.split]
rule = "assaying"
[tasks.animals]
reader = "domainbed"
path = "animals"
classes = ["cat", "owl", "yak"]
domains = ["day", "night"]
[tasks.cells]
reader = "wilds"
path = "camelyon17_v1.0"
classes = ["normal", "tumor"]
pairs = [{ source = "id", target = "ood_test", shift = "hospital" }]
options = { dataset = "camelyon17" }
cluster = "slide"
domains = ["id", "ood_test"]
[tasks.cells.split]
rule = "assaying-given"
[[conditions]]
kind = "clean"
[[conditions]]
kind = "corruption"
types = ["fog", "pixelate"]
severities = [1, 5]
table = 224
[[conditions]]
kind = "attack"
name = "apgd-dlr"
epsilons = [0.5, 4]
denominator = 255
steps = 3
max_images = 1000
[[conditions]]
kind = "transform"
name = "rotation"
steps = [10]
max_images = 1000
"""


def tlbench_(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tlbench", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_a_rehearsal_runs_end_to_end_with_the_command_that_it_prints(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SUITE)
    written = tlbench_(tmp_path, "data", "rehearse", "--suite", "./small.toml", "--out", "copy")
    assert written.returncode == 0, written.stderr
    assert written.stdout == "copy/small-rehearsal.toml\n"
    next_command = next(line for line in written.stderr.splitlines() if "tlbench evaluate" in line)
    words = next_command.split("tlbench ")[1].split()

    ran = tlbench_(tmp_path, *words, "--threads", "1", "--json", "--quiet")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["complete"]
    records = list((tmp_path / "tlbench-runs").glob("small-rehearsal-*/models/*/measurements/*/records.parquet"))
    # A fit: three clean sets, two corruptions and an attack on ID-test, a rotation on ID-test and on OOD-test.
    assert len(records) == 3 * (3 + 2 + 1 + 2)


def test_too_few_images_are_a_mistake_in_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "rehearse", "--suite", "ood172", "--out", str(tmp_path / "copy"), "--per-class", "9"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: --per-class 9: expected at least 10")
    assert not (tmp_path / "copy").exists()
