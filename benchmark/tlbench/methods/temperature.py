"""Temperature scaling."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from tlbench.methods.base import Context, Method
from tlbench.methods.linear_probe import LinearProbe
from tlbench.methods.posthoc import PostHoc
from tlbench.models.temperature import fit_temperature


@final
class Temperature(PostHoc):
    """Logits divided by one number, chosen for the least NLL on ID-val (Guo et al., ICML 2017).

    Predicted classes stay as they are. The temperature is fitted on the source alone, so that calibration on the target
    is the method's own. ``base`` is any other method: ``temperature(lp-ft)`` on the command line.
    """

    base: Method = LinearProbe()

    def calibrate(self, outputs: Tensor, labels: Tensor, context: Context) -> nn.Module:
        return Divided(fit_temperature(outputs, labels))

    def blank(self, classes: int) -> nn.Module:
        return Divided(1.0)


class Divided(nn.Module):
    """Logits divided by a temperature."""

    temperature: Tensor

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.tensor(temperature, dtype=torch.float32))

    def forward(self, outputs: Tensor) -> Tensor:
        return outputs / self.temperature
