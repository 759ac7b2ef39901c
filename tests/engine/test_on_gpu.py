"""The same numbers on a GPU; how fast it is there is told by the speed table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tlbench import api
from tlbench.conditions.catalogue import build_condition
from tlbench.data.domain import Split
from tlbench.engine.feed import Crossing, fed, observe
from tlbench.engine.measured import MeasuredPredictor
from tlbench.engine.provenance import set_exact_arithmetic
from tlbench.leaderboard.tables import load_predictions
from tlbench.methods.base import Predictor
from tlbench.models.zoo import load_backbone
from tlbench.records.manifest import Manifest

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand"),
]


@pytest.fixture(scope="module")
def split() -> Split:
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (50, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear", align_corners=False)
    pixels = smooth.permute(0, 2, 3, 1).contiguous().to(torch.uint8).numpy()
    names = tuple(f"{number:02d}" for number in range(50))
    return Split(Manifest("t", "d", "test", ("a", "b", "c"), names, np.arange(50) % 3, "pixels", 64), pixels)


def ready(device: str, split: Split) -> MeasuredPredictor:
    set_exact_arithmetic(None)
    net = load_backbone("efficientnet-lite0").fresh(3, generator=torch.Generator().manual_seed(0))
    example = split.batch(np.arange(8)).images
    return MeasuredPredictor(Predictor(net), classes=3, device=device, chunk=32, example=example)


def test_logits_of_the_prepared_network_are_those_of_the_cpu(split: Split) -> None:
    images = split.batch(np.arange(50)).images
    here = ready("cpu", split).outputs(images)
    there = ready("cuda", split).outputs(images.to("cuda"))
    assert there.device.type == "cuda"
    assert float((there.cpu() - here).abs().max() / here.abs().max()) <= 1e-4
    assert torch.equal(ready("cuda", split).outputs(images), there.cpu())


def test_a_gradient_is_that_of_the_cpu(split: Split) -> None:
    images, labels = split.batch(np.arange(8)).images.float() / 255, torch.arange(8) % 3

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, labels, reduction="none")

    _, here = ready("cpu", split).gradient(images, labels, loss)
    _, there = ready("cuda", split).gradient(images.to("cuda"), labels.to("cuda"), loss)
    assert float((there.cpu() - here).norm() / here.norm()) <= 1e-2


def test_every_image_arrives_once_and_in_order(split: Split) -> None:
    batches = list(fed(split.batches(8), Crossing(torch.device("cuda"))))
    assert torch.cat([batch.ids for batch in batches]).tolist() == list(range(50))
    assert all(batch.images.device.type == batch.labels.device.type == "cuda" for batch in batches)
    assert all(batch.ids.device.type == "cpu" for batch in batches)
    whole = split.batch(np.arange(50))
    assert torch.equal(torch.cat([batch.images for batch in batches]).cpu(), whole.images)


@pytest.mark.parametrize(
    ("kind", "name"), [("clean", "clean"), ("corruption", "gaussian_noise"), ("transform", "shift")]
)
def test_what_is_observed_is_what_a_cpu_observes(split: Split, kind: str, name: str) -> None:
    options = {"corruption": {"severities": (3,), "table": 64}, "transform": {"steps": (4.0,)}}.get(kind, {})
    condition = build_condition(kind, name, image_size=64, **options)  # type: ignore[arg-type]
    found = []
    for device in ("cpu", "cuda"):
        rows = observe(condition, ready(device, split), lambda: split.batches(16), torch.device(device))
        found.append({int(i): row.outputs[n].cpu() for row in rows for n, i in enumerate(row.ids)})  # type: ignore[index]
    here, there = (torch.stack([outputs[i] for i in range(50)]) for outputs in found)
    # One grey level of a few pixels may differ where images are changed.
    assert float((here - there).abs().max() / here.abs().max()) <= (1e-4 if kind == "clean" else 2e-2)


def test_an_evaluation_predicts_the_same_classes(blobs: Path, tmp_path: Path) -> None:
    part = {"only": ["source=right"], "seeds": [0], "quiet": True, "metrics": ["accuracy"]}
    for device in ("cpu", "cuda"):
        assert api.evaluate(blobs, "ncm", device=device, run_dir=tmp_path / device, **part).complete
    here, there = (
        load_predictions(blobs, "ncm", run_dir=tmp_path / device, published=False)
        .sort_values(["role", "target", "id"])["predicted"]
        .tolist()
        for device in ("cpu", "cuda")
    )
    assert here == there
