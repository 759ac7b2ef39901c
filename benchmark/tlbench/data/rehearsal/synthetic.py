"""Made-up images: a coarse pattern for the class, a change of colours for the domain, noise for the image."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlbench.seeds import derive

CELLS = 16
"""Images are drawn on this many cells a side, and every cell becomes a square of pixels."""

_COARSE = 4
_NOISE = 24.0
_CONTRAST = 48.0

Format = Literal["JPEG", "PNG"]


@dataclass(frozen=True)
class Motif:
    """What an image shows.

    Attributes
    ----------
    label : int
        Position of the class, which fixes the pattern.
    style : str
        What shares its colours and contrast: a domain, a hospital, an experiment.
    name : str
        Fixes the noise.
    """

    label: int
    style: str
    name: str


@dataclass(frozen=True)
class Painter:
    """Draws the images of one task; equal motifs give equal pixels, whatever was drawn before.

    Parameters
    ----------
    task : str
        Images of two tasks share nothing.
    """

    task: str
    _patterns: dict[int, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    _styles: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict, repr=False)

    def pixels(self, motif: Motif, side: int) -> NDArray[np.uint8]:
        """Return an image, uint8 (side, side, 3); the side is a multiple of ``CELLS``."""
        if side % CELLS:
            raise ValueError(f"expected a side that is a multiple of {CELLS}, got {side}")
        mixing, ground = self._style(motif.style)
        rng = _random("image", self.task, motif.style, motif.name)
        # A pattern at a fixed place would be found by single pixels; it moves by a cell or two.
        pattern = np.roll(self._pattern(motif.label), rng.integers(-1, 2, 2), axis=(0, 1))
        cells = ground + pattern @ mixing + _NOISE * rng.standard_normal((CELLS, CELLS, 3), dtype=np.float32)
        drawn: NDArray[np.uint8] = np.clip(cells, 0, 255).astype(np.uint8)
        return drawn.repeat(side // CELLS, axis=0).repeat(side // CELLS, axis=1)

    def _pattern(self, label: int) -> NDArray[np.float32]:
        if label not in self._patterns:
            coarse = _random("pattern", self.task, label).standard_normal((_COARSE, _COARSE, 3), dtype=np.float32)
            self._patterns[label] = coarse.repeat(CELLS // _COARSE, axis=0).repeat(CELLS // _COARSE, axis=1)
        return self._patterns[label]

    def _style(self, style: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return how a style mixes the pattern's channels, (3, 3), and the colour that it puts them on, (3,)."""
        if style not in self._styles:
            rng = _random("style", self.task, style)
            turned = np.eye(3) + 0.3 * rng.standard_normal((3, 3))
            contrast = _CONTRAST * rng.uniform(0.5, 1.2)
            ground = rng.uniform(85, 170, 3)
            self._styles[style] = (np.float32(contrast) * turned.astype(np.float32), ground.astype(np.float32))
        return self._styles[style]


def stored(pixels: NDArray[np.uint8], form: Format, *, grey: bool = False) -> bytes:
    """Return an image as the bytes of a file."""
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    # Level 1: large squares of one colour shrink at any level, and most of the time would go into the others.
    options = {"compress_level": 1} if form == "PNG" else {"quality": 85}
    (image.convert("L") if grey else image).save(stream, form, **options)
    return stream.getvalue()


def _random(*identity: str | int) -> np.random.Generator:
    return np.random.default_rng(derive("rehearsal", *identity))
