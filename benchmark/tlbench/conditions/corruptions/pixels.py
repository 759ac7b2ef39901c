"""What every corruption function takes and gives, and the one way from [0, 1] back to uint8."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.tables import Parameter

Images = NDArray[np.uint8]
"""uint8, shape (n, h, w, 3)"""

Corrupt = Callable[[Images, Parameter, Sequence[np.random.Generator]], Images]
"""``corrupt(images, parameter, draws)``: new images of the same shape. ``parameter`` is the table's entry for the
severity; ``draws`` holds one generator an image, its only source of randomness."""


def truncated(values: NDArray[np.floating]) -> Images:
    """Return values in [0, 1] as uint8, clipped and cut off, not rounded, as in the published sets."""
    return np.asarray(np.clip(values, 0, 1) * 255).astype(np.uint8)


def numbers(parameter: Parameter) -> tuple[float, ...]:
    """Return a parameter of several numbers."""
    if not isinstance(parameter, tuple):
        raise ValueError(f"expected several numbers, got {parameter}")
    return parameter


def number(parameter: Parameter) -> float:
    """Return a parameter of one number."""
    if isinstance(parameter, tuple):
        raise ValueError(f"expected one number, got {parameter}")
    return parameter
