"""The plain path: ours without numba, while the peer beside it keeps its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tlbench.conditions.corruptions.compiled import compiled

SWITCH = "TLBENCH_NO_NUMBA"


@contextmanager
def without_numba() -> Iterator[None]:
    """Hold tlbench to its plain path for the block.

    Raises
    ------
    RuntimeError
        If compiled code is at hand all the same: a plain row must never be measured with it.
    """
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "1"
    try:
        if compiled() is not None:
            raise RuntimeError(f"{SWITCH}=1 did not keep the compiled corruptions away")
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before
