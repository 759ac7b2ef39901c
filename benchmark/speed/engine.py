"""What the engine adds to a network's own arithmetic: one fit's evaluation beside its bare calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from speed.corruptions import TYPES
from speed.measure import Effort
from speed.pictures import pieces
from speed.rows import Outcome
from tlbench.conditions.attacks.losses import difference_of_logits_ratio
from tlbench.conditions.base import ImageCondition
from tlbench.conditions.catalogue import build_condition
from tlbench.engine import execute, variants
from tlbench.engine.measured import MeasuredPredictor
from tlbench.engine.session import open_session

_SUITE = """
name = "speed"

[protocol]
image_size = {side}
seeds = [0]
backbone = "efficientnet-lite0"

[protocol.split]
train = 0.1
val = 0.1
test = 0.8

[tasks.photographs]
reader = "folder"
path = "photographs"
domains = ["day", "night"]
pairs = [{{ source = "day", target = "night" }}]

{conditions}
"""
_CLEAN_AND_ATTACKED = """
[[conditions]]
kind = "clean"
roles = ["id-test", "ood-test"]

[[conditions]]
kind = "attack"
name = "apgd-dlr"
epsilons = [0.05, 0.15, 0.5]
denominator = 255
steps = {steps}
mode = "exact"
roles = ["ood-test"]
max_images = {attacked}
"""
_CORRUPTED = """
[[conditions]]
kind = "clean"
roles = ["id-test"]

[[conditions]]
kind = "corruption"
types = {types}
severities = [1, 2, 3, 4, 5]
table = 224
roles = ["id-test"]
"""
_CLASSES = 5


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the rows of the engine."""
    if "engine" in wanted:
        conditions = _CLEAN_AND_ATTACKED.format(steps=effort.size(50, 10), attacked=effort.size(20, 12))
        yield _overhead(conditions, effort.size(120, 40), effort)
    if "corrupted-share" in wanted:
        yield _share(_CORRUPTED.format(types=str(list(TYPES)).replace("'", '"')), effort.size(20, 20), effort)


@dataclass(frozen=True)
class Call:
    """One call of the prepared network: the shape of its images, and whether a gradient by them followed."""

    shape: tuple[int, ...]
    gradient: bool


@dataclass
class Watched:
    """What was seen of one evaluation.

    Attributes
    ----------
    seconds : float
        Of all measurements of the fit, without the fit.
    calls : list of Call
    module : nn.Module or None
        The prepared network.
    corrupting_seconds : float
    """

    seconds: float = 0.0
    calls: list[Call] = field(default_factory=list)
    module: nn.Module | None = None
    corrupting_seconds: float = 0.0


def _overhead(conditions: str, images: int, effort: Effort) -> Outcome:
    with TemporaryDirectory(prefix="speed-engine-") as name:
        folder = _folder(Path(name), conditions, side=64, images=images)
        evaluate(folder, "warm-up")
        whole, bare = [], []
        for turn in range(effort.repeated(5)):
            seen = evaluate(folder, f"run-{turn}")
            whole.append(seen.seconds)
            bare.append(bare_seconds(seen))
    forwards = sum(not call.gradient for call in seen.calls)
    note = f"{forwards} forward and {len(seen.calls) - forwards} gradient calls"
    return Outcome("engine", median(bare), median(whole), note=note)


def _share(conditions: str, images: int, effort: Effort) -> Outcome:
    with TemporaryDirectory(prefix="speed-engine-") as name:
        folder = _folder(Path(name), conditions, side=224, images=images)
        runs = [evaluate(folder, f"run-{turn}") for turn in range(effort.repetitions)]
    whole, corrupting = median(run.seconds for run in runs), median(run.corrupting_seconds for run in runs)
    return Outcome("corrupted-share", whole, corrupting, note="with what each type sets up, on a few images")


def _folder(folder: Path, conditions: str, *, side: int, images: int) -> Path:
    """Write the suite and its photographs: two domains, some of the images in each, classes by their brightness."""
    (folder / "speed.toml").write_text(_SUITE.format(side=side, conditions=conditions), encoding="utf-8")
    for seed, domain in enumerate(("day", "night")):
        found = pieces(images, side, seed=11 + seed)
        # A fit that is right about many images, as a fit should be: those that are wrong when clean are not attacked.
        label = found.mean(axis=(1, 2, 3)).argsort().argsort() * _CLASSES // images
        for i, pixels in enumerate(found):
            path = folder / "photographs" / domain / f"class-{label[i]}" / f"{i:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return folder


def evaluate(folder: Path, run: str) -> Watched:
    """Evaluate a linear probe on the folder's suite in a run folder of its own, and watch how."""
    session = open_session(
        folder / "speed.toml", "linear-probe", selection={}, run_dir=folder / run, device="cpu", threads=1, quiet=True
    )
    with watching() as seen:
        outcome = session.run()
    if outcome.failures or not outcome.complete:
        raise RuntimeError(f"the evaluation failed: {'; '.join(outcome.failures) or 'it is not complete'}")
    return seen


@contextmanager
def watching() -> Iterator[Watched]:
    """Count the calls of the prepared network and time the measurements of every fit, for the block."""
    seen, inside = Watched(), False
    corruption: Any = type(build_condition("corruption", "contrast", table=64))
    measure_variant, made_ready, apply = execute._measure_variant, variants.made_ready, corruption.apply

    def timed(*arguments: Any, **named: Any) -> None:
        nonlocal inside
        inside, start = True, time.process_time()
        try:
            measure_variant(*arguments, **named)
        finally:
            seen.seconds += time.process_time() - start
            inside = False

    def ready(*arguments: Any, **named: Any) -> MeasuredPredictor:
        predictor = made_ready(*arguments, **named)
        seen.module = predictor.module
        predictor.module.register_forward_pre_hook(
            lambda module, inputs: seen.calls.append(Call(tuple(inputs[0].shape), inputs[0].requires_grad))
        )
        return predictor

    def corrupted(self: ImageCondition, *arguments: Any, **named: Any) -> Tensor:
        start = time.process_time()
        result: Tensor = apply(self, *arguments, **named)
        seen.corrupting_seconds += (time.process_time() - start) * inside
        return result

    patched: list[tuple[Any, str, Callable[..., Any]]] = [
        (execute, "_measure_variant", timed), (execute, "made_ready", ready), (corruption, "apply", corrupted),
    ]  # fmt: skip
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patched]
    try:
        for owner, name, function in patched:
            setattr(owner, name, function)
        yield seen
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)


def bare_seconds(seen: Watched) -> float:
    """Return the seconds of the same calls of the same network, in the same order, with nothing around them."""
    module = seen.module
    assert module is not None
    module._forward_pre_hooks.clear()
    labels, pixels = torch.zeros(max(call.shape[0] for call in seen.calls), dtype=torch.int64), {}
    for call in seen.calls:
        if call.shape not in pixels:
            pixels[call.shape] = torch.rand(call.shape).contiguous(memory_format=torch.channels_last)
    start = time.process_time()
    for call in seen.calls:
        if call.gradient:
            leaf = pixels[call.shape].detach().requires_grad_()
            loss = difference_of_logits_ratio(module(leaf), labels[: call.shape[0]]).sum()
            torch.autograd.grad(loss, leaf)
        else:
            with torch.inference_mode():
                module(pixels[call.shape])
    return time.process_time() - start
