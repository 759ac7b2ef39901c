"""A predictor measured the plainest way, and images with their identities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_image
from torch import Tensor, nn
from torch.nn import functional

from tlbench.conditions.base import Condition, Loss, Output
from tlbench.data.domain import Batch
from tlbench.setting import Setting


@dataclass
class PlainPredictor:
    """Implements `tlbench.conditions.base.Measured` for a module on the CPU, in chunks."""

    module: nn.Module
    chunk: int = 1_000
    output: Output = "logits"
    batch_dependent: bool = False
    differentiable: bool = True
    started: list[Setting] = field(default_factory=list)
    asked: list[Tensor] = field(default_factory=list)

    def start(self, setting: Setting) -> None:
        self.started.append(setting)

    def outputs(self, images: Tensor) -> Tensor:
        x = images.float() / 255 if images.dtype == torch.uint8 else images
        with torch.no_grad():
            return torch.cat([self.module(part) for part in x.split(self.chunk)])

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        self.asked.append(images)
        pieces = []
        for part, of in zip(images.split(self.chunk), labels.split(self.chunk), strict=True):
            leaf = part.detach().clone().requires_grad_()
            outputs = self.module(leaf)
            pieces.append((outputs.detach(), torch.autograd.grad(loss(outputs, of).sum(), leaf)[0]))
        return torch.cat([outputs for outputs, _ in pieces]), torch.cat([gradient for _, gradient in pieces])


def _batch_of(images: Tensor, labels: Tensor | None = None, *, scope: str = "digits/plain") -> Batch:
    """Return images as one batch; image i is called ``i``."""
    n = len(images)
    labels = torch.zeros(n, dtype=torch.int64) if labels is None else labels
    return Batch(torch.arange(n), tuple(str(i) for i in range(n)), images, labels, scope)


def _part_of(batch: Batch, rows: list[int]) -> Batch:
    """Return some images of a batch, in the given order, under their own names."""
    names = tuple(batch.names[row] for row in rows)
    return Batch(batch.ids[rows], names, batch.images[rows], batch.labels[rows], batch.scope)


def _cut(batch: Batch, size: int) -> Callable[[], Iterator[Batch]]:
    """Return what gives a batch again in pieces of a size."""
    starts = range(0, len(batch.ids), size)
    return lambda: (_part_of(batch, list(range(s, min(s + size, len(batch.ids))))) for s in starts)


def _observed(
    condition: Condition, predictor: PlainPredictor, batches: Callable[[], Iterator[Batch]]
) -> dict[str, Tensor]:
    """Return an attack's rows in the images' order: survived (epsilons, n), correct_clean (n,)."""
    rows = list(condition.observe(predictor, batches))
    survived, clean = [], []
    for setting in condition.settings:
        mine = [row for row in rows if row.setting == setting]
        order = torch.cat([row.ids for row in mine]).argsort()
        survived.append(torch.cat([row.survived for row in mine if row.survived is not None])[order])
        clean.append(torch.cat([row.correct_clean for row in mine if row.correct_clean is not None])[order])
    assert all(torch.equal(clean[0], other) for other in clean)
    return {"survived": torch.stack(survived), "correct_clean": clean[0]}


# Test modules cannot import from one another, so what they share comes as fixtures.
@pytest.fixture(scope="session")
def plain_predictor() -> type[PlainPredictor]:
    return PlainPredictor


@pytest.fixture(scope="session")
def batch_of() -> Callable[..., Batch]:
    return _batch_of


@pytest.fixture(scope="session")
def part_of() -> Callable[[Batch, list[int]], Batch]:
    return _part_of


@pytest.fixture(scope="session")
def cut() -> Callable[[Batch, int], Callable[[], Iterator[Batch]]]:
    return _cut


@pytest.fixture(scope="session")
def observed() -> Callable[..., dict[str, Tensor]]:
    return _observed


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """Four pieces of real photographs, uint8 (4, 224, 224, 3)."""
    pieces = []
    for name in ("china.jpg", "flower.jpg"):
        photo = load_sample_image(name)
        pieces += [photo[:224, :224], photo[150:374, 200:424]]
    return np.stack(pieces)


def small_digits() -> Batch:
    """All of scikit-learn's digits at 16 by 16 pixels, uint8 RGB."""
    data = load_digits()
    gray = torch.from_numpy(data.images).float()[:, None] / 16
    images = functional.interpolate(gray, size=16, mode="bilinear").mul(255).to(torch.uint8).expand(-1, 3, -1, -1)
    return _batch_of(images.contiguous(), torch.from_numpy(data.target).long())


def small_networks(digits: Batch) -> dict[str, nn.Module]:
    """Three small networks, fitted to the digits for a second each."""

    def convolution(width: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(width * 9, 10),
        )  # fmt: skip

    def dense(width: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, width), nn.ReLU(), nn.Linear(width, 10))

    fitted = {}
    for seed, (name, make) in enumerate({"narrow": convolution, "wide": convolution, "dense": dense}.items()):
        torch.manual_seed(seed)
        network = make(16 if name == "wide" else 8 if name == "narrow" else 32)
        optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(8):
            for rows in torch.randperm(len(digits.ids)).split(128):
                optimiser.zero_grad()
                logits = network(digits.images[rows].float() / 255)
                functional.cross_entropy(logits, digits.labels[rows]).backward()
                optimiser.step()
        fitted[name] = network.eval().requires_grad_(False)
    return fitted


@pytest.fixture(scope="session")
def digits() -> Batch:
    return small_digits()


@pytest.fixture(scope="session")
def networks(digits: Batch) -> dict[str, nn.Module]:
    return small_networks(digits)
