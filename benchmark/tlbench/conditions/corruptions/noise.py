"""Noise: each value of an image changes by itself.

A noise takes each of 256 levels to a level by chance, and nothing else: it is a table of 256 distributions. One uniform
word of 16 bits a value picks the new level by the inverse of the old level's cumulative distribution. `table` is the
definition. Its 16 MB do not stay in a processor's cache, so the noises that need less (a step or a factor a word) look
that up and compute: the same bytes, sooner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, pdtr
from torch import Tensor

from tlbench.conditions.corruptions.pixels import SHARES, Images, number, truncated
from tlbench.conditions.corruptions.tables import Parameter

WORDS: Final = 1 << 16
"""How many words there are; word w stands for the middle of the w-th of as many equal parts of [0, 1]."""
_LEVELS: Final = np.arange(256, dtype=np.uint8)


def gaussian_noise(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Add normal noise, of one standard deviation for the whole image."""
    return _stepped(images, _gathered(_steps(number(parameter)), drawn_words(images.shape, draws)))


def shot_noise(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Count photons: a Poisson number of them, where full brightness expects as many as the parameter says."""
    words, levels = drawn_words(images.shape, draws), images.astype(np.int32)
    whole, (digest, unsure) = _table("shot_noise", parameter).view(-1), _digest(number(parameter))
    result = np.asarray(_gathered(digest, (levels << 10) | (words >> 6)))
    # The few words whose neighbours lead elsewhere.
    rest = np.flatnonzero(result == unsure)
    result.reshape(-1)[rest] = _gathered(whole, (levels.reshape(-1)[rest] << 16) | words.reshape(-1)[rest])
    return np.asarray(result, np.uint8)


def impulse_noise(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Set a share of the values, each channel by itself, to black or white."""
    black, white = _ends(np.array([number(parameter) / 2, 1 - number(parameter) / 2]))
    words = drawn_words(images.shape, draws)
    # Minus one is all bits: kept where the word is not black's, all set where it is white's.
    return np.asarray((images | -(words >= white).view(np.uint8)) & -(words >= black).view(np.uint8))


def speckle_noise(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Add normal noise in proportion to the value."""
    return _multiplied(images, _gathered(_factors(number(parameter)), drawn_words(images.shape, draws)))


def drawn_words(shape: tuple[int, ...], draws: Sequence[np.random.Generator]) -> NDArray[np.int32]:
    """Draw one word a value of images of a shape (n, h, w, 3), each image's by its own generator."""
    words = np.empty(shape, np.int32)
    for place, draw in zip(words, draws, strict=True):
        place[...] = draw.integers(0, WORDS, size=place.shape, dtype=np.uint16)
    return words


def table(name: str, parameter: Parameter) -> NDArray[np.uint8]:
    """Return a noise as a table of inverse cumulative distributions.

    Parameters
    ----------
    name : {"gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise"}
    parameter : float
        The entry of `tlbench.conditions.corruptions.tables.TABLES` for a severity.

    Returns
    -------
    uint8 array, shape (256, 65536), read-only
        The new level by the old one and the drawn word, ascending along a row. A row's distribution is the exact law
        of the noise, clipped and cut off to uint8, but for the grain of 2**-16.

    Raises
    ------
    ValueError
        If there is no such noise.
    """
    view = _table(name, parameter).numpy()
    view.setflags(write=False)
    return view


# One condition goes through its five severities for every batch; five tables are 80 MB.
@lru_cache(maxsize=5)
def _table(name: str, parameter: Parameter) -> Tensor:
    if name not in _TABLES:
        raise ValueError(f"expected a noise ({', '.join(_TABLES)}), got '{name}'")
    return torch.from_numpy(_TABLES[name](number(parameter)))


def _gaussian_table(deviation: float) -> Images:
    steps = _steps(deviation).numpy()
    return np.stack([_stepped(np.full(WORDS, level, np.uint8), steps) for level in _LEVELS])


def _shot_table(photons: float) -> Images:
    # The level of each count in the very arithmetic of an image, then the last count of each level below 255.
    level = truncated(np.arange(int(photons) + 2) / photons)
    last = np.searchsorted(level, np.arange(255), side="right") - 1
    return _by_ends(_ends(np.asarray(np.where(last >= 0, pdtr(last, SHARES[:, None] * photons), 0.0), np.float64)))


def _impulse_table(share: float) -> Images:
    reached = np.arange(255) >= np.arange(256)[:, None]
    return _by_ends(_ends(np.asarray(share / 2 + (1 - share) * reached, np.float64)))


def _speckle_table(deviation: float) -> Images:
    factors = _factors(deviation).numpy()
    return np.stack([_multiplied(np.full(WORDS, level, np.uint8), factors) for level in _LEVELS])


_TABLES: Final[dict[str, Callable[[float], Images]]] = {
    "gaussian_noise": _gaussian_table,
    "shot_noise": _shot_table,
    "impulse_noise": _impulse_table,
    "speckle_noise": _speckle_table,
}


@lru_cache(maxsize=16)
def _steps(deviation: float) -> Tensor:
    """Return the levels that normal noise adds, by the word: int16, shape (65536,), in [-255, 255]."""
    # Cutting off what is added equals cutting off the sum: the old level is a whole number. What leads out of the
    # range from every level may be cut to the largest step.
    steps = np.arange(-255, 256, dtype=np.int16)
    ends = _ends(np.asarray(ndtr(np.arange(-254, 256) / (255 * deviation)), np.float64))
    return torch.from_numpy(np.repeat(steps, np.diff(ends, prepend=0, append=WORDS)))


@lru_cache(maxsize=16)
def _factors(deviation: float) -> Tensor:
    """Return what speckle noise multiplies by, by the word: float32, shape (65536,)."""
    return torch.from_numpy((1 + deviation * ndtri((np.arange(WORDS) + 0.5) / WORDS)).astype(np.float32))


@lru_cache(maxsize=16)
def _digest(photons: float) -> tuple[Tensor, int]:
    """Return shot noise by the word's upper 10 bits, and the level that stands where its lower 6 bits decide.

    A 64th of the table, uint8 of shape (256 * 1024,). That level is one that no number of photons leads to; where there
    is none, it is 255, which is then always looked up in the table.
    """
    groups = _table("shot_noise", photons).numpy().reshape(256, -1, 64)
    unused = np.setdiff1d(_LEVELS, truncated(np.arange(int(photons) + 2) / photons))
    unsure = int(unused[0]) if len(unused) else 255
    digest = np.where(groups[..., 0] == groups[..., -1], groups[..., 0], np.uint8(unsure))
    return torch.from_numpy(digest.ravel()), unsure


def _stepped(images: Images, steps: NDArray[Any]) -> Images:
    # One pass that saturates; OpenCV wants at most two axes.
    flat = cv2.add(images.reshape(1, -1), steps.reshape(1, -1), dtype=cv2.CV_8U)
    return np.asarray(flat, np.uint8).reshape(images.shape)


def _multiplied(images: Images, factors: NDArray[Any]) -> Images:
    # In levels from 0 to 255; a factor below 0 leaves black.
    product = np.multiply(images, factors, dtype=np.float32)
    np.clip(product, 0, 255, out=product)
    return np.asarray(product, np.float32).astype(np.uint8)


def _gathered(by_word: Tensor, places: NDArray[np.int32]) -> NDArray[Any]:
    """Return ``by_word[places]``."""
    # PyTorch gathers by 32-bit places several times as fast as NumPy, which takes 64-bit ones.
    return np.asarray(torch.index_select(by_word, 0, torch.from_numpy(places).view(-1)).numpy()).reshape(places.shape)


def _ends(up_to: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many words lie below cumulative probabilities."""
    return np.asarray(np.ceil(up_to * WORDS - 0.5).clip(0, WORDS), np.int64)


def _by_ends(ends: NDArray[np.int64]) -> Images:
    """Return the table (256, 65536) whose row i changes from level k to k + 1 at word ``ends[i, k]``."""
    counts = np.diff(ends, axis=1, prepend=0, append=WORDS)
    return np.repeat(np.tile(_LEVELS, 256), counts.ravel()).reshape(256, WORDS)
