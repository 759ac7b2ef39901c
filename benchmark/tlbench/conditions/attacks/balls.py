"""Geometry of perturbations: norms of images, projection onto a ball, a random start inside one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tlbench.conditions.attacks.attack import Norm


def length(x: Tensor, norm: Norm) -> Tensor:
    """Return each image's norm, shape (n, 1, 1, 1)."""
    if norm == "linf":
        return x.abs().amax(dim=(1, 2, 3), keepdim=True)
    return x.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()


def normalised(x: Tensor, norm: Norm) -> Tensor:
    """Return images scaled to norm one; an image of zeros stays one."""
    return x / (length(x, norm) + 1e-12)


def projected(x: Tensor, centre: Tensor, radius: Tensor, norm: Norm) -> Tensor:
    """Return images brought into the ball about ``centre``, then into [0, 1].

    Parameters
    ----------
    x, centre : float tensors, shape (n, 3, h, w)
        ``centre`` lies in [0, 1], so cutting to [0, 1] never leaves the ball.
    radius : float tensor, shape (n, 1, 1, 1)
    """
    if norm == "linf":
        return torch.min(torch.max(x, centre - radius), centre + radius).clamp_(0, 1)
    offset = x - centre
    return (centre + normalised(offset, norm) * torch.min(radius, length(offset, norm))).clamp_(0, 1)


def directions(seeds: Sequence[int], shape: Sequence[int], norm: Norm) -> Tensor:
    """Draw one direction a seed, before it is scaled to norm one.

    Returns
    -------
    float32 tensor, shape (len(seeds), *shape)
        Uniform in [-1, 1] for ``linf``, normal for ``l2``.
    """
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        if norm == "linf":
            draws.append(2 * torch.rand(*shape, generator=generator) - 1)
        else:
            draws.append(torch.randn(*shape, generator=generator))
    return torch.stack(draws) if draws else torch.empty(0, *shape)
