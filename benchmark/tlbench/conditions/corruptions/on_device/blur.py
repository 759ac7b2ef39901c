"""Blur on a device: means over rows and columns as products of matrices, along lines by gathering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.conditions.corruptions.blur import NARROW, NOTHING, filled_disk
from tlbench.conditions.corruptions.glass import glass_moves as drawn_glass_moves
from tlbench.conditions.corruptions.grounds import (
    SLACK,
    Dropped,
    dropped_by_gaussian,
    dropped_by_kernel,
    dropped_by_mean,
)
from tlbench.conditions.corruptions.on_device import linear
from tlbench.conditions.corruptions.on_device.levels import (
    OnDevice,
    Tensors,
    draw_nothing,
    one_by_one,
    settled,
    stacked,
)
from tlbench.conditions.corruptions.pixels import number, numbers
from tlbench.conditions.corruptions.streaks import streak
from tlbench.conditions.corruptions.tables import Parameter
from tlbench.conditions.corruptions.zoom import zoom_factors

Key = TypeVar("Key", int, float)


@lru_cache(maxsize=64)
def on(device: torch.device, dropped: Callable[[Key], Dropped], key: Key) -> Tensor:
    """Return which flat grounds lose a level, by one of the functions of `grounds`, on a device: uint8 (256,)."""
    return torch.tensor(dropped(key), device=device)


def slack(exact: bool) -> float:
    """Return the host's slack, with its sums in float64 or else in float32."""
    return float(SLACK[np.dtype(np.float64 if exact else np.float32)])


