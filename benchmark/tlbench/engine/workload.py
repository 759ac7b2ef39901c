"""How much work a planned fit is, counted in images and bytes; what that takes in seconds is another question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from tlbench.engine.parts import Part, everything, missing
from tlbench.engine.plan import PlannedFit, PlannedMeasurement, Sizes, amount
from tlbench.engine.sizing import Sizing
from tlbench.methods.cost import together
from tlbench.suites.spec import Attack, Suite

if TYPE_CHECKING:
    from tlbench.methods.cost import Cost

Work = Counter[str]
"""Images by ``"kind/operation"``, such as ``"train/step"`` or ``"corruption/fog"``."""
KINDS = ("prepare", "train", "clean", "corruption", "transform", "attack")
"""In the order in which a plan shows them."""

# Measured on stored runs of `digits`: Parquet's own overhead, and compressed rows.
_MEASUREMENT_BYTES = 21_000
_CLEAN_ROW_BYTES, _ROW_BYTES, _ATTACK_ROW_BYTES, _CLASS_BIN_BYTES = 21, 10, 10, 20
_FIT_BYTES = 2_000
_FLOAT_BYTES = 4
_FROM_STORED_BYTES = frozenset({"folder", "domainbed", "wilds", "hub", "parquet", "torchvision"})


@dataclass(frozen=True)
class FitWork:
    """One planned fit, what all of it takes, and what is left to do of it.

    Attributes
    ----------
    planned : PlannedFit
    whole, left : Work
    training_images : int
        Images of its training set.
    to_fit : bool
        Whether the fit itself is to be made.
    measurements, measurements_left : int
        Of all variants: as many as the method says, or as a fit that was made has.
    predictions, attacked : int
        Images that are left to be predicted and to be attacked; one at several strengths counts for each.
    states : mapping of str to int
        Bytes on disk of every fit that it will store, by id: itself, and those that it asks for.
    predictions_bytes : int
        What is left of these will take on disk.
    parts : tuple of Part
        What it asks for.
    parts_left : tuple of str
        Ids of what it asks for that is not stored.
    """

    planned: PlannedFit
    whole: Work
    left: Work
    training_images: int
    to_fit: bool
    measurements: int
    measurements_left: int
    predictions: int
    attacked: int
    states: Mapping[str, int]
    predictions_bytes: int
    parts: tuple[Part, ...] = ()
    parts_left: tuple[str, ...] = ()


@dataclass
class Shared:
    """Fits that were counted for an earlier one, and are not counted again.

    Attributes
    ----------
    whole, left : set of str
        Ids of those in what an evaluation takes from its beginning, and in what is left of it.
    """

    whole: set[str] = field(default_factory=set)
    left: set[str] = field(default_factory=set)


@dataclass
class Preparation:
    """Images that are decoded, resized and cached before the first fit that needs them, counted once for all models.

    Attributes
    ----------
    sizes : mapping of (task, domain) to int
        Images of all parts of a domain, which are cached together.
    cached : collection of (task, domain)
        Domains whose images are in the cache already.
    """

    suite: Suite
    sizes: Mapping[tuple[str, str], int]
    cached: Collection[tuple[str, str]] = ()
    seen: set[tuple[str, str]] = field(default_factory=set)

    def needed_by(self, planned: PlannedFit) -> int:
        """Return how many images have to be decoded for a fit, and remember that they are."""
        task = planned.key.task
        domains = {*planned.sources, *(m.where.target for m in planned.measurements if m.where.role == "ood-test")}
        new = {(task, domain) for domain in domains} - self.seen
        self.seen |= new
        if self.suite.tasks[task].reader not in _FROM_STORED_BYTES:
            return 0
        return sum(self.sizes[key] for key in new if key not in self.cached)

    def images(self) -> int:
        """Return how many images are cached for all fits that were asked about."""
        return sum(self.sizes[key] for key in self.seen)


def fit_work(
    planned: PlannedFit,
    sizes: Sizes,
    sizing: Sizing,
    *,
    classes: int,
    left: Sequence[PlannedMeasurement],
    to_fit: bool,
    decoded: int,
    whole_pictures: bool,
    parts: tuple[Part, ...] = (),
    stored: Callable[[str], bool] = lambda fit_id: False,
    shared: Shared | None = None,
    all_variants: bool = False,
    variants: int | None = None,
) -> FitWork:
    """Count what a planned fit takes.

    Parameters
    ----------
    planned : PlannedFit
    sizes : SuiteData or what stands in for it
    sizing : Sizing
    classes : int
        Of the task.
    left : sequence of PlannedMeasurement
        Those that are not stored, once for every variant that is known; the ranked one alone where that is not known.
    to_fit : bool
        Whether the fit itself is not stored.
    decoded : int
        Images to be prepared for it.
    whole_pictures : bool
        Whether training crops are cut from whole pictures, decoded anew in every epoch.
    parts : tuple of Part
        What it asks for.
    stored : callable
        Says it of the id of such a fit.
    shared : Shared, optional
        What was counted before; what is counted now joins it.
    all_variants : bool
        Whether every variant is measured under every condition, not on clean sets alone.
    variants : int, optional
        How many the fit has, where that is known; by default as many as the method says.

    Returns
    -------
    FitWork
    """
    key, cost, shared = planned.key, sizing.cost, shared or Shared()
    train = len(sizes.training(key.task, planned.sources, "train", amount(key.shots)))
    val = len(sizes.training(key.task, planned.sources, "val"))

    def making(fits: Mapping[str, Sizing]) -> Work:
        return _fitting([one.cost for one in fits.values()], train, val, whole_pictures=whole_pictures)

    itself = {key.fit_id: sizing}
    absent = {one.fit_id: one.sizing for one in missing(parts, stored)} if to_fit else {}
    every_fit = _new({**itself, **{one.fit_id: one.sizing for one in everything(parts)}}, shared.whole)
    to_make = _new({**itself, **absent} if to_fit else {}, shared.left)
    # The temperature that every fit has, and that scaled measures need.
    scaling = _counted({"clean/forward": val * (cost.predicts + cost.also_predicts)})

    asked = partial(_asked_of_variants, cost=cost, all_variants=all_variants)
    every, by_others = asked(planned.measurements)
    whole = making(every_fit) + scaling + _measuring(every, by_others, cost, classes)
    ranked, beside = asked(left)
    n_left = len(left)
    if variants is None:
        n_left += cost.others * len(beside)
        rest = _measuring(ranked, beside, cost, classes)
        left = [*ranked, *(one for one in beside for _ in range(_times(one, cost)))]
    else:
        left = left if all_variants and cost.others_attacked else ranked
        rest = measuring_work(left, cost.predicts, classes)
    if to_fit:
        rest = making(to_make) + scaling + rest
    if decoded:
        whole["prepare/decode"] = rest["prepare/decode"] = decoded
    return FitWork(
        planned=planned,
        whole=whole,
        left=rest,
        training_images=train,
        to_fit=to_fit,
        measurements=len(planned.measurements) + (cost.others if variants is None else variants - 1) * len(by_others),
        measurements_left=n_left,
        predictions=sum(m.n * _strengths(m) for m in left if m.condition.kind != "attack"),
        attacked=sum(m.n for m in left if m.condition.kind == "attack"),
        states={fit_id: _kept_bytes(own, train, classes) for fit_id, own in to_make.items()},
        predictions_bytes=sum(_measured_bytes(m, classes, sizing.class_bins) for m in left),
        parts=parts,
        parts_left=tuple(absent),
    )


def _asked_of_variants(
    measurements: Sequence[PlannedMeasurement], *, cost: Cost, all_variants: bool
) -> tuple[list[PlannedMeasurement], list[PlannedMeasurement]]:
    """Return what is measured on the ranked variant, and on each of the others.

    Of attacks that do not apply to the ranked one, all that is recorded is that: they take no work, and are left out.
    """
    ranked = [one for one in measurements if cost.attacked or one.condition.kind != "attack"]
    return ranked, [one for one in measurements if all_variants or one.condition.kind == "clean"]


def _times(measurement: PlannedMeasurement, cost: Cost) -> int:
    """Return on how many variants that are not ranked a measurement is made."""
    return cost.others_attacked if measurement.condition.kind == "attack" else cost.others


def _measuring(
    ranked: Sequence[PlannedMeasurement], others: Sequence[PlannedMeasurement], cost: Cost, classes: int
) -> Work:
    """Return what the measurements of the ranked variant, and of all others together, take."""
    work = measuring_work(ranked, cost.predicts, classes)
    for attacks in (False, True):
        own = [one for one in others if (one.condition.kind == "attack") is attacks]
        share = cost.others_attacked / cost.others if attacks and cost.others else 1.0
        times = cost.others_attacked if attacks else cost.others
        work += measuring_work(own, share * cost.also_predicts, classes, times=times)
    return work


def _new(fits: Mapping[str, Sizing], counted: set[str]) -> dict[str, Sizing]:
    new = {fit_id: sizing for fit_id, sizing in fits.items() if fit_id not in counted}
    counted.update(new)
    return new


def _fitting(costs: Sequence[Cost], train: int, val: int, *, whole_pictures: bool) -> Work:
    if not costs:
        return Work()
    cost = together(costs)
    cut = [one for one in costs if whole_pictures and (one.recipe is None or one.recipe.crop)]
    crops = sum(one.viewed for one in cut)
    return _counted(
        {
            # Of its own, every fit samples no more than there is.
            "train/step": train * cost.trained + sum(min(one.sampled, train) for one in costs),
            "train/features": train * cost.forward + val * cost.validated,
            "train/view": train * (cost.viewed - crops),
            "train/uncropped_view": train * crops,
            "train/crop": train * crops,
        }
    )


def measuring_work(
    measurements: Sequence[PlannedMeasurement], passes: float, classes: int | None = None, *, times: int = 1
) -> Work:
    """Return what measurements take, at so many passes through the network for every image; of an attack, at most.

    Parameters
    ----------
    measurements : sequence of PlannedMeasurement
    passes : float
        Of all predictors together.
    classes : int, optional
        Of the task; a targeted attack has no more targets than wrong classes.
    times : int
        Predictors for which images are changed or attacked.
    """
    work = Work()
    for measurement in measurements:
        condition = measurement.condition
        images = measurement.n * _strengths(measurement)
        match condition.kind:
            case "corruption":
                work[f"corruption/{condition.name}"] += times * images
            case "transform":
                work["transform/resample"] += times * images
            case "attack":
                gradients, questions = attack_questions(condition, classes)
                work[f"attack/{own_work(condition.name)}"] += times * images * (gradients + questions)
                work["attack/gradient"] += round(images * gradients * passes)
                work["attack/forward"] += round(images * questions * passes)
        work[f"{condition.kind}/forward"] += round(images * passes)
    return +work  # without what is zero


def own_work(attack: str) -> str:
    """Return the operation that is an attack's own work for a question, besides the network's.

    Auto-PGD walks alike whatever its loss; the others have their own names.
    """
    return "walk" if attack.startswith("apgd") else attack


def attack_questions(attack: Attack, classes: int | None = None) -> tuple[int, int]:
    """Return how many gradients and how many predictions without one an attack asks of an image, at most.

    An image that breaks early goes no further, and few images are attacked at every epsilon: hence "at most". The audit
    adds nothing to this bound. It attacks its share of the images at the epsilons that the order of epsilons would have
    spared them, each once, and the bound has every image at every epsilon. The clean prediction is not counted here.

    Parameters
    ----------
    attack : Attack
    classes : int, optional
        Of the task.
    """
    targets = attack.targets if classes is None else max(1, min(attack.targets, classes - 1))
    rungs = len(attack.epsilons)
    run = attack.steps + 1  # the start of a way is looked at, too
    # A step of FAB is a gradient and a prediction.
    boundary = attack.steps * targets
    match attack.name:
        case "apgd-ce" | "apgd-dlr":
            return rungs * run * attack.restarts, 0
        case "apgd-t":
            return rungs * run * targets * attack.restarts, rungs
        case "fab-t":
            return boundary, boundary + 1  # one search answers every epsilon
        case "square":
            return 0, rungs * (attack.queries + 1)
        case "autoattack":
            gradients = run + run * targets + boundary
            return rungs * gradients, rungs * (1 + boundary + 1 + attack.queries + 1)
        case "foolbox-boundary" | "foolbox-hopskipjump":
            return 0, attack.queries
    return rungs * run, 0


def _counted(amounts: Mapping[str, float]) -> Work:
    return Work({name: round(images) for name, images in amounts.items() if images})


def _strengths(measurement: PlannedMeasurement) -> int:
    condition = measurement.condition
    match condition.kind:
        case "corruption":
            return len(condition.severities)
        case "transform":
            return len(condition.steps)
    return 1


def _kept_bytes(sizing: Sizing, train: int, classes: int) -> int:
    head = (sizing.width + 1) * classes
    kept = {
        "network": sizing.parameters + head,
        "head": head,
        "features": train * (sizing.width + 2),  # with a label of eight bytes
        "nothing": classes,
    }
    return _FIT_BYTES + round(_FLOAT_BYTES * kept[sizing.cost.keeps] * sizing.cost.networks)


def _measured_bytes(measurement: PlannedMeasurement, classes: int, bins: int) -> int:
    n = measurement.n
    match measurement.condition.kind:
        case "clean":
            # Bins that hold nothing are not stored: there are no more of them than images.
            rows = n * _CLEAN_ROW_BYTES + min(bins, n) * classes * _CLASS_BIN_BYTES
        case "attack":
            rows = n * _ATTACK_ROW_BYTES
        case _:
            rows = n * _strengths(measurement) * _ROW_BYTES
    return _MEASUREMENT_BYTES + rows
