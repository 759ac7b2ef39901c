"""An empty run folder, to be filled with synthetic results."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def run(synthetic: ModuleType, tmp_path: Path):  # type: ignore[no-untyped-def]
    """An empty run folder of a suite of two pairs."""
    tasks = {"t": {"reader": "embedded", "classes": ["p", "q", "r"], "domains": ["a", "b"]}}
    return synthetic.Run(tmp_path / "runs", synthetic.make_suite(tasks=tasks))
