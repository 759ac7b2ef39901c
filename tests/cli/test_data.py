"""`tlbench data status`, `verify` and `prepare` as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tlbench

SOURCE = str(Path(tlbench.__file__).parents[1])
SUITE = """
name = "mine"
[protocol]
image_size = 8
[protocol.split]
rule = "assaying"
[tasks.pets]
reader = "folder"
path = "pets"
[tasks.pets.domains]
photo = { counts = { train = 16, val = 2, test = 2 } }
sketch = { counts = { train = 16, val = 2, test = 2 } }
[tasks.cars]
reader = "folder"
path = "cars"
domains = ["day", "night"]
obtain = "the page of cars"
size = "9 GB"
licence = "CC0"
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "tlbench", "data", *words, "--suite", "mine.toml"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "80", "TLBENCH_CACHE": str(folder / "cache")},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A suite, and the pets of it."""
    (tmp_path / "mine.toml").write_text(SUITE)
    rng = np.random.default_rng(0)
    for domain in ("photo", "sketch"):
        for kind in ("cat", "dog"):
            place = tmp_path / "pets" / domain / kind
            place.mkdir(parents=True)
            for number in range(10):
                pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path


def test_status_is_a_table_and_where_the_missing_is_to_be_had(folder: Path) -> None:
    done = run(folder, "status")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["task", "state", "domains", "images", "expected", "cache"]
    assert lines[1].split() == ["pets", "present", "2/2", "40", "40", "-"]
    assert lines[2].split() == ["cars", "missing", "0/2", "-", "undeclared", "-"]
    assert "cars: missing" in lines
    assert lines[-5:-2] == ["  to be had: the page of cars", "  size: 9 GB", "  licence: CC0"]
    assert lines[-1] == "2 of the suite's 4 pairs can run with the data in ."
    found = json.loads(run(folder, "status", "--json", "--task", "cars").stdout)
    assert [(own["task"], own["state"], own["licence"]) for own in found["tasks"]] == [("cars", "missing", "CC0")]


def test_a_misspelt_task_is_told_with_the_nearest(folder: Path) -> None:
    done = run(folder, "status", "--task", "pet")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --task pet: suite 'mine' has no such task; did you mean 'pets'?\n"


def test_a_folder_of_another_spelling_and_other_numbers_are_told_in_words(folder: Path) -> None:
    (folder / "Cars").mkdir()
    for number in (1, 2, 3):
        (folder / "pets" / "photo" / "cat" / f"{number}.png").unlink()
    text = " ".join(run(folder, "status").stdout.split())
    assert "looked for: cars; 'Cars' is there: rename it 'cars'" in text
    assert "pets/photo: 17 images, 3 fewer than the 20 that the suite counts" in text
    named = run(folder, "verify", "--task", "cars")
    assert "no data at cars; 'Cars' is there: rename it 'cars' (--data-root sets the root); to be had" in named.stderr


def test_what_concerns_a_task_is_told_once_and_a_missing_domain_is_to_be_had(folder: Path) -> None:
    whole = (folder / "mine.toml").read_text()
    text = whole.replace('reader = "folder"\npath = "pets"', 'reader = "domainbed"\npath = "pets"\nobtain = "the vet"')
    text = text.replace('obtain = "the vet"', 'obtain = "the vet"\noptions = { exclude = "list.txt" }')
    (folder / "mine.toml").write_text(text)
    (folder / "pets" / "list.txt").write_text("<html>")
    assert run(folder, "status").stdout.count("list.txt, line 1") == 1
    done = run(folder, "verify", "--quick")
    assert done.stdout.count("list.txt, line 1") == 1
    assert done.stderr.splitlines()[-1] == "error: 1 problem named above"
    (folder / "pets" / "list.txt").unlink()
    (folder / "pets" / "photo").rename(folder / "photo")
    told = run(folder, "status", "--task", "pets").stdout
    assert "pets: incomplete" in told
    assert "to be had: the vet" in told


def test_right_data_are_verified_with_code_0(folder: Path) -> None:
    done = run(folder, "verify")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:4] for line in done.stdout.splitlines()[1:3]] == [
        ["pets/photo", "20", "right", "0"],
        ["pets/sketch", "20", "right", "0"],
    ]
    assert "not there: cars" in done.stdout


def test_every_unreadable_file_is_listed_with_code_4(folder: Path) -> None:
    damaged = [folder / "pets" / "photo" / "cat" / "1.png", folder / "pets" / "sketch" / "dog" / "2.png"]
    for file in damaged:
        file.write_bytes(b"no image")
    done = run(folder, "verify", "--task", "pets")
    assert done.returncode == 4
    for file in damaged:
        assert f"{file.relative_to(folder)}: cannot be decoded as an image" in done.stdout
    assert done.stderr.splitlines()[-1] == "error: 2 images that cannot be decoded"
    assert run(folder, "verify", "--quick").returncode == 0
    found = json.loads(run(folder, "verify", "--json", "--quiet").stdout)
    assert [own["unreadable"][0]["name"] for own in found["domains"]] == ["cat/1.png", "dog/2.png"]
    # A run, or its preparation, names the first, and what names them all.
    stopped = run(folder, "prepare")
    assert stopped.returncode == 2
    assert stopped.stderr.splitlines()[-1].startswith("error: pets/photo/cat/1.png: cannot be decoded")
    assert stopped.stderr.rstrip().endswith("`tlbench data verify` lists every such image")


def test_other_numbers_are_a_table_and_code_4(folder: Path) -> None:
    (folder / "pets" / "photo" / "cat" / "1.png").unlink()
    done = run(folder, "verify")
    assert done.returncode == 4
    assert [line.split() for line in done.stdout.splitlines() if "16/2/2" in line] == [
        ["pets/photo", "16/2/2", "16/1/2", "-1", "image"]
    ]
    assert "unreadable" not in done.stdout
    refused = run(folder, "prepare")
    assert (refused.returncode, refused.stdout) == (2, "")
    rows = refused.stderr.splitlines()
    assert rows[-3].split() == ["domain", "expected", "found", "difference"]
    assert rows[-2] == "  pets/photo  16/2/2    16/1/2  -1 image"


def test_prepare_says_what_it_takes_and_that_it_is_done_already(folder: Path) -> None:
    first = run(folder, "prepare")
    assert first.returncode == 0, first.stderr
    assert first.stderr.splitlines()[0].startswith("40 images to prepare: 0.000009 GB in ")
    assert [line.split() for line in first.stdout.splitlines()[1:3]] == [
        ["pets/photo", "20", "now"],
        ["pets/sketch", "20", "now"],
    ]
    again = run(folder, "prepare")
    assert again.stdout.splitlines()[1].split() == ["pets/photo", "20", "already"]
    assert "prepared already" in again.stderr
    assert run(folder, "status").stdout.splitlines()[1].split()[-1] == "prepared"


KILLED = """
import os, signal, sys
from tlbench import cli
from tlbench.engine.progress import ImagesTold
true = ImagesTold.__call__
def told(self, label, done, total):
    true(self, label, done, total)
    if (label, done) == ("pets/sketch", 7):
        os.kill(os.getpid(), signal.SIGKILL)
ImagesTold.__call__ = told
sys.exit(cli.main(["data", "prepare", "--suite", "mine.toml"]))
"""


def test_a_killed_prepare_goes_on_inside_the_domain(folder: Path) -> None:
    path = os.pathsep.join(filter(None, [SOURCE, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": path, "TLBENCH_CACHE": str(folder / "cache")}
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=folder, env=environment, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    assert run(folder, "status").stdout.splitlines()[1].split()[-1] == "68%"
    done = run(folder, "prepare")
    assert done.stderr.splitlines()[0].startswith("13 images to prepare")
    assert [line.split(maxsplit=2)[2] for line in done.stdout.splitlines()[1:3]] == ["already", "now, in part before"]


def test_a_folder_name_cannot_steer_the_terminal(folder: Path) -> None:
    strange = folder / "pets" / "photo" / "cat" / "\x1b[31m.png"
    (folder / "pets" / "photo" / "cat" / "1.png").rename(strange)
    strange.write_bytes(b"no image")
    done = run(folder, "verify")
    assert done.returncode == 4
    assert "\x1b" not in done.stdout + done.stderr
