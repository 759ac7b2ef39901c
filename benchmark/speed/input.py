"""An epoch of input: JPEG files to normalised float batches at 224 px, by three loaders and from our cache."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Collection, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from speed.measure import Effort, alternate
from speed.pictures import pieces
from speed.rows import Outcome
from tlbench.data.cache import ImageCache
from tlbench.data.domain import Split
from tlbench.data.readers.address import Address
from tlbench.data.readers.folder import read_folder
from tlbench.engine.measured import MeasuredPredictor
from tlbench.methods.base import Predictor
from tlbench.models.backbone import IMAGENET_MEAN, IMAGENET_STD, Normalise
from tlbench.records.manifest import Manifest

BATCH = 64
STORED, SHOWN = 256, 224
CHUNK = 4
"""Images of one pass on a CPU at this side, as the engine chooses it for EfficientNet-Lite0."""
_CLASSES = 4
Epoch = Callable[[], Iterator[Tensor]]
"""One pass over all images in the order of their names, as normalised float32 batches (n, 3, 224, 224)."""


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the rows of input."""
    with TemporaryDirectory(prefix="speed-input-") as name:
        folder, n = Path(name), effort.size(400, 100)
        _write_jpegs(folder / "photographs" / "pieces", n)
        ours = Ours(folder)
        peers = {"input-imagefolder": _imagefolder, "input-webdataset": _webdataset, "input-datasets": _datasets}
        for key, make in peers.items():
            if key in wanted:
                theirs = make(folder)
                timed = alternate(
                    {"theirs": partial(_exhaust, theirs), "ours": ours.run},
                    repetitions=effort.repeated(5),
                )
                assert timed["theirs"].result == timed["ours"].result == n
                differing = _differing(theirs, ours.epoch)
                yield Outcome(key, timed["theirs"].median / n, timed["ours"].median / n, float(differing))


def _exhaust(epoch: Epoch) -> int:
    return sum(len(batch) for batch in epoch())


def _differing(theirs: Epoch, ours: Epoch) -> int:
    """Return how many pixel values of two epochs are not the same grey level."""
    return sum(
        int((_levels(a) != _levels(b)).sum()) if a.shape == b.shape else max(a.numel(), b.numel())
        for a, b in zip(theirs(), ours(), strict=True)
    )


def _levels(batch: Tensor) -> Tensor:
    mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((batch.double() * std + mean) * 255).round()


def _write_jpegs(domain: Path, n: int) -> None:
    for label in range(_CLASSES):
        (domain / f"class-{label}").mkdir(parents=True)
    for i, pixels in enumerate(pieces(n, STORED, seed=5)):
        Image.fromarray(pixels).save(domain / f"class-{i * _CLASSES // n}" / f"{i:05d}.jpg", quality=90)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "photographs" / "pieces").glob("*/*.jpg"))


def _transform() -> Callable[[Any], Tensor]:
    steps = [transforms.Resize(STORED), transforms.CenterCrop(SHOWN), transforms.ToTensor()]
    composed: Callable[[Any], Tensor] = transforms.Compose([*steps, transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    return composed


def _imagefolder(folder: Path) -> Epoch:
    images = datasets.ImageFolder(folder / "photographs" / "pieces", _transform())
    return lambda: (batch for batch, _ in DataLoader(images, BATCH))


def _webdataset(folder: Path) -> Epoch:
    import webdataset

    archive = folder / "photographs.tar"
    with tarfile.open(archive, "w") as tar:
        for file in _files(folder):
            label = file.parent.name.removeprefix("class-").encode()
            for suffix, content in (("jpg", file.read_bytes()), ("cls", label)):
                member = tarfile.TarInfo(f"{file.stem}.{suffix}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))
    transform = _transform()

    def epoch() -> Iterator[Tensor]:
        samples = webdataset.WebDataset(str(archive), shardshuffle=False).decode("pil").to_tuple("jpg", "cls")
        return (batch for batch, _ in DataLoader(samples.map_tuple(transform, int), batch_size=BATCH))

    return epoch


def _datasets(folder: Path) -> Epoch:
    import datasets as hugging_face

    hugging_face.disable_progress_bars()
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in _files(folder)],
        "label": [int(file.parent.name.removeprefix("class-")) for file in _files(folder)],
    }
    features = hugging_face.Features({"image": hugging_face.Image(), "label": hugging_face.Value("int64")})
    hugging_face.Dataset.from_dict(columns, features=features).save_to_disk(str(folder / "arrow"))
    transform = _transform()

    def transformed(rows: dict[str, Any]) -> dict[str, Any]:
        return {**rows, "image": [transform(image.convert("RGB")) for image in rows["image"]]}

    rows = hugging_face.load_from_disk(str(folder / "arrow")).with_transform(transformed)
    return lambda: (batch["image"] for batch in DataLoader(rows, batch_size=BATCH))


class _Corner(nn.Module):
    """Normalises as a backbone does, and answers with a pixel: what is left of a forward pass is its input."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = Normalise(IMAGENET_MEAN, IMAGENET_STD)

    def forward(self, images: Tensor) -> Tensor:
        pixels: Tensor = self.normalise(images)
        # A copy, as every network's outputs are: a view would keep the memory of all passes from being used again.
        return pixels[:, :, 0, 0].clone()


class Ours:
    """The epoch that a measurement reads: the split's cached images through a measured predictor, pass by pass."""

    def __init__(self, folder: Path) -> None:
        self.split = _split(folder)
        example = self.split.batch(np.arange(8)).images
        self.predictor = MeasuredPredictor(Predictor(_Corner()), classes=3, device="cpu", chunk=CHUNK, example=example)

    def run(self) -> int:
        """Go through the epoch as a measurement does; return the number of images."""
        return sum(len(self.predictor.outputs(batch.images)) for batch in self.split.batches(BATCH))

    def epoch(self) -> Iterator[Tensor]:
        """Yield what the network saw of every batch: kept, and so slower than `run`."""
        seen: list[Tensor] = []
        normalise = next(layer for layer in self.predictor.module.modules() if isinstance(layer, Normalise))
        handle = normalise.register_forward_hook(lambda layer, inputs, output: seen.append(output))
        try:
            for batch in self.split.batches(BATCH):
                self.predictor.outputs(batch.images)
                yield torch.cat(seen)
                seen.clear()
        finally:
            handle.remove()


def _split(folder: Path) -> Split:
    """Return all images as one split whose pixels lie in a cache of its own, read by the reader of folders."""
    listing = read_folder(Address("speed", "pieces", folder, "photographs", "pieces"))
    cached = ImageCache(folder / "cache").resized(listing, SHOWN, "center-crop", label="speed/pieces")
    places = np.arange(len(listing))
    manifest = Manifest(
        task="speed", domain="pieces", part="test", classes=listing.classes, names=listing.names,
        labels=listing.labels, pixels=cached.pixel_hash(places), image_size=SHOWN,
    )  # fmt: skip
    return Split(manifest, cached.at(places).as_array())
