"""Pooled features of frozen networks: computed once, trained on many times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, final

import torch
from torch import Generator, Tensor, nn

from tlbench.data.domain import Batch
from tlbench.methods.augment import as_float, is_identity
from tlbench.methods.base import Features
from tlbench.methods.order import one_pass

_PART = 32


class Extractor(Protocol):
    """A network that shows its pooled features."""

    def features(self, images: Tensor) -> Tensor: ...


def pooled(net: Extractor, batches: Iterable[Batch], device: str = "cpu") -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the places of every batch and its pooled features in eval mode.

    Parameters
    ----------
    net : nn.Module with a method ``features``
        Left in the mode in which it came.
    batches : iterable of Batch
        Images in uint8 or float.
    device : str

    Yields
    ------
    int64 tensor, shape (m,), and float32 tensor, shape (m, width), on the CPU
        Ordinary tensors, not those of inference mode: heads are trained on them.
    """
    assert isinstance(net, nn.Module)
    was_training = net.training
    net.to(device).eval()
    try:
        for batch in batches:
            # Not around the loop: who takes the pieces would run in inference mode, too.
            with torch.inference_mode():
                features = torch.cat([_features(net, part, device) for part in _parts(batch.images, device)])
            yield batch.ids, features.clone()
    finally:
        net.train(was_training)


def _parts(images: Tensor, device: str) -> tuple[Tensor, ...]:
    """Cut a batch into parts that a CPU handles fastest: of 32 to 63 images; what is smaller stays whole.

    No smaller ones: below sixteen images the convolutions of PyTorch round differently.
    """
    return images.tensor_split(max(1, len(images) // _PART)) if device == "cpu" else (images,)


def _features(net: Extractor, images: Tensor, device: str) -> Tensor:
    pixels = as_float(images) if images.dtype == torch.uint8 else images
    return net.features(pixels.to(device)).float().cpu()


def extract_features(net: Extractor, batches: Iterable[Batch], device: str = "cpu") -> Tensor:
    """Return the pooled features of every image, as ``pooled`` yields them, shape (n, width)."""
    pieces = [features for _, features in pooled(net, batches, device)]
    return torch.cat(pieces) if pieces else torch.zeros(0, 0)


@final
class FeatureData:
    """Cached features in the place of images: what a frozen backbone would compute again in every epoch.

    Batches come in the order in which the images themselves would; augmentation has nothing left to act on.

    Parameters
    ----------
    features : Features
        With labels. Values of shape (n, width), or (views, n, width): each pass then shows the next view, and after the
        last one the first again.
    """

    def __init__(self, features: Features) -> None:
        if features.labels is None:
            raise ValueError("expected features with labels")
        self._labels = features.labels
        self._views = features.values if features.values.ndim == 3 else features.values[None]
        self._passes = 0

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def ids(self) -> Tensor:
        return torch.arange(len(self))

    @property
    def labels(self) -> Tensor:
        return self._labels

    def batches(
        self,
        size: int,
        *,
        rng: Generator | None = None,
        views: int = 1,
        augment: str = "identity",
        crop: bool = False,
        flip: bool = False,
        drop_last: bool = False,
    ) -> Iterator[Batch]:
        """Yield one pass; ``Batch.images`` are features, shape (n, width)."""
        if views != 1 or not is_identity(augment=augment, crop=crop, flip=flip):
            raise ValueError("cached features cannot be augmented")
        places, _ = one_pass(len(self), size, rng, drop_last=drop_last)
        values = self._views[self._passes % len(self._views)]
        self._passes += 1
        for chosen in places:
            ids = torch.from_numpy(chosen)
            yield Batch(ids, ("",) * len(ids), values[ids], self._labels[ids], "features")
