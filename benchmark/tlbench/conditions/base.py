"""The contract between a condition, which turns images into observations, and the engine, which owns the predictor.

The engine wraps a predictor as `Measured` (chunks, memory, devices, counts), hands it to `Condition.observe` together
with the images, and reduces the `Observed` rows that come back. A condition never special-cases what it cannot use: it
names its ``needs``, and the engine marks a measurement whose needs are unmet as ``not_applicable``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from tlbench import seeds

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tlbench.data.domain import Batch
    from tlbench.setting import Setting

Need = Literal["labels", "gradients", "fixed_predictor"]
Output = Literal["logits", "log_probs", "scores"]
Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""``loss(outputs, labels)``: (n, classes) and n labels to one loss an image, (n,); row i depends on row i alone."""


@dataclass(frozen=True)
class Observed:
    """What a predictor did on some images under one setting; rows come in any order and any number of pieces.

    Attributes
    ----------
    setting : Setting
        What was done to the images.
    ids : int64 tensor, shape (n,)
        Place of each image in its split's manifest.
    labels : int64 tensor, shape (n,)
        True classes.
    outputs : float tensor, shape (n, classes), or None
        The predictor's outputs, for every condition but an attack.
    survived : bool tensor, shape (n,), or None
        For an attack: right on the clean image and on every image that the attack found within this epsilon.
    correct_clean : bool tensor, shape (n,), or None
        For an attack: right on the clean image. An image that is wrong when clean never survives.
    audited : bool tensor, shape (n,), or None
        For an attack: its order of epsilons only implied whether the image survives this one, and yet it was attacked.
    found : bool tensor, shape (n,), or None
        Whether it survived that; it means nothing where ``audited`` is false, and changes nothing in ``survived``.
    unattacked : bool tensor, shape (n,), or None
        For an attack: it could not begin on the image, which was right when clean; such an image never survives.
    """

    setting: Setting
    ids: Tensor
    labels: Tensor
    outputs: Tensor | None = None
    survived: Tensor | None = None
    correct_clean: Tensor | None = None
    audited: Tensor | None = None
    found: Tensor | None = None
    unattacked: Tensor | None = None


class Measured(Protocol):
    """A predictor made ready by the engine: it is called with any number of images and chunks them itself.

    Everything returned lies on the device of the images that were passed, detached from any graph.
    """

    @property
    def output(self) -> Output:
        """What the columns of `outputs` are."""

    @property
    def batch_dependent(self) -> bool:
        """Whether an image's outputs depend on the images beside it or seen before it."""

    @property
    def differentiable(self) -> bool:
        """Whether `gradient` may be called."""

    def start(self, setting: Setting) -> None:
        """Tell which setting comes next; a predictor that adapts goes back to its fitted state."""

    def outputs(self, images: Tensor) -> Tensor:
        """Return the outputs, (n, classes), for images (n, 3, h, w): uint8, or float in [0, 1]."""

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the outputs and the gradient of the summed loss by the images.

        Parameters
        ----------
        images : float tensor, shape (n, 3, h, w)
            In [0, 1]; the gradient is by these values.
        labels : int64 tensor, shape (n,) or (n, further)
            Handed to ``loss``, cut into the same chunks as the images; a targeted attack has a label and a target.
        loss : callable
            ``loss(outputs, labels)`` gives one loss an image, shape (m,), for every chunk of m images. It is summed,
            never averaged, so that an image's gradient does not depend on the images beside it.

        Returns
        -------
        outputs : tensor, shape (n, classes)
            From the same forward pass as the gradient. The losses themselves are ``loss(outputs, labels)``.
        gradient : tensor, shape (n, 3, h, w)
            Of the images' type; whoever asked may write to it.
        """


class Condition(Protocol):
    """Something done to target images, at one or several strengths."""

    needs: ClassVar[frozenset[Need]]

    @property
    def name(self) -> str:
        """Name of the condition in settings and records."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Every strength at which `observe` observes: one for clean, five for a corruption, one an epsilon."""

    def observe(self, predictor: Measured, batches: Callable[[], Iterator[Batch]]) -> Iterator[Observed]:
        """Yield the predictor's rows, every image of ``batches()`` exactly once under every setting.

        ``batches`` may be called several times and gives the same images again. All randomness derives from
        ``Batch.scope``, the image's name, the condition and its strength: rows depend neither on the order of images
        nor on how they are batched.
        """


