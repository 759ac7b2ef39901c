"""A trained network made ready to be measured: frozen, BatchNorm folded into convolutions, channels last.

What is left alone. The first standardisation of the pixels, for the convolution behind it pads with zeros that stand
for the mean colour: folded in, they would be black, and the borders another picture. BatchNorm before a convolution,
for the same reason. The layer norms of transformers, which depend on the image. `torch.compile`, which makes these
gradients slower on a CPU, and CUDA graphs: nobody has shown yet that either pays where it may be used.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4
"""Largest difference of outputs that folding may make, relative to the largest output."""


@dataclass(frozen=True, eq=False)
class PreparedModule:
    """A network ready to be measured.

    Attributes
    ----------
    module : nn.Module
        In eval mode, parameters frozen; shares nothing with the module it was made from.
    folded : bool
        Whether BatchNorm was folded into convolutions.
    note : str
        What was folded, or why nothing was.
    channels_last : bool
        Whether it takes images fastest with their channels last.
    largest_bytes : int
        Bytes, for one image, of the largest tensor that a layer returns.
    """

    module: nn.Module
    folded: bool
    note: str
    channels_last: bool = False
    largest_bytes: int = 0


@torch.no_grad()
def prepare(module: nn.Module, example: Tensor) -> PreparedModule:
    """Return a copy of a network that predicts the same and whose gradient by the images is cheaper.

    Not for predictors that adapt or depend on the batch: their BatchNorm is at work while they predict.

    Parameters
    ----------
    module : nn.Module
        Float images in [0, 1], NCHW, to outputs; left as it is.
    example : float tensor, shape (n, 3, h, w)
        A few real images. Folding is kept only where outputs on them agree within ``TOLERANCE``.

    Returns
    -------
    PreparedModule
    """
    plain = copy.deepcopy(module).eval().requires_grad_(False)
    channels_last = _is_convolutional(plain)
    if channels_last:
        plain = plain.to(memory_format=torch.channels_last)
    before, largest = _watched(plain, example)
    if not (isinstance(before, Tensor) and before.is_floating_point()):
        raise TypeError(f"expected outputs as a tensor of floats, got {type(before).__name__}")

    def made(module: nn.Module, folded: bool, note: str) -> PreparedModule:
        return PreparedModule(module, folded, note, channels_last, largest)

    folded = copy.deepcopy(plain)
    pairs, norms = _pairs(folded, example)
    if not pairs:
        return made(plain, False, "not folded: no BatchNorm takes the output of a convolution only")
    names: dict[int, list[str]] = {}
    for name, layer in folded.named_modules(remove_duplicate=False):
        names.setdefault(id(layer), []).append(name)
    for convolution, norm in pairs:
        _fold(folded, convolution, norm, names[id(norm)])
    try:
        after = folded(example)
    except Exception as error:  # a network may look into a layer that is no longer there: then it stays as it was
        return made(plain, False, f"not folded: the network then fails ({type(error).__name__}: {error})")
    difference = float((after - before).abs().max() / before.abs().max().clamp(min=1e-30))
    if not difference <= TOLERANCE:
        return made(plain, False, f"not folded: outputs would differ by {difference:.1e} relatively")
    return made(folded, True, f"folded {len(pairs)} of {norms} BatchNorm layers")


def _is_convolutional(module: nn.Module) -> bool:
    # A transformer or a mixer has one convolution, which cuts the image into patches: the rest is matrices.
    return sum(isinstance(layer, nn.Conv2d) for layer in module.modules()) > 1


def _watched(module: nn.Module, example: Tensor) -> tuple[Any, int]:
    """Return the outputs and the bytes an image of the largest tensor on the way."""
    largest = 0

    def watch(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.nbytes)

    handles = [layer.register_forward_hook(watch) for layer in module.modules()]
    try:
        outputs = module(example)
    finally:
        for handle in handles:
            handle.remove()
    return outputs, -(-largest // len(example))


def _pairs(module: nn.Module, example: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], int]:
    """Return the convolutions whose output goes into a BatchNorm and into no other layer, and the number of these."""
    made_by: dict[int, nn.Conv2d] = {}
    readers: dict[int, list[nn.Module]] = {}
    alive: list[Tensor] = []  # keeps tensors, whose identities would otherwise be given out again
    calls: Counter[int] = Counter()

    def watch(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        calls[id(layer)] += 1
        for tensor in inputs:
            if isinstance(tensor, Tensor):
                alive.append(tensor)
                readers.setdefault(id(tensor), []).append(layer)
        if isinstance(layer, nn.Conv2d) and _has_plain_weight(layer) and isinstance(output, Tensor):
            alive.append(output)
            made_by[id(output)] = layer

    layers = [layer for layer in module.modules() if _is_norm(layer) or not any(layer.children())]
    handles = [layer.register_forward_hook(watch) for layer in layers]
    try:
        module(example[:2])
    finally:
        for handle in handles:
            handle.remove()
    pairs = []
    for identity, convolution in made_by.items():
        match readers.get(identity, []):
            case [nn.BatchNorm2d() as norm] if _is_norm(norm) and calls[id(norm)] == calls[id(convolution)] == 1:
                pairs.append((convolution, norm))
    return pairs, sum(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())


def _has_plain_weight(layer: nn.Conv2d) -> bool:
    # Other subclasses, parametrised ones among them, may standardise or mask their weight when they are called.
    return type(layer).__name__ in {"Conv2d", "Conv2dSame"} and "weight" in layer._parameters


def _is_norm(layer: nn.Module) -> bool:
    """Whether a layer is BatchNorm with fixed statistics, alone or with timm's activation behind it."""
    known = type(layer) is nn.BatchNorm2d or _has_activation(layer)
    return known and layer.running_mean is not None


def _has_activation(layer: nn.Module) -> bool:
    return isinstance(layer, nn.BatchNorm2d) and type(layer).__name__ == "BatchNormAct2d"


def _fold(module: nn.Module, convolution: nn.Conv2d, norm: nn.BatchNorm2d, names: Iterable[str]) -> None:
    """Multiply the scale of a BatchNorm into the convolution before it, and take the BatchNorm out of its places."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = convolution.weight
    weight.copy_(weight.double() * scale.view(-1, 1, 1, 1))
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
    act: Any = norm  # timm's fields, unknown to the type of a BatchNorm
    rest = nn.Sequential(act.drop, act.act) if _has_activation(norm) else nn.Identity()
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, rest.eval())
