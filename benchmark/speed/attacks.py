"""APGD and PGD over six epsilons: torchattacks, AutoAttack and foolbox beside the catalogue's attacks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from speed.lite0 import batch_of, images_of, measured, plain_network
from speed.measure import Effort, Timed, alternate
from speed.rows import Outcome
from tlbench.conditions.catalogue import build_condition
from tlbench.engine.measured import MeasuredPredictor

EPSILONS = tuple(numerator / 255 for numerator in (0.005, 0.05, 0.1, 0.15, 0.3, 0.5))
Mode = Literal["fast", "exact"]
Counts = NDArray[np.int64]
"""Images that survive, one number an epsilon, smallest epsilon first."""


@dataclass(frozen=True)
class Target:
    """Photographs, the classes that the network sees in them, and the network both ways."""

    images: Tensor
    labels: Tensor
    network: nn.Module
    predictor: MeasuredPredictor

    @classmethod
    def of(cls, n: int) -> Target:
        """Return the target of n photographs at 64 px; every one of them is right when clean."""
        images, network = images_of(n, 64, seed=3), plain_network()
        with torch.no_grad():
            labels = network(images.float() / 255).argmax(1)
        return cls(images, labels, network, measured(network, images))

    def head(self, n: int) -> Target:
        """Return the first n images under the same networks."""
        return Target(self.images[:n], self.labels[:n], self.network, self.predictor)

    @property
    def pixels(self) -> Tensor:
        return self.images.float() / 255

    def survivors(self, attacked: Tensor) -> int:
        """Return how many of some attacked images the plain network still recognises."""
        with torch.no_grad():
            return int((self.network(attacked).argmax(1) == self.labels).sum())


Side = Callable[[Target, int], Counts]
"""An attack with a number of steps on a target."""


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the rows of attacks."""
    peers = {"": torchattacks_apgd, "-autoattack": autoattack_apgd}
    modes: tuple[Mode, ...] = ("fast", "exact")
    rows = [(suffix, mode) for suffix in peers for mode in modes if f"apgd-{mode}{suffix}" in wanted]
    if rows:
        # All in one round: ours need not run again for every peer.
        sides: dict[str, Side] = {f"theirs{suffix}": peers[suffix] for suffix, _ in rows}
        sides |= {mode: ours("apgd-dlr", mode) for _, mode in rows}
        target = Target.of(effort.size(64, 8))
        timed = _timed(sides, target, effort)
        for suffix, mode in rows:
            yield _outcome(f"apgd-{mode}{suffix}", timed[f"theirs{suffix}"], timed[mode], target, both_sides=True)
    if "pgd-fast" in wanted:
        target = Target.of(effort.size(16, 8))
        timed = _timed({"theirs": foolbox_pgd, "ours": ours("foolbox-linf-pgd", "fast")}, target, effort)
        yield _outcome("pgd-fast", timed["theirs"], timed["ours"], target, both_sides=False)


def _timed(sides: dict[str, Side], target: Target, effort: Effort) -> dict[str, Timed]:
    steps = effort.size(100, 20)
    few = target.head(4)
    return alternate(
        {name: partial(side, target, steps) for name, side in sides.items()},
        repetitions=effort.repetitions,
        # A whole run takes minutes; what there is to warm up is warm after a few steps.
        warm_up=lambda: [side(few, 3) for side in sides.values()],
    )


def _outcome(key: str, theirs: Timed, found: Timed, target: Target, *, both_sides: bool) -> Outcome:
    """Return the outcome of a row; where the attacks differ, ours may be the stronger one by any number of images."""
    n, apart = len(target.labels), found.result - theirs.result
    difference = np.abs(apart).max() if both_sides else max(0, int(apart.max()))
    curves = f"survivors of {n}: theirs {_curve(theirs.result)}, ours {_curve(found.result)}"
    return Outcome(key, theirs.median / n, found.median / n, float(difference), note=curves)


def _curve(counts: Counts) -> str:
    return " ".join(str(count) for count in counts)


def ours(name: str, mode: Mode) -> Side:
    """Return the catalogue's attack as a side."""

    def attack(target: Target, steps: int) -> Counts:
        condition = build_condition(
            "attack", name, norm="linf", epsilons=EPSILONS, iterations=steps, mode=mode, image_size=64
        )
        batch = batch_of(target.images, target.labels)
        counts = np.zeros(len(EPSILONS), dtype=np.int64)
        for seen in condition.observe(target.predictor, lambda: iter([batch])):
            assert seen.survived is not None
            assert seen.setting.epsilon is not None
            counts[EPSILONS.index(seen.setting.epsilon)] += int(seen.survived.sum())
        return counts

    return attack


def torchattacks_apgd(target: Target, steps: int) -> Counts:
    """APGD-DLR of torchattacks, one attack an epsilon, judged on the images that it returns."""
    import torchattacks

    pixels, found = target.pixels, []
    for epsilon in EPSILONS:
        attack = torchattacks.APGD(
            target.network, norm="Linf", eps=epsilon, steps=steps, n_restarts=1, seed=0, loss="dlr"
        )
        found.append(target.survivors(attack(pixels, target.labels)))
    return np.array(found)


def autoattack_apgd(target: Target, steps: int) -> Counts:
    """APGD-DLR of AutoAttack, one evaluation an epsilon, as a custom set of one attack."""
    from autoattack import AutoAttack

    found = []
    for epsilon in EPSILONS:
        attack = AutoAttack(
            target.network, norm="Linf", eps=epsilon, seed=0, verbose=False, version="custom",
            attacks_to_run=["apgd-dlr"], device="cpu",
        )  # fmt: skip
        attack.apgd.n_restarts, attack.apgd.n_iter = 1, steps
        attacked = attack.run_standard_evaluation(target.pixels, target.labels, bs=len(target.labels))
        found.append(target.survivors(attacked))
    return np.array(found)


def foolbox_pgd(target: Target, steps: int) -> Counts:
    """Linf PGD of foolbox from a random start with its own relative step, all epsilons in one call."""
    from foolbox.attacks import LinfPGD
    from foolbox.models.pytorch import PyTorchModel

    torch.manual_seed(0)
    model = PyTorchModel(target.network, bounds=(0, 1), device="cpu")
    attack = LinfPGD(rel_stepsize=0.01 / 0.3 * 40 / steps, steps=steps, random_start=True)
    _, _, success = attack(model, target.pixels, target.labels, epsilons=list(EPSILONS))
    return np.asarray((~success).sum(dim=1))