@dataclass(frozen=True)
class Drawn:
    """What the host works out about a batch under one setting before the batch's device is needed.

    Attributes
    ----------
    batch : Batch
        The images it was worked out for, and their names.
    tensors : tuple of tensors, each of shape (n, ...)
        Draws, layers or tables, one row an image. Only these cross to a device; `on` takes them there.
    """

    batch: Batch
    tensors: tuple[Tensor, ...] = ()

    def on(self, device: torch.device | str) -> Drawn:
        """Return the same with its tensors on a device, copied from pinned memory and without waiting for a GPU."""
        return replace(self, tensors=tuple(sent(tensor, device) for tensor in self.tensors))


def sent(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on a device; on its way to a GPU it is pinned, and nobody waits for the copy."""
    if tensor.device.type == "cpu" and str(device).startswith("cuda"):
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class ImageCondition(ABC):
    """A condition that turns uint8 images into uint8 images, whoever looks at them; `apply` is all it adds.

    A condition may split `apply` into `drawn`, the host's part, which an engine runs ahead for the next batch, and
    `applied`, the rest, on the images' device: ``apply(batch, setting)`` is then
    ``applied(images, drawn(batch, setting, images.device), setting)``.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the condition in settings and records."""

    @property
    @abstractmethod
    def settings(self) -> tuple[Setting, ...]:
        """Every strength at which the condition is observed."""

    @abstractmethod
    def apply(self, batch: Batch, setting: Setting) -> Tensor:
        """Return the images under a setting, uint8 (n, 3, h, w); the batch is left as it is."""

    def drawn(self, batch: Batch, setting: Setting, device: torch.device) -> Drawn:
        """Return the host's part of `apply`; nothing by default.

        May be called in a thread of its own, and for several batches and settings at once.

        Parameters
        ----------
        batch : Batch
            Its images preferably still on the host, where some conditions need them.
        setting : Setting
        device : torch.device
            Where `applied` will get the images.
        """
        return Drawn(batch)

    def applied(self, images: Tensor, drawn: Drawn, setting: Setting) -> Tensor:
        """Return the images of ``drawn.batch``, now on their device, under the setting; everything by default."""
        return self.apply(replace(drawn.batch, images=images), setting)

    def observe(self, predictor: Measured, batches: Callable[[], Iterator[Batch]]) -> Iterator[Observed]:
        """Yield the predictor's outputs on the changed images; see `Condition.observe`."""
        # A predictor that depends on its batch sees one setting at a time; for any other one,
        # every strength of an image is made while its source is at hand.
        rounds = [(setting,) for setting in self.settings] if predictor.batch_dependent else [self.settings]
        for settings in rounds:
            predictor.start(settings[0])
            for batch in batches():
                for setting in settings:
                    yield Observed(setting, batch.ids, batch.labels, predictor.outputs(self.apply(batch, setting)))


def image_seed(scope: str, name: str, setting: Setting, *further: seeds.Part) -> int:
    """Return the seed of one image's own random stream under a setting.

    Parameters
    ----------
    scope, name : str
        Task and domain (``Batch.scope``) and the image's name: its identity, wherever it stands in a batch.
    setting : Setting
        Its condition and severity (of an attack, the epsilon) count.
    *further : str or number
        What else tells streams apart, such as the number of a restart.

    Returns
    -------
    int
        In [0, 2**63).
    """
    strength = setting.epsilon if setting.severity is None else setting.severity
    # 1 and 1.0 are one severity, but not one JSON text.
    number = None if strength is None else float(strength)
    return seeds.derive(scope, name, setting.condition, number, *further)


def image_seeds(batch: Batch, setting: Setting) -> list[int]:
    """Return `image_seed` of every image of a batch."""
    return [image_seed(batch.scope, name, setting) for name in batch.names]
