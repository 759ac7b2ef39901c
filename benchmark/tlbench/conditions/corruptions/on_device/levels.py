"""What the device functions share: grey levels to numbers and back, and the host's draws for many images at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.conditions.corruptions.pixels import Images
from tlbench.conditions.corruptions.tables import Parameter

Item = TypeVar("Item")
Result = TypeVar("Result")
Tensors = tuple[Tensor, ...]
"""What crosses from the host to the device: tensors of one row an image."""


@dataclass(frozen=True)
class OnDevice:
    """One type of corruption in two halves, for images that lie on a GPU.

    Attributes
    ----------
    draw : callable
        ``draw(images, parameter, draws)`` on the host: the numbers, layers or tables that the other half needs, drawn
        from one generator an image just as the host's function draws them. Looks at the pixels of no image, but for
        ``contrast`` and ``jpeg_compression``. One image at least.
    finish : callable
        ``finish(images, parameter, drawn)`` on the device, where ``drawn`` lies too: uint8 (n, 3, h, w) to the same.
        Row i depends on row i alone.
    """

    draw: Callable[[Tensor, Parameter, Sequence[np.random.Generator]], Tensors]
    finish: Callable[[Tensor, Parameter, Tensors], Tensor]


def draw_nothing(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Return no tensors: the first half of a type that neither draws nor prepares anything."""
    return ()


def one_by_one(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return a function's results in order, computed on all cores: what it calls lets go of the interpreter's lock."""
    workers = min(len(items), os.cpu_count() or 1)
    if workers < 2:
        return [function(item) for item in items]
    # A run of items a core: handing over each by itself would cost more than drawing for a small image.
    size = -(-len(items) // workers)
    runs = [items[start : start + size] for start in range(0, len(items), size)]
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(lambda run: [function(item) for item in run], runs)
        return [result for run in done for result in run]


def stacked(arrays: Sequence[NDArray[Any]]) -> Tensor:
    """Return arrays of one shape and type as one tensor."""
    return torch.from_numpy(np.stack(arrays))


def host_images(images: Tensor) -> Images:
    """Return images (n, 3, h, w) from any device as an array (n, h, w, 3)."""
    return images.cpu().permute(0, 2, 3, 1).contiguous().numpy()


def device_images(images: Images) -> Tensor:
    """Return an array (n, h, w, 3) as a tensor (n, 3, h, w), on the host."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def unit(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return uint8 images in [0, 1]."""
    # By a number on the device, and not by a Python number: for that, CUDA multiplies by the rounded reciprocal.
    return images.to(dtype) / torch.full((), 255, dtype=dtype, device=images.device)


def truncated(values: Tensor) -> Tensor:
    """Return values in [0, 1] as uint8, clipped and cut off; see `pixels.truncated`."""
    return (values.clamp(0, 1) * 255).to(torch.uint8)


def settled(levels: Tensor, dropped: Tensor, slack: float) -> Tensor:
    """Return levels from 0 to 255 as uint8: cut off, and decided by ``dropped`` where they are a whole level.

    Sums in another order than the host's come out the same; see `tlbench.conditions.corruptions.grounds`.

    Parameters
    ----------
    levels : float64 tensor
        Overwritten.
    dropped : uint8 tensor, shape (256,)
    slack : float
        The host's: it says how near to a whole level a sum means it.
    """
    levels = levels.add_(slack).clamp_(0, 255)
    whole = levels.to(torch.uint8)
    lost = dropped.index_select(0, whole.flatten().int()).view(whole.shape)
    return whole - lost * (levels - whole < 2 * slack)
