"""What holds for every test: one thread, no network, and a cache of its own."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# Before anything imports torch, which reads the number of threads once. Equal threads give equal bits.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

# Time limits would fail tests on a busy machine, and fresh random examples would fail someone else's pull request.
settings.register_profile("tlbench", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tlbench")


def pytest_configure(config: pytest.Config) -> None:
    """Point every cache at a folder of this session, before test modules import libraries that read these variables."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # inherited from the controlling process: the workers share one cache, as two runs of a user would
    folder = tempfile.TemporaryDirectory(prefix="tlbench-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    os.environ["TLBENCH_CACHE"] = str(Path(folder.name) / "tlbench")
    os.environ["XDG_CACHE_HOME"] = str(Path(folder.name) / "xdg")


@pytest.fixture(scope="session")
def synthetic() -> ModuleType:
    """Synthetic results, loaded from their file: test folders are no packages."""
    name = "tlbench_synthetic_results"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("synthetic_results.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; torch is imported only if a test asks for one."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def settled() -> None:
    """Skip what holds a page against the published results, while one of them waits for its merge.

    A pull request with results brings nothing else; the workflow makes the pages anew once it has verified them.
    """
    from tlbench.records.levels import level_of
    from tlbench.records.published import published_models

    new = [found.model for found in published_models("digits") if level_of(found.folder) == "self-reported"]
    if new:
        pytest.skip(f"not verified yet: {', '.join(new)}; pages are made anew after the merge")


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that no other test has written to."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TLBENCH_CACHE", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return folder
