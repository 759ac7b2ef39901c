"""Images under attack, and epsilons that break about half of them."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def some(digits, part_of):
    return part_of(digits, list(range(96)))


@pytest.fixture(scope="session")
def epsilons():
    return {"linf": (0.045, 0.06, 0.08), "l2": (0.7, 1.0, 1.3)}
