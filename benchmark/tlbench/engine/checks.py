"""A suite against this installation, before any compute: its names are known, and its conditions can be made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench import registry
from tlbench.conditions.catalogue import check_available, condition_names
from tlbench.data.readers.catalogue import READERS
from tlbench.engine.measuring import make_condition
from tlbench.errors import DataError, SuiteError, TlbenchError
from tlbench.methods.augment import AUGMENTATIONS
from tlbench.metrics.catalogue import METRICS
from tlbench.suites.load import check_names, condition_entries
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from tlbench.data.prepare import SuiteData
    from tlbench.engine.plan import AnyCondition
    from tlbench.methods.base import Method


def check_suite(suite: Suite, reference: str | Path | None = None) -> None:
    """Check that a suite names what is registered, and that its conditions can be made.

    Parameters
    ----------
    suite : Suite
    reference : str or Path, optional
        The file or name that it was loaded from.

    Raises
    ------
    SuiteError
        For the first mistake, with its place.
    """
    check_names(
        suite,
        where=None if reference is None else str(reference),
        readers=READERS,
        conditions=condition_names(),
        backbones=registry.names("backbones"),
        metrics=METRICS,
        augmentations=AUGMENTATIONS,
    )
    check_conditions(suite, reference)


def check_conditions(suite: Suite, reference: str | Path | None = None) -> None:
    """Make every condition of a suite, as its measurements will.

    What is missing on this machine is no mistake of the suite: `lacking` tells that.

    Parameters
    ----------
    suite, reference
        See `check_suite`.

    Raises
    ------
    SuiteError
        For the first that cannot be made: the suite, the condition's number (in the file, where there is one) and name,
        and the way out.
    """
    entries = () if reference is None else condition_entries(reference)
    for number, spec in enumerate(suite.conditions):
        try:
            make_condition(spec, suite.protocol.image_size)
        except DataError:
            continue
        except TlbenchError as error:
            where = f"suite '{suite.name}'" if reference is None else reference
            entry = entries[number] if entries else number + 1
            raise SuiteError(f"{where}, conditions, entry {entry}: {error}") from error


def check_hierarchies(
    suite: Suite, data: SuiteData, method: Method, tasks: Iterable[str], reference: str | Path | None = None
) -> None:
    """Hold the class hierarchies that a method reads against the classes, which may be known from the data alone.

    Raises
    ------
    SuiteError
        For the first that is no tree over the classes of its task.
    """
    if "class_hierarchy" not in method.reads:
        return
    for task in tasks:
        spec = suite.tasks[task]
        problem = spec.hierarchy.problem(data.classes(task)) if spec.hierarchy else ""
        if problem:
            where = f"suite '{suite.name}'" if reference is None else reference
            found = "" if spec.classes else "; the classes are those of the data, for the suite lists none"
            raise SuiteError(f"{where}, tasks.{task}.hierarchy: {problem}{found}")


def lacking(conditions: Iterable[AnyCondition]) -> dict[tuple[str, str], DataError]:
    """Return what some conditions need and is not on this machine, by their kind and name."""
    missing: dict[tuple[str, str], DataError] = {}
    for kind, name in dict.fromkeys((spec.kind, spec.name) for spec in conditions):
        try:
            check_available(kind, name)
        except DataError as error:
            missing[kind, name] = error
    return missing
