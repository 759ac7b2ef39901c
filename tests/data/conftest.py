"""Small image data, made on the spot."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tlbench.suites.spec import Suite

Folders = Callable[..., Path]


def photograph(name: str, size: tuple[int, int] = (20, 16)) -> Image.Image:
    """Return an image whose pixels are a function of its name."""
    rng = np.random.default_rng(np.frombuffer(name.encode(), dtype=np.uint8))
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Write ``<domain>/<class>/<number>.png`` for given numbers of images and return the root."""

    def write(counts: Mapping[str, Mapping[str, int]], *, root: str = "data", backwards: bool = False) -> Path:
        files = [
            tmp_path / root / domain / kind / f"{number:03d}.png"
            for domain, classes in counts.items()
            for kind, n in classes.items()
            for number in range(n)
        ]
        for file in reversed(files) if backwards else files:
            file.parent.mkdir(parents=True, exist_ok=True)
            photograph("/".join(file.parts[-3:])).save(file)
        return tmp_path / root

    return write


@pytest.fixture
def suite_of() -> Callable[..., Suite]:
    """Return a suite of one task called ``pets``."""

    def make(domains: Any, *, reader: str = "folder", protocol: Mapping[str, Any] | None = None, **task: Any) -> Suite:
        return Suite.model_validate(
            {
                "name": "made",
                "tasks": {"pets": {"reader": reader, "domains": domains, **task}},
                "protocol": {"image_size": 8, **(protocol or {})},
            }
        )

    return make


@pytest.fixture(scope="session")
def pacs_root() -> Path:
    """The folder that holds PACS, where this machine has one."""
    named = os.environ.get("TLBENCH_TEST_DATA")
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    for root in ([Path(named)] if named else []) + [beside]:
        if (root / "PACS" / "photo").is_dir():
            return root
    pytest.skip("PACS is not here: set TLBENCH_TEST_DATA to the folder that holds PACS/")
