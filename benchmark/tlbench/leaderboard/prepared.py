"""Records made ready to be scored: rows named, cells numbered, whatever has no value put aside with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.leaderboard.forms import Form, setting_key

ROW: Final = (
    "origin",
    "model",
    "name",
    "settings_hash",
    "backbone",
    "weights_hash",
    "protocol",
    "shots",
    "precision",
)
"""What makes a row of a board: equal names with other settings or weights are other rows."""

SCORED: Final = (
    "suite", "suite_hash", *(column for column in ROW if column not in ("origin", "name")), "variant", "headline",
    "deterministic", "control", "seed", "fit_target", "task", "source", "target", "role", "condition", "severity",
    "norm", "epsilon", "metric", "value", "standard_error", "n", "status", "reason",
)  # fmt: skip
"""Columns of the records that a score depends on."""
_SETTING: Final = ["condition", "severity", "norm", "epsilon"]
_CELL: Final = ["task", "source", "target", "role", "setting"]
_PLACE: Final = ["task", "source", "target", "role", "condition"]
_NUMBERS: Final = ["row", "cell", "seed", "fit", "value", "standard_error", "n"]

Row = tuple[str, ...]
"""Values of the columns ``ROW``."""


@dataclass(frozen=True)
class Prepared:
    """Records ready to be scored.

    Attributes
    ----------
    rows : tuple of Row
    control, deterministic, headline : bool arrays, shape (rows,)
    cells : mapping from (task, source, target, role, setting) to int
    numbers : mapping from a metric to DataFrame
        The records that have a value: ``row``, ``cell``, ``seed``, ``fit`` (which target the fit read, -1 for none),
        ``value``, ``standard_error`` and ``n``.
    absent : DataFrame
        The records that have none, with their reasons.
    """

    rows: tuple[Row, ...]
    control: NDArray[np.bool_]
    deterministic: NDArray[np.bool_]
    headline: NDArray[np.bool_]
    cells: Mapping[tuple[str, ...], int]
    numbers: Mapping[str, pd.DataFrame]
    absent: pd.DataFrame

    def of(self, form: Form) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the numbers that a form weighs, with the column ``term``, and the absent records of its cells."""
        term_of = np.full(len(self.cells) + 1, -1)
        for term, cell in enumerate(form.terms[_CELL].itertuples(index=False, name=None)):
            term_of[self.cells.get(cell, len(self.cells))] = term
        term_of[-1] = -1
        metric = form.terms["metric"].iloc[0]
        numbers = self.numbers.get(metric, _NO_NUMBERS)
        term = term_of[numbers["cell"].to_numpy()]
        # A whole measurement that is absent is told by one metric of each setting, not always by the one weighed here.
        places = {
            (*place, key.partition("|")[0]) for *place, key in form.terms[_CELL].itertuples(index=False, name=None)
        }
        absent = self.absent[self.absent["metric"].isin({metric, *SPOKESMEN})]
        told = [place in places for place in absent[_PLACE].itertuples(index=False, name=None)]
        return numbers[term >= 0].assign(term=term[term >= 0]), absent[np.array(told, dtype=np.bool_)]


SPOKESMEN: Final = ("accuracy", "consistency", "robust_accuracy")
"""The metrics under which a measurement that is absent as a whole is recorded."""
_NO_NUMBERS: Final = pd.DataFrame({column: np.empty(0, np.int64) for column in _NUMBERS})


