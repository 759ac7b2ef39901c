"""Attacks of the foolbox package by name: projected gradient descent (PGD) in two norms.

Foolbox keeps its algorithm; the predictor is asked through the engine, and random starts are drawn for each image from
its identity, where foolbox would draw them from PyTorch's global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, final

import torch
from eagerpy.astensor import astensor, astensor_
from foolbox.attacks.projected_gradient_descent import (
    L2ProjectedGradientDescentAttack,
    LinfProjectedGradientDescentAttack,
)
from foolbox.models.base import Model
from foolbox.types import Bounds
from torch import Tensor

from tlbench.conditions.attacks.attack import Attack, Mode, Norm, answered, right, unit_range
from tlbench.conditions.attacks.losses import cross_entropy
from tlbench.conditions.base import Measured, Observed, image_seed

if TYPE_CHECKING:
    from tlbench.data.domain import Batch
    from tlbench.setting import Setting

TRAVEL: Final = 0.01 / 0.3 * 40
"""Length of all steps together, in epsilons: foolbox's default for the norm ``linf``, here for any number of steps."""


class _Asked(Model):
    """A measured predictor as a foolbox model."""

    def __init__(self, predictor: Measured, name: str) -> None:
        self.predictor, self.name = predictor, name

    @property
    def bounds(self) -> Bounds:
        return Bounds(0, 1)

    def __call__(self, inputs: Any) -> Any:
        images, restore = astensor_(inputs)
        return restore(astensor(answered(self.predictor.outputs(images.raw), self.name)))


class _Measured:
    """The three hooks of foolbox's gradient descent that reach outside the algorithm."""

    predictor: Measured
    starts: Tensor
    labels: Tensor

    def get_loss_fn(self, model: Any, labels: Any) -> Any:
        # The measured predictor makes its own graph: nothing is left for foolbox to differentiate.
        self.labels = labels.raw
        return None

    def value_and_grad(self, loss_fn: Any, x: Any) -> tuple[Any, Any]:
        outputs, gradient = self.predictor.gradient(x.raw, self.labels, cross_entropy)
        return astensor(cross_entropy(outputs, self.labels).sum()), astensor(gradient)

    def get_random_start(self, x0: Any, epsilon: float) -> Any:
        return x0 + epsilon * astensor(self.starts)


class _LinfPGD(_Measured, LinfProjectedGradientDescentAttack):
    pass


class _L2PGD(_Measured, L2ProjectedGradientDescentAttack):
    pass


@final
class FoolboxPGD(Attack):
    """Foolbox's PGD on the cross entropy from a random start, judged by its last step.

    Parameters
    ----------
    name : {"foolbox-linf-pgd", "foolbox-l2-pgd"}
        The norm goes with the name.
    epsilons, iterations, mode
        See `Attack`. A step is ``TRAVEL / iterations`` of epsilon in either norm: 1/75 of it for 100 iterations.
    """

    def __init__(self, name: str, epsilons: Sequence[float], *, iterations: int = 100, mode: Mode = "fast") -> None:
        norm: Norm = "linf" if "linf" in name else "l2"
        super().__init__(name, norm, epsilons, iterations=iterations, mode=mode)

    def observe(self, predictor: Measured, batches: Callable[[], Iterator[Batch]]) -> Iterator[Observed]:
        """Yield, for every image and epsilon, whether it was right when clean and whether it survived."""
        predictor.start(self.settings[0])
        for batch in batches():
            correct = right(predictor.outputs(batch.images), batch.labels, self.name)
            verdicts = torch.zeros_like(batch.labels)
            active, rung = correct.nonzero()[:, 0], self.ladder.first
            while len(active):
                broken = self._broken(predictor, batch, active, rung)
                staying, onward = active[:0], rung
                # All images of a batch stand on one rung; those with one verdict take the same way from it.
                for verdict in (False, True):
                    following, lowest = self.ladder.after(rung, verdict)
                    if following is not None:
                        staying, onward = active[broken == verdict], following
                    elif lowest is not None:
                        verdicts[active[broken == verdict]] = lowest
                active, rung = staying, onward
            yield from self.rows(batch, correct, verdicts)

    def _broken(self, predictor: Measured, batch: Batch, active: Tensor, rung: int) -> Tensor:
        """Attack some images of a batch at one epsilon; bool, one an active image."""
        setting = self.settings[rung]
        assert setting.epsilon is not None
        images = unit_range(batch.images[active])
        attack = (_LinfPGD if self.norm == "linf" else _L2PGD)(
            rel_stepsize=TRAVEL / self.iterations, steps=self.iterations, random_start=True
        )
        attack.predictor = predictor
        attack.starts = self.starts(batch, active.tolist(), setting).to(images.device)
        _, _, success = attack(_Asked(predictor, self.name), images, batch.labels[active], epsilons=setting.epsilon)
        return torch.as_tensor(success)

    def starts(self, batch: Batch, rows: Sequence[int], setting: Setting) -> Tensor:
        """Draw each image's start in the unit ball, uniformly, as foolbox does; float32 (len(rows), 3, h, w)."""
        shape = batch.images.shape[1:]
        draws = []
        for row in rows:
            generator = torch.Generator().manual_seed(image_seed(batch.scope, batch.names[row], setting))
            if self.norm == "linf":
                draws.append(2 * torch.rand(shape, generator=generator) - 1)
            else:
                # The first n of n + 2 coordinates of a point on the sphere are uniform in the ball (Voelker, 2017).
                sphere = torch.randn(shape.numel() + 2, generator=generator)
                draws.append((sphere / sphere.norm())[:-2].view(shape))
        return torch.stack(draws)
