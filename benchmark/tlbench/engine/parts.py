"""Fits that a planned fit asks for: each is stored under an id of its own, and is made once for all who ask."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tlbench.engine.plan import Sizes, amount, fit_id_of
from tlbench.engine.sizing import Sizing, sizing_of
from tlbench.methods.cost import asked_by, cost_of

if TYPE_CHECKING:
    from tlbench.engine.plan import PlannedFit
    from tlbench.engine.workshop import Workshop
    from tlbench.methods.base import Method
    from tlbench.methods.cost import Asked


@dataclass(frozen=True)
class Part:
    """A fit that another one asks for.

    Attributes
    ----------
    fit_id : str
    sizing : Sizing
        Decides how much work it is, and how large its file.
    parts : tuple of Part
        What it asks for itself.
    """

    fit_id: str
    sizing: Sizing
    parts: tuple[Part, ...]


def parts_of(work: Workshop, sizes: Sizes, planned: PlannedFit) -> tuple[Part, ...]:
    """Return what a planned fit asks for.

    Raises
    ------
    PluginError
        If a method's ``asks_for`` or ``cost`` fails, or it asks for itself.
    """
    recipe = work.suite.protocol.recipe

    def asked(*around: Asked) -> tuple[Part, ...]:
        return tuple(
            Part(
                fit_id_of_part(work, sizes, planned, *one),
                sizing_of(work.suite, cost_of(one[0], recipe, work.backbone), work.backbone),
                asked(*around, one),
            )
            for one in asked_by(around, recipe)
        )

    method = work.model.method
    return asked((method, 0 if method.deterministic else planned.key.seed))


def fit_id_of_part(work: Workshop, sizes: Sizes, planned: PlannedFit, method: Method, seed: int) -> str:
    """Return the id under which the engine stores the fit of another method that a planned one asks for."""
    key = planned.key
    target = key.fit_target
    return fit_id_of(
        work.suite,
        method,
        work.model.source,
        work.backbone.weights_hash,
        train=sizes.training(key.task, planned.sources, "train", amount(key.shots)).hash,
        val=sizes.training(key.task, planned.sources, "val").hash,
        shots=key.shots,
        seed=seed,
        target=[] if target is None else [sizes.split(key.task, target, part).hash for part in ("train", "test")],
        hierarchy=work.suite.tasks[key.task].hierarchy,
    )


def everything(parts: Iterable[Part]) -> Iterator[Part]:
    """Yield parts and all that they ask for; what is asked for twice comes twice."""
    return missing(parts, lambda fit_id: False)


def missing(parts: Iterable[Part], stored: Callable[[str], bool]) -> Iterator[Part]:
    """Yield the parts that have to be made: what a stored one asked for, nobody asks for again."""
    for part in parts:
        if not stored(part.fit_id):
            yield part
            yield from missing(part.parts, stored)
