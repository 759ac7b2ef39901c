"""What imagecorruptions-imaug does otherwise than ImageNet-C: elastic_transform, by the definition of the latter.

The package bends an image by its own, weaker parameters and leaves out the affine part. It is the peer in time all the
same; numbers are held against the published transform, written out here step by step.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

# Of a side of 244, as published (not 224): amplitude and width of the field, and how far the corners move.
_PARAMETERS = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
_UNIT = 244

Images = NDArray[np.uint8]


def elastic_transform(images: Images, severity: int, seeds: Sequence[int]) -> Images:
    """Return the images under ImageNet-C's elastic_transform, each drawn from the generator of its seed."""
    return np.stack([_elastic(image, severity, seed) for image, seed in zip(images, seeds, strict=True)])


def _elastic(image: Images, severity: int, seed: int) -> Images:
    amplitude, width, corner = (_UNIT * share for share in _PARAMETERS[severity - 1])
    draw = np.random.default_rng(seed)
    side = image.shape[0]
    middle, arm = side // 2, side // 3
    triangle = np.array([[middle + arm, middle + arm], [middle + arm, middle - arm], [middle - arm, middle - arm]])
    triangle = triangle.astype(np.float32)
    moved = triangle + draw.uniform(-corner, corner, triangle.shape).astype(np.float32)
    tilted = cv2.warpAffine(
        image.astype(np.float32) / 255, cv2.getAffineTransform(triangle, moved), (side, side),
        borderMode=cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    field = [draw.uniform(-1, 1, (side, side)) for _ in range(2)]
    right, down = (gaussian_filter(noise, width, mode="reflect", truncate=3) * amplitude for noise in field)
    rows, columns = np.mgrid[:side, :side]
    bent = [
        map_coordinates(tilted[..., channel], [rows + down, columns + right], order=1, mode="reflect")
        for channel in range(3)
    ]
    return np.asarray(np.clip(np.stack(bent, axis=-1), 0, 1) * 255).astype(np.uint8)
