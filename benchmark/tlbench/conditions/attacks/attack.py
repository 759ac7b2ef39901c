"""What attacks share: a name and its epsilons, the clean check, and the two ways to attack a set of images.

An attack makes a `Runner`, which takes images in, each with an epsilon of its own, and tells which ones it broke.
Everything else (the order of epsilons, images that are wrong when clean, batches that stay full, the audit) is
`tlbench.conditions.attacks.course.Course`, the same for all of them. `SetAttack` is the short way: an attack that
answers for a set of images at once has `SetAttack.broken` and nothing else to write.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, get_args

import torch
from torch import Tensor

from tlbench.conditions.attacks.ladder import Ladder, Mode
from tlbench.conditions.base import Measured, Need, Observed, image_seed
from tlbench.setting import Setting

if TYPE_CHECKING:
    from tlbench.data.domain import Batch
    from tlbench.seeds import Part

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Identity:
    """Which image under which setting: all that the random numbers of an attack on it may depend on."""

    scope: str
    name: str
    setting: Setting
    further: tuple[Part, ...] = ()
    """What tells the streams of several attacks on the same image apart."""

    def seed(self, *further: Part) -> int:
        """Return the seed of one stream of the image's, see `image_seed`."""
        return image_seed(self.scope, self.name, self.setting, *self.further, *further)


class Runner(Protocol):
    """An attack under way on a set of images, of which any may enter or end at any time."""

    def __len__(self) -> int:
        """Images that entered and have not ended."""

    @property
    def room(self) -> int:
        """Images that may enter now, so that the next call of the predictor has as many as it may."""

    def add(
        self, keys: Sequence[int], images: Tensor, labels: Tensor, epsilons: Sequence[float], who: Sequence[Identity]
    ) -> None:
        """Let images in.

        Parameters
        ----------
        keys : sequence of int
            What `advance` will call them.
        images : float tensor, shape (n, 3, h, w)
            In [0, 1], all of them classified rightly.
        labels : int64 tensor, shape (n,)
        epsilons : sequence of float
            One an image.
        who : sequence of Identity
        """

    def advance(self) -> list[tuple[int, bool]]:
        """Do a piece of the work; return the keys of those that ended, each with whether it was broken."""


