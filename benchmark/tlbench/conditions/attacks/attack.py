"""What attacks share: epsilons as rungs of a ladder, the clean check, and the rows that the engine gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import torch
from torch import Tensor

from tlbench.conditions.base import Measured, Need, Observed
from tlbench.setting import Setting

if TYPE_CHECKING:
    from tlbench.data.domain import Batch

Norm = Literal["linf", "l2"]
Mode = Literal["fast", "exact"]


class Ladder:
    """The order in which an image meets the epsilons, and what a verdict at one says about the others.

    A rung is the place of an epsilon among all of them, smallest first. A verdict is the lowest rung that breaks the
    image, or the number of rungs: it survives every rung below.

    Parameters
    ----------
    rungs : int
        Number of epsilons.
    mode : {"exact", "fast"}
        ``exact`` climbs: broken in a small ball is broken in a larger one, which contains it. ``fast`` descends and
        takes an image that survives an epsilon to survive the smaller ones. An attack that fails in a large ball could
        still succeed in a small one, so ``fast`` may overstate robustness at small epsilons, never understate it.
    """

    def __init__(self, rungs: int, mode: Mode) -> None:
        self.rungs = rungs
        self.climbs = mode == "exact"
        self.first = 0 if self.climbs else rungs - 1

    def after(self, rung: int, broken: bool) -> tuple[int | None, int | None]:
        """Return the next rung to try, or None and the verdict."""
        if self.climbs == broken:
            return None, rung if self.climbs else rung + 1
        following = rung + (1 if self.climbs else -1)
        if 0 <= following < self.rungs:
            return following, None
        return None, self.rungs if self.climbs else 0


class Attack(ABC):
    """An untargeted attack at several epsilons.

    Parameters
    ----------
    name : str
        Name of the condition in settings and records.
    norm : {"linf", "l2"}
        Norm of a perturbation, over all values of an image.
    epsilons : tuple of float
        Largest norms, in units of the [0, 1] pixel range; positive, each once, in any order.
    iterations : int
        Steps of one run.
    mode : {"fast", "exact"}
        See `Ladder`.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "gradients", "fixed_predictor"})

    def __init__(self, name: str, norm: Norm, epsilons: Sequence[float], *, iterations: int, mode: Mode) -> None:
        if norm not in get_args(Norm):
            raise ValueError(f"expected a norm of {get_args(Norm)} for '{name}', got '{norm}'")
        if mode not in get_args(Mode):
            raise ValueError(f"expected a mode of {get_args(Mode)} for '{name}', got '{mode}'")
        if not epsilons or min(epsilons) <= 0 or len(set(epsilons)) < len(epsilons):
            raise ValueError(f"expected positive epsilons for '{name}', each once, got {tuple(epsilons)}")
        if iterations < 1:
            raise ValueError(f"expected at least one iteration for '{name}', got {iterations}")
        self._name = name
        self.norm: Norm = norm
        self.epsilons = tuple(sorted(float(epsilon) for epsilon in epsilons))
        self.iterations = iterations
        self.ladder = Ladder(len(self.epsilons), mode)

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> tuple[Setting, ...]:
        """One setting an epsilon, smallest first."""
        return tuple(Setting(self._name, norm=self.norm, epsilon=epsilon) for epsilon in self.epsilons)

    @abstractmethod
    def observe(self, predictor: Measured, batches: Callable[[], Iterator[Batch]]) -> Iterator[Observed]:
        """Yield, for every image and epsilon, whether it was right when clean and whether it survived."""

    def rows(self, batch: Batch, correct: Tensor, verdicts: Tensor) -> Iterator[Observed]:
        """Yield one batch's rows for every epsilon.

        Parameters
        ----------
        batch : Batch
        correct : bool tensor, shape (n,)
            Right on the clean image.
        verdicts : int64 tensor, shape (n,)
            The lowest rung that breaks each image; see `Ladder`.
        """
        for rung, setting in enumerate(self.settings):
            survived = correct & (verdicts > rung)
            yield Observed(setting, batch.ids, batch.labels, survived=survived, correct_clean=correct)


def answered(outputs: Tensor, condition: str) -> Tensor:
    """Return the outputs as they are.

    Raises
    ------
    FloatingPointError
        If an output is not a number: a predictor that does not answer is neither right nor robust.
    """
    bad = torch.isnan(outputs).any(dim=1)
    if bool(bad.any()):
        raise FloatingPointError(
            f"{condition}: the predictor's outputs are not numbers on {int(bad.sum())} of {len(bad)} images"
        )
    return outputs


def right(outputs: Tensor, labels: Tensor, condition: str) -> Tensor:
    """Return whether each image's largest output is its label's, bool (n,); raises as `answered` does."""
    return answered(outputs, condition).argmax(dim=1) == labels


def unit_range(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]."""
    return images.float().div_(255)
