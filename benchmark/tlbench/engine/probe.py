"""How fast this machine is at what an evaluation does: measured on made-up images, in seconds."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from tlbench.conditions.base import Loss, Output
from tlbench.data.cache import ImageCache
from tlbench.data.decode import decode
from tlbench.data.domain import Batch
from tlbench.data.remembered import recall, remember
from tlbench.data.resize import resize
from tlbench.engine.checks import lacking
from tlbench.engine.chunks import MOST_ON_CPU
from tlbench.engine.measured import MeasuredPredictor
from tlbench.engine.measuring import make_condition
from tlbench.engine.provenance import device_name
from tlbench.engine.workload import own_work
from tlbench.methods.augment import augmented
from tlbench.methods.base import Predictor
from tlbench.methods.crops import box_of, resized_crop
from tlbench.methods.features import extract_features
from tlbench.setting import Setting

if TYPE_CHECKING:
    from tlbench.conditions.base import ImageCondition
    from tlbench.engine.plan import AnyCondition
    from tlbench.models.backbone import Backbone
    from tlbench.suites.spec import Attack, Protocol, Recipe

PROBE_VERSION = 2
_TIMED_SECONDS = 0.3  # spent on each operation at least
_CALLS = 3  # of each operation at least, two where these take longer than
_SLOW_SECONDS = 1.2
_CALL_SECONDS = 0.5  # a call of a network on a CPU should take no longer
_PICTURE = (500, 400)  # a photograph of usual size: width and height
_CORES = os.cpu_count() or 1
ON_ALL_CORES = {"decode": _CORES, "crop": _CORES}
"""Operations whose seconds are those of so many cores together; of the others, of one."""
_CLASSES = 10
_NOISY = 0.2  # mean step from pixel to pixel; that of uniform noise is a third
_ONE_BY_ONE = frozenset({"foolbox-boundary", "foolbox-hopskipjump"})
"""Attacks that search for each image alone, so that the network sees small batches."""
_ASKING = _ONE_BY_ONE | {"square", "autoattack"}


@dataclass(frozen=True)
class Speeds:
    """Seconds an image takes, by operation.

    Attributes
    ----------
    device : str
        What a table calls it.
    seconds : mapping of str to float
        By operation: ``step`` (forward, backward and the optimiser's share), ``features`` and ``forward`` (of the
        network as it trains, and as it is measured), ``gradient`` (to the image), ``view`` and ``crop`` (a training
        image), ``walk`` (what Auto-PGD does for a question besides asking the network), every other attack by its
        name (the same; where it asks about images one by one, what a small batch costs a network more is in it),
        ``resample``, ``decode``, and every corruption by its name. ``uncropped_view`` is what is done to a crop
        besides.
    overlaps : bool
        Whether crops are cut while the network is busy: on a GPU, not on the cores that do both.
    found : mapping of str to str
        Day on which a probe was that fast, by operation.
    """

    device: str
    seconds: Mapping[str, float]
    overlaps: bool = False
    found: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, work: Iterable[str]) -> list[str]:
        """Return the operations of a workload whose speed is not known."""
        return sorted({operation_of(name) for name in work} - set(self.seconds))

    def hours_of(self, work: Mapping[str, int]) -> dict[str, float]:
        """Return the hours of a workload by kind; what is unknown counts as nothing, see ``lacks``."""
        each = {name: n * self.seconds.get(operation_of(name), 0.0) / 3600 for name, n in work.items()}
        if self.overlaps and "train/crop" in each:
            busy = sum(hours for name, hours in each.items() if name in ("train/step", "train/features"))
            each["train/crop"] = max(0.0, each["train/crop"] - busy)
        kinds: dict[str, float] = {}
        for name, hours in each.items():
            kind = name.partition("/")[0]
            kinds[kind] = kinds.get(kind, 0.0) + hours
        return kinds


def operation_of(name: str) -> str:
    """Return the operation of a kind of work.

    >>> operation_of("corruption/fog")
    'fog'
    """
    return name.partition("/")[2]


class Prober:
    """Measures what a plan asks for, each thing once however many of its rows ask for it.

    Parameters
    ----------
    protocol : Protocol
        For the images' size.
    device : str
    batch_size : int
        Most images measured at once.
    """

    def __init__(self, protocol: Protocol, device: str, batch_size: int = 128) -> None:
        self._protocol, self._device, self._batch_size = protocol, device, batch_size
        self._images = _images(32, protocol.image_size)
        self._found: dict[tuple[object, ...], dict[str, float]] = {}

    def speeds(
        self,
        network: Backbone,
        recipe: Recipe,
        conditions: Sequence[AnyCondition],
        *,
        trains: bool = True,
        frozen: bool = True,
    ) -> Speeds:
        """Return the speed of everything that a plan may ask for.

        Parameters
        ----------
        network : Backbone
            The weights do not matter: an untrained one is as fast.
        recipe : Recipe
            Its batch, optimiser, precision and augmentation count.
        conditions : sequence of AnyCondition
            Those whose images are to be made.
        trains : bool
            Whether all weights train, which takes the longest to probe.
        frozen : bool
            Whether the network is used as it is while fitting.
        """
        size, device, images = self._protocol.image_size, self._device, self._images
        attacks = [condition for condition in conditions if condition.kind == "attack"]
        one_by_one = any(attack.name in _ONE_BY_ONE for attack in attacks)
        views = (recipe.augment, recipe.crop, recipe.flip)
        used = {"features": frozen, "gradient": bool(attacks), "call": one_by_one}
        asked = ("forward", *(name for name, needed in used.items() if needed))
        seconds = {
            **self._once(
                ("network", network.name, *asked),
                lambda: _network_speeds(network, images, device, self._batch_size, asked),
            ),
            **self._once(("views", *views), lambda: _training_views(recipe, images, size)),
            **self._once(("decode",), lambda: {"decode": _decode_seconds(size, self._protocol)}),
        }
        if trains:
            kind = (network.name, recipe.optimizer, recipe.precision, recipe.batch_size)
            step = self._once(("step", *kind), lambda: {"step": _step_seconds(network, recipe, images, device)})
            seconds |= step
        for condition in conditions:
            seconds |= self._once((condition.name,), lambda spec=condition: _condition_speed(spec, images, size))  # type: ignore[misc]
        call = seconds.pop("call", 0.0)
        for attack in attacks:
            key = ("attack", attack.name, attack.norm)
            own = self._once(key, lambda spec=attack: _attack_seconds(spec, images[:8], size))  # type: ignore[misc]
            name = own_work(attack.name)
            each = own["question"] + (own["calls"] * call if attack.name in _ONE_BY_ONE else 0.0)
            seconds[name] = max(each, seconds.get(name, 0.0))
        resampled = [seconds.pop(name) for name in list(seconds) if name.startswith("resample/")]
        if resampled:
            seconds["resample"] = float(np.mean(resampled))
        threads = torch.get_num_threads()
        name = f"cpu, {threads} thread{'s' if threads > 1 else ''}" if device == "cpu" else device_name(device)
        return Speeds(name, seconds, overlaps=device != "cpu")

    def _once(self, key: tuple[object, ...], measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        if key not in self._found:
            self._found[key] = measure()
        return self._found[key]


def _network_speeds(
    network: Backbone, images: Tensor, device: str, batch_size: int, asked: Sequence[str]
) -> dict[str, float]:
    net = network.fresh(_CLASSES)
    measured = MeasuredPredictor(Predictor(net), classes=_CLASSES, device=device, chunk=batch_size, example=images[:2])

    def features(some: Tensor) -> None:
        extract_features(net, [Batch(torch.arange(len(some)), ("",) * len(some), some, _labels(some), "")], device)

    def gradient(some: Tensor) -> None:
        measured.gradient(some.float().div_(255), _labels(some), _cross_entropy)

    calls = {"forward": measured.outputs, "features": features, "gradient": gradient}
    # One pass of a prepared network, as an evaluation cuts it.
    passes = {"forward": measured.chunk_of("forward"), "gradient": measured.chunk_of("gradient")}
    most = passes if device == "cpu" else {}
    found = {
        name: _network_seconds(calls[name], images, most.get(name, batch_size), device)
        for name in asked
        if name != "call"
    }
    if "call" in asked:
        # Beyond what its images take in a batch.
        found["call"] = max(0.0, _timed(lambda: measured.outputs(images[:1]), 1, device) - found["forward"])
    return found


def _network_seconds(call: Callable[[Tensor], object], images: Tensor, most: int, device: str) -> float:
    """Return the seconds an image takes a network.

    A small batch leaves a GPU idle, and a small network on a CPU busy with anything but its images: measured are as
    many as an evaluation takes at once, or on a CPU as many as are done in half a second.
    """
    if device != "cpu":
        many = _as_many(images, most)
        return _timed(lambda: call(many), len(many), device)
    few = images[:2]
    each = _timed(lambda: call(few), len(few))
    wanted = min(MOST_ON_CPU, most)
    chunk = wanted if each * wanted <= _CALL_SECONDS else int(_CALL_SECONDS / each)
    if chunk <= len(few):
        return each
    some = _as_many(images, chunk)
    return _timed(lambda: call(some), len(some))


def _as_many(images: Tensor, n: int) -> Tensor:
    return images.repeat(-(-n // len(images)), 1, 1, 1)[:n]


def _labels(images: Tensor) -> Tensor:
    return torch.zeros(len(images), dtype=torch.int64)


def _cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="none")


def _step_seconds(network: Backbone, recipe: Recipe, images: Tensor, device: str) -> float:
    """Return the seconds of an image in a training step, with its share of the optimiser's own."""
    net = network.fresh(_CLASSES).to(device).train()
    kinds: dict[str, type[torch.optim.Optimizer]] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    optimizer = kinds[recipe.optimizer](net.parameters(), lr=0.0)  # type: ignore[call-arg]

    def through(some: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            outputs = net(some.to(device).float().div_(255))
        F.cross_entropy(outputs.float(), _labels(some).to(device)).backward()

    passes = _network_seconds(through, images, recipe.batch_size, device)
    # Apart, for it costs the same whatever the batch, and the probe's batch may be smaller.
    return passes + _timed(optimizer.step, recipe.batch_size, device)


def _training_views(recipe: Recipe, images: Tensor, size: int) -> dict[str, float]:
    """Return the seconds of a view of a training image, and of a crop out of a whole picture."""
    rng = torch.Generator().manual_seed(0)
    few = images[:8]

    def view(crop: bool) -> float:
        return _timed(lambda: augmented(few, rng, augment=recipe.augment, crop=crop, flip=recipe.flip), len(few))

    stored, draws = _picture(), np.linspace(0.1, 0.9, 22)

    def cut() -> None:
        pixels = decode(stored, "a probe")
        resized_crop(pixels, box_of(draws, *pixels.shape[:2]), size)

    return {"view": view(recipe.crop), "uncropped_view": view(False), "crop": _timed(cut, 1) / _CORES}


def _condition_speed(spec: AnyCondition, images: Tensor, size: int) -> dict[str, float]:
    """Return the seconds of an image that is corrupted or transformed; nothing for other conditions."""
    if spec.kind not in ("corruption", "transform"):
        return {}
    # Without its package, the corruption that does the same with textures of its own is as fast.
    makes = spec.model_copy(update={"name": "frost-generated"}) if lacking([spec]) else spec
    made: ImageCondition = make_condition(makes, size)  # type: ignore[assignment]
    few = images[:2] if spec.kind == "corruption" else images[:8]
    batch = Batch(torch.arange(len(few)), tuple(map(str, range(len(few)))), few, _labels(few), "probe")
    made.apply(batch, made.settings[0])
    # Every strength: some cost more the stronger they are.
    each = float(np.mean([_setting_seconds(made, batch, setting) for setting in made.settings]))
    return {spec.name if spec.kind == "corruption" else f"resample/{spec.name}": each}


def _setting_seconds(made: ImageCondition, batch: Batch, setting: Setting) -> float:
    return _timed(lambda: made.apply(batch, setting), len(batch), seconds=_TIMED_SECONDS / 3 / len(made.settings))


class _Free:
    """A predictor that costs nothing: what is left of an attack is its own work.

    It is right about images and wrong about noise, so that an attack that begins with noise has something to do.
    """

    output: Output = "logits"
    batch_dependent = False
    differentiable = True

    def __init__(self) -> None:
        self.images = self.calls = 0

    def start(self, setting: Setting) -> None:
        self.images = self.calls = 0

    def outputs(self, images: Tensor) -> Tensor:
        self.images += len(images)
        self.calls += 1
        outputs = torch.tensor([1.0, 0.0, -1.0, -2.0]).repeat(len(images), 1)
        row = images[:, :, 0].float() / (255 if images.dtype == torch.uint8 else 1)
        outputs[:, 1] += 2 * ((row[..., 1:] - row[..., :-1]).abs().mean(dim=(1, 2)) > _NOISY)
        return outputs

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        return self.outputs(images), torch.ones_like(images)


def _attack_seconds(spec: Attack, images: Tensor, size: int) -> dict[str, float]:
    """Return the seconds of an attack's own work for a question about an image, and its calls for a question.

    The attack itself is run, shorter than it is, with an epsilon that breaks nothing.
    """
    few = images[:2] if spec.name in _ONE_BY_ONE else images
    short = {"epsilons": (1e-4,), "denominator": 1.0, "steps": 5, "restarts": 1, "audit": 0.0}
    if spec.name in _ASKING:
        short["queries"] = 200 if spec.name in _ONE_BY_ONE else 30
    attack = make_condition(spec.model_copy(update=short), size)
    batch = Batch(torch.arange(len(few)), tuple(map(str, range(len(few)))), few, _labels(few), "probe")
    asked = _Free()

    def run() -> None:
        for _ in attack.observe(asked, lambda: iter([batch])):
            pass

    seconds = _timed(run, 1)
    return {"question": seconds / asked.images, "calls": asked.calls / asked.images}


def _decode_seconds(size: int, protocol: Protocol) -> float:
    """Return the seconds of an image that is decoded and resized by all cores together, see ``ON_ALL_CORES``."""
    stored = _picture()
    return _timed(lambda: resize(decode(stored, "a probe"), size, protocol.resize), 1) / _CORES


def _timed(call: Callable[[], object], images: int, device: str = "cpu", *, seconds: float = _TIMED_SECONDS) -> float:
    """Return the seconds an image takes at best.

    The fastest of several calls: the first builds what is built once, and whatever else a machine does makes a call
    slower, never faster.
    """
    took: list[float] = []
    # Slow ones are asked less often: the whole shall take seconds.
    while len(took) < 2 or sum(took) < seconds or (len(took) < _CALLS and sum(took) < _SLOW_SECONDS):
        started = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize(device)
        took.append(time.perf_counter() - started)
    return min(took) / images


def _images(n: int, size: int) -> Tensor:
    """Return smooth images with some noise, uint8 (n, 3, size, size): neither flat nor all noise."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 8, 8)))
    smooth = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    noise = torch.from_numpy(rng.normal(0, 8, smooth.shape))
    return (smooth + noise).clamp(0, 255).to(torch.uint8)


def _picture() -> bytes:
    """Return a photograph-like picture as JPEG."""
    pixels = _images(1, max(_PICTURE))[0].permute(1, 2, 0).numpy()
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[: _PICTURE[1], : _PICTURE[0]])).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def remember_speeds(speeds: Speeds, network: str, recipe: Recipe, protocol: Protocol, device: str) -> Speeds:
    """Keep what was measured in the cache folder, and return it with what earlier probes found.

    Of two speeds of one operation the faster is kept, with its day: the other one shared the machine with something.
    """
    today = datetime.now(UTC).date().isoformat()
    seconds, found = dict(speeds.seconds), dict.fromkeys(speeds.seconds, today)
    before = recalled_speeds(network, recipe, protocol, device)
    for name, earlier in before.seconds.items() if before else ():
        if name not in seconds or earlier <= seconds[name]:
            seconds[name] = earlier
            found[name] = before.found.get(name, today) if before else today
    fastest = replace(speeds, seconds=seconds, found=found)
    remember(_folder(), asdict(fastest), "speeds", *_known_by(network, recipe, protocol, device))
    return fastest


def recalled_speeds(network: str, recipe: Recipe, protocol: Protocol, device: str) -> Speeds | None:
    """Return the fastest that probes of a network found on such a machine, whatever its weights, or None."""
    found = recall(_folder(), "speeds", *_known_by(network, recipe, protocol, device))
    try:
        return Speeds(**found) if isinstance(found, dict) else None
    except TypeError:
        return None  # of another version of this code


def _folder() -> Path:
    return ImageCache().folder / "speeds"


def _known_by(network: str, recipe: Recipe, protocol: Protocol, device: str) -> tuple[str, ...]:
    machine = (device_name(device), torch.get_num_threads(), _CORES, torch.__version__)
    training = (recipe.optimizer, recipe.precision, recipe.augment, recipe.crop, recipe.flip, recipe.batch_size)
    images = (protocol.image_size, protocol.resize)
    return tuple(map(str, (PROBE_VERSION, network.partition("@")[0], *images, *machine, *training)))
