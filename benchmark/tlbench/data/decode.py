"""Stored bytes to RGB pixels: one decoder for every reader, so that equal files give equal images."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from tlbench.errors import DataError

# What Pillow's format plug-ins raise on bytes that are cut off or garbled.
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    struct.error,
    Image.DecompressionBombError,
)


def decode(stored: bytes | Path, where: str) -> NDArray[np.uint8]:
    """Return an image as uint8 RGB, shape (h, w, 3), in its original size.

    Pixels stand as stored: an EXIF orientation is not applied, as torchvision's folder loader does not apply it.
    What the image covers with transparency shows white; 16-bit grey keeps its upper byte.

    Parameters
    ----------
    stored : bytes or Path
    where : str
        How to name the image in an error.

    Raises
    ------
    DataError
        If the image is missing, cut off, of no format that Pillow knows, or of floating-point pixels.
    """
    try:
        with Image.open(io.BytesIO(stored) if isinstance(stored, bytes) else stored) as image:
            image.load()
            return to_rgb(image, where)
    except _UNREADABLE as error:
        raise DataError(f"{where}: cannot be decoded as an image ({_reason(error)}); get this file again") from error


def to_rgb(image: Image.Image, where: str) -> NDArray[np.uint8]:
    """Return a decoded Pillow image of any mode as uint8 RGB, shape (h, w, 3).

    Raises
    ------
    DataError
        If its pixels are floating-point, or integers beyond 16 bits.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255, which turns almost every 16-bit image white.
        grey = np.asarray(image).astype(np.int64)
        if grey.size and (grey.min() < 0 or grey.max() > 0xFFFF):
            raise DataError(f"{where}: expected pixels of at most 16 bits, got {grey.min()} to {grey.max()}")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, np.newaxis], 3, axis=2)
    if image.mode == "F":
        raise DataError(f"{where}: has floating-point pixels, whose range nobody states; convert it to 8 bits")
    if image.has_transparency_data:
        covered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", covered.size, "white"), covered)
    return np.array(image.convert("RGB"), dtype=np.uint8)


def _reason(error: BaseException) -> str:
    """Return what Pillow or the system say, without the file that they would name once more."""
    if isinstance(error, UnidentifiedImageError):
        return "no image format that is known"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
