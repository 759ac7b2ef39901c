"""Which part of a plan fits into a budget of hours, and the words of a command line that run just that part."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbench.errors import UsageError

if TYPE_CHECKING:
    from tlbench.engine.probe import Speeds
    from tlbench.engine.workload import FitWork

_HOURS = {"m": 1 / 60, "h": 1.0, "d": 24.0}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*([mhd])")
_METRIC_OF = {
    "clean": ("accuracy",),
    "corruption": ("corruption_accuracy",),
    "transform": ("consistency",),
    "attack": ("robust_accuracy",),
}
_LARGE = 0.25  # share of the time from which leaving a kind of condition out is worth a word


@dataclass(frozen=True)
class Within:
    """What fits into a budget on one device.

    Attributes
    ----------
    device : str
    budget_hours : float
    fits : int
        So many fits, with all that is measured on them, end in time: the first ones in the plan's order.
    of : int
        Fits of which something is left to do.
    last : str
        The last of them, empty where there is none.
    seeds : tuple of int
        Seeds that are complete in time.
    tasks : tuple of str
        Where not even one seed is: tasks of the first seed that fit together, in the suite's order.
    hours : float
        What these seeds or tasks take.
    words : str
        What to add to the command for them; empty where everything fits, or nothing does.
    parts : int or None
        Into so many shards the plan is cut at least for each to fit; None where a single fit takes longer.
    longest_hours : float
        Of these shards the longest, or the longest fit.
    assumed : bool
        Whether the hours are of the network alone, on a device that the suite declares.
    cpu_cores : float or None
        Where they are: cores like this machine's that it takes for the CPU's work on images to be done in the same
        time; None where this machine was not probed.
    """

    device: str
    budget_hours: float
    fits: int
    of: int
    last: str
    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    hours: float
    words: str
    parts: int | None
    longest_hours: float
    assumed: bool = False
    cpu_cores: float | None = None


@dataclass(frozen=True)
class Saving:
    """The kind of condition that takes the most time, and what is left without it.

    Attributes
    ----------
    device, kind : str
    share : float
        Of the whole, in [0, 1].
    hours : float
        Of the rest.
    words : str
        What to add to the command.
    """

    device: str
    kind: str
    share: float
    hours: float
    words: str


def read_budget(text: str) -> float:
    """Return a budget in hours.

    Raises
    ------
    UsageError
        If it is no positive number with a unit.

    Examples
    --------
    >>> read_budget("90m")
    1.5
    """
    found = _BUDGET.fullmatch(text.strip().lower())
    hours = float(found[1]) * _HOURS[found[2]] if found else 0.0
    if hours <= 0:
        raise UsageError(f"--budget {text}: expected a time such as 24h, 90m or 2d")
    return hours


def within(budget_hours: float, fits: Sequence[tuple[FitWork, Speeds]], device: str) -> Within:
    """Return which part of a plan fits into a budget.

    Parameters
    ----------
    budget_hours : float
    fits : sequence of (FitWork, Speeds)
        In the plan's order, each with the speeds of its network.
    device : str
    """
    every = [sum(speeds.hours_of(fit.left).values()) for fit, speeds in fits]
    waiting = [fit for fit, _ in fits if fit.left]
    hours = [own for (fit, _), own in zip(fits, every, strict=True) if fit.left]
    count, spent = 0, 0.0
    while count < len(hours) and spent + hours[count] <= budget_hours:
        spent += hours[count]
        count += 1
    seeds = _complete_seeds(waiting[:count], waiting)
    tasks: tuple[str, ...] = ()
    chosen, words = spent, ""
    if count < len(waiting) and seeds:
        chosen = sum(h for fit, h in zip(waiting, hours, strict=True) if fit.planned.key.seed in seeds)
        words = f"--seeds {','.join(map(str, seeds))}"
    elif count < len(waiting):
        tasks, chosen = _whole_tasks(waiting, hours, budget_hours)
        first = waiting[0].planned.key.seed
        words = f"--seeds {first} --only {','.join(f'task={task}' for task in tasks)}" if tasks else ""
    parts, longest = _parts(every, budget_hours)
    last = waiting[count - 1].planned.key if count else None
    return Within(
        device=device,
        budget_hours=budget_hours,
        fits=count,
        of=len(waiting),
        last=f"{last.task}/{last.source}, seed {last.seed}" if last else "",
        seeds=seeds,
        tasks=tasks,
        hours=chosen,
        words=words,
        parts=parts,
        longest_hours=longest,
    )


def saving(hours: Mapping[str, float], device: str) -> Saving | None:
    """Return what leaving out the costliest kind of condition spares; None where none is a large part of the whole."""
    total = sum(hours.values())
    measured = {kind: hours.get(kind, 0.0) for kind in _METRIC_OF if kind != "clean"}
    kind = max(measured, key=lambda name: measured[name])
    if not total or measured[kind] < _LARGE * total:
        return None
    kept = [metric for other, metrics in _METRIC_OF.items() if other != kind and other in hours for metric in metrics]
    return Saving(device, kind, measured[kind] / total, total - measured[kind], f"--metrics {','.join(kept)}")


def _complete_seeds(done: Sequence[FitWork], waiting: Sequence[FitWork]) -> tuple[int, ...]:
    made = [fit.planned.key.seed for fit in done]
    wanted = [fit.planned.key.seed for fit in waiting]
    return tuple(seed for seed in dict.fromkeys(made) if made.count(seed) == wanted.count(seed))


def _whole_tasks(
    waiting: Sequence[FitWork], hours: Sequence[float], budget_hours: float
) -> tuple[tuple[str, ...], float]:
    first = waiting[0].planned.key.seed
    of_task: dict[str, float] = {}
    for fit, own in zip(waiting, hours, strict=True):
        if fit.planned.key.seed == first:
            of_task[fit.planned.key.task] = of_task.get(fit.planned.key.task, 0.0) + own
    chosen, spent = [], 0.0
    for task, own in of_task.items():
        if spent + own <= budget_hours:
            chosen.append(task)
            spent += own
    return tuple(chosen), spent


def _parts(hours: Sequence[float], budget_hours: float) -> tuple[int | None, float]:
    for parts in range(1, len(hours) + 1):
        longest = max(sum(hours[part::parts]) for part in range(parts))
        if longest <= budget_hours:
            return parts, longest
    return None, max(hours, default=0.0)
