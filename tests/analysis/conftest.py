"""Simulated runs, loaded from their file: test folders are no packages."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _loaded(name: str, path: Path) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def simulated() -> ModuleType:
    return _loaded("tlbench_simulated_runs", Path(__file__).with_name("simulated.py"))


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    return _loaded("tlbench_synthetic_results", Path(__file__).parents[1] / "synthetic_results.py")
