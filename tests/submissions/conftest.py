"""An empty run folder, to be filled with synthetic results; and a submission whose every number can be recomputed."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


def _beside(name: str) -> ModuleType:
    """Return a module of this folder, which is no package; from here on ``tlbench_<name>`` imports it."""
    known = f"tlbench_{name}"
    if known not in sys.modules:
        spec = importlib.util.spec_from_file_location(known, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[known] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[known]


_recomputable = _beside("recomputable")
_beside("tampering")


@pytest.fixture
def run(synthetic: ModuleType, tmp_path: Path):  # type: ignore[no-untyped-def]
    """An empty run folder of a suite of two pairs."""
    tasks = {"t": {"reader": "embedded", "classes": ["p", "q", "r"], "domains": ["a", "b"]}}
    return synthetic.Run(tmp_path / "runs", synthetic.make_suite(tasks=tasks))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A suite with a lock, a run of it, and the submission made of the run; nobody writes here."""
    return _recomputable.make(tmp_path_factory.mktemp("recomputable"))


@pytest.fixture
def copy(made: Any, tmp_path: Path) -> Path:
    """A copy of the submission to tamper with."""
    return Path(shutil.copytree(made.folder, tmp_path / "results" / "tiny" / "m"))
