"""The order in which an image meets the epsilons, and what a verdict at one says about the others."""

from __future__ import annotations

from typing import Literal

Mode = Literal["fast", "exact"]


class Ladder:
    """The epsilons of an attack as rungs.

    A rung is the place of an epsilon among all of them, smallest first. A verdict is the lowest rung that breaks the
    image, or the number of rungs: it survives every rung below.

    Parameters
    ----------
    rungs : int
        Number of epsilons.
    mode : {"exact", "fast"}
        ``exact`` climbs: broken in a small ball is broken in a larger one, which contains it. ``fast`` descends and
        takes an image that survives an epsilon to survive the smaller ones. An attack that fails in a large ball could
        still succeed in a small one, so ``fast`` may overstate robustness at small epsilons, never understate it.
    """

    def __init__(self, rungs: int, mode: Mode) -> None:
        self.rungs = rungs
        self.climbs = mode == "exact"
        self.first = 0 if self.climbs else rungs - 1

    def after(self, rung: int, broken: bool) -> tuple[int | None, int | None]:
        """Return the next rung to try, or None and the verdict."""
        if self.climbs == broken:
            return None, rung if self.climbs else rung + 1
        following = rung + (1 if self.climbs else -1)
        if 0 <= following < self.rungs:
            return following, None
        return None, self.rungs if self.climbs else 0

    def implied(self, verdict: int) -> range:
        """Return the rungs that an image with this verdict was never attacked at.

        Climbing, these lie above the rung that broke it; descending, below the one that it survived.

        >>> list(Ladder(4, "exact").implied(1)), list(Ladder(4, "fast").implied(3))
        ([2, 3], [0, 1])
        """
        return range(verdict + 1, self.rungs) if self.climbs else range(verdict - 1)
