"""Pooled features that the fits of one process share, the oldest forgotten before they fill the memory."""

from __future__ import annotations

from typing import final

from torch import Tensor

MOST_BYTES = 2 * 2**30


@final
class RecentFeatures(dict[tuple[str, str], Tensor]):
    """Features by the backbone's weights and the split.

    Parameters
    ----------
    most_bytes : int
        The newest entry is kept whatever its size.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._most = most_bytes

    def __setitem__(self, key: tuple[str, str], features: Tensor) -> None:
        self.pop(key, None)
        super().__setitem__(key, features)
        while len(self) > 1 and sum(kept.nbytes for kept in self.values()) > self._most:
            del self[next(iter(self))]
