"""A plan in numbers: what `tlbench plan` prints, and what `tlbench.api.plan` returns.

Importing this loads nothing heavy: the modules that count are imported by those who call them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tlbench.engine.parts import everything

if TYPE_CHECKING:
    from tlbench.engine.budget import Saving, Within
    from tlbench.engine.forecast import Row
    from tlbench.engine.pace import Pace
    from tlbench.engine.probe import Speeds
    from tlbench.engine.workload import FitWork

ATTACK = "attack"
"""The kind of work of which only a bound is known: images that break early are not attacked any further."""


@dataclass(frozen=True)
class DeviceHours:
    """Hours of what is left to do, on one device.

    Attributes
    ----------
    device : str
    assumed : bool
        Whether the suite declares its speed, instead of a probe.
    by_kind : mapping of str to float
        Preparing images, training, and every kind of condition.
    by_task : mapping of str to float
    total : float
        Attacks at most.
    rates : mapping of str to float
        Images a second: forward, train, gradient.
    cpu_hours : float or None
        Of an assumed device: what the CPU beside it does, which the total leaves out, as long as it takes the CPU of
        this machine; None where that was not probed.
    cpu_cores : float or None
        Cores like this machine's that it takes to do this in the hours of the device.
    probed : str
        First and last day of the probes whose speeds these are, where it is no assumed device.
    """

    device: str
    assumed: bool
    by_kind: Mapping[str, float]
    by_task: Mapping[str, float]
    total: float
    rates: Mapping[str, float]
    cpu_hours: float | None = None
    cpu_cores: float | None = None
    probed: str = ""


@dataclass(frozen=True)
class TaskPlan:
    """What is left to do of one task.

    Attributes
    ----------
    task : str
    fits, measurements : int
    training_images : int
        Of all fits together, one epoch.
    images, attacked_images : int
        Predictions without attacks, and images to be attacked.
    """

    task: str
    fits: int
    measurements: int
    training_images: int
    images: int
    attacked_images: int


@dataclass(frozen=True)
class PlanSummary:
    """What an evaluation will take.

    Attributes
    ----------
    fits, measurements : int
        In the selected part of the suite; measurements of all variants of a fit.
    fits_to_do, measurements_to_do : int
        Not stored yet.
    images : int
        Predictions that the measurements to do will make, attacks not counted.
    prediction_passes : int
        Images passed through a network for these, where a predictor asks several networks, or several predictors of a
        fit are measured; else 0.
    attacked_images : int
        Images that will be attacked.
    models : tuple of str
        Rows of the board: one, or those of a grid.
    backbones : tuple of str
        As they were probed.
    seeds : tuple of int
    epochs : float or None
        Of a fit and all that it asks for, those of a head on kept features included; None where rows differ. 0 where
        nothing trains by epochs.
    training_images : int
        Of all fits to do, one epoch.
    training_passes, feature_passes : int
        Images passed forward and backward through all weights, and forward only, while fitting.
    gradients : int
        Images passed forward and backward for attacks, at most.
    cache_bytes, cache_bytes_to_do : int
        On disk, for the resized images, and for those that are not cached yet.
    fits_bytes, predictions_bytes : int
        On disk, of what is to do; a fit that several rows store is counted once.
    hours : tuple of DeviceHours
        This machine first, where it was probed; then the device that the suite declares.
    tasks : tuple of TaskPlan
    budgets : tuple of Within
        One a device, where a budget was given.
    savings : tuple of Saving
        One a device, where a kind of condition takes a large part of the time.
    notes : tuple of str
        What was assumed, or could not be known.
    parts, parts_to_do : int
        Fits that these ask for and that are none of them, each stored and counted once; and those that are not stored.
    """

    fits: int
    measurements: int
    fits_to_do: int
    measurements_to_do: int
    images: int
    attacked_images: int
    models: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    epochs: float | None = None
    training_images: int = 0
    training_passes: int = 0
    feature_passes: int = 0
    gradients: int = 0
    cache_bytes: int = 0
    cache_bytes_to_do: int = 0
    fits_bytes: int = 0
    predictions_bytes: int = 0
    hours: tuple[DeviceHours, ...] = ()
    tasks: tuple[TaskPlan, ...] = ()
    budgets: tuple[Within, ...] = ()
    savings: tuple[Saving, ...] = ()
    notes: tuple[str, ...] = ()
    parts: int = 0
    parts_to_do: int = 0
    prediction_passes: int = 0


@dataclass(frozen=True)
class StatusSummary:
    """How much of an evaluation is stored, and how fast that went.

    Attributes
    ----------
    fits, measurements, fits_to_do, measurements_to_do : int
    pace : Pace
    notes : tuple of str
    models : tuple of str
        Rows of the board: one, or those of a grid.
    parts, parts_to_do : int
        Fits that these ask for, beside ``fits``.
    """

    fits: int
    measurements: int
    fits_to_do: int
    measurements_to_do: int
    pace: Pace
    notes: tuple[str, ...] = field(default=())
    models: tuple[str, ...] = ()
    parts: int = 0
    parts_to_do: int = 0


def summarise(rows: Sequence[Row], image_size: int, budget_hours: float | None = None) -> PlanSummary:
    """Add up the rows of a plan.

    Parameters
    ----------
    rows : sequence of Row
    image_size : int
        Side of the cached images.
    budget_hours : float, optional
        Say what fits into it.
    """
    from tlbench.engine.budget import saving, within

    fits = [one for row in rows for one in row.fits]
    left: Counter[str] = sum((one.left for one in fits), Counter())
    domains = {key: n for row in rows for key, n in row.image_counts.items()}
    uncached = {key: n for key, n in domains.items() if not any(key in row.cached for row in rows)}
    image_bytes = image_size * image_size * 3 + 32
    epochs = {row.cost.gone_through for row in rows}
    hours = []
    if all(row.speeds is not None for row in rows):
        hours.append(_device_hours(rows, [row.speeds for row in rows if row.speeds], assumed=False))
    if all(row.assumed is not None for row in rows):
        declared = _device_hours(rows, [row.assumed for row in rows if row.assumed], assumed=True)
        cpu_hours, cpu_cores = _beside(rows, declared.total)
        hours.append(replace(declared, cpu_hours=cpu_hours, cpu_cores=cpu_cores))
    budgets, savings = [], []
    for device in hours:
        found = saving(device.by_kind, device.device)
        savings += [found] if found else []
        if budget_hours is not None:
            timed = [
                (one, speeds)
                for row in rows
                if (speeds := row.assumed if device.assumed else row.speeds) is not None
                for one in row.fits
            ]
            found_within = within(budget_hours, timed, device.device)
            budgets.append(replace(found_within, assumed=device.assumed, cpu_cores=device.cpu_cores))
    several = any(row.cost.predicts > 1 or row.cost.also_predicts for row in rows)
    asked = sum(left[f"{kind}/forward"] for kind in ("clean", "corruption", "transform"))
    return PlanSummary(
        **count(fits),
        images=sum(one.predictions for one in fits),
        prediction_passes=asked if several else 0,
        attacked_images=sum(one.attacked for one in fits),
        models=tuple(row.model for row in rows),
        backbones=tuple(dict.fromkeys(row.backbone for row in rows)),
        seeds=tuple(dict.fromkeys(one.planned.key.seed for one in fits)),
        epochs=epochs.pop() if len(epochs) == 1 else None,
        training_images=sum(one.training_images for one in fits if one.to_fit),
        training_passes=left["train/step"],
        feature_passes=left["train/features"],
        gradients=left["attack/gradient"],
        cache_bytes=sum(domains.values()) * image_bytes,
        cache_bytes_to_do=sum(uncached.values()) * image_bytes,
        fits_bytes=sum({fit_id: kept for one in fits for fit_id, kept in one.states.items()}.values()),
        predictions_bytes=sum(one.predictions_bytes for one in fits),
        hours=tuple(hours),
        tasks=_tasks(fits),
        budgets=tuple(budgets),
        savings=tuple(savings),
        notes=tuple(dict.fromkeys(note for row in rows for note in row.notes)),
    )


def count(fits: Sequence[FitWork]) -> dict[str, int]:
    """Return how many fits, measurements and parts there are, and how many are left."""
    itself = {one.planned.key.fit_id for one in fits}
    return {
        "fits": len(fits),
        "measurements": sum(one.measurements for one in fits),
        "fits_to_do": sum(one.to_fit for one in fits),
        "measurements_to_do": sum(one.measurements_left for one in fits),
        "parts": len({part.fit_id for one in fits for part in everything(one.parts)} - itself),
        "parts_to_do": len({fit_id for one in fits for fit_id in one.parts_left} - itself),
    }


def _device_hours(rows: Sequence[Row], speeds: Sequence[Speeds], *, assumed: bool) -> DeviceHours:
    by_kind: Counter[str] = Counter()
    by_task: Counter[str] = Counter()
    for row, own in zip(rows, speeds, strict=True):
        for one in row.fits:
            hours = own.hours_of(one.left)
            by_kind.update(hours)
            by_task[one.planned.key.task] += sum(hours.values())  # type: ignore[assignment]
    asked = {"forward": "forward", "train": "step", "gradient": "gradient"}
    first = speeds[0].seconds
    return DeviceHours(
        device=speeds[0].device,
        assumed=assumed,
        by_kind={kind: own for kind, own in by_kind.items() if own},
        by_task=dict(by_task),
        total=float(sum(by_kind.values())),
        rates={name: 1 / first[own] for name, own in asked.items() if first.get(own)} if len(rows) == 1 else {},
        probed=_days(speeds),
    )


def _days(speeds: Sequence[Speeds]) -> str:
    days = sorted({day for own in speeds for day in own.found.values()})
    return " to ".join(dict.fromkeys((days[0], days[-1]))) if days else ""


def _beside(rows: Sequence[Row], device_hours: float) -> tuple[float | None, float | None]:
    """Return what the CPU does beside a device, as this machine's would: hours, and cores that keep up.

    That is all that is not asked of a network; None where nobody knows.
    """
    from tlbench.engine.probe import ON_ALL_CORES

    hours = of_a_core = 0.0
    for row in rows:
        if row.speeds is None or row.assumed is None:
            return None, None
        rest = {name: own for name, own in row.speeds.seconds.items() if name not in row.assumed.seconds}
        cores = {name: own * ON_ALL_CORES.get(name, 1) for name, own in rest.items()}
        for one in row.fits:
            hours += sum(replace(row.speeds, seconds=rest, overlaps=False).hours_of(one.left).values())
            of_a_core += sum(replace(row.speeds, seconds=cores, overlaps=False).hours_of(one.left).values())
    return hours, of_a_core / device_hours if device_hours else None


def _tasks(fits: Sequence[FitWork]) -> tuple[TaskPlan, ...]:
    of_task: dict[str, list[FitWork]] = {}
    for one in fits:
        of_task.setdefault(one.planned.key.task, []).append(one)
    return tuple(
        TaskPlan(
            task=task,
            fits=sum(one.to_fit for one in own),
            measurements=sum(one.measurements_left for one in own),
            training_images=sum(one.training_images for one in own if one.to_fit),
            images=sum(one.predictions for one in own),
            attacked_images=sum(one.attacked for one in own),
        )
        for task, own in of_task.items()
    )
