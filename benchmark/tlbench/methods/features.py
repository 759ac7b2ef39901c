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


class Extractor(Protocol):
    """A network that shows its pooled features."""

    def features(self, images: Tensor) -> Tensor: ...


def extract_features(net: Extractor, batches: Iterable[Batch], device: str = "cpu") -> Tensor:
    """Return the pooled features of every image in eval mode.

    Parameters
    ----------
    net : nn.Module with a method ``features``
        Left in the mode in which it came.
    batches : iterable of Batch
        Images in uint8 or float.
    device : str

    Returns
    -------
    float32 tensor, shape (n, width), on the CPU
        An ordinary tensor, not one of inference mode: heads are trained on it.
    """
    assert isinstance(net, nn.Module)
    was_training = net.training
    net.to(device).eval()
    pieces = []
    with torch.inference_mode():
        for batch in batches:
            images = as_float(batch.images) if batch.images.dtype == torch.uint8 else batch.images
            pieces.append(net.features(images.to(device)).float().cpu())
    net.train(was_training)
    return torch.cat(pieces) if pieces else torch.zeros(0, 0)


@final
class FeatureData:
    """Cached features in the place of images: what a frozen backbone would compute again in every epoch.

    Batches come in the order in which the images themselves would; augmentation has nothing left to act on.
    """

    def __init__(self, features: Features) -> None:
        if features.labels is None:
            raise ValueError("expected features with labels")
        self._values, self._labels = features.values, features.labels

    def __len__(self) -> int:
        return len(self._values)

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
        for chosen in places:
            ids = torch.from_numpy(chosen)
            yield Batch(ids, ("",) * len(ids), self._values[ids], self._labels[ids], "features")
