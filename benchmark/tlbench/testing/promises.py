"""What every plug-in promises, each tried and told in a line."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tlbench.methods.base import Method
from tlbench.models.backbone import Backbone
from tlbench.suites.spec import Recipe
from tlbench.testing.synthetic import RECIPE
from tlbench.testing.trial import Broken, Trial
from tlbench.testing.watching import place_of


@dataclass(frozen=True)
class Check:
    """One promise, and whether it was kept.

    Attributes
    ----------
    name : str
    passed : bool
    message : str
        What was seen; where it failed, what is wrong and how to mend it.
    seconds : float
    """

    name: str
    passed: bool
    message: str
    seconds: float


def assert_method(method: Method, *, backbone: Backbone | None = None) -> None:
    """Raise ``AssertionError`` with every broken promise of a method; arguments as for ``check_method``."""
    failed = [check for check in check_method(method, backbone=backbone) if not check.passed]
    if failed:
        lines = "\n".join(f"  {check.name}: {check.message}" for check in failed)
        raise AssertionError(f"{type(method).__name__} breaks {len(failed)} of its promises:\n{lines}")


def check_method(method: Method, *, backbone: Backbone | None = None, recipe: Recipe = RECIPE) -> list[Check]:
    """Fit a method on a small synthetic task and try what every plug-in promises; a few seconds on a CPU.

    Parameters
    ----------
    method : Method
    backbone : Backbone or None
        None for ``small-cnn``; a method that requires, say, a transformer needs one here.
    recipe : Recipe
        What the suite would give.

    Returns
    -------
    list of Check
        In order. After a fit that raises there is nothing more to check.
    """
    if backbone is None:
        from tlbench.models.zoo import load_backbone

        backbone = load_backbone("small-cnn")
    trial = Trial(method, backbone, recipe)
    checks = [_checked("settings", trial.settings), _checked("requires", trial.requires)]
    if not checks[-1].passed:
        return checks
    checks.append(_checked("fit", trial.first_fit))
    if not checks[-1].passed:
        return checks
    promises: dict[str, Callable[[], str]] = {
        "outputs": trial.outputs,
        "declared access": trial.declared_access,
        "theta0": trial.theta0,
        "unchanged settings": trial.unchanged,
        "global state": trial.global_state,
        "same seed": trial.same_seed,
        "other seed": trial.other_seed,
        "differentiable": trial.differentiable,
        "batch independence": trial.batch_independence,
        "test time": trial.test_time,
        "round trip": trial.round_trip,
        "null setting": trial.null_setting,
        "two classes": trial.two_classes,
    }
    return checks + [_checked(name, promise) for name, promise in promises.items()]


def _checked(name: str, promise: Callable[[], str]) -> Check:
    started = time.perf_counter()
    try:
        passed, message = True, promise()
    except Broken as broken:
        passed, message = False, str(broken)
    except Exception as error:  # a plug-in may raise anything, here where it did not before
        passed, message = False, f"raised {type(error).__name__}: {error}{place_of(error)}"
    return Check(name, passed, message, time.perf_counter() - started)
