"""Time: one thread's processor time, medians over repetitions in which the two sides take turns."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LEAST_SECONDS = 0.02
"""What is quicker is called several times in a row, so that the clock's own step does not matter."""

Clock = Callable[[], float]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes
    ----------
    repetitions : int
        Of both sides, in turns; at least 3 for the table.
    quick : bool
        Smaller work: for a look at the direction, not for the table.
    """

    repetitions: int = 3
    quick: bool = False

    def size(self, full: int, quick: int) -> int:
        """Return how large the work is."""
        return quick if self.quick else full

    def repeated(self, cheap: int) -> int:
        """Return the repetitions of work that is cheap enough for more of them."""
        return self.repetitions if self.quick else max(self.repetitions, cheap)


@dataclass(frozen=True)
class Timed:
    """The seconds of one call, every repetition, and what the last call returned."""

    seconds: tuple[float, ...]
    result: Any

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def alternate(
    sides: Mapping[str, Callable[[], Any]],
    *,
    repetitions: int,
    warm_up: Callable[[], object] | None = None,
    clock: Clock = time.process_time,
) -> dict[str, Timed]:
    """Time several ways to do the same work, taking turns so that a change of the machine's pace meets all of them.

    Parameters
    ----------
    sides : mapping of str to callable
        Each call does the whole work once.
    repetitions : int
        Turns of every side.
    warm_up : callable, optional
        Called once before; by default every side is called once, uncounted. Where a call takes minutes, a small
        version of the work warms caches and code just as well.
    clock : callable
        Processor time of this process by default; a GPU's work needs wall time.

    Returns
    -------
    dict of str to Timed
    """
    loops = dict.fromkeys(sides, 1)
    if warm_up is not None:
        warm_up()
    else:
        for name, call in sides.items():
            once = _timed(call, 1, clock)[0]
            loops[name] = max(1, math.ceil(LEAST_SECONDS / max(once, 1e-7))) if once < LEAST_SECONDS else 1
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results: dict[str, Any] = {}
    for turn in range(repetitions):
        # Who goes first meets other caches: the order turns round every time.
        names = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in names:
            results.pop(name, None)  # a second copy of a large result would press on memory
            spent, results[name] = _timed(sides[name], loops[name], clock)
            seconds[name].append(spent)
    return {name: Timed(tuple(seconds[name]), results[name]) for name in sides}


def _timed(call: Callable[[], Any], loops: int, clock: Clock) -> tuple[float, Any]:
    """Return the seconds of one of several calls, and the last result, with the garbage collector at rest."""
    result: Any = None
    with _no_collection():
        start = clock()
        for _ in range(loops):
            result = call()
        spent = clock() - start
    return spent / loops, result


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def one_thread() -> None:
    """Hold every library that is used here to one thread.

    The number of OpenMP threads is read when a library is loaded, so ``OMP_NUM_THREADS=1`` belongs in the environment;
    this is for those that can be told later.
    """
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        import numba
    except ImportError:
        return
    numba.set_num_threads(1)
