"""What the calls of `tlbench.api` return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlbench.suites.spec import Suite


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation left behind.

    Attributes
    ----------
    suite : Suite
    model : str
    run_dir : Path
        Where its records are.
    failures : tuple of str
        One line each; empty when everything worked.
    complete : bool
        Whether every selected measurement is now stored.
    seconds : float
    missing : mapping of str to str
        Tasks that were not run because their data are not here, and where these were looked for.
    table : list of dict
        One row a pair: ID and OOD accuracy, mean over seeds.
    headline : dict
        The model's line of the board: measure to value.
    notes : tuple of str
        What is to be known of the attacks that were made now, one line each: images on which one could not begin, how
        many each member of AutoAttack broke, verdicts that an audit reversed. Numbers of them stand in the records.
    inapplicable : tuple of str
        Where the method does not apply, and why, one line a reason.
    """

    suite: Suite = field(repr=False)
    model: str
    run_dir: Path
    failures: tuple[str, ...]
    complete: bool
    seconds: float
    missing: Mapping[str, str] = field(default_factory=dict)
    table: list[dict[str, Any]] = field(default_factory=list)
    headline: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    inapplicable: tuple[str, ...] = ()


@dataclass(frozen=True)
class GridRowResult:
    """One row of a grid, evaluated or not.

    Attributes
    ----------
    model, backbone, shots : str
    result : EvaluationResult or None
    problem : str
        Why there is no result; empty where there is one.
    """

    model: str
    backbone: str
    shots: str
    result: EvaluationResult | None = None
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Whether anything of it failed."""
        return self.result is None or bool(self.result.failures)
