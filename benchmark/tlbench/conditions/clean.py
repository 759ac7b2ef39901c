"""Target images as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from tlbench.conditions.base import ImageCondition
from tlbench.setting import CLEAN

if TYPE_CHECKING:
    from torch import Tensor

    from tlbench.data.domain import Batch
    from tlbench.setting import Setting


@final
class Clean(ImageCondition):
    """Nothing is done to the images."""

    @property
    def name(self) -> str:
        return CLEAN.condition

    @property
    def settings(self) -> tuple[Setting, ...]:
        return (CLEAN,)

    def apply(self, batch: Batch, setting: Setting) -> Tensor:
        return batch.images
