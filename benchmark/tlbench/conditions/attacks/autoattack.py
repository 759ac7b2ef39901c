"""AutoAttack's standard set: four attacks in turn, each of them only on what withstood those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, final

import torch
from torch import Tensor

from tlbench.conditions.attacks.apgd import APGD
from tlbench.conditions.attacks.attack import Attack, Identity, Norm, Runner
from tlbench.conditions.attacks.fab import FAB
from tlbench.conditions.attacks.ladder import Mode
from tlbench.conditions.attacks.square import Square

if TYPE_CHECKING:
    from tlbench.conditions.base import Measured

MEMBERS: Final = ("apgd-ce", "apgd-t", "fab-t", "square")
"""The standard set in its order: gradients first, the black box last."""


@final
class AutoAttack(Attack):
    """The standard set of Croce and Hein (2020): ``apgd-ce``, ``apgd-t``, ``fab-t`` and ``square``.

    An image is broken at an epsilon if one of the four breaks it there, and the later ones are asked only about images
    that the earlier ones left. How many each of them broke is told afterwards: where ``square``, which knows no
    gradients, breaks what the others could not, gradients are likely masked.

    Parameters
    ----------
    name : {"autoattack"}
    norm, epsilons, mode, audit
        See `Attack`.
    iterations : int
        Steps of a run of each attack that follows gradients: 100 in the standard set.
    targets : int
        Wrong classes that ``apgd-t`` and ``fab-t`` aim at: 9 in the standard set, all where there are fewer.
    queries : int
        Questions that ``square`` asks about an image: 5,000 in the standard set.
    """

    def __init__(
        self,
        name: str,
        norm: Norm,
        epsilons: Sequence[float],
        *,
        iterations: int = 100,
        targets: int = 9,
        queries: int = 5000,
        mode: Mode = "fast",
        audit: float = 0.0,
    ) -> None:
        super().__init__(name, norm, epsilons, iterations=iterations, mode=mode, audit=audit)
        self.members: dict[str, Attack] = {
            "apgd-ce": APGD("apgd-ce", norm, epsilons, iterations=iterations),
            "apgd-t": APGD("apgd-t", norm, epsilons, iterations=iterations, targets=targets),
            "fab-t": FAB("fab-t", norm, epsilons, iterations=iterations, targets=targets),
            "square": Square("square", norm, epsilons, queries=queries),
        }

    def runner(self, predictor: Measured, width: int) -> Runner:
        return Chain(self, {name: member.runner(predictor, width) for name, member in self.members.items()})


@dataclass(frozen=True)
class _Passing:
    """An image on its way from one attack to the next."""

    image: Tensor
    label: Tensor
    epsilon: float
    who: Identity


@dataclass
class Chain:
    """Attacks in turn: an image that one of them leaves whole goes on to the next.

    Parameters
    ----------
    attack : AutoAttack
        Its notes say how many images each attack broke.
    stages : dict of str to Runner
        In their order, all of one width.
    """

    attack: AutoAttack
    stages: dict[str, Runner]
    passing: dict[int, _Passing] = field(default_factory=dict)
    queues: dict[str, list[int]] = field(default_factory=dict)
    broke: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.order = list(self.stages)
        self.queues = {name: [] for name in self.order}
        self.broke = dict.fromkeys(self.order, 0)

    def __len__(self) -> int:
        return len(self.passing)

    @property
    def room(self) -> int:
        first = self.order[0]
        return self.stages[first].room - len(self.queues[first])

    def add(
        self, keys: Sequence[int], images: Tensor, labels: Tensor, epsilons: Sequence[float], who: Sequence[Identity]
    ) -> None:
        for key, *given in zip(keys, images, labels, epsilons, who, strict=True):
            self.passing[key] = _Passing(*given)
        self.queues[self.order[0]] += keys

    def advance(self) -> list[tuple[int, bool]]:
        """Advance the last attack that is full or, where none is, the first that has anything to do."""
        for name in self.order:
            self._enter(name)
        busy = [name for name in self.order if len(self.stages[name])]
        full = [name for name in busy if not self.stages[name].room]
        name = full[-1] if full else busy[0]
        after = self.order.index(name) + 1
        ended = []
        for key, broken in self.stages[name].advance():
            self.broke[name] += broken
            if broken or after == len(self.order):
                del self.passing[key]
                ended.append((key, broken))
            else:
                self.queues[self.order[after]].append(key)
        self.attack.notes[:] = self._notes()
        return ended

    def _enter(self, name: str) -> None:
        stage, queue = self.stages[name], self.queues[name]
        keys = queue[: stage.room]
        if not keys:
            return
        del queue[: len(keys)]
        entering = [self.passing[key] for key in keys]
        stage.add(
            keys,
            torch.stack([one.image for one in entering]),
            torch.stack([one.label for one in entering]),
            [one.epsilon for one in entering],
            [replace(one.who, further=(name,)) for one in entering],
        )

    def _notes(self) -> list[str]:
        broken = sum(self.broke.values())
        if not broken:
            return []
        by = ", ".join(f"{name} {count}" for name, count in self.broke.items() if count)
        notes = [f"{self.attack.name}: images broken at an epsilon, by attack: {by}"]
        if self.broke["square"]:
            notes.append(
                f"{self.attack.name}: square, which asks for no gradients, broke what the others could not, "
                f"{self.broke['square']} of {broken} times: gradient masking?"
            )
        return notes
