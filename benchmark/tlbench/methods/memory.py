"""What autograd keeps for a backward pass, in bytes: comparable across devices, for the CPU has no allocator peak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Saved:
    """Bytes of the storages kept so far."""

    bytes: int = 0


@contextmanager
def saved_for_backward(owned: Iterable[Tensor]) -> Iterator[Saved]:
    """Count what is saved for backward inside the block; a storage counts once, those of ``owned`` do not count.

    Parameters
    ----------
    owned : iterable of Tensor
        Parameters and buffers: kept anyway, so no cost of training.

    Yields
    ------
    Saved
        Grows while the block runs.
    """
    seen = {_place(tensor) for tensor in owned}
    saved = Saved()

    def keep(tensor: Tensor) -> Tensor:
        place = _place(tensor)
        if place not in seen:
            seen.add(place)
            saved.bytes += tensor.untyped_storage().nbytes()
        # Detached: a saved output that kept its own graph alive would never be freed.
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield saved


def _place(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.untyped_storage().data_ptr()
