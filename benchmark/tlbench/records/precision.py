"""How precisely the statistics of an image are stored: what the reducer writes and what a reader may derive."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

DROPPED_BITS: Final = 8
"""Low bits of a float32 mantissa that are rounded away, which leaves 16 significant ones: a relative error of at most
1.6e-5, far below any standard error. Each bit kept costs an eighth of a byte a number, and the published predictions
of three seeds of `digits` shall stay under 2 MB."""


def as_stored(values: NDArray[Any], dropped: int = DROPPED_BITS) -> NDArray[np.float32]:
    """Return numbers as the tables store them: float32, rounded to the nearest number with zero low bits.

    Parameters
    ----------
    values : float array
        Infinities are kept.
    dropped : int
        Bits to round away; the relative error is at most 2 to the power of ``dropped - 24``.

    Examples
    --------
    >>> as_stored(np.array([1 / 3, np.inf]), dropped=16)
    array([0.33398438,        inf], dtype=float32)
    """
    single = values.astype(np.float32)
    if dropped == 0:
        return single
    bits = single.view(np.uint32).astype(np.uint64)
    # Half to even, as the rounding to float32 itself; a carry moves into the exponent, which is the right number.
    bits += (1 << (dropped - 1)) - 1 + ((bits >> np.uint64(dropped)) & np.uint64(1))
    kept = (bits >> np.uint64(dropped)) << np.uint64(dropped)
    rounded: NDArray[np.float32] = kept.astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(single), rounded, single)