def gaussian_blur(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Two products of matrices; within the last bits of the host's sums."""
    deviation, device = number(parameter), images.device
    rows, columns = (linear.gaussian(length, deviation, device) for length in images.shape[-2:])
    # Of the negative, in which what is hardly below white is a small number, and keeps its digits.
    dark, near = linear.across((~images).double(), rows, columns), slack(deviation < NARROW)
    dark = torch.where(dark > NOTHING, dark.clamp(min=4 * near), dark)
    return settled(255 - dark, on(device, dropped_by_gaussian, deviation), near)


def defocus_blur(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """One product of matrices for each row of the disk, whose upper and lower halves are one another's mirror."""
    radius, edge = numbers(parameter)
    height, width = images.shape[-2:]
    rows, weight = disk_rows(width, radius, edge, images.device)
    reach = len(rows) - 1
    beyond = torch.arange(-reach, height + reach, device=images.device)
    x = images.index_select(2, linear.mirrored(beyond, height)).double()  # (n, 3, h + 2 reach, w)
    total = x[:, :, reach : reach + height] @ rows[0].T
    for down in range(1, reach + 1):
        both = x[:, :, reach - down : reach - down + height] + x[:, :, reach + down : reach + down + height]
        total += both @ rows[down].T
    return settled(total, on(images.device, dropped_by_kernel, weight), slack(reach <= 2))


@lru_cache(maxsize=16)
def disk_rows(width: int, radius: float, edge: float, device: torch.device) -> tuple[Tensor, float]:
    """Return a matrix (width, width) for the middle row of a disk and each one below, and the sum of all weights."""
    kernel = filled_disk(radius, edge)
    lower = [linear.banded(width, row, "reflect") for row in kernel[len(kernel) // 2 :]]
    return torch.from_numpy(np.stack(lower)).to(device), float(kernel.sum(dtype=np.float64))


def zoom_blur(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Two products of matrices for each factor."""
    factors = zoom_factors(parameter).tolist()
    x, device = images.double(), images.device
    total = x.clone()
    for factor in factors:
        rows, columns = (linear.enlarging(length, factor, device) for length in images.shape[-2:])
        total += linear.across(x, rows, columns)
    count = len(factors) + 1
    return settled(total.mul_(1 / count), on(device, dropped_by_mean, count), slack(False))


def line_moves(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Draw the angle of each image's motion; returns the moves of `streak_moves`."""
    angles = [draw.uniform(-45, 45) for draw in draws]
    return (streak_moves(angles, numbers(parameter)[0], tuple(images.shape[-2:])),)


def streak_moves(angles: Sequence[float], radius: float, side: tuple[int, ...]) -> Tensor:
    """Return where the steps of `streaks.streak` lead: int16 (n, steps, 3), down, right, and 1 for a step taken."""
    moves = np.zeros((len(angles), 2 * int(radius) + 1, 3), np.int16)
    for angle, row in zip(angles, moves, strict=True):
        along = streak(side, radius, 1.0, angle)
        row[: len(along.down)] = np.stack([along.down, along.right, np.ones_like(along.down)], axis=1)
    return torch.from_numpy(moves)


def motion_blur(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Return the host's images exactly: the same sums, in the same order."""
    radius, deviation = numbers(parameter)
    return streaked(images.double(), radius, deviation, drawn[0]).clamp_(0, 255).to(torch.uint8)


def streaked(values: Tensor, radius: float, deviation: float, moves: Tensor) -> Tensor:
    """Return float64 planes (n, c, h, w) averaged along the half lines of `streak_moves`, edges repeated."""
    height, width = values.shape[-2:]
    # Straight down a square that no step leaves: the weights of all steps, whatever the angle.
    weights = streak((moves.shape[1] + 1,) * 2, radius, deviation, 90.0).weight
    flat, total = values.flatten(2), torch.zeros_like(values).flatten(2)
    rows, columns = (torch.arange(length, device=values.device) for length in (height, width))
    for tap, weight in enumerate(weights.tolist()):
        down, right, kept = moves[:, tap].long().unbind(1)
        # One place a pixel, (n, h, w): an index beyond the edge is the edge's.
        row = (rows - down[:, None]).clamp_(0, height - 1)
        column = (columns - right[:, None]).clamp_(0, width - 1)
        place = (row[:, :, None] * width + column[:, None, :]).view(len(values), 1, -1)
        # Weights first, then the sum: two roundings, as on the host, and no fused one.
        total += flat.gather(2, place.expand_as(flat)) * (kept.double() * weight)[:, None, None]
    return total.view_as(values)


def glass_moves(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Draw the moves of all passes: int8 (n, passes, h - 2 reach, w - 2 reach, 2)."""
    _, reach, passes = (int(value) for value in numbers(parameter))
    height, width = images.shape[-2:]

    def drawn(draw: np.random.Generator) -> NDArray[np.int8]:
        moves = [drawn_glass_moves(draw, (height, width), reach) for _ in range(passes)]
        return np.stack(moves).astype(np.int8)

    return (stacked(one_by_one(drawn, draws)),)


def glass_blur(images: Tensor, parameter: Parameter, drawn: Tensors) -> Tensor:
    """Blur, copy pixels, blur again: the copies are the host's exactly."""
    deviation, reach, _ = numbers(parameter)
    shaken = gaussian_blur(images, deviation, ())
    for moves in drawn[0].unbind(1):
        shaken = shaken_once(shaken, moves, int(reach))
    return gaussian_blur(shaken, deviation, ())


def shaken_once(images: Tensor, moves: Tensor, reach: int) -> Tensor:
    """Return images (n, 3, h, w) after one pass of copies; chains are followed by doubling, see `glass.origins`."""
    count, _, height, width = images.shape
    rows = torch.arange(reach + 1, height - reach + 1, device=images.device)[:, None]
    columns = torch.arange(reach + 1, width - reach + 1, device=images.device)
    from_row, from_column = rows + moves[..., 0], columns + moves[..., 1]
    origin = from_row * width + from_column
    written = (from_row > reach) & (from_row <= height - reach) & (from_column > reach)
    written &= (from_column <= width - reach) & (origin > rows * width + columns)
    source = torch.arange(height * width, device=images.device).expand(count, -1).clone()
    follow = torch.zeros_like(source, dtype=torch.bool)
    inside = np.s_[:, reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    source.view(count, height, width)[inside] = origin
    follow.view(count, height, width)[inside] = written
    # Asking whether any chain goes on waits for the device, but a few rounds do; the longest chain would need sixteen.
    while follow.any():
        source, follow = (
            torch.where(follow, source.gather(1, source), source),
            follow & follow.gather(1, source),
        )
    return images.flatten(2).gather(2, source[:, None].expand(-1, 3, -1)).view_as(images)


BLURS: Final = {
    "gaussian_blur": OnDevice(draw_nothing, gaussian_blur),
    "glass_blur": OnDevice(glass_moves, glass_blur),
    "defocus_blur": OnDevice(draw_nothing, defocus_blur),
    "motion_blur": OnDevice(line_moves, motion_blur),
    "zoom_blur": OnDevice(draw_nothing, zoom_blur),
}
