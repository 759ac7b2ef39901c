"""Seventeen types at five severities beside imagecorruptions-imaug: plain, and with numba."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import imagecorruptions
import numpy as np
import torch
from numpy.typing import NDArray

from speed.lite0 import as_images, batch_of
from speed.measure import Effort, alternate
from speed.pictures import pieces
from speed.plain import without_numba
from speed.published import elastic_transform
from speed.rows import Outcome, Part
from tlbench.conditions.base import ImageCondition, image_seeds
from tlbench.conditions.catalogue import build_condition
from tlbench.setting import Setting

DETERMINISTIC = (
    "brightness", "contrast", "saturate", "pixelate", "jpeg_compression", "gaussian_blur", "defocus_blur", "zoom_blur",
)  # fmt: skip
RANDOM = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "motion_blur", "snow", "fog", "spatter",
    "elastic_transform",
)  # fmt: skip
TYPES = RANDOM + DETERMINISTIC
"""The seventeen of ``ood172``: all but glass_blur and frost."""
SIDE = 224
LEVELS, SHARE = 1, 0.03
"""A deterministic type may differ by this many grey levels, on this share of the values."""
FACTOR = 2.0
"""A random type may be this many times as far from the peer as the peer is from itself."""
_DRAWS = 3
"""Runs of a random peer among which its distance to itself is taken."""

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class TypeFound:
    """One type, both sides: seconds an image over all severities, in one way of running ours.

    Attributes
    ----------
    distance : float
        Of the two sides' images, as a share of what is allowed.
    first_seconds : float
        What the first calls took beyond the others.
    """

    name: str
    peer_seconds: float
    ours_seconds: float
    first_seconds: float
    distance: float
    agreement: str


@dataclass
class Comparison:
    """Collects how far two sides' images of one type are apart, severity by severity."""

    name: str
    levels: int = 0
    share: float = 0.0
    between: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    within: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))

    def exactly(self, expected: Images, found: Images) -> None:
        """Add images that should be the same."""
        apart = np.abs(expected.astype(np.int16) - found)
        self.levels = max(self.levels, int(apart.max()))
        self.share = max(self.share, float((apart > 0).mean()))

    def in_distribution(self, draws: Sequence[Images], found: Images) -> None:
        """Add images that should be as far from a peer's as the peer's are from each other."""
        # Summed over severities: of an image with three grey levels left, one pair of draws tells little.
        pairs = [(a, b) for i, a in enumerate(draws) for b in draws[:i]]
        self.between += np.mean([_apart(found, draw) for draw in draws], axis=0)
        self.within += np.mean([_apart(a, b) for a, b in pairs], axis=0)

    @property
    def result(self) -> tuple[float, str]:
        """The distance as a share of what is allowed, and the same in words."""
        if self.name in (*DETERMINISTIC, "elastic_transform"):
            said = f"{self.levels} level on {100 * self.share:.2g} % of values"
            return max(self.levels / LEVELS, self.share / SHARE), said
        ratio = float((self.between / self.within).max())
        return ratio / FACTOR, f"{ratio:.2f} of the peer's distance to itself"


def _apart(a: Images, b: Images) -> tuple[float, float]:
    """Return the distance of two sets of images as distributions of grey levels, and pixel by pixel."""
    first, second = (np.bincount(images.ravel(), minlength=256) / images.size for images in (a, b))
    return float(np.abs(first - second).sum()), float(np.abs(a.astype(np.int16) - b).mean())


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the rows of corruptions."""
    images = pieces(effort.size(8, 4), SIDE, seed=1)
    for way in ("plain", "numba"):
        names = [*(TYPES if f"corruptions-{way}" in wanted else ())]
        for single in ("zoom_blur", "glass_blur"):
            if f"{single.replace('_', '-')}-{way}" in wanted and single not in names:
                names.append(single)
        if not names:
            continue
        with without_numba() if way == "plain" else nullcontext():
            found = {name: one_type(name, images, effort) for name in names}
        if f"corruptions-{way}" in wanted:
            yield _together(f"corruptions-{way}", [found[name] for name in TYPES], len(images))
        for single in ("zoom_blur", "glass_blur"):
            key = f"{single.replace('_', '-')}-{way}"
            if key in wanted:
                one = found[single]
                yield Outcome(key, one.peer_seconds, one.ours_seconds, one.distance, note=one.agreement)


def one_type(name: str, images: Images, effort: Effort) -> TypeFound:
    """Measure one type at every severity; every severity is warmed, then timed, on its own."""
    peer = ours = first = 0.0
    compared = Comparison(name)
    condition = build_condition("corruption", name, image_size=SIDE)
    assert isinstance(condition, ImageCondition)
    batch = batch_of(as_images(images), torch.zeros(len(images), dtype=torch.int64))
    for setting in condition.settings:
        assert setting.severity is not None
        severity = int(setting.severity)

        def theirs(severity: int = severity) -> Images:
            return np.stack([imagecorruptions.corrupt(image, severity, name) for image in images])

        def corrupted(setting: Setting = setting) -> Images:
            return np.asarray(condition.apply(batch, setting).permute(0, 2, 3, 1))

        first += alternate({"first": corrupted}, repetitions=1, warm_up=lambda: None)["first"].median
        timed = alternate({"theirs": theirs, "ours": corrupted}, repetitions=effort.repetitions)
        peer, ours = peer + timed["theirs"].median, ours + timed["ours"].median
        expected, found = timed["theirs"].result, timed["ours"].result
        if name == "elastic_transform":
            compared.exactly(elastic_transform(images, severity, image_seeds(batch, setting)), found)
        elif name in DETERMINISTIC:
            compared.exactly(expected, found)
        else:
            compared.in_distribution([expected, *(theirs() for _ in range(_DRAWS - 1))], found)
    n, (distance, said) = len(images), compared.result
    return TypeFound(name, peer / n, ours / n, max(0.0, first - ours), distance, said)


def _together(key: str, types: Sequence[TypeFound], n: int) -> Outcome:
    """Return the outcome of all types: sums of seconds, the worst agreement, a line each."""
    # glass_blur and frost may be measured besides; the row is of the seventeen.
    setup = sum(one.first_seconds for one in types)
    return Outcome(
        key,
        sum(one.peer_seconds for one in types),
        sum(one.ours_seconds for one in types),
        max(one.distance for one in types),
        note=f"on {n} images; tables that a process builds once cost {setup:.1f} s more, not counted",
        parts=tuple(Part(one.name, one.peer_seconds, one.ours_seconds, one.agreement) for one in types),
    )
