"""Pretrained feature extractors: theta0, fresh copies of it, and the parts of a network that methods name."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Literal, final

import torch
from torch import Generator, Tensor, nn

from tlbench.errors import nearest
from tlbench.seeds import derive, digest

Kind = Literal["linear", "conv", "norm", "other"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FEATURES = "features"
"""Name under which ``Network.taps`` returns the pooled features of the same forward pass."""

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Block:
    """One layer that owns parameters or buffers, under the names of ``Network.state_dict``.

    Attributes
    ----------
    name : str
        The layer's name within the network, such as ``body.layer1.0.conv1``.
    kind : {"linear", "conv", "norm", "other"}
    parameters, buffers : tuple of str
    """

    name: str
    kind: Kind
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]


class Normalise(nn.Module):
    """Standardise pixels: ``(images - mean) / std``, stored as one factor and one shift a channel.

    The form ``images * scale + shift`` is exact for EfficientNet-Lite's (pixel - 127) / 128, whose mean and
    standard deviation are no float32 numbers while the factor 255/128 and the shift -127/128 are.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        mean64, std64 = (torch.tensor(tuple(values), dtype=torch.float64).view(-1, 1, 1) for values in (mean, std))
        self.register_buffer("scale", (1 / std64).float())
        self.register_buffer("shift", (-mean64 / std64).float())

    def forward(self, images: Tensor) -> Tensor:
        rows = images.permute(0, 2, 3, 1)
        if images.device.type != "cpu" or not rows.is_contiguous():
            return images * self.scale + self.shift
        # The same products and sums, a row of pixels at a time: channel by channel a CPU takes several times as long.
        n, height, width, channels = rows.shape
        scale, shift = (one.flatten().repeat(width) for one in (self.scale, self.shift))
        moved = (rows.reshape(n, height, width * channels) * scale).add_(shift)
        return moved.view(n, height, width, channels).permute(0, 3, 1, 2)


