"""What is loaded by what: a board is read, and help is printed, without the libraries that measure."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import tlbench

LIGHT = {"torch", "torchvision", "timm", "pandas", "scipy", "pyarrow", "sklearn", "foolbox", "netcal", "datasets"}
MEASURING = {"torch", "torchvision", "timm", "foolbox", "netcal"}
ROOT = Path(tlbench.__file__).parent


def libraries_loaded_by(code: str) -> set[str]:
    """Return the top-level modules in a fresh interpreter after ``code``, which may print and may exit with 0."""
    script = (
        f"import json, sys\ntry:\n    exec({code!r})\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print()\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    path = os.pathsep.join([str(ROOT.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def modules_below(package: str) -> list[str]:
    folder = ROOT / package
    return [f"tlbench.{package}"] + [
        found.name for found in pkgutil.walk_packages([str(folder)], prefix=f"tlbench.{package}.")
    ]


def test_the_probe_sees_a_library_that_is_loaded() -> None:
    assert "scipy" in libraries_loaded_by("import scipy")


def test_import_tlbench_loads_no_heavy_library() -> None:
    assert not LIGHT & libraries_loaded_by("import tlbench; dir(tlbench)")


def test_help_loads_no_heavy_library() -> None:
    code = "import runpy; sys.argv = ['tlbench', '--help']; runpy.run_module('tlbench', run_name='__main__')"
    assert not LIGHT & libraries_loaded_by(code)


@pytest.mark.parametrize(
    "package", ["records", "suites", "metrics", "leaderboard", "submissions", "report", "analysis"]
)
def test_the_reading_wing_loads_nothing_that_measures(package: str) -> None:
    if not (ROOT / package).is_dir():
        pytest.skip(f"tlbench.{package} does not exist")
    code = "import " + ", ".join(modules_below(package))
    assert not MEASURING & libraries_loaded_by(code)


def test_naming_the_base_of_a_plug_in_loads_no_torch() -> None:
    assert "torch" not in libraries_loaded_by("import tlbench; tlbench.Method, tlbench.Predictor")


@pytest.mark.parametrize("name", tlbench.__all__)
def test_every_public_name_exists_and_is_listed(name: str) -> None:
    assert getattr(tlbench, name) is not None
    assert name in dir(tlbench)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Methodd'"):
        _ = tlbench.Methodd  # type: ignore[attr-defined]
