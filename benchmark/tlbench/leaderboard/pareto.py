"""Score against cost: which rows nobody beats in both?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unbeaten(goodness: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows no other is at least as good and as cheap as, and better in one of the two, shape (rows,).

    Parameters
    ----------
    goodness : float array, shape (rows,)
        Higher is better.
    cost : float array, shape (rows,)
        Lower is better; a row without a known cost (NaN) is never unbeaten, and beats nobody.

    Examples
    --------
    >>> unbeaten(np.array([0.9, 0.8, 0.7]), np.array([10.0, 1.0, 5.0]))
    array([ True,  True, False])
    """
    known = ~np.isnan(cost)
    found = np.zeros(len(cost), dtype=np.bool_)
    best = -np.inf
    # From the cheapest on: a row is beaten by whoever is cheaper and as good, or as cheap and better.
    order = np.lexsort((-goodness, cost))
    last = (np.nan, np.nan)
    for place in order[known[order]]:
        twin = (goodness[place], cost[place]) == last
        if goodness[place] > best or (twin and goodness[place] == best):
            found[place] = True
            best, last = goodness[place], (goodness[place], cost[place])
    return found
