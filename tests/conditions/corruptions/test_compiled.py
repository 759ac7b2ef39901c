"""With numba and without: the same bytes, from the same functions, and neither is needed to import them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from tlbench.conditions.corruptions import blur, compiled
from tlbench.conditions.corruptions.snow import snow
from tlbench.conditions.corruptions.tables import SEVERITIES, SIDES, TABLES

TYPES = {
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": snow,
}
needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")


@pytest.fixture(autouse=True)
def _as_installed(monkeypatch):
    """Tests here say themselves when they do without numba."""
    monkeypatch.delenv("TLBENCH_NO_NUMBA", raising=False)


@pytest.fixture
def forgotten():
    """Forget the compiled loops before a test and after it."""
    kept = compiled._compiled()
    compiled._compiled.cache_clear()
    yield
    compiled._compiled.cache_clear()
    assert (compiled._compiled() is None) == (kept is None)


@needs_numba
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", TYPES)
def test_both_paths_give_the_same_bytes(name, side, photos, monkeypatch):
    ramp = np.broadcast_to(np.linspace(0, 255, side).astype(np.uint8)[:, None, None], (side, side, 3))
    images = np.stack([photos[1, -side:, -side:], ramp, np.full((side, side, 3), 201, np.uint8)])
    for severity in SEVERITIES:
        made = []
        for without in ("1", "0"):
            monkeypatch.setenv("TLBENCH_NO_NUMBA", without)
            assert (compiled.compiled() is None) == (without == "1")
            draws = [np.random.default_rng([severity, i]) for i in range(len(images))]
            made.append(TYPES[name](images, TABLES[side][name][severity - 1], draws))
        assert np.array_equal(*made)


@needs_numba
def test_loops_are_the_functions_of_their_names(forgotten):
    loops = compiled.compiled()
    assert loops is not None
    for name in ("shake", "streaks", "zoom_sum"):
        assert getattr(loops, name).py_func is getattr(compiled, name)
        assert getattr(loops, name).signatures == []  # compiled on first use
        assert not getattr(loops, name).targetoptions.get("fastmath", False)


@needs_numba
def test_a_loop_is_what_python_makes_of_it():
    """numba's arithmetic is that of the lines as they stand, on images that are not square."""
    loops = compiled.compiled()
    assert loops is not None
    random = np.random.default_rng(0)
    padded, weight = random.random((5, 12, 2)), random.random(4)
    down, right = np.array([0, -1, 2, -4]), np.array([0, 1, -2, 3])
    made = [np.zeros((5, 7, 2)) for _ in range(2)]
    for run, out in zip((compiled.streaks, loops.streaks), made, strict=True):
        run(padded, 3, down, right, weight, out)
    assert np.array_equal(*made)
    image, shares = random.integers(0, 256, (4, 6, 3)).astype(np.float32), random.random((2, 6)).astype(np.float32)
    rows, columns = np.array([[0, 0, 1, 2], [0, 1, 1, 2]]), np.array([[0, 1, 2, 3, 4, 4], [0, 0, 1, 1, 2, 2]])
    made = [np.zeros((4, 6, 3), np.float32) for _ in range(2)]
    for run, out in zip((compiled.zoom_sum, loops.zoom_sum), made, strict=True):
        run(image, rows, shares[:, :4].copy(), columns, shares, out)
    assert np.array_equal(*made)


def test_numba_may_be_absent(forgotten, monkeypatch, photos):
    monkeypatch.setitem(sys.modules, "numba", None)  # an import of it raises, as if it were not installed
    monkeypatch.delenv("TLBENCH_NO_NUMBA", raising=False)
    assert compiled.compiled() is None
    image = photos[:1, :32, :32]
    assert blur.zoom_blur(image, TABLES[32]["zoom_blur"][0], []).shape == image.shape
    compiled._compiled.cache_clear()
    monkeypatch.undo()


def test_numba_is_not_imported_before_it_is_used():
    code = "import sys; from tlbench.conditions.corruptions import blur, snow; print('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
