"""One network: a forward pass and an input gradient, prepared by the engine and as it is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from speed.lite0 import images_of, measured, plain_network
from speed.measure import Effort, alternate
from speed.rows import Outcome
from tlbench.conditions.attacks.losses import cross_entropy

_BATCH = 32


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the rows of one network."""
    if "gradient" in wanted:
        yield _gradient(effort)
    for side in (64, 128, 224):
        if f"forward-{side}" in wanted:
            yield _forward(side, effort)


def _gradient(effort: Effort) -> Outcome:
    images = images_of(_BATCH, 64)
    network, pixels = plain_network(), images.float() / 255
    predictor = measured(network, images)
    labels = predictor.outputs(pixels).argmax(1)

    def theirs() -> Tensor:
        leaf = pixels.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(network(leaf), labels).sum(), leaf)
        return gradient

    timed = alternate(
        {"theirs": theirs, "ours": lambda: predictor.gradient(pixels, labels, cross_entropy)[1]},
        repetitions=effort.repeated(9),
    )
    expected, found = timed["theirs"].result, timed["ours"].result
    difference = float((found - expected).norm() / expected.norm())
    return Outcome("gradient", timed["theirs"].median, timed["ours"].median, difference)


def _forward(side: int, effort: Effort) -> Outcome:
    images = images_of(_BATCH, side)
    network, pixels = plain_network(), images.float() / 255
    predictor = measured(network, images)

    def theirs() -> Tensor:
        with torch.inference_mode():
            return network(pixels)  # type: ignore[no-any-return]

    timed = alternate({"theirs": theirs, "ours": lambda: predictor.outputs(pixels)}, repetitions=effort.repeated(7))
    expected, found = timed["theirs"].result, timed["ours"].result
    difference = float((found - expected).abs().max() / expected.abs().max())
    return Outcome(f"forward-{side}", timed["theirs"].median, timed["ours"].median, difference)
