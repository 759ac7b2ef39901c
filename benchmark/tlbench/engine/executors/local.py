"""Fits one after another on this machine; work that another process holds is taken last."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from tlbench.engine.execute import execute, pending
from tlbench.engine.plan import PlannedFit
from tlbench.engine.workshop import Workshop


def run(work: Workshop, fits: Sequence[PlannedFit]) -> None:
    """Execute every fit that has something left to do.

    A fit whose lock another process holds is put back; once nothing else is left it is waited for,
    and what that process did not finish is done here.
    """
    waiting = deque(fits)
    busy_in_a_row = 0
    while waiting:
        planned = waiting.popleft()
        # Everything left is being worked on elsewhere: wait for the first instead of spinning.
        patient = busy_in_a_row > len(waiting)
        with work.store.lock(planned.key.fit_id, wait=patient) as held:
            if not held:
                waiting.append(planned)
                busy_in_a_row += 1
                continue
            busy_in_a_row = 0
            if pending(work, planned):
                execute(work, planned)
