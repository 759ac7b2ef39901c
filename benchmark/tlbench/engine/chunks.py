"""How many images a network is given at once: few enough for a CPU's caches, enough to keep a GPU busy.

On a CPU the number follows from the network and the images' size alone, so that one machine gives the same bits
every time. On a GPU it is found by trying, once a network and process.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from torch import nn

MOST_ON_CPU: Final = 64
"""More make nothing faster on a CPU, whatever the network."""
_LEAST_ON_CPU: Final = 4  # fewer cost more in calls than they save
_LARGEST_TENSOR: Final = 28 * 2**20
_GAIN: Final = 0.05
_FIRST_ON_GPU: Final = 16
_TIMED_PASSES: Final = 3


def cpu_chunk(largest_bytes: int, most: int) -> int:
    """Return how many images a CPU takes at once.

    The largest power of two with which no tensor on the way exceeds 28 MiB. What is larger the C library asks the
    kernel for anew at every layer, page by page, and no cache holds it: EfficientNet-Lite0 then takes 1.3 to 1.6
    times as long. The same number serves the forward pass and the gradient, whose optima were within 4 % of it at
    64, 128 and 224 pixels.

    Parameters
    ----------
    largest_bytes : int
        Of the largest tensor that a layer returns, for one image; 0 where that is not known.
    most : int
        The user's batch size: never more than that.

    Examples
    --------
    Stages of EfficientNet-Lite0 with 96 channels, at half the side of 64, 128 and 224 pixels:

    >>> [cpu_chunk(4 * 96 * (side // 2) ** 2, most=128) for side in (64, 128, 224)]
    [64, 16, 4]
    """
    fitting = _LARGEST_TENSOR // max(largest_bytes, 1)
    power = 1 << max(fitting.bit_length() - 1, 0)
    return min(most, max(_LEAST_ON_CPU, min(power, MOST_ON_CPU)))


def best_chunk(seconds_of: Callable[[int], float | None], most: int) -> int:
    """Return how many images a GPU takes at once: doubled as long as that makes an image at least 5 % cheaper.

    Parameters
    ----------
    seconds_of : callable
        Seconds that so many images take together; None where memory is too short for them.
    most : int
        The user's batch size: never more than that.

    Examples
    --------
    A device that is as long at 64 images as at one, and is full with them:

    >>> best_chunk(lambda n: max(n, 64) / 1000, most=512)
    64
    """
    best, each = min(_FIRST_ON_GPU, most), float("inf")
    for n in itertools.chain(_doubled(best, most), (most,)):
        seconds = seconds_of(n)
        if seconds is None:
            return max(1, n // 2) if each == float("inf") else best
        if seconds / n > each * (1 - _GAIN):
            break
        best, each = n, seconds / n
    return best


def _doubled(first: int, most: int) -> list[int]:
    return [first << power for power in range(most.bit_length()) if first << power < most]


_found: dict[Hashable, int] = {}


def remembered_chunk(module: nn.Module, kind: str, most: int, seconds_of: Callable[[int], float | None]) -> int:
    """Return ``best_chunk`` of a network, found once a process for all that are built alike.

    Parameters
    ----------
    module : nn.Module
        Known by the names and shapes of its weights, and by where these are.
    kind : str
        What is asked of it, and of which images.
    most, seconds_of
        As ``best_chunk`` takes them.
    """
    weights = tuple((name, tuple(weight.shape), str(weight.device)) for name, weight in module.named_parameters())
    known_by = (type(module).__qualname__, weights, kind, most)
    if known_by not in _found:
        _found[known_by] = best_chunk(seconds_of, most)
    return _found[known_by]


def gpu_seconds(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call on a GPU, the best of a few after one that nobody times."""
    call()
    took = []
    for _ in range(_TIMED_PASSES):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        call()
        torch.cuda.synchronize(device)
        took.append(time.perf_counter() - started)
    return min(took)


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out."""
    # On the CPU torch raises a plain RuntimeError whose text alone tells.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
