"""Decision-based attacks of the foolbox package: they ask for predicted classes and for nothing else.

Foolbox keeps its algorithms. It is run image by image: within a batch its images share draws and influence each other a
little, and here an image's result depends on its own identity alone. Foolbox draws from PyTorch's global generator,
which is seeded for each image and put back afterwards; it works on the CPU whatever the predictor's device, so that
draws are the same everywhere.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, final

import torch
from eagerpy.astensor import astensor, astensor_
from foolbox.attacks.blended_noise import LinearSearchBlendedUniformNoiseAttack
from foolbox.attacks.boundary_attack import BoundaryAttack
from foolbox.attacks.hop_skip_jump import HopSkipJumpAttack
from foolbox.distances import l2, linf
from foolbox.models.base import Model
from foolbox.types import Bounds
from torch import Tensor

from tlbench.conditions.attacks.attack import Norm, answered
from tlbench.conditions.attacks.balls import length
from tlbench.conditions.attacks.minimum_norm import MinimumNormAttack

if TYPE_CHECKING:
    from foolbox.attacks.base import MinimizationAttack

    from tlbench.conditions.base import Measured, Need

STEPS: Final = {"foolbox-boundary": 25_000, "foolbox-hopskipjump": 64}
"""Foolbox's own number of steps, by the attack's name."""
BLENDS: Final = 50
"""Steps from an image to a noise image in which a start is looked for, as foolbox's attacks do by default."""
ASKED_AT_ONCE: Final = 128
"""Most images of one question to the predictor, where an attack has many."""


class Over(Exception):
    """Ends foolbox's search for one image: what it found is near enough, or it has asked enough."""


class Witness(Model):
    """A measured predictor as a foolbox model, which remembers the nearest image that broke one prediction.

    An attack may leave a near image that it has asked about for a farther one; what counts is that it was found.

    Parameters
    ----------
    predictor : Measured
    image : float tensor, shape (1, 3, h, w)
        The clean image.
    label : int64 tensor, shape (1,)
    norm : {"linf", "l2"}
        In which an image is near.
    enough : float
        `Over` is raised once an image within this distance was found.
    queries : int
        Most questions; the next one raises `Over`.
    name : str
        What an error message calls the attack.

    Attributes
    ----------
    distance : float
        Of the nearest image that the predictor got wrong; infinite before there is one.
    nearest : float tensor, shape (1, 3, h, w), or None
    """

    def __init__(
        self, predictor: Measured, image: Tensor, label: Tensor, *, norm: Norm, enough: float, queries: int, name: str
    ) -> None:
        self.predictor, self.image, self.label, self.norm, self.name = predictor, image, label, norm, name
        self.enough, self.left = enough, queries
        self.distance = torch.inf
        self.nearest: Tensor | None = None

    @property
    def bounds(self) -> Bounds:
        return Bounds(0, 1)

    def __call__(self, inputs: Any) -> Any:
        images, restore = astensor_(inputs)
        return restore(astensor(self.outputs(images.raw)))

    def outputs(self, images: Tensor) -> Tensor:
        """Return the predictor's outputs, (n, classes), for images (n, 3, h, w).

        Raises
        ------
        Over
            If one of them is near enough, and wrong, or if there are more than may still be asked about. As many as
            may are asked about then, too.
        """
        wanted, images = len(images), images[: self.left]
        if not len(images):
            raise Over
        self.left -= len(images)
        outputs = answered(self.predictor.outputs(images), self.name)
        distances = length(images - self.image, self.norm).flatten().where(self.wrong(outputs), torch.inf)
        first = int(distances.argmin())
        if distances[first] < self.distance:
            self.distance, self.nearest = float(distances[first]), images[first : first + 1].clone()
        if self.distance <= self.enough or len(images) < wanted:
            raise Over
        return outputs

    def wrong(self, outputs: Tensor) -> Tensor:
        """Return whether outputs name another class than the image's, bool (n,)."""
        return outputs.argmax(dim=1) != self.label


