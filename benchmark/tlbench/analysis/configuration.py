"""What a model is made of, read from the settings on its records: the factors by which runs are matched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tlbench.suites.spec import Recipe

SCHEDULE: Final = ("lr", "epochs")
REGIME: Final = ("regime", "batchnorm", "cached_views", "precision")
"""What tells training of all weights from training of a head; the last three exist, or matter, for one of them only."""
AUGMENT: Final = ("augment",)
BACKBONE: Final = ("backbone", "weights_hash")


@dataclass(frozen=True)
class Configuration:
    """A method with its settings, unwrapped.

    Attributes
    ----------
    core : str
        The innermost method: ``linear-probe`` of ``temperature(linear-probe)``. A head trained by the recipe is
        ``finetune`` with regime ``head-only``, under whichever name it ran.
    regime, augment : str
        ``full`` or ``head-only``; the recipe's augmentation. Empty where the method has no such setting.
    lr, epochs : float
        Of the recipe; NaN where the method has none, or a search picks them.
    searched : bool
        Whether learning rate or epochs are picked on ID-val.
    factors : mapping of str to JSON value
        All of it, settings at None filled in from the suite's recipe.
    """

    core: str
    regime: str
    augment: str
    lr: float
    epochs: float
    searched: bool
    factors: Mapping[str, Any]

    @property
    def trained(self) -> str:
        """Return what was trained, by one name: ``head-only`` also where it is a regime of ``finetune``."""
        return "head-only" if (self.core, self.regime) == ("finetune", "head-only") else self.core


def read_configuration(method: str, settings: str, recipe: Recipe) -> Configuration:
    """Return what a model is made of.

    Parameters
    ----------
    method : str
        As on the records: the outermost one.
    settings : str
        Canonical JSON.
    recipe : Recipe
        The suite's: what a setting at None means.

    Examples
    --------
    >>> found = read_configuration("head-only", '{"augment": null, "lr": 0.1}', Recipe())
    >>> found.core, found.regime, found.augment, found.lr
    ('finetune', 'head-only', 'identity', 0.1)
    """
    own: Mapping[str, Any] = json.loads(settings)
    wrappers, searched = [], set[str]()
    while isinstance(own.get("base"), Mapping) and "method" in own["base"]:
        outer = {key: value for key, value in own.items() if key != "base"}
        wrappers.append([method, outer])
        if method == "grid-search":
            searched |= {key for key in SCHEDULE if outer.get(key)}
        method, own = own["base"]["method"], own["base"].get("settings", {})
    defaults = recipe.model_dump()
    filled = {key: defaults.get(key) if value is None else value for key, value in own.items()}
    for key in searched:
        filled[key] = "searched"
    if method == "head-only":
        method, filled["regime"] = "finetune", "head-only"
    schedule = [as_number(filled.get(key)) for key in SCHEDULE]
    return Configuration(
        core=method,
        regime=str(filled.get("regime") or ""),
        augment=str(filled.get("augment") or ""),
        lr=schedule[0],
        epochs=schedule[1],
        searched=bool(searched),
        factors={"wrappers": wrappers, "core": method, **filled},
    )


def matching_key(factors: str, without: tuple[str, ...]) -> str:
    """Return a run's factors but some: equal for runs that differ in those alone.

    >>> matching_key('{"augment": "augmix", "lr": 0.1}', without=("augment",))
    '{"lr": 0.1}'
    """
    return json.dumps({key: value for key, value in json.loads(factors).items() if key not in without}, sort_keys=True)


def as_number(value: Any) -> float:
    """Return a setting as a number; NaN for what is none, such as a range that is searched."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")
