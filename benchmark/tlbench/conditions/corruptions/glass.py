"""Pixels moved about as behind frosted glass."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions.compiled import compiled


def glass_moves(draw: np.random.Generator, side: tuple[int, ...], reach: int) -> NDArray[np.int32]:
    """Draw where the pixels of one pass come from: the numbers of ``draw.integers(-reach, reach, ...)``.

    Returns
    -------
    int32 array, shape (h - 2 reach, w - 2 reach, 2)
        Rows down and columns right, each in [-reach, reach), for the pixels from (reach + 1, reach + 1) to
        (h - reach, w - reach), in this order.
    """
    shape = (side[0] - 2 * reach, side[1] - 2 * reach, 2)
    bits = (2 * reach).bit_length() - 1
    if 2 * reach != 1 << bits:
        return draw.integers(-reach, reach, shape, np.int32)
    # In half the time: for a power of two, NumPy takes the upper bits of one half of a word after the other.
    words = draw.integers(0, 1 << 64, shape[0] * shape[1], np.uint64)
    moves = (words.astype("<u8", copy=False).view("<u4") >> np.uint32(32 - bits)).view(np.int32)
    moves -= np.int32(reach)
    return moves.reshape(shape)


def shaken(image: NDArray[np.uint8], passes: list[NDArray[np.int32]], reach: int) -> NDArray[np.uint8]:
    """Return an image (h, w, 3) after passes of copies, each from the last pixel to the first.

    Pixels are written one after the other, and a pixel read after it was written hands on what it got.
    """
    # A pixel as one number of four bytes is copied at once.
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA).view(np.uint32)[..., 0]
    fast = compiled()
    if fast is not None:
        for moves in passes:
            fast.shake(pixels, moves, reach)
    else:
        for moves in passes:
            pixels = pixels.ravel()[origins(pixels.shape, moves, reach)].reshape(pixels.shape)
    return np.asarray(cv2.cvtColor(pixels[..., None].view(np.uint8), cv2.COLOR_RGBA2RGB))


def origins(side: tuple[int, ...], moves: NDArray[np.int32], reach: int) -> NDArray[np.int32]:
    """Return which pixel of the flattened image each pixel shows after one pass: int32 (h * w,).

    Each is the end of a chain of copies, and all chains are followed at once by doubling: a few rounds over fewer and
    fewer pixels in place of a loop over all.
    """
    width, first = side[1], reach + 1
    region = np.s_[first : first + moves.shape[0], first : first + moves.shape[1]]
    inside = np.zeros(side, bool)
    inside[region] = True
    ahead = np.zeros(side, np.int32)
    ahead[region] = moves[..., 0] * width + moves[..., 1]
    ahead = ahead.ravel()
    source = np.arange(ahead.size, dtype=np.int32) + ahead
    # Written before it is read: after this pixel in reading order, and inside the region.
    places = np.flatnonzero(ahead > 0)
    places = places[inside.ravel()[source[places]]]
    follow = np.zeros(ahead.size, bool)
    follow[places] = True
    while len(places):
        through = source[places]
        end, further = source[through], follow[through]
        source[places] = end
        follow[places] = further
        places = places[further]
    return source