class _HopSkipJump(HopSkipJumpAttack):
    """HopSkipJump that asks about all its samples around a point at once, where foolbox asks one by one."""

    witness: Witness

    def approximate_gradients(self, is_adversarial: Callable[[Any], Any], x_advs: Any, steps: int, delta: Any) -> Any:
        # Foolbox makes the samples and uses the answers in one function. It is run twice with the same draws: once to
        # see its questions, once with the answers.
        questions: list[Tensor] = []

        def listen(images: Any) -> Any:
            questions.append(images.raw)
            return astensor(torch.ones(len(images), dtype=torch.bool))

        with torch.random.fork_rng(devices=[]):
            super().approximate_gradients(listen, x_advs, steps, delta)
        answers: list[Tensor] = []
        for first in range(0, len(questions), ASKED_AT_ONCE):
            asked = torch.cat(questions[first : first + ASKED_AT_ONCE])
            answers.extend(self.witness.wrong(self.witness.outputs(asked)).split(1))
        told = iter(answers)
        return super().approximate_gradients(lambda images: astensor(next(told)), x_advs, steps, delta)


@final
class FoolboxDecision(MinimumNormAttack):
    """Foolbox's boundary attack or HopSkipJump: the distance of the nearest image that was found.

    The search starts at a blend of the image and uniform noise. Where no such blend is classified otherwise the attack
    cannot begin, and nothing is known about the image: its distance is 0, it is never counted as robust, and
    `Attack.notes` says how many there are.

    Parameters
    ----------
    name : {"foolbox-boundary", "foolbox-hopskipjump"}
    norm : {"linf", "l2"}
        The boundary attack knows ``l2`` alone.
    epsilons
        See `Attack`.
    queries : int
        Most questions about one image, those for a start among them. The search ends with them, wherever it is.
    iterations : int, optional
        Most steps; foolbox's own number by default. A step of the boundary attack is one or two questions, a step of
        HopSkipJump some hundreds.

    References
    ----------
    Brendel, Rauber and Bethge (2018), "Decision-Based Adversarial Attacks: Reliable Attacks Against Black-Box Machine
    Learning Models". Chen, Jordan and Wainwright (2020), "HopSkipJumpAttack: A Query-Efficient Decision-Based Attack".
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "fixed_predictor"})

    def __init__(
        self,
        name: str,
        norm: Norm,
        epsilons: Sequence[float],
        *,
        queries: int = 5000,
        iterations: int | None = None,
    ) -> None:
        if name not in STEPS:
            raise ValueError(f"expected one of {tuple(STEPS)}, got '{name}'")
        super().__init__(name, norm, epsilons, iterations=STEPS[name] if iterations is None else iterations)
        if name == "foolbox-boundary" and norm != "l2":
            raise ValueError(f"expected the norm 'l2' for '{name}', got '{norm}'; write norm = \"l2\"")
        if queries < 1:
            raise ValueError(f"expected at least one question for '{name}', got {queries}")
        self.queries = queries

    def distance(
        self,
        predictor: Measured,
        images: Tensor,
        labels: Tensor,
        seeds: Sequence[int],
        enough: Tensor | None = None,
    ) -> Tensor:
        """Return the distance of the nearest image that breaks each prediction; see `MinimumNormAttack.distance`."""
        stop = [0.0] * len(images) if enough is None else enough.tolist()
        found = [
            self._nearest(predictor, image, label, seed, near)
            for image, label, seed, near in zip(images.cpu().split(1), labels.cpu().split(1), seeds, stop, strict=True)
        ]
        return torch.tensor(found, dtype=images.dtype, device=images.device)

    def _nearest(self, predictor: Measured, image: Tensor, label: Tensor, seed: int, enough: float) -> float:
        """Attack one image; 0 where the attack cannot begin."""
        witness = Witness(predictor, image, label, norm=self.norm, enough=enough, queries=self.queries, name=self.name)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                self._begin(witness)
                if witness.nearest is not None:
                    self._attack(witness).run(witness, image, label, starting_points=witness.nearest)
            except Over:
                pass
        return 0.0 if witness.nearest is None else witness.distance

    def _begin(self, witness: Witness) -> None:
        """Look for a start along the way from the image to noise; the witness remembers it."""
        blends = LinearSearchBlendedUniformNoiseAttack(
            distance=linf if self.norm == "linf" else l2, directions=1000, steps=BLENDS
        )
        with warnings.catch_warnings():
            # That there is no start is told for all images together.
            warnings.filterwarnings("ignore", message=".*failed to draw sufficient random inputs")
            blends.run(witness, witness.image, witness.label)

    def _attack(self, witness: Witness) -> MinimizationAttack:
        if self.name == "foolbox-boundary":
            return BoundaryAttack(steps=self.iterations)
        attack = _HopSkipJump(steps=self.iterations, constraint=self.norm)
        attack.witness = witness
        return attack
