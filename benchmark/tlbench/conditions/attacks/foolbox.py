"""Attacks of the foolbox package by name: projected gradient descent (PGD) in two norms.

The geometry is foolbox's own: how it normalises a gradient, projects a point, and how long its steps are. The loop
about it is ours, for foolbox's runs all images of one epsilon to the end together: here an image leaves at the first
point where it is broken, and the next one takes its place. The predictor is asked through the engine, and random starts
are drawn for each image from its identity, where foolbox would draw them from PyTorch's global generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, final

import torch
from eagerpy.astensor import astensor
from foolbox.attacks.projected_gradient_descent import (
    L2ProjectedGradientDescentAttack,
    LinfProjectedGradientDescentAttack,
)
from foolbox.types import Bounds
from torch import Tensor

from tlbench.conditions.attacks.attack import Attack, Identity, Norm, Runner, right
from tlbench.conditions.attacks.ladder import Mode
from tlbench.conditions.attacks.losses import cross_entropy

if TYPE_CHECKING:
    from tlbench.conditions.base import Measured

TRAVEL: Final = 0.01 / 0.3 * 40
"""Length of all steps together, in epsilons: foolbox's default for the norm ``linf``, here for any number of steps."""
BOUNDS: Final = Bounds(0, 1)


@final
class FoolboxPGD(Attack):
    """Foolbox's PGD on the cross entropy from a random start.

    Foolbox judges an image by its last step alone; here it is broken if the predictor was wrong about any point of its
    way, so that no image counts as robust that would not in foolbox, and some that would do not.

    Parameters
    ----------
    name : {"foolbox-linf-pgd", "foolbox-l2-pgd"}
        The norm goes with the name.
    epsilons, iterations, mode, audit
        See `Attack`. A step is ``TRAVEL / iterations`` of epsilon in either norm: 1/75 of it for 100 iterations.
    """

    def __init__(
        self,
        name: str,
        epsilons: Sequence[float],
        *,
        iterations: int = 100,
        mode: Mode = "fast",
        audit: float = 0.0,
    ) -> None:
        norm: Norm = "linf" if "linf" in name else "l2"
        super().__init__(name, norm, epsilons, iterations=iterations, mode=mode, audit=audit)

    def runner(self, predictor: Measured, width: int) -> Runner:
        return Descent(self, predictor, width)


@dataclass
class _Rows:
    """The images under way, one a row."""

    key: Tensor
    image: Tensor
    label: Tensor
    epsilon: Tensor  # (n,)
    step: Tensor  # (n, 1, 1, 1)
    x: Tensor  # where the predictor is asked next
    iteration: Tensor  # steps taken

    def kept(self, mask: Tensor) -> _Rows:
        return _Rows(*(getattr(self, field.name)[mask] for field in fields(self)))

    def joined(self, other: _Rows) -> _Rows:
        return _Rows(*(torch.cat([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self)))


class Descent:
    """Foolbox's descent on images that enter and leave at any time; see `FoolboxPGD`."""

    def __init__(self, attack: FoolboxPGD, predictor: Measured, width: int) -> None:
        self.attack, self.predictor, self.width = attack, predictor, width
        linf = attack.norm == "linf"
        made: Any = LinfProjectedGradientDescentAttack if linf else L2ProjectedGradientDescentAttack
        self.foolbox = made(rel_stepsize=TRAVEL / attack.iterations, steps=attack.iterations, random_start=True)
        # Foolbox takes one epsilon or, broadcast, one an image: against images in one norm, their lengths in the other.
        self.shape = (-1, 1, 1, 1) if linf else (-1,)
        self.rows: _Rows | None = None

    def __len__(self) -> int:
        return 0 if self.rows is None else len(self.rows.key)

    @property
    def room(self) -> int:
        return self.width - len(self)

    def add(
        self, keys: Sequence[int], images: Tensor, labels: Tensor, epsilons: Sequence[float], who: Sequence[Identity]
    ) -> None:
        device = images.device
        epsilon = torch.tensor(epsilons, device=device)
        toward = starts([one.seed() for one in who], images.shape[1:], self.attack.norm).to(device)
        # Multiplied before they are rounded to float32, as foolbox's own number is.
        steps = torch.tensor([self.foolbox.rel_stepsize * one for one in epsilons], device=device)
        rows = _Rows(
            key=torch.tensor(keys, device=device),
            image=images,
            label=labels,
            epsilon=epsilon,
            step=steps.view(-1, 1, 1, 1),
            x=(images + epsilon.view(-1, 1, 1, 1) * toward).clamp(*BOUNDS),
            iteration=torch.zeros(len(keys), dtype=torch.int64, device=device),
        )
        self.rows = rows if self.rows is None else self.rows.joined(rows)

    def advance(self) -> list[tuple[int, bool]]:
        """Ask the predictor once about every image, let the finished ones go, and move the others by a step."""
        rows = self.rows
        if rows is None:
            raise ValueError("expected images on their way; call add first")
        outputs, gradient = self.predictor.gradient(rows.x, rows.label, cross_entropy)
        broken = ~right(outputs, rows.label, self.attack.name)
        over = broken | (rows.iteration >= self.attack.iterations)
        finished = list(zip(rows.key[over].tolist(), broken[over].tolist(), strict=True))
        if finished:
            rows, gradient = rows.kept(~over), gradient[~over]
        self.rows = rows
        if len(rows.key):
            up = self.foolbox.normalize(astensor(gradient), x=astensor(rows.x), bounds=BOUNDS).raw
            moved, centre = astensor(rows.x + rows.step * up), astensor(rows.image)
            rows.x = self.foolbox.project(moved, centre, rows.epsilon.view(self.shape)).raw.clamp_(*BOUNDS)
            rows.iteration += 1
        return finished


def starts(seeds: Sequence[int], shape: torch.Size, norm: Norm) -> Tensor:
    """Draw a start a seed in the unit ball, uniformly, as foolbox does; float32 (len(seeds), 3, h, w)."""
    draws = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        if norm == "linf":
            draws.append(2 * torch.rand(shape, generator=generator) - 1)
        else:
            # The first n of n + 2 coordinates of a point on the sphere are uniform in the ball (Voelker, 2017).
            sphere = torch.randn(shape.numel() + 2, generator=generator)
            draws.append((sphere / sphere.norm())[:-2].view(shape))
    return torch.stack(draws)
