"""Fast adaptive boundary attack, targeted (FAB-T): step by step onto the linearised boundary, and back to the image.

The algorithm is that of Croce and Hein (2020), "Minimally distorted adversarial examples with a fast adaptive boundary
attack", as the standard set of AutoAttack runs it: one run towards each of the likeliest wrong classes, from the image
itself, without the final search along the line to the image that the paper adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, final

import torch
from torch import Tensor

from tlbench.conditions.attacks.attack import Norm, answered, right
from tlbench.conditions.attacks.balls import length
from tlbench.conditions.attacks.minimum_norm import MinimumNormAttack

if TYPE_CHECKING:
    from tlbench.conditions.base import Measured

MOST_PULL: Final = 0.1
"""Largest weight of the clean image's own projection in a step (alpha_max)."""
OVERSHOOT: Final = 1.05
"""Length of a move onto the hyperplane, in such moves (eta): a little beyond it."""
BACKWARD: Final = 0.9
"""What remains of a perturbation once it has broken the image (beta)."""
LEAST_MOVE: Final = 1e-8
"""Below this a move counts as this long."""


def onto_hyperplane(x: Tensor, normal: Tensor, offset: Tensor, norm: Norm) -> Tensor:
    """Return the shortest moves that bring points of the unit box onto hyperplanes without leaving the box.

    Parameters
    ----------
    x : float tensor, shape (n, d)
        Points in [0, 1].
    normal, offset : float tensors, shape (n, d) and (n,)
        The points z with ``normal . z = offset``.
    norm : {"linf", "l2"}
        In which a move is short.

    Returns
    -------
    float tensor, shape (n, d)
        Where a hyperplane misses the box: the move to the corner nearest to it.

    Notes
    -----
    Every value moves in the direction that its own part of the normal gives. With a multiplier m the shortest move is
    ``min(m, room)`` in ``linf`` and ``min(m |normal|, room)`` in ``l2``, where room is what the box leaves. How much of
    the excess this takes away is ``sum(weight * min(m, knot))``: rising, concave, and linear between sorted knots.
    """
    # Scaled to a largest value of one, so that no square underflows where gradients are small.
    scale = normal.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    excess = ((normal * x).sum(dim=1) - offset) / scale[:, 0]
    down = torch.where(excess >= 0, -1.0, 1.0).to(x.dtype)[:, None] * normal
    slope = down.abs() / scale
    slope = slope.where(slope > 1e-12, 0.0)
    room = torch.where(down > 0, 1 - x, x).where(slope > 0, 0.0)
    if norm == "linf":
        weight, knot = slope, room
    else:
        weight, knot = slope.square(), (room / slope).where(slope > 0, 0.0)

    knot, order = knot.sort(dim=1)
    rest = weight.gather(1, order).flip(1).cumsum(dim=1).flip(1)  # weight of the values not yet at their edge
    taken = (knot.diff(dim=1, prepend=torch.zeros_like(knot[:, :1])) * rest).cumsum(dim=1)
    need = excess.abs()[:, None]
    place = torch.searchsorted(taken, need)  # the first knot by which all is taken; d where the plane misses the box
    here, before = place.clamp_max(x.shape[1] - 1), (place - 1).clamp_min(0)
    at_knot = knot.gather(1, before).where(place > 0, 0.0)
    still = need - taken.gather(1, before).where(place > 0, 0.0)
    multiplier = at_knot + still / rest.gather(1, here).clamp_min(torch.finfo(x.dtype).tiny)
    multiplier = multiplier.minimum(knot[:, -1:])
    return down.sign() * (multiplier * (1 if norm == "linf" else slope)).minimum(room)


def towards(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the aim's output exceeds the true class's, shape (n,).

    Parameters
    ----------
    outputs : float tensor, shape (n, classes)
    labels : int64 tensor, shape (n, 2)
        The true class and the one aimed at.
    """
    true, aim = outputs.gather(1, labels).unbind(dim=1)
    return aim - true


def wrong_classes(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return all classes but the label, the largest output first, int64 (n, classes - 1)."""
    order = outputs.argsort(dim=1, descending=True, stable=True)
    return order[order != labels[:, None]].view(len(outputs), -1)


@final
class FAB(MinimumNormAttack):
    """FAB towards the likeliest wrong classes (``fab-t``): the distance of the nearest image that was found.

    The run starts at the image itself, so nothing is random and one run answers every epsilon.

    Parameters
    ----------
    name : {"fab-t"}
    norm, epsilons, iterations
        See `Attack`; iterations are steps towards each target, each one gradient and one prediction.
    targets : int
        Most classes that are aimed at; all wrong classes where there are no more.
    """

    def __init__(
        self, name: str, norm: Norm, epsilons: Sequence[float], *, iterations: int = 100, targets: int = 9
    ) -> None:
        super().__init__(name, norm, epsilons, iterations=iterations, mode="exact")
        if targets < 1:
            raise ValueError(f"expected at least one target for '{name}', got {targets}")
        self.targets = targets

    def distance(
        self,
        predictor: Measured,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int] = (),
        enough: Tensor | None = None,
    ) -> Tensor:
        """Return the distance of the nearest image that breaks each prediction; see `MinimumNormAttack.distance`."""
        outputs = answered(predictor.outputs(images), self.name)
        found = torch.full((len(images),), torch.inf, dtype=images.dtype, device=images.device)
        enough = torch.zeros_like(found) if enough is None else enough
        for targets in wrong_classes(outputs, labels)[:, : self.targets].T:
            left = (found > enough).nonzero()[:, 0]
            clean, label = images[left], labels[left]
            pairs, x = torch.stack([label, targets[left]], dim=1), clean
            for _ in range(self.iterations):
                if not len(left):
                    break
                x = self._step(predictor, clean, x, pairs)
                broken = ~right(predictor.outputs(x), label, self.name)
                here = length(x - clean, self.norm)[:, 0, 0, 0].where(broken, torch.inf)
                found[left] = found[left].minimum(here)
                x = torch.where(broken.view(-1, 1, 1, 1), clean + (x - clean) * BACKWARD, x)
                on = found[left] > enough[left]
                if not bool(on.all()):
                    left, clean, label, pairs, x = left[on], clean[on], label[on], pairs[on], x[on]
        return found

    def _step(self, predictor: Measured, clean: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
        """Move onto the hyperplane where target and label would tie, were the predictor linear, drawn to the image."""
        outputs, gradient = predictor.gradient(x, pairs, towards)
        gap, normal = towards(outputs, pairs), gradient.flatten(1)
        # Without a finite slope there is no hyperplane: such an image stays where it is.
        flat = ~(gap.isfinite() & normal.isfinite().all(dim=1))
        gap, normal = gap.masked_fill(flat, 0), normal.masked_fill(flat[:, None], 0)
        offset = (normal * x.flatten(1)).sum(dim=1) - gap
        move, clean_move = (
            onto_hyperplane(points.flatten(1), normal, offset, self.norm).view_as(x) for points in (x, clean)
        )
        far, clean_far = (length(moves, self.norm).clamp_min(LEAST_MOVE) for moves in (move, clean_move))
        pull = (far / (far + clean_far)).clamp_max(MOST_PULL)
        return ((x + OVERSHOOT * move) * (1 - pull) + (clean + OVERSHOOT * clean_move) * pull).clamp(0, 1)