class Attack(ABC):
    """An untargeted attack at several epsilons.

    Parameters
    ----------
    name : str
        Name of the condition in settings and records.
    norm : {"linf", "l2"}
        Norm of a perturbation, over all values of an image.
    epsilons : sequence of float
        Largest norms, in units of the [0, 1] pixel range; positive, each once, in any order.
    iterations : int
        Steps of one run.
    mode : {"fast", "exact"}
        See `Ladder`.
    audit : float
        Share of the images that are also attacked at the epsilons whose verdicts the mode only implies; see `Course`.

    Attributes
    ----------
    notes : list of str
        What there is to tell about the last `observe` besides its verdicts, a line each.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "gradients", "fixed_predictor"})

    def __init__(
        self,
        name: str,
        norm: Norm,
        epsilons: Sequence[float],
        *,
        iterations: int = 100,
        mode: Mode = "fast",
        audit: float = 0.0,
    ) -> None:
        if norm not in get_args(Norm):
            raise ValueError(f"expected a norm of {get_args(Norm)} for '{name}', got '{norm}'")
        if mode not in get_args(Mode):
            raise ValueError(f"expected a mode of {get_args(Mode)} for '{name}', got '{mode}'")
        if not epsilons or min(epsilons) <= 0 or len(set(epsilons)) < len(epsilons):
            raise ValueError(f"expected positive epsilons for '{name}', each once, got {tuple(epsilons)}")
        if iterations < 1:
            raise ValueError(f"expected at least one iteration for '{name}', got {iterations}")
        if not 0 <= audit <= 1:
            raise ValueError(f"expected an audited share from 0 to 1 for '{name}', got {audit}")
        self._name = name
        self.norm: Norm = norm
        self.epsilons = tuple(sorted(float(epsilon) for epsilon in epsilons))
        self.iterations = iterations
        self.audit = audit
        self.ladder = Ladder(len(self.epsilons), mode)
        self.notes: list[str] = []

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> tuple[Setting, ...]:
        """One setting an epsilon, smallest first."""
        return tuple(Setting(self._name, norm=self.norm, epsilon=epsilon) for epsilon in self.epsilons)

    @abstractmethod
    def runner(self, predictor: Measured, width: int) -> Runner:
        """Return what attacks ``width`` images at a time; ``len`` of it is 0."""

    def observe(self, predictor: Measured, batches: Callable[[], Iterator[Batch]]) -> Iterator[Observed]:
        """Yield, for every image and epsilon, whether it was right when clean and whether it survived."""
        from tlbench.conditions.attacks.course import Course  # which is made of what stands here

        self.notes.clear()
        predictor.start(self.settings[0])
        yield from Course(self, predictor).run(batches())

    def rows(
        self,
        batch: Batch,
        correct: Tensor,
        verdicts: Tensor,
        audited: Tensor | None = None,
        found: Tensor | None = None,
    ) -> Iterator[Observed]:
        """Yield one batch's rows for every epsilon.

        Parameters
        ----------
        batch : Batch
        correct : bool tensor, shape (n,)
            Right on the clean image.
        verdicts : int64 tensor, shape (n,)
            The lowest rung that breaks each image; see `Ladder`.
        audited, found : bool tensors, shape (rungs, n), optional
            Whether a verdict that was only implied was audited, and whether the image survived that.
        """
        for rung, setting in enumerate(self.settings):
            survived = correct & (verdicts > rung)
            if audited is None or found is None:
                yield Observed(setting, batch.ids, batch.labels, None, survived, correct)
            else:
                yield Observed(setting, batch.ids, batch.labels, None, survived, correct, audited[rung], found[rung])


class SetAttack(Attack):
    """An attack that answers for a set of images at once; `broken` is all it adds."""

    @abstractmethod
    def broken(
        self, predictor: Measured, images: Tensor, labels: Tensor, epsilons: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        """Attack each image at its own epsilon.

        Parameters
        ----------
        predictor : Measured
            It cuts any number of images into chunks itself.
        images : float tensor, shape (n, 3, h, w)
            In [0, 1], all of them classified rightly.
        labels : int64 tensor, shape (n,)
        epsilons : float32 tensor, shape (n,)
            On the images' device, one an image.
        seeds : sequence of int
            One an image: all of its randomness, so that its verdict depends neither on the images beside it nor on
            their order.

        Returns
        -------
        bool tensor, shape (n,)
            Whether the predictor was made wrong about each image within its epsilon.
        """

    def runner(self, predictor: Measured, width: int) -> Runner:
        return SetRunner(self, predictor, width)


@dataclass
class SetRunner:
    """A `SetAttack` as a runner: images gather until there is no room, and end together."""

    attack: SetAttack
    predictor: Measured
    width: int
    gathered: list[tuple[int, Tensor, Tensor, float, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.gathered)

    @property
    def room(self) -> int:
        return self.width - len(self.gathered)

    def add(
        self, keys: Sequence[int], images: Tensor, labels: Tensor, epsilons: Sequence[float], who: Sequence[Identity]
    ) -> None:
        seeds = [one.seed() for one in who]
        self.gathered.extend(zip(keys, images, labels, epsilons, seeds, strict=True))

    def advance(self) -> list[tuple[int, bool]]:
        keys, images, labels, epsilons, seeds = zip(*self.gathered, strict=True)
        self.gathered.clear()
        radii = torch.tensor(epsilons, device=images[0].device)
        broken = self.attack.broken(self.predictor, torch.stack(images), torch.stack(labels), radii, seeds)
        return list(zip(keys, broken.tolist(), strict=True))


def answered(outputs: Tensor, condition: str) -> Tensor:
    """Return the outputs as they are.

    Raises
    ------
    FloatingPointError
        If an output is not a number: a predictor that does not answer is neither right nor robust.
    """
    bad = torch.isnan(outputs).any(dim=1)
    if bool(bad.any()):
        raise not_numbers(condition, int(bad.sum()), len(bad))
    return outputs


def not_numbers(condition: str, bad: int, n: int) -> FloatingPointError:
    """Return the error of outputs that are not numbers."""
    return FloatingPointError(f"{condition}: the predictor's outputs are not numbers on {bad} of {n} images")


def right(outputs: Tensor, labels: Tensor, condition: str) -> Tensor:
    """Return whether each image's largest output is its label's, bool (n,); raises as `answered` does."""
    return answered(outputs, condition).argmax(dim=1) == labels


def unit_range(images: Tensor) -> Tensor:
    """Return uint8 images as float32 in [0, 1]."""
    return images.float().div_(255)
