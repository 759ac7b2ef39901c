"""The corruption condition: one type at several severities, on every image by its own draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import numpy as np
import torch

from tlbench.conditions.base import ImageCondition, image_seeds
from tlbench.conditions.corruptions import blur, digital, noise, weather
from tlbench.conditions.corruptions.pixels import Corrupt
from tlbench.conditions.corruptions.tables import SEVERITIES, SIDES, TABLES
from tlbench.errors import DataError, SuiteError, UnknownNameError, nearest
from tlbench.setting import Setting

if TYPE_CHECKING:
    from torch import Tensor

    from tlbench.data.domain import Batch

CORRUPTIONS: Final[dict[str, Corrupt]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "glass_blur": blur.glass_blur,
    "defocus_blur": blur.defocus_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "fog": weather.fog,
    "snow": weather.snow,
    "spatter": weather.spatter,
    "contrast": digital.contrast,
    "brightness": digital.brightness,
    "saturate": digital.saturate,
    "jpeg_compression": digital.jpeg_compression,
    "pixelate": digital.pixelate,
    "elastic_transform": digital.elastic_transform,
}
CHUNK = 8
"""Images at a time: temporaries in floating point stay in the processor's cache."""


@final
class Corruption(ImageCondition):
    """One type of corruption at one or several severities.

    Parameters
    ----------
    name : str
        A key of `CORRUPTIONS`.
    severities : tuple of int
        Of 1 to 5.
    table : {32, 64, 224} or None
        The side whose published parameters are used, on images of any side. None takes the table of the images' own
        side, ``image_size``, and holds the images to it.
    image_size : int
        Side of the images in pixels, read where ``table`` is None.

    Raises
    ------
    UnknownNameError
        If there is no such corruption.
    SuiteError
        If there is no such table, or no such severity.
    """

    def __init__(
        self,
        name: str,
        severities: tuple[int, ...] = SEVERITIES,
        *,
        table: int | None = None,
        image_size: int = 64,
    ) -> None:
        if name not in CORRUPTIONS:
            raise UnknownNameError(f"expected a corruption, got '{name}'{nearest(name, CORRUPTIONS)}")
        side = image_size if table is None else table
        if side not in SIDES:
            raise SuiteError(
                f"corruption '{name}': parameters are published for images of {SIDES} pixels a side, not {side}; "
                "name the table to use: table = 32, 64 or 224"
            )
        if not severities or not set(severities) <= set(SEVERITIES):
            raise SuiteError(f"corruption '{name}': expected severities of {SEVERITIES}, got {severities}")
        self._name = name
        self._parameters = TABLES[side][name]
        self._side = side if table is None else None
        self._settings = tuple(Setting(name, severity=float(severity)) for severity in severities)

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> tuple[Setting, ...]:
        return self._settings

    def apply(self, batch: Batch, setting: Setting) -> Tensor:
        """Return the corrupted images, uint8 (n, 3, h, w), on the device of the batch.

        Raises
        ------
        DataError
            If the images are not of the table's side, and the suite names no table.
        """
        height, width = batch.images.shape[-2:]
        if self._side is not None and (height, width) != (self._side, self._side):
            raise DataError(
                f"corruption '{self._name}' of {batch.scope}: expected images of {self._side} by {self._side} pixels, "
                f"got {height} by {width}; name the table of parameters to use: table = 32, 64 or 224"
            )
        assert setting.severity is not None
        parameter = self._parameters[int(setting.severity) - 1]
        corrupt = CORRUPTIONS[self._name]
        draws = [np.random.default_rng(seed) for seed in image_seeds(batch, setting)]
        images = batch.images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
        pieces = [
            corrupt(images[start : start + CHUNK], parameter, draws[start : start + CHUNK])
            for start in range(0, len(images), CHUNK)
        ]
        corrupted = torch.from_numpy(np.concatenate(pieces) if pieces else images.copy())
        return corrupted.permute(0, 3, 1, 2).contiguous().to(batch.images.device)
