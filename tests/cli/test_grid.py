"""`tlbench evaluate --grid` and `--recipe` as a user types them."""

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
from tlbench.cli import main

SOURCE = str(Path(tlbench.__file__).parents[1])
SUITE = """
name = "stripes"
[protocol]
image_size = 16
seeds = [0]
backbone = "small-cnn"
[protocol.recipe]
crop = false
flip = false
[protocol.grid]
lr = [1e-3, 1e-2]
epochs = [1]
regime = ["head-only", "full"]
backbone = ["small-cnn", "timm:resnet18@absent.pth"]
[tasks.stripes]
reader = "folder"
path = "stripes"
domains = ["dim", "bright"]
pairs = [{ source = "dim", target = "bright" }]
[[conditions]]
kind = "clean"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("user")
    rng = np.random.default_rng(0)
    for domain, brightness in (("dim", 90), ("bright", 200)):
        for axis, name in enumerate(("across", "down")):
            (made / "stripes" / domain / name).mkdir(parents=True)
            for number in range(20):
                image = rng.integers(0, 40, (16, 16, 3))
                image[(slice(None), slice(0, 16, 4)) if axis else (slice(0, 16, 4), slice(None))] += brightness
                Image.fromarray(image.astype(np.uint8)).save(made / "stripes" / domain / name / f"{number}.png")
    (made / "stripes.toml").write_text(SUITE)
    return made


def evaluate(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "tlbench", "evaluate", "--suite", "./stripes.toml", "--model", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_grid_goes_on_past_missing_weights_and_exits_1(folder: Path) -> None:
    done = evaluate(folder, "finetune", "--grid", "--recipe", "epochs=1", "--threads", "1")
    assert done.returncode == 1
    header, *rows = done.stdout.splitlines()
    assert header.split() == ["model", "backbone", "shots", "id_accuracy", "ood_accuracy"]
    assert [row.split()[0] for row in rows] == [
        f"grid(finetune(regime={regime})){suffix}"
        for suffix in ("", "@resnet18@absent.pth")
        for regime in ("head-only", "full")
    ]
    assert [row.endswith("not evaluated") for row in rows] == [False, False, True, True]
    assert "row 3 of 4: grid(finetune(regime=head-only))@resnet18@absent.pth" in done.stderr
    assert "4 rows: 2 complete, 2 not evaluated, 0 failures" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_point_of_the_grid_narrows_it_and_json_stands_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = ["--recipe", "backbone=small-cnn,regime=full", "--json", "--quiet", "--threads", "1"]
    assert main(["evaluate", "--suite", "./stripes.toml", "--model", "finetune", "--grid", *words]) == 0
    ((row,),) = json.loads(capsys.readouterr().out).values()
    assert (row["model"], row["backbone"], row["shots"]) == ("grid(finetune(regime=full))", "small-cnn", "full")
    assert row["result"]["complete"] is True


def test_a_recipe_is_one_point_of_the_grid(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    words = ["--recipe", "lr=0.01,epochs=1,precision=bfloat16", "--json", "--quiet", "--threads", "1"]
    assert main(["evaluate", "--suite", "./stripes.toml", "--model", "finetune", *words]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "finetune(lr=0.01,epochs=1,precision=bfloat16)"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["finetune", "--recipe", "lr=0.5"], "the grid of suite 'stripes' lists 0.001, 0.01; --set takes any value"),
        (["linear-probe", "--grid"], "linear-probe has none of the settings that a grid can list"),
    ],
)
def test_what_is_no_part_of_the_grid_is_2_with_one_line(
    folder: Path,
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert main(["evaluate", "--suite", "./stripes.toml", "--run-dir", "elsewhere", "--model", *words]) == 2
    out, told = capsys.readouterr()
    assert out == ""
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert said in told
    assert not (folder / "elsewhere").exists()
