"""The measurements that records name, and the rows of predictions of each: sorted once and cut by offsets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from tlbench.records.schema import AUDITS, CLASS_BINS, PREDICTIONS
from tlbench.submissions.verification.submission import Submission
from tlbench.suites.spec import Attack, Clean, Corruption, Suite, Transform

Condition = Clean | Transform | Corruption | Attack
Columns = dict[str, NDArray[Any]]
WHOLE: Final = -1
"""The setting of what an attack's whole curve is summed up in."""
_UNKNOWN: Final = -1


@dataclass(frozen=True)
class Rows:
    """A table's rows, sorted by measurement and other keys, one group of them a measurement and a severity.

    Attributes
    ----------
    columns : mapping of str to array, shape (rows,)
        A null is 0 or False, or NaN in a column of floats.
    valid : mapping of str to bool array, shape (rows,)
        Where a column has a value; absent where it has one everywhere.
    measurement : int array, shape (groups,)
        Number of the measurement, -1 where no record names it.
    severity : float array, shape (groups,)
        -inf where it is null, inf where it is NaN.
    starts : int array, shape (groups + 1,)
    """

    columns: Mapping[str, NDArray[Any]]
    valid: Mapping[str, NDArray[np.bool_]]
    measurement: NDArray[np.int64]
    severity: NDArray[np.float64]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def groups_of(self) -> dict[int, list[int]]:
        """The groups of every measurement that a record names."""
        found: dict[int, list[int]] = {}
        for group, measurement in enumerate(self.measurement.tolist()):
            if measurement != _UNKNOWN:
                found.setdefault(measurement, []).append(group)
        return found

    @cached_property
    def group_of_row(self) -> NDArray[np.int64]:
        """The group of every row, shape (rows,)."""
        return np.repeat(np.arange(len(self.measurement)), np.diff(self.starts))

    @cached_property
    def present(self) -> dict[str, NDArray[np.int64]]:
        """How many values a column has in every group, for columns that lack some."""
        return {name: self.sums(mask) for name, mask in self.valid.items()}

    def sums(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the sum of one whole number or flag a row over every group, shape (groups,)."""
        total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        return np.asarray(total[self.starts[1:]] - total[self.starts[:-1]])

    def part(self, group: int) -> slice:
        """Return the rows of a group."""
        return slice(int(self.starts[group]), int(self.starts[group + 1]))

    def columns_of(self, group: int) -> Columns:
        """Return the columns of a group that are not null throughout; a value that is absent is NaN.

        Raises
        ------
        ValueError
            If a column of whole numbers or flags is null in some rows.
        """
        part = self.part(group)
        found = {}
        for name, column in self.columns.items():
            some = self.present.get(name)
            if some is not None and some[group] == 0:
                continue
            if some is not None and some[group] < part.stop - part.start and column.dtype.kind != "f":
                raise ValueError(f"{name} is null in {part.stop - part.start - some[group]} rows, but not in all")
            found[name] = column[part]
        return found


class Measurements:
    """Everything that is checked: one row of facts a measurement, and its rows of the other tables.

    Parameters
    ----------
    submission : Submission

    Attributes
    ----------
    records : DataFrame
        With the columns ``measurement``, the number of the measurement, and ``setting``, the number of the setting.
    facts : DataFrame
        The first record of every measurement, by number.
    conditions : list of the suite's conditions
        Of every measurement; None where the suite has none of that name.
    """

    def __init__(self, submission: Submission) -> None:
        self.submission = submission
        self.suite: Suite = submission.suite
        numbers, ids = pd.factorize(submission.records["measurement_id"])
        self.ids: list[str] = list(ids)
        self._number = {name: number for number, name in enumerate(self.ids)}
        self.records: pd.DataFrame = submission.records.assign(measurement=numbers)
        self.facts: pd.DataFrame = self.records.drop_duplicates("measurement").reset_index(drop=True)
        known = conditions_by_name(self.suite)
        self.conditions: list[Condition | None] = [
            known.get((name, norm if isinstance(norm, str) else None)) or known.get((name, None))
            for name, norm in zip(self.facts["condition"], self.facts["norm"], strict=True)
        ]
        self.records["setting"] = self._settings()

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def predictions(self) -> Rows:
        """The rows of predictions, sorted by measurement, severity and id."""
        return self._rows("predictions", PREDICTIONS, ("id",))

    @cached_property
    def class_bins(self) -> Rows:
        """The counts by class and bin, sorted by measurement, scaling, class and bin."""
        return self._rows("class_bins", CLASS_BINS, ("scaled", "class", "bin"))

    @cached_property
    def audits(self) -> Rows:
        """The audited verdicts, sorted by measurement, id and epsilon."""
        return self._rows("audits", AUDITS, ("id", "epsilon"))

    @cached_property
    def clean_of(self) -> dict[tuple[str, ...], int]:
        """The clean measurement of a fit's variant on a set."""
        return {self.set_of(number): number for number, c in enumerate(self.conditions) if isinstance(c, Clean)}

    def set_of(self, number: int) -> tuple[str, ...]:
        """Return what two measurements of the same predictor on the same images share."""
        return tuple(str(self._columns[name][number]) for name in ("fit_id", "variant", "role", "target"))

    def fact(self, number: int, name: str) -> Any:
        """Return what the first record of a measurement says."""
        return self._columns[name][number]

    def place(self, number: int) -> str:
        """Return what a measurement is of, in words."""
        task, source, target, role, condition, seed, variant = (
            self._columns[name][number] for name in ("task", "source", "target", "role", "condition", "seed", "variant")
        )
        where = f"{task}, {source} to {target}, {role}, {condition}, seed {seed}"
        return where if self._columns["headline"][number] else f"{where}, variant {variant}"

    @cached_property
    def _columns(self) -> dict[str, NDArray[Any]]:
        return {str(name): column.to_numpy() for name, column in self.facts.items()}

    def _settings(self) -> NDArray[np.int64]:
        """Return the number of every record's setting, -1 for a whole curve, -2 where its condition has none such."""
        severity, epsilon = (self.records[name].to_numpy(dtype=np.float64) for name in ("severity", "epsilon"))
        settings = np.full(len(self.records), -2, dtype=np.int64)
        number = self.records["measurement"].to_numpy()
        by_condition: dict[int, list[int]] = {}
        kinds: dict[int, Condition] = {}
        for measurement, condition in enumerate(self.conditions):
            if condition is not None:
                by_condition.setdefault(id(condition), []).append(measurement)
                kinds[id(condition)] = condition
        for key, condition in kinds.items():
            own = np.isin(number, by_condition[key])
            strengths = strengths_of(condition)
            is_attack = isinstance(condition, Attack)
            given, other = (epsilon, severity) if is_attack else (severity, epsilon)
            found = np.full(len(self.records), -2, dtype=np.int64)
            found[np.isnan(given)] = WHOLE if is_attack else 0 if isinstance(condition, Clean) else -2
            for place, strength in enumerate(strengths):
                if strength is not None:
                    found[np.abs(given - strength) <= 1e-9 * abs(strength)] = place
            settings[own] = np.where(np.isnan(other), found, -2)[own]
        return settings

    def _rows(self, name: str, schema: pa.Schema, keys: tuple[str, ...]) -> Rows:
        table = self.submission.tables.get(name, schema.empty_table())
        number = self._numbers(table)
        severity = np.full(len(table), -np.inf)
        columns, valid = {}, {}
        for field in schema:
            if field.name == "measurement_id":
                continue
            column = table.column(field.name)
            if column.null_count:
                valid[field.name] = column.is_valid().to_numpy()
                if not pa.types.is_floating(field.type):
                    column = column.fill_null(False if pa.types.is_boolean(field.type) else 0)
            columns[field.name] = column.to_numpy()
        if name == "predictions":
            severity = columns.pop("severity").astype(np.float64)
            null = ~valid.pop("severity") if "severity" in valid else np.zeros(len(table), dtype=bool)
            # NaN differs from itself: every row would be a group of its own.
            severity = np.where(null, -np.inf, np.where(np.isnan(severity), np.inf, severity))
        order = np.lexsort([columns[key] for key in reversed(keys)] + [severity, number])
        if not np.array_equal(order, np.arange(len(order))):
            columns = {key: column[order] for key, column in columns.items()}
            valid = {key: mask[order] for key, mask in valid.items()}
            number, severity = number[order], severity[order]
        new = np.ones(len(number), dtype=bool)
        new[1:] = (np.diff(number) != 0) | (severity[1:] != severity[:-1])
        first = np.flatnonzero(new)
        starts = np.append(first, len(number)).astype(np.int64)
        return Rows(columns, valid, number[first], severity[first], starts)

    def _numbers(self, table: pa.Table) -> NDArray[np.int64]:
        """Return the measurement of every row, -1 where no record names it."""
        coded = table.column("measurement_id").combine_chunks().dictionary_encode()
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.unify_dictionaries().combine_chunks()
        if isinstance(coded, pa.ChunkedArray):  # of no rows
            return np.zeros(0, dtype=np.int64)
        number = np.array([self._number.get(name, _UNKNOWN) for name in coded.dictionary.to_pylist()], dtype=np.int64)
        return number[coded.indices.to_numpy()] if len(number) else np.zeros(0, dtype=np.int64)


def conditions_by_name(suite: Suite) -> dict[tuple[str, str | None], Condition]:
    """Return a suite's conditions by name and norm; without a norm where one alone has the name."""
    found: dict[tuple[str, str | None], Condition] = {}
    names = [condition.name for condition in suite.conditions]
    for condition in suite.conditions:
        if isinstance(condition, Attack):
            found[condition.name, condition.norm] = condition
        if names.count(condition.name) == 1:
            found[condition.name, None] = condition
    return found


def strengths_of(condition: Condition) -> tuple[float | None, ...]:
    """Return the severities, steps or epsilons of a condition, in the suite's order."""
    if isinstance(condition, Transform):
        return condition.steps
    if isinstance(condition, Corruption):
        return tuple(float(severity) for severity in condition.severities)
    return condition.radii if isinstance(condition, Attack) else (None,)


def scaled_of(bins: Rows, group: int) -> dict[bool, slice]:
    """Return the rows of a group of class bins before (False) and after (True) temperature scaling."""
    part = bins.part(group)
    middle = part.start + int(np.searchsorted(bins.columns["scaled"][part], True))
    parts = {False: slice(part.start, middle), True: slice(middle, part.stop)}
    return {scaled: rows for scaled, rows in parts.items() if rows.stop > rows.start}
