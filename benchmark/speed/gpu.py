"""A GPU's evaluation beside its bare forward pass: how many of its images a second are left."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from speed.measure import Effort, alternate
from speed.pictures import pieces
from speed.rows import Outcome
from tlbench.conditions.base import Condition
from tlbench.conditions.catalogue import build_condition
from tlbench.data.domain import Split
from tlbench.engine.feed import observe
from tlbench.engine.measured import MeasuredPredictor
from tlbench.methods.base import Predictor
from tlbench.models.backbone import fixed_generator
from tlbench.models.statistics import Statistics
from tlbench.models.zoo import load_backbone
from tlbench.records.manifest import Manifest

CLASSES, SIDE, BATCH = 345, 224, 256
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "zoom_blur", "fog", "contrast", "jpeg_compression")
"""Of every kind some: noise, blurs, weather, and two of the digital ones, JPEG decoded by the processor among them."""


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the rows of a GPU; wall time, for that is what a GPU's user waits for."""
    if not torch.cuda.is_available():
        yield from (Outcome(key, absent="no CUDA device") for key in wanted)
        return
    network = load_backbone("timm:resnet50@untrained").fresh(CLASSES, generator=fixed_generator("speed", "resnet50"))
    split = _split(effort.size(4096, 512))
    difference = _logits_apart(network, split)
    conditions: dict[str, Sequence[Condition]] = {
        "gpu-clean": [build_condition("clean", "clean")],
        "gpu-corrupted": [build_condition("corruption", name, severities=(3,), table=SIDE) for name in CORRUPTIONS],
    }
    for key in wanted:
        yield _evaluation(key, network, split, conditions[key], difference, effort)


def _evaluation(
    key: str, network: nn.Module, split: Split, conditions: Sequence[Condition], difference: float, effort: Effort
) -> Outcome:
    predictor = _ready(network, split, "cuda")
    n = len(split) * sum(len(condition.settings) for condition in conditions)
    chunk = predictor.chunk_of("forward")
    pixels = torch.rand(chunk, 3, SIDE, SIDE, device="cuda").contiguous(memory_format=torch.channels_last)

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(n // chunk):
                predictor.module(pixels)
        torch.cuda.synchronize()

    def ours() -> None:
        for condition in conditions:
            evaluated(predictor, condition, split)
        torch.cuda.synchronize()

    timed = alternate({"bare": bare, "ours": ours}, repetitions=effort.repeated(5), clock=time.perf_counter)
    bare_seconds = timed["bare"].median / (n // chunk * chunk)
    return Outcome(key, bare_seconds, timed["ours"].median / n, difference, note=f"{chunk} images a pass, wall time")


def evaluated(predictor: MeasuredPredictor, condition: Condition, split: Split) -> None:
    """Observe a predictor under a condition and reduce what it says, as a measurement does."""
    statistics = {setting: Statistics(output="logits", full=True) for setting in condition.settings}
    for seen in observe(condition, predictor, lambda: split.batches(BATCH), predictor.device):
        assert seen.outputs is not None
        statistics[seen.setting].add(seen.ids, seen.labels, seen.outputs)
    for one in statistics.values():
        one.finish()


def _ready(network: nn.Module, split: Split, device: str) -> MeasuredPredictor:
    example = split.batch(np.arange(16)).images
    return MeasuredPredictor(Predictor(network), classes=CLASSES, device=device, chunk=BATCH, example=example)


def _logits_apart(network: nn.Module, split: Split) -> float:
    """Return the largest difference of a GPU's and the CPU's logits, relative to the largest logit."""
    images = split.batch(np.arange(16)).images
    found: list[Tensor] = [_ready(network, split, device).outputs(images) for device in ("cpu", "cuda")]
    network.to("cpu")
    return float((found[0] - found[1]).abs().max() / found[0].abs().max())


def _split(n: int) -> Split:
    """Return photographs of random classes; a few hundred different ones, again and again."""
    pixels = np.resize(pieces(min(n, 256), SIDE, seed=13), (n, SIDE, SIDE, 3))
    labels = np.random.default_rng(0).integers(CLASSES, size=n)
    manifest = Manifest(
        task="speed", domain="photographs", part="test", classes=tuple(str(c) for c in range(CLASSES)),
        names=tuple(f"piece-{i}" for i in range(n)), labels=labels, pixels="photographs", image_size=SIDE,
    )  # fmt: skip
    return Split(manifest, pixels)
