"""A straight line through points, how far it may be off, and the probit scale, on which such lines are looked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

LEAST_POINTS: Final = 5
"""With fewer points no line is drawn: almost anything lies near one."""


@dataclass(frozen=True)
class Line:
    """A least-squares line.

    Attributes
    ----------
    slope, intercept : float
    r_squared : float
    points : int
    centre, spread : float
        Mean of x, and the sum of the squared distances from it.
    residual_sd : float
        With ``points - 2`` degrees of freedom.
    level : float
        Of the interval.
    """

    slope: float
    intercept: float
    r_squared: float
    points: int
    centre: float
    spread: float
    residual_sd: float
    level: float

    def at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the line's height."""
        return self.intercept + self.slope * x

    def margin(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far the interval of the line's height reaches to either side: pointwise, in closed form."""
        quantile = float(stdtrit(self.points - 2, 0.5 + self.level / 2))
        return quantile * self.residual_sd * np.sqrt(1 / self.points + (x - self.centre) ** 2 / self.spread)


def fit_line(x: NDArray[np.float64], y: NDArray[np.float64], *, level: float = 0.95) -> Line | None:
    """Return the least-squares line of y on x.

    The interval is that of the mean response under equal, independent, normal residuals (Student's t): it tells how
    well these points fix the line, not where another model would lie, and takes no account of the points' own errors.

    Parameters
    ----------
    x, y : float arrays, shape (n,)
        In the scale that is shown.
    level : float

    Returns
    -------
    Line or None
        None for fewer than ``LEAST_POINTS`` points, or where all have the same x.

    Raises
    ------
    ValueError
        If the two differ in length, or one is not finite.

    References
    ----------
    Draper and Smith (1998), "Applied Regression Analysis", section 3.1.
    """
    if len(x) != len(y) or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError(f"expected as many finite x as y, got {len(x)} and {len(y)}")
    n = len(x)
    if n < LEAST_POINTS or np.ptp(x) == 0:
        return None
    centre, height = float(x.mean()), float(y.mean())
    spread = float(((x - centre) ** 2).sum())
    slope = float(((x - centre) * (y - height)).sum() / spread)
    intercept = height - slope * centre
    residual = float(((y - intercept - slope * x) ** 2).sum())
    total = float(((y - height) ** 2).sum())
    return Line(
        slope, intercept, 1 - residual / total if total else 1.0, n, centre, spread, float(np.sqrt(residual / (n - 2))),
        level,
    )  # fmt: skip


def probit(share: NDArray[np.float64], n: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return shares on the probit scale, and which of them had to be clipped.

    Parameters
    ----------
    share : float array, shape (k,)
        In [0, 1].
    n : int array, shape (k,)
        Images that each rests on. The probit of 0 or 1 is infinite: what is nearer to either than half an image,
        ``1 / (2 n)``, is drawn there.

    Returns
    -------
    tuple of float array and bool array, shape (k,)

    Examples
    --------
    >>> value, clipped = probit(np.array([0.5, 1.0]), np.array([100, 100]))
    >>> value.round(3).tolist(), clipped.tolist()
    ([0.0, 2.576], [False, True])
    """
    least = 1 / (2 * n.astype(np.float64))
    kept = np.clip(share, least, 1 - least)
    return ndtri(kept), kept != share
