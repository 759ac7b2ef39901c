"""Columns in memory to the written Parquet tables, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from tlbench.binning import ClassBins
from tlbench.records.schema import AUDITS, CLASS_BINS, PREDICTIONS


def predictions_table(
    measurement_id: str, parts: Sequence[tuple[float | None, Mapping[str, NDArray[Any]]]]
) -> pa.Table:
    """Return the predictions of one measurement, one part a severity.

    Parameters
    ----------
    measurement_id : str
    parts : sequence of (severity or None, columns)
        Every part's columns have the names of ``PREDICTIONS``; a column that is absent becomes null.
    """
    tables = []
    for severity, columns in parts:
        n = len(columns["id"])
        arrays = []
        for field in PREDICTIONS:
            if field.name == "measurement_id":
                arrays.append(pa.array([measurement_id] * n, field.type))
            elif field.name == "severity":
                arrays.append(pa.array([severity] * n, field.type))
            elif field.name in columns:
                # NaN stays NaN and null stays null: a missing column is not a failed number.
                arrays.append(pa.array(np.asarray(columns[field.name]), from_pandas=False).cast(field.type))
            else:
                arrays.append(pa.nulls(n, field.type))
        tables.append(pa.Table.from_arrays(arrays, schema=PREDICTIONS))
    return pa.concat_tables(tables)


def class_bins_table(measurement_id: str, tables: Mapping[bool, ClassBins]) -> pa.Table:
    """Return the occupied class bins of one measurement, before (False) and after (True) temperature scaling."""
    rows: list[dict[str, Any]] = []
    for scaled, table in tables.items():
        for label, place in zip(*np.nonzero(table.count), strict=True):
            rows.append(
                {
                    "measurement_id": measurement_id,
                    "scaled": scaled,
                    "class": int(label),
                    "bin": int(place),
                    "n": int(table.count[label, place]),
                    "probability": float(table.probability[label, place]),
                    "positives": int(table.positive[label, place]),
                }
            )
    return pa.Table.from_pylist(rows, schema=CLASS_BINS)


def audits_table(measurement_id: str, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """Return the audited verdicts of one measurement; columns have the names of ``AUDITS``."""
    named = {"measurement_id": [measurement_id] * len(columns["id"]), **columns}
    return pa.table({name: named[name] for name in AUDITS.names}, schema=AUDITS)


def audits_of(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the audited verdicts of one measurement from its stored table, which may have no rows."""
    return {name: table.column(name).to_numpy() for name in AUDITS.names if name != "measurement_id"}


def columns_of(table: pa.Table) -> dict[str, NDArray[Any]]:
    """Return the columns of a predictions table that are not wholly null, as arrays."""
    return {
        name: table.column(name).to_numpy()
        for name in table.column_names
        if name != "measurement_id" and table.column(name).null_count < len(table)
    }


def class_bins_of(table: pa.Table, *, classes: int, bins: int) -> dict[bool, ClassBins]:
    """Return the counts of one measurement from its stored table, before (False) and after (True) scaling."""
    found = {}
    for scaled in sorted(set(table.column("scaled").to_pylist())):
        rows = table.filter(pyarrow.compute.equal(table.column("scaled"), scaled))
        place = (rows.column("class").to_numpy(), rows.column("bin").to_numpy())
        counts = ClassBins(
            np.zeros((classes, bins), np.int64), np.zeros((classes, bins)), np.zeros((classes, bins), np.int64)
        )
        counts.count[place] = rows.column("n").to_numpy()
        counts.probability[place] = rows.column("probability").to_numpy()
        counts.positive[place] = rows.column("positives").to_numpy()
        found[bool(scaled)] = counts
    return found
