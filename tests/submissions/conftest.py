"""Synthetic results, loaded from their file: test folders are no packages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _synthetic_results() -> ModuleType:
    name = "tlbench_synthetic_results"
    if name not in sys.modules:
        path = Path(__file__).parents[1] / "synthetic_results.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return _synthetic_results()


@pytest.fixture
def run(synthetic: ModuleType, tmp_path: Path):  # type: ignore[no-untyped-def]
    """An empty run folder of a suite of two pairs."""
    tasks = {"t": {"reader": "embedded", "classes": ["p", "q", "r"], "domains": ["a", "b"]}}
    return synthetic.Run(tmp_path / "runs", synthetic.make_suite(tasks=tasks))