class Network(nn.Module):
    """A body and a head: float images in [0, 1], NCHW, to logits; normalisation is inside.

    Parameters
    ----------
    normalise : nn.Module
        Applied to the images first.
    body : nn.Module
        Normalised images to pooled features, shape (n, width).
    head : nn.Module
        Features to logits.
    tap_modules : mapping of str to str
        Stage names to the submodules of ``body`` whose outputs they are, in depth order.
    channels_last_taps : bool
        Whether the body's maps are (n, h, w, channels); ``taps`` returns them as NCHW all the same.
    """

    def __init__(
        self,
        normalise: nn.Module,
        body: nn.Module,
        head: nn.Module,
        tap_modules: Mapping[str, str],
        *,
        channels_last_taps: bool = False,
    ) -> None:
        super().__init__()
        self.normalise = normalise
        self.body = body
        self.head = head
        self._tap_modules = dict(tap_modules)
        self._channels_last_taps = channels_last_taps

    @property
    def stages(self) -> tuple[str, ...]:
        """Names that ``taps`` knows, in depth order."""
        return tuple(self._tap_modules)

    def features(self, images: Tensor) -> Tensor:
        """Return pooled features, shape (n, width)."""
        pooled: Tensor = self.body(self.normalise(images))
        return pooled

    def forward_from_features(self, features: Tensor) -> Tensor:
        """Return the logits of pooled features, shape (n, classes)."""
        logits: Tensor = self.head(features)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_from_features(self.features(images))

    def taps(self, images: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return intermediate outputs of one forward pass, by stage name.

        Parameters
        ----------
        images : float tensor in [0, 1], shape (n, 3, h, w)
        names : iterable of str
            Names from ``stages``, or ``"features"`` for the pooled features of the same pass.

        Returns
        -------
        dict of str to tensor
            Maps, shape (n, channels, h, w), or tokens, shape (n, tokens, width), in the order of ``names``.

        Raises
        ------
        ValueError
            If a name is no stage.
        """
        wanted = tuple(names)
        for name in wanted:
            if name not in self._tap_modules and name != FEATURES:
                known = (*self._tap_modules, FEATURES)
                raise ValueError(f"no tap '{name}'{nearest(name, known)} (known: {', '.join(known)})")
        seen: dict[str, Tensor] = {}
        handles = []
        try:
            for name in wanted:
                if name != FEATURES:
                    layer = self.body.get_submodule(self._tap_modules[name])
                    handles.append(layer.register_forward_hook(_keep(seen, name)))
            pooled = self.features(images)
        finally:
            for handle in handles:
                handle.remove()
        seen[FEATURES] = pooled
        return {name: self._as_nchw(seen[name]) for name in wanted}

    def _as_nchw(self, tap: Tensor) -> Tensor:
        return tap.permute(0, 3, 1, 2) if self._channels_last_taps and tap.ndim == 4 else tap

    def blocks(self) -> tuple[Block, ...]:
        """Return every layer that owns parameters or buffers, in depth order.

        Parameters and buffers that a module holds besides its children (a class token, a table of positions) come
        before the children. A tensor that several layers share belongs to the first of them.
        """
        seen: set[int] = set()
        found = []
        for name, module in self.named_modules():
            prefix = f"{name}." if name else ""
            persistent = {key for key in module._buffers if key not in module._non_persistent_buffers_set}
            parameters = tuple(prefix + key for key, value in module._parameters.items() if _is_new(value, seen))
            buffers = tuple(
                prefix + key for key, value in module._buffers.items() if key in persistent and _is_new(value, seen)
            )
            if parameters or buffers:
                found.append(Block(name, _kind(module), parameters, buffers))
        return tuple(found)


def _keep(seen: dict[str, Tensor], name: str) -> Callable[[nn.Module, object, Tensor], None]:
    def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
        seen[name] = output

    return hook


def _is_new(tensor: Tensor | None, seen: set[int]) -> bool:
    if tensor is None or id(tensor) in seen:
        return False
    seen.add(id(tensor))
    return True


def _kind(module: nn.Module) -> Kind:
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "conv"
    return "norm" if isinstance(module, _NORMS) else "other"


class _ReadOnlyState(Mapping[str, Tensor]):
    """Tensors by name, copied on every access: nobody can change what the next one reads."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name].detach().clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


@final
@dataclass(frozen=True, eq=False)
class Backbone:
    """A feature extractor and its initial weights theta0; immutable, shared by every fit of a process.

    Parameters
    ----------
    name : str
        What ``--backbone`` names.
    width : int
        Number of pooled features.
    body : nn.Module
        Normalised images to pooled features, shape (n, width), holding theta0; copied.
    initialise : callable or None
        Makes a newly initialised body by drawing from torch's global generator, which is set and put back around
        the call. Given for a backbone without pretraining only; ``fresh(generator=...)`` then makes new weights.
    tap_modules : mapping of str to str
        Stage names to submodules of ``body``, in depth order.
    channels_last_taps : bool
        Whether these submodules return (n, h, w, channels).
    mean, std : tuple of float
        Of the pixels in [0, 1], a channel.
    classifier : nn.Linear or None
        The pretrained classifier, where it exists.
    source_classes : tuple of str
        Names of its classes, empty where they are not known.
    image_size : int or None
        The only side of images that it accepts, or None where several work.
    """

    name: str
    width: int
    body: InitVar[nn.Module]
    initialise: Callable[[], nn.Module] | None = field(default=None, repr=False)
    tap_modules: Mapping[str, str] = field(default_factory=dict, repr=False)
    channels_last_taps: bool = field(default=False, repr=False)
    mean: tuple[float, ...] = field(default=IMAGENET_MEAN, repr=False)
    std: tuple[float, ...] = field(default=IMAGENET_STD, repr=False)
    classifier: InitVar[nn.Linear | None] = None
    source_classes: tuple[str, ...] = field(default=(), repr=False)
    image_size: int | None = None

    def __post_init__(self, body: nn.Module, classifier: nn.Linear | None) -> None:
        object.__setattr__(self, "_body", copy.deepcopy(body).float().eval())
        head = None if classifier is None else copy.deepcopy(classifier).float().requires_grad_(False)
        object.__setattr__(self, "_source_head", head)

    @property
    def pretrained(self) -> bool:
        """Whether theta0 was learned, not drawn."""
        return self.initialise is None

    @property
    def stages(self) -> tuple[str, ...]:
        """Stage names that ``Network.taps`` knows, in depth order."""
        return tuple(self.tap_modules)

    @property
    def source_head(self) -> nn.Linear | None:
        """A copy of the pretrained classifier, its parameters frozen, or None where there is none."""
        head: nn.Linear | None = copy.deepcopy(self._source_head)  # type: ignore[attr-defined]
        return head

    @cached_property
    def state0(self) -> Mapping[str, Tensor]:
        """Read-only theta0: the body's parameters and buffers under the names of ``Network.state_dict``.

        Every access copies the tensor; read what a training loop needs once, before the loop.
        """
        return _ReadOnlyState({f"body.{key}": value for key, value in self._theta0().items()})

    @cached_property
    def weights_hash(self) -> str:
        """SHA-256 hex digest of theta0 and the pretrained classifier; of the architecture where nothing is learned."""
        shapes = [[key, str(value.dtype), list(value.shape)] for key, value in self._theta0().items()]
        if not self.pretrained:
            return digest("untrained", self.name, self.mean, self.std, shapes)
        sha = hashlib.sha256(digest(self.mean, self.std, shapes).encode())
        head: nn.Linear | None = self._source_head  # type: ignore[attr-defined]
        learned = [*self._theta0().values(), *(head.state_dict().values() if head is not None else ())]
        for tensor in learned:
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return sha.hexdigest()

    def fresh(self, classes: int | None = None, *, generator: Generator | None = None) -> Network:
        """Return a new network in eval mode that shares no tensor with any other.

        Parameters
        ----------
        classes : int or None
            Outputs of the new linear head; None for no head, so that the network returns pooled features.
        generator : torch.Generator or None
            A CPU generator from which the head, and the body of a backbone without pretraining, are drawn. None for
            a fixed stream of this backbone: equal calls give equal networks.

        Returns
        -------
        Network
            The body holds theta0, unless it is untrained and a generator was given.
        """
        if self.initialise is not None and generator is not None:
            with drawing_from(generator):
                body = self.initialise().float().eval()
        else:
            body = copy.deepcopy(self._template)
        if classes is None:
            return self._network(body, nn.Identity())
        with drawing_from(generator if generator is not None else fixed_generator("head", self.name)):
            head = nn.Linear(self.width, classes)
        return self._network(body, head)

    def with_head(self, head: nn.Module) -> Network:
        """Return a new network in eval mode: theta0 under a copy of the given head."""
        return self._network(copy.deepcopy(self._template), copy.deepcopy(head))

    def has(self, need: str) -> bool:
        """Return whether this backbone has what a method requires.

        Parameters
        ----------
        need : {"batchnorm", "transformer", "taps", "source_head", "pretrained"}

        Raises
        ------
        ValueError
            If ``need`` is not a property of a backbone.
        """
        match need:
            case "batchnorm":
                return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self._template.modules())
            case "transformer":
                return any(
                    isinstance(m, nn.MultiheadAttention) or type(m).__name__.endswith("Attention")
                    for m in self._template.modules()
                )
            case "taps":
                return bool(self.tap_modules)
            case "source_head":
                return self._source_head is not None  # type: ignore[attr-defined]
            case "pretrained":
                return self.pretrained
        raise ValueError(f"'{need}' is not a property of a backbone")

    @property
    def _template(self) -> nn.Module:
        body: nn.Module = self._body  # type: ignore[attr-defined]
        return body

    def _theta0(self) -> dict[str, Tensor]:
        return self._template.state_dict()

    def _network(self, body: nn.Module, head: nn.Module) -> Network:
        network = Network(
            Normalise(self.mean, self.std), body, head, self.tap_modules, channels_last_taps=self.channels_last_taps
        )
        return network.eval()


def fixed_generator(*identity: str) -> Generator:
    """Return a CPU generator seeded by an identity."""
    return Generator().manual_seed(derive(*identity))


@contextmanager
def drawing_from(generator: Generator) -> Iterator[None]:
    """Seed torch's global CPU generator by one draw from ``generator`` for the block, and put its state back after.

    Modules initialise themselves from the global generator only; nobody else's draws may move because of that.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which would also move the generators of every GPU.
        torch.default_generator.manual_seed(seed)
        yield
