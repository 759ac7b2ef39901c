"""A whole suite at small scale: three domains of three classes, 16 px, every kind of condition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SUITE = """
name = "blobs"

[protocol]
image_size = 16
seeds = [0, 1]
backbone = "small-cnn"

[protocol.split]
train = 0.5
val = 0.25
test = 0.25

[protocol.recipe]
lr = 3e-3
epochs = 3
batch_size = 12
crop = false
flip = false

[tasks.blobs]
reader = "folder"
path = "blobs"
domains = ["left", "right", "dark"]
pairs = [
    { source = "left", target = "right" },
    { source = "left", target = "dark" },
    { source = "right", target = "dark" },
]

[[conditions]]
kind = "clean"

[[conditions]]
kind = "transform"
name = "shift"
steps = [8]
max_images = 10

[[conditions]]
kind = "corruption"
name = "contrast"
severities = [1, 5]
table = 32

[[conditions]]
kind = "attack"
name = "apgd-dlr"
epsilons = [1, 16]
denominator = 255
steps = 5
mode = "fast"
max_images = 8
"""

PER_CLASS = 24


def blob(rng: np.random.Generator, label: int, domain: str) -> np.ndarray:
    """A bright square whose place tells the class; domains differ in side and brightness."""
    image = rng.integers(0, 60, (16, 16, 3))
    row = 1 + 5 * label
    column = 2 if domain == "left" else 8
    image[row : row + 4, column : column + 6] += 110 if domain == "dark" else 180
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def suite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``blobs.toml`` and its images."""
    folder = tmp_path_factory.mktemp("suite")
    rng = np.random.default_rng(0)
    for domain in ("left", "right", "dark"):
        for label, name in enumerate(("top", "middle", "bottom")):
            (folder / "blobs" / domain / name).mkdir(parents=True)
            for number in range(PER_CLASS):
                path = folder / "blobs" / domain / name / f"{number:02d}.png"
                Image.fromarray(blob(rng, label, domain)).save(path)
    (folder / "blobs.toml").write_text(SUITE)
    return folder


@pytest.fixture(scope="session")
def blobs(suite_folder: Path) -> Path:
    """The suite file."""
    return suite_folder / "blobs.toml"