def prepare(records: pd.DataFrame, seeds: Iterable[int]) -> Prepared:
    """Return records ready to be scored: rows named, cells numbered, seeds outside the suite left out.

    Parameters
    ----------
    records : DataFrame
        As from ``load_results``. A variant that is not the ranked one is the row ``model/variant``.
    seeds : iterable of int
        The suite's seeds. A deterministic method is kept whole, for one fit of it stands for every seed.

    Returns
    -------
    Prepared
    """
    kept = records[records["seed"].isin(list(seeds)) | records["deterministic"].astype(bool)]
    name, row_names = _named(kept)
    row, first_of_row = _numbered([*(codes(kept[column]) for column in ROW if column != "name"), name])
    setting, keys = _settings(kept)
    cell, first_of_cell = _numbered([*(codes(kept[column]) for column in _CELL if column != "setting"), setting])
    numbers = pd.DataFrame(
        {
            "row": row,
            "cell": cell,
            "seed": kept["seed"].to_numpy(),
            "fit": codes(kept["fit_target"]),
            "value": kept["value"].to_numpy(),
            "standard_error": kept["standard_error"].to_numpy(),
            "n": kept["n"].to_numpy(np.float64),
        }
    )
    ok = (kept["status"] == "ok").to_numpy()
    rows, cells = kept.iloc[first_of_row], kept.iloc[first_of_cell]
    metric = codes(kept["metric"])
    metrics = kept["metric"].iloc[_numbered([metric])[1]]
    absent = kept.loc[~ok, [*_PLACE, "metric", "seed", "status", "reason", "deterministic"]]
    absent = absent.astype({column: "str" for column in (*_PLACE, "metric", "status", "reason")})
    return Prepared(
        rows=tuple(
            rows.assign(name=row_names[name[first_of_row]])[list(ROW)].astype("str").itertuples(index=False, name=None)
        ),
        control=rows["control"].to_numpy(np.bool_),
        deterministic=rows["deterministic"].to_numpy(np.bool_),
        headline=rows["headline"].to_numpy(np.bool_),
        cells={
            (*place, keys[setting[first]]): number
            for number, (first, place) in enumerate(
                zip(first_of_cell, cells[_CELL[:-1]].astype("str").itertuples(index=False, name=None), strict=True)
            )
        },
        numbers={str(name): numbers[ok & (metric == code)] for name, code in zip(metrics, codes(metrics), strict=True)},
        absent=absent.assign(row=row[~ok])[["row", *absent.columns]].sort_values([*_PLACE, "seed"]),
    )


def codes(column: pd.Series[Any]) -> NDArray[np.int64]:
    """Return a number for every value, equal ones for equal values; -1 where there is none."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy().astype(np.int64)
    return pd.factorize(column)[0].astype(np.int64)


def _numbered(parts: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number the combinations of several codes in the order in which they come, and say where each comes first."""
    together, size = np.zeros(len(parts[0]), dtype=np.int64), 1
    for part in parts:
        values = int(part.max(initial=-1)) + 2
        if size * values >= 2**62:
            together = pd.factorize(together)[0].astype(np.int64)
            size = len(together) + 1
        together, size = together * values + part + 1, size * values
    together = pd.factorize(together)[0].astype(np.int64)
    # Numbered as they come, so that each comes first where the largest number so far grows.
    return together, np.flatnonzero(np.diff(np.maximum.accumulate(together), prepend=-1))


def _named(records: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Return a code for the name of every record's row, and the names."""
    parts = [codes(records[column]) for column in ("model", "variant", "headline")]
    together, first = _numbered(parts)
    few = records.iloc[first]
    names = [
        model if headline else f"{model}/{variant}"
        for model, variant, headline in zip(few["model"], few["variant"], few["headline"].astype(bool), strict=True)
    ]
    code, distinct = pd.factorize(np.array(names, dtype=object))
    return code.astype(np.int64)[together], np.asarray(distinct, dtype=object)


def _settings(records: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    """Return a code for the setting of every record, and the settings' keys."""
    together, first = _numbered([codes(records[column]) for column in _SETTING])
    few = records.iloc[first][_SETTING]
    keys = [setting_key(*values) for values in few.itertuples(index=False, name=None)]
    code, distinct = pd.factorize(np.array(keys, dtype=object))
    return code.astype(np.int64)[together], np.asarray(distinct, dtype=object)
