"""APGD over a list of epsilons: with the cross entropy, with DLR, and towards each of the likeliest wrong classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import torch
from torch import Tensor

from tlbench.conditions.attacks.attack import Attack, Identity, Norm, Runner, answered
from tlbench.conditions.attacks.balls import directions
from tlbench.conditions.attacks.ladder import Mode
from tlbench.conditions.attacks.losses import LOSSES
from tlbench.conditions.attacks.walk import Walk

if TYPE_CHECKING:
    from tlbench.conditions.base import Measured

TARGETED: Final = "apgd-t"


@final
class APGD(Attack):
    """APGD with the cross entropy (``apgd-ce``), DLR (``apgd-dlr``) or targeted DLR (``apgd-t``) as its loss.

    Parameters
    ----------
    name : {"apgd-dlr", "apgd-ce", "apgd-t"}
    norm, epsilons, iterations, mode, audit
        See `Attack`.
    restarts : int
        Runs from different random starts; an image survives if it survives all of them.
    targets : int
        Of ``apgd-t``: so many of the likeliest wrong classes are aimed at, the likeliest first, each in runs of its
        own; all wrong classes where there are fewer. With three classes or two there is no targeted DLR, and the
        attack is ``apgd-dlr`` or ``apgd-ce``, as published with AutoAttack.
    """

    def __init__(
        self,
        name: str,
        norm: Norm,
        epsilons: Sequence[float],
        *,
        iterations: int = 100,
        mode: Mode = "fast",
        restarts: int = 1,
        targets: int = 9,
        audit: float = 0.0,
    ) -> None:
        super().__init__(name, norm, epsilons, iterations=iterations, mode=mode, audit=audit)
        if restarts < 1:
            raise ValueError(f"expected at least one run for '{name}', got {restarts} restarts")
        if targets < 1:
            raise ValueError(f"expected at least one target for '{name}', got {targets}")
        self.restarts = restarts
        self.targets = targets
        self.loss = LOSSES[name.removeprefix("apgd-")]

    def runner(self, predictor: Measured, width: int) -> Runner:
        return Runs(self, predictor, width)


@dataclass
class _Run:
    """One image in one of its runs: its number, and all that the next one needs."""

    image: Tensor
    label: Tensor
    aims: Tensor | None
    """Classes to aim at, the likeliest first; None for a loss without a target."""
    epsilon: float
    who: Identity
    number: int = 0


@dataclass
class Runs:
    """APGD's runs on a set of images: an image that survives one begins the next in the same place.

    Parameters
    ----------
    attack : APGD
    predictor : Measured
    width : int
        Images under attack at a time.
    """

    attack: APGD
    predictor: Measured
    width: int
    under_way: dict[int, _Run] = field(default_factory=dict)

    def __post_init__(self) -> None:
        attack = self.attack
        self.walk = Walk(self.predictor, attack.loss, attack.norm, attack.iterations, attack.name)

    def __len__(self) -> int:
        return len(self.under_way)

    @property
    def room(self) -> int:
        return self.width - len(self.under_way)

    def add(
        self, keys: Sequence[int], images: Tensor, labels: Tensor, epsilons: Sequence[float], who: Sequence[Identity]
    ) -> None:
        aims = self._aims(images, labels)
        for place, key in enumerate(keys):
            aim = None if aims is None else aims[place]
            self.under_way[key] = _Run(images[place], labels[place], aim, epsilons[place], who[place])
        self._start(keys)

    def advance(self) -> list[tuple[int, bool]]:
        finished, ended, again = self.walk.advance(), [], []
        for key, broken in zip(finished.key.tolist(), finished.broken.tolist(), strict=True):
            run = self.under_way[key]
            run.number += 1
            if broken or run.number == self.attack.restarts * (1 if run.aims is None else len(run.aims)):
                del self.under_way[key]
                ended.append((key, broken))
            else:
                again.append(key)
        if again:
            self._start(again)
        return ended

    def _aims(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """Return the likeliest wrong classes of each image, int64 (n, targets), or None for a loss without a target."""
        if self.attack.name != TARGETED:
            return None
        outputs = answered(self.predictor.outputs(images), self.attack.name)
        classes = outputs.shape[1]
        if classes < 4:
            return None
        wrong = outputs.scatter(1, labels[:, None], -torch.inf)
        return wrong.topk(min(self.attack.targets, classes - 1), dim=1).indices

    def _asked(self, run: _Run) -> Tensor:
        """Return what the loss is asked about: the label and, where one is aimed at, the class."""
        if run.aims is None:
            return run.label
        return torch.stack([run.label, run.aims[run.number // self.attack.restarts]])

    def _start(self, keys: Sequence[int]) -> None:
        """Set images on their way, each from the start that its own identity and the number of the run draw."""
        runs = [self.under_way[key] for key in keys]
        images = torch.stack([run.image for run in runs])
        labels = torch.stack([self._asked(run) for run in runs])
        seeds = [run.who.seed(run.number) for run in runs]
        toward = directions(seeds, images.shape[1:], self.attack.norm).to(images.device)
        self.walk.add(keys, images, labels, [run.epsilon for run in runs], toward)
