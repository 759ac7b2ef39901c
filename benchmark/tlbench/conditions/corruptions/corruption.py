"""The corruption condition: one type at several severities, on every image by its own draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

import numpy as np
import torch

from tlbench.conditions.base import Drawn, ImageCondition, image_seeds
from tlbench.conditions.corruptions import blur, digital, elastic, frost, hue, noise, snow, weather
from tlbench.conditions.corruptions.on_device import ON_DEVICE, apply_on_device, draw_on_host, finish_on_device
from tlbench.conditions.corruptions.pixels import Corrupt, by_channel, by_pixel
from tlbench.conditions.corruptions.tables import SEVERITIES, SIDES, TABLES, Parameter
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
    "frost": frost.frost,
    "frost-generated": frost.frost_generated,
    "snow": snow.snow,
    "spatter": weather.spatter,
    "contrast": digital.contrast,
    "brightness": hue.brightness,
    "saturate": hue.saturate,
    "jpeg_compression": digital.jpeg_compression,
    "pixelate": digital.pixelate,
    "elastic_transform": elastic.elastic_transform,
}
DRAWLESS: Final = frozenset(
    {
        "gaussian_blur",
        "defocus_blur",
        "zoom_blur",
        "contrast",
        "brightness",
        "saturate",
        "jpeg_compression",
        "pixelate",
    }
)
"""The types that draw nothing: their images need no generators of their own."""
CHUNK: Final = 3 * 224 * 224
"""Most pixels at a time, if one image has no more: what lies between input and output stays in the processor's cache.

Fewer cost calls, more cost fresh memory: beyond this, noise takes twice as long.
"""


@final
class Corruption(ImageCondition):
    """One type of corruption at one or several severities.

    On a GPU, what a type has to compute there is computed there (`tlbench.conditions.corruptions.on_device`), with the
    host's draws; a type without such a function is computed on the host.

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
    DataError
        If it is ``frost``, and the package with its photographs is not installed.
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
        if name == "frost":
            frost.check_photographs()
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
        self._check(batch)
        images, parameter, draws = batch.images, self._parameter(setting), self._draws(batch, setting)
        if self._at_home(images.device):
            return corrupted(self._name, images.cpu(), parameter, draws).to(images.device)
        return apply_on_device(self._name, images, parameter, draws)

    def drawn(self, batch: Batch, setting: Setting, device: torch.device) -> Drawn:
        """Return what `applied` needs of the host: nothing where the host does all of it.

        Raises
        ------
        DataError
            See `apply`.
        """
        self._check(batch)
        if self._at_home(device):
            return Drawn(batch)
        draws = self._draws(batch, setting)
        return Drawn(batch, draw_on_host(self._name, batch.images, self._parameter(setting), draws))

    def applied(self, images: Tensor, drawn: Drawn, setting: Setting) -> Tensor:
        """Return the images of ``drawn.batch``, now on their device, under the setting."""
        if self._at_home(images.device):
            return super().applied(images, drawn, setting)
        return finish_on_device(self._name, images, self._parameter(setting), drawn.tensors)

    def _at_home(self, device: torch.device) -> bool:
        return device.type == "cpu" or self._name not in ON_DEVICE

    def _parameter(self, setting: Setting) -> Parameter:
        assert setting.severity is not None
        return self._parameters[int(setting.severity) - 1]

    def _draws(self, batch: Batch, setting: Setting) -> list[np.random.Generator]:
        if self._name in DRAWLESS:
            return [_IDLE] * len(batch)
        return [np.random.default_rng(seed) for seed in image_seeds(batch, setting)]

    def _check(self, batch: Batch) -> None:
        height, width = batch.images.shape[-2:]
        if self._side is not None and (height, width) != (self._side, self._side):
            raise DataError(
                f"corruption '{self._name}' of {batch.scope}: expected images of {self._side} by {self._side} pixels, "
                f"got {height} by {width}; name the table of parameters to use: table = 32, 64 or 224"
            )


_IDLE: Final = np.random.default_rng(0)


def corrupted(name: str, images: Tensor, parameter: Parameter, draws: list[np.random.Generator]) -> Tensor:
    """Return corrupted images on the host, a bounded number at a time.

    Parameters
    ----------
    name : str
        A key of `CORRUPTIONS`.
    images : uint8 tensor, shape (n, 3, h, w)
        On the host.
    parameter : float or tuple of float
        The table's entry for the severity.
    draws : list of generators
        One an image.
    """
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    whole, out, corrupt = images.numpy(), result.numpy(), CORRUPTIONS[name]
    size = max(1, CHUNK // max(1, images.shape[-2] * images.shape[-1]))
    for start in range(0, len(images), size):
        part = slice(start, start + size)
        by_channel(corrupt(by_pixel(whole[part]), parameter, draws[part]), out[part])
    return result
