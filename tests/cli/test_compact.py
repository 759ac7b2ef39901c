"""`tlbench compact`: an evaluation goes on where its files have been merged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tlbench
from tlbench import api, cli

SUITE = """
name = "stripes"
[protocol]
image_size = 16
seeds = [0, 1]
backbone = "small-cnn"
[tasks.stripes]
reader = "folder"
path = "stripes"
domains = ["dim", "bright"]
pairs = [{ source = "dim", target = "bright" }]
[[conditions]]
kind = "clean"
[[conditions]]
kind = "transform"
name = "rotation"
steps = [10]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    for domain, brightness in (("dim", 90), ("bright", 200)):
        for axis, name in enumerate(("across", "down")):
            (tmp_path / "stripes" / domain / name).mkdir(parents=True)
            for number in range(20):
                image = rng.integers(0, 40, (16, 16, 3))
                image[(slice(None), slice(0, 16, 4)) if axis else (slice(0, 16, 4), slice(None))] += brightness
                Image.fromarray(image.astype(np.uint8)).save(tmp_path / "stripes" / domain / name / f"{number}.png")
    (tmp_path / "stripes.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def results() -> pd.DataFrame:
    frame = tlbench.load_results("stripes.toml", published=False)
    keys = ["model", "seed", "role", "target", "condition", "severity", "metric"]
    return frame.sort_values(keys, ignore_index=True)


def test_the_same_command_resumes_where_files_are_merged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"seeds": [0], "threads": 1, "quiet": True}
    api.evaluate("stripes.toml", "from-scratch(epochs=1)", **options)
    before = results()
    assert cli.main(["compact", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["models"]
    assert (told["state"], told["files_after"], told["left"]) == ("merged", 1, 0)
    pd.testing.assert_frame_equal(results(), before)
    (model,) = (folder / "tlbench-runs").glob("*/models/*")
    files = {path: path.stat().st_mtime_ns for path in model.rglob("*.parquet")}
    assert [path.name for path in files] == ["merged.parquet"]
    # Again: nothing is fitted or measured anew. Then a second seed: its measurements stand beside the merged file.
    api.evaluate("stripes.toml", "from-scratch(epochs=1)", **options)
    pd.testing.assert_frame_equal(results(), before)
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*.parquet")} == files
    api.evaluate("stripes.toml", "from-scratch(epochs=1)", **{**options, "seeds": [0, 1]})
    whole = results()
    pd.testing.assert_frame_equal(whole[whole["seed"] == 0].reset_index(drop=True), before)
    assert len(whole) == 2 * len(before)
    summary = api.status("stripes.toml", "from-scratch(epochs=1)")
    assert summary.measurements_to_do == 0
    assert cli.main(["compact"]) == 0
    assert "measurements and 1 fits merged" in capsys.readouterr().out
    pd.testing.assert_frame_equal(results(), whole)
    assert cli.main(["compact", "--suite", "stripes.toml"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_nothing_to_merge_is_one_line_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for words, of in (([], ""), (["--suite", "digits"], " of suite 'digits'")):
        assert cli.main(["compact", *words]) == 2
        expected = f"error: tlbench-runs: there is no work{of} in this run folder; tlbench evaluate makes some\n"
        assert capsys.readouterr().err == expected
