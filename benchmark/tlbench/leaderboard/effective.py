"""Effective robustness: how far a row lies above the line on which ordinary models trade ID for OOD accuracy.

The line is frozen with a suite, in ``suites/<name>.baseline.toml``: one slope and intercept a pair, on the probit
scale, with where they come from. Without the file there is no such column. ::

    format = 1
    suite = "digits"
    suite_hash = "25f6..."

    [provenance]
    models = ["finetune", "knn"]
    tlbench_version = "1.0.0"
    fitted = 2026-01-31
    note = "ordinary least squares on the models' means over seeds"

    [[pairs]]
    task = "digits"
    source = "mnist"
    target = "optdigits"
    slope = 0.9
    intercept = -0.4

References
----------
Taori et al. (2020), "Measuring Robustness to Natural Distribution Shifts in Image Classification"; Miller et al.
(2021), "Accuracy on the Line", for the probit scale.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.special import ndtr, ndtri

from tlbench.errors import SuiteError, nearest
from tlbench.leaderboard.aggregate import Score, score_rows
from tlbench.leaderboard.forms import Form, setting_key
from tlbench.leaderboard.prepared import Prepared, Row
from tlbench.suites.load import load_suite, suites_folder
from tlbench.suites.spec import Suite
from tlbench.suites.toml_file import explain, read_toml

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_CLEAN: Final = setting_key("clean", None, None, None)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Line(_Table):
    """A pair's line: probit of the expected OOD accuracy = slope x probit of ID accuracy + intercept."""

    task: str
    source: str = Field(description="several are joined by +")
    target: str
    slope: Annotated[_Finite, Field(gt=0)]
    intercept: _Finite


class Provenance(_Table):
    """Where a baseline comes from."""

    models: tuple[str, ...] = Field(min_length=3, description="through which the lines were fitted")
    tlbench_version: str
    fitted: datetime.date
    note: str = Field(min_length=1, description="how")


class Baseline(_Table):
    """The content of a baseline file, checked."""

    format: Literal[1]
    suite: str
    suite_hash: str = Field(pattern=r"^[0-9a-f]{64}$")
    provenance: Provenance
    pairs: tuple[Line, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _no_pair_twice(self) -> Baseline:
        seen = set()
        for line in self.pairs:
            key = (line.task, line.source, line.target)
            if key in seen:
                raise ValueError(f"{line.source} to {line.target} is given twice")
            seen.add(key)
        return self


def baseline_path(suite: Suite) -> Path:
    """Return where the baseline of a released suite lies; it need not be there."""
    return suites_folder() / f"{suite.name}.baseline.toml"


def read_baseline(path: Path, suite: Suite) -> Baseline:
    """Return a checked baseline.

    Raises
    ------
    SuiteError
        If the file cannot be read, says something that a baseline cannot say, is of another suite or version, or
        does not name each of the suite's pairs.
    """
    document = read_toml(path, error=SuiteError, what="a baseline file")
    try:
        found = Baseline.model_validate(document)
    except ValidationError as problem:
        raise SuiteError(f"{path}, {explain(problem, document, Baseline)}") from None
    if (found.suite, found.suite_hash) != (suite.name, suite.hash):
        raise SuiteError(
            f"{path}: expected the baseline of suite '{suite.name}' with hash {suite.hash[:12]}, "
            f"got one of '{found.suite}' with hash {found.suite_hash[:12]}; no board mixes versions"
        )
    wanted = {(pair.task, pair.source, pair.target) for pair in suite.pairs}
    given = {(line.task, line.source, line.target) for line in found.pairs}
    for task, source, target in [line for line in given if line not in wanted]:
        hint = nearest(f"{source} to {target}", [f"{s} to {t}" for of, s, t in wanted if of == task])
        raise SuiteError(f"{path}: {source} to {target} is no pair of task '{task}'{hint}")
    if lacking := sorted(wanted - given):
        raise SuiteError(f"{path}: expected a line for each of {len(wanted)} pairs, {lacking[0][1:]} has none")
    return found


def baseline_of(suite: Suite) -> Baseline | None:
    """Return the frozen baseline of one of our suites; None where there is none, or the suite is a user's.

    Raises
    ------
    SuiteError
        As for `read_baseline`.
    """
    path = baseline_path(suite)
    if not path.is_file() or load_suite(suite.name).hash != suite.hash:
        return None
    return read_baseline(path, suite)


@dataclass(frozen=True)
class _Line:
    inside: int
    outside: int
    slope: float
    intercept: float
    weight: float


def effective_robustness(
    prepared: Prepared, suite: Suite, baseline: Baseline, seeds: tuple[int, ...]
) -> dict[Row, Score]:
    """Return every row's OOD accuracy beyond what its ID accuracy lets expect, on a mean over tasks.

    Parameters
    ----------
    prepared : Prepared
    suite : Suite
    baseline : Baseline
        Of this suite.
    seeds : tuple of int
        The suite's.

    Returns
    -------
    dict from Row to Score
        A row has a value where its ID and OOD accuracies are complete. An accuracy of 0 or 1 is taken for half an
        image away from it, for its probit is infinite.
    """
    cells = [(pair.task, pair.source, pair.source, "id-test") for pair in suite.pairs]
    cells += [(pair.task, pair.source, pair.target, "ood-test") for pair in suite.pairs]
    terms = pd.DataFrame(list(dict.fromkeys(cells)), columns=["task", "source", "target", "role"])
    terms = terms.assign(setting=_CLEAN, metric="accuracy", weight=1.0)
    fits_of: dict[tuple[str, str], int] = {}
    for pair in suite.pairs:
        fits_of[pair.task, pair.source] = fits_of.get((pair.task, pair.source), 0) + 1
    at = {key: number for number, key in enumerate(dict.fromkeys(cells))}
    of = {(line.task, line.source, line.target): line for line in baseline.pairs}
    lines = [
        _Line(
            inside=at[pair.task, pair.source, pair.source, "id-test"],
            outside=at[pair.task, pair.source, pair.target, "ood-test"],
            slope=of[pair.task, pair.source, pair.target].slope,
            intercept=of[pair.task, pair.source, pair.target].intercept,
            weight=1 / (len(suite.tasks) * len(suite.pairs_of(pair.task))),
        )
        for pair in suite.pairs
    ]
    scores = score_rows(prepared, Form("accuracy", None, terms, fits_of), seeds)
    return {row: _above(score, lines) for row, score in scores.items()}


def _above(score: Score, lines: list[_Line]) -> Score:
    value = None
    if score.terms is not None and score.images is not None:
        value = sum(
            line.weight * (score.terms[line.outside] - _expected(line, score.terms, score.images)) for line in lines
        )
    return Score(value, None, None, score.found, score.expected, None, None, score.reason, score.ran, score.all_seeds)


def _expected(line: _Line, terms: NDArray[np.float64], images: NDArray[np.float64]) -> float:
    half = 0.5 / images[line.inside]
    inside = min(max(terms[line.inside], half), 1 - half)
    return float(ndtr(line.slope * ndtri(inside) + line.intercept))
