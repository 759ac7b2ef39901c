"""Other tasks: how far would a score move if other tasks had been drawn?"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

LEAST_TASKS: Final = 6
"""With fewer tasks nothing can be said about tasks that are not in the suite: even if one row won all five of them,
a coin would do so once in sixteen times."""


def over_tasks(tasks: NDArray[np.float64], *, level: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the mean over tasks, by Student's t.

    Parameters
    ----------
    tasks : float array, shape (tasks,)
        A row's scores by task.
    level : float

    Returns
    -------
    low, high : float
        NaN for fewer than ``LEAST_TASKS`` tasks, or where a score is not finite.

    Examples
    --------
    >>> low, high = over_tasks(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    >>> round(low, 4), round(high, 4)
    (0.1537, 0.5463)
    """
    n = len(tasks)
    if n < LEAST_TASKS or not np.isfinite(tasks).all():
        return float("nan"), float("nan")
    margin = float(stdtrit(n - 1, (1 + level) / 2) * tasks.std(ddof=1) / np.sqrt(n))
    mean = float(tasks.mean())
    return mean - margin, mean + margin
