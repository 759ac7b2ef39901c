"""A table of runs whose truth is known: skills, shapes of pairs, noise, effects of factors and of seeds.

Accuracies are normal distribution functions of scores (the probit scale), so that pairs on a rising line are straight
there. The index of every model, factor and pair is in a name, and every random stream is the generator's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import ndtr

RISING, VERTICAL, LOW, NONE, FALLING = "rising line", "vertical line", "low horizontal line", "no trend", "falling line"


@dataclass(frozen=True)
class World:
    """What is true.

    Attributes
    ----------
    backbones, methods : int
        A backbone's skill rises with its number.
    shape_of : mapping from (task, source, target) to one of the shapes
    augment_effect : mapping from augmentation to its effect on the OOD score
    full_effect : float
        Of training all weights, on ID and OOD score.
    seed_sd : float
        Of the score, between seeds.
    backbone_step : float
        Skill between neighbouring backbones.
    epochs_opposite : bool
        Whether training longer raises ID and lowers OOD scores.
    noise : float
        What a model is better at on one pair than its skill says.
    gift : float
        What it is better at on all OOD data alike.
    """

    backbones: int = 6
    methods: int = 4
    seeds: int = 3
    shape_of: dict[tuple[str, str, str], str] = field(
        default_factory=lambda: {
            ("t", source, target): RISING for source in "abc" for target in "abc" if source != target
        }
    )
    augment_effect: dict[str, float] = field(default_factory=dict)
    augments_id: float = 0.0
    regimes: bool = False
    full_effect: float = 0.0
    epochs: tuple[int, ...] = (10,)
    epochs_opposite: bool = False
    seed_sd: float = 0.05
    backbone_step: float = 0.15
    noise: float = 0.1
    shots: tuple[str, ...] = ("full",)
    gift: float = 0.0


def simulate(world: World | None = None, *, seed: int = 0) -> pd.DataFrame:
    """Return runs with the columns that the questions read."""
    world = world or World()
    rng = np.random.default_rng(seed)
    pairs = list(world.shape_of)
    own = rng.normal(0, 0.25, (world.backbones, world.methods))
    # What a model is better at on one pair than its skill says: not known from ID data.
    special = {pair: rng.normal(0, world.noise, (world.backbones, world.methods)) for pair in pairs}
    unrelated = {pair: rng.normal(0, 1, (world.backbones, world.methods)) for pair in pairs}
    toughness = rng.normal(0, 1, (world.backbones, world.methods))
    gift = world.gift * rng.normal(0, 1, (world.backbones, world.methods))
    rows = []
    for b in range(world.backbones):
        for m in range(world.methods):
            skill = world.backbone_step * (b - (world.backbones - 1) / 2) + own[b, m]
            for facts in _points(world):
                for s in range(world.seeds):
                    rows += _fit(world, rng, pairs, special, unrelated, b, m, s, facts, skill, toughness, gift)
    return pd.DataFrame(rows)


def _points(world: World) -> list[dict[str, object]]:
    return [
        {"shots": shots, "augment": augment, "regime": regime, "epochs": epochs}
        for shots in world.shots
        for augment in ["identity", *world.augment_effect]
        for regime in (["full", "head-only"] if world.regimes else ["full"])
        for epochs in world.epochs
    ]


def _fit(world, rng, pairs, special, unrelated, b, m, s, facts, skill, toughness, gift):  # type: ignore[no-untyped-def]
    rows = []
    moved = world.seed_sd * rng.normal()
    augment = str(facts["augment"])
    longer = 0.2 * world.epochs.index(facts["epochs"])  # type: ignore[arg-type]
    full = world.full_effect if facts["regime"] == "full" and world.regimes else 0.0
    id_score = 1.0 + skill + moved + full + longer + world.augments_id * (augment != "identity")
    ood_skill = skill + moved + full + gift[b, m] + world.augment_effect.get(augment, 0.0)
    ood_skill += -longer if world.epochs_opposite else longer
    settings = {
        "augment": augment,
        "regime": facts["regime"],
        "lr": 0.1,
        "epochs": facts["epochs"],
        "core": f"method{m}",
    }
    backbone = {"backbone": f"backbone{b}", "weights_hash": f"w{b}"}
    for source in dict.fromkeys((task, source) for task, source, _ in pairs):
        fit_id = json.dumps([b, m, s, {k: str(v) for k, v in facts.items()}, source])
        for pair in pairs:
            task, origin, target = pair
            if (task, origin) != source:
                continue
            shape = world.shape_of[pair]
            inside, outside = _scores(shape, id_score, ood_skill, special[pair][b, m], unrelated[pair][b, m])
            id_accuracy, ood_accuracy = float(ndtr(inside)), float(ndtr(outside))
            config = json.dumps({**settings, **backbone, "shots": facts["shots"]}, sort_keys=True)
            rows.append(
                {
                    "fit_id": fit_id, "task": task, "source": origin, "target": target, "seed": s,
                    "model": f"model{m}-{b}-{'-'.join(str(v) for v in facts.values())}", "config": config,
                    "factors": config, "cluster": f"method{m} on backbone{b}", "deterministic": False,
                    "searched": False, "core": f"method{m}", **backbone, **facts, "lr": 0.1, "chance": 0.1,
                    "id_accuracy": id_accuracy, "ood_accuracy": ood_accuracy,
                    "id_probit": inside, "ood_probit": outside, "id_n": 1000.0, "ood_n": 1000.0,
                    # NLL follows accuracy closely; ECE has nothing to do with its OOD self.
                    "id_nll": -inside + 0.1 * rng.normal(), "ood_nll": -outside + 0.1 * rng.normal(),
                    "id_ece": 0.1 - 0.02 * inside + 0.01 * rng.normal(), "ood_ece": 0.2 + 0.05 * rng.normal(),
                    # Toughness under attack is a second thing, on either side the same, and of no use otherwise.
                    "id_mean_robust_accuracy": toughness[b, m] + 0.1 * rng.normal(),
                    "ood_mean_robust_accuracy": toughness[b, m] + 0.1 * rng.normal(),
                    # Corruptions see what accuracy does not: the model's own gift for this pair.
                    "id_mean_corruption_accuracy": special[pair][b, m] + 0.3 * skill + 0.02 * rng.normal(),
                }
            )  # fmt: skip
    return rows


def _scores(shape: str, id_score: float, ood_skill: float, special: float, unrelated: float) -> tuple[float, float]:
    match shape:
        case "rising line":
            return id_score, ood_skill + special
        case "falling line":
            return id_score, -ood_skill + special
        case "vertical line":
            # Nearly the same on ID images, far apart elsewhere, and for reasons of its own.
            return 1.0 + 0.02 * (id_score - 1), 0.6 * unrelated
        case "low horizontal line":
            return id_score, -1.28 + 0.02 * unrelated
        case "no trend":
            return id_score, 0.4 * unrelated
    raise ValueError(shape)
