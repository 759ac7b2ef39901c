"""Noise on a device: one word of 16 bits a value from the host, one look-up in the host's table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.conditions.corruptions import noise
from tlbench.conditions.corruptions.on_device.levels import OnDevice, Tensors, one_by_one, stacked
from tlbench.conditions.corruptions.tables import Parameter


def words(images: Tensor, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Tensors:
    """Draw a word for each value, (n, h, w, 3), as int16 of the same bits: PyTorch computes little in uint16."""
    shape = (*images.shape[-2:], 3)

    def drawn(draw: np.random.Generator) -> NDArray[np.int16]:
        return np.asarray(noise.drawn_words((1, *shape), [draw])[0], np.int16)

    return (stacked(one_by_one(drawn, draws)),)


# 16 MB each, on a device as on the host: one type's five severities at once, and some of the next type's.
@lru_cache(maxsize=8)
def table_on(device: torch.device, name: str, parameter: Parameter) -> Tensor:
    """Return the host's table of a noise on a device, flat: entry ``65536 * value + word`` is the new value."""
    return torch.tensor(noise.table(name, parameter), device=device).flatten()


def looked_up(images: Tensor, parameter: Parameter, drawn: Tensors, *, name: str) -> Tensor:
    """Return the host's images exactly."""
    (word,) = drawn
    place = images.int().bitwise_left_shift_(16).add_(word.permute(0, 3, 1, 2).int().bitwise_and_(0xFFFF))
    return table_on(images.device, name, parameter).index_select(0, place.view(-1)).view(images.shape)


NOISES: Final = {
    name: OnDevice(words, partial(looked_up, name=name))
    for name in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise")
}
