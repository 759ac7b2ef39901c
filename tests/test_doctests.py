"""Every module can be imported, and every example in a docstring prints what it says.

A test of its own rather than ``--doctest-modules``, which would import the checkout's files beside the installed ones.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import tlbench

MODULES = ["tlbench"] + [found.name for found in pkgutil.walk_packages(tlbench.__path__, prefix="tlbench.")]
OPTIONAL = {"numba", "ray", "matplotlib", "HersheyFonts"}


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] not in OPTIONAL:
            raise
        pytest.skip(f"{missing.name} is an extra that is not installed")
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert outcome.failed == 0, f"{outcome.failed} of {outcome.attempted} examples differ; see the captured output"
