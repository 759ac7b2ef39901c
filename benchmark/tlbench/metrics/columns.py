"""What every metric asks of the columns that it reads: some images, equal lengths, no NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]
Floats = NDArray[np.floating]
Integers = NDArray[np.integer]
Booleans = NDArray[np.bool_]


def images_in(**columns: Column) -> int:
    """Return the number of images that the columns describe.

    Parameters
    ----------
    **columns : arrays, shape (n,)
        Columns of one predictions table, under the names an error message should use.

    Returns
    -------
    int
        ``n``, at least 1.

    Raises
    ------
    ValueError
        If a column is not one-dimensional, is empty, differs in length from another, or holds a NaN. A metric of a
        NaN would be a NaN at best and, once compared or binned, a plausible number at worst.
    """
    lengths = {}
    for name, column in columns.items():
        if np.ndim(column) != 1:
            raise ValueError(f"{name}: expected one value per image, shape (n,), got shape {np.shape(column)}")
        lengths[name] = len(column)
        if np.issubdtype(column.dtype, np.floating) and np.isnan(column).any():
            raise ValueError(f"{name}: {np.isnan(column).sum()} of {len(column)} values are NaN")
    if len(set(lengths.values())) > 1:
        raise ValueError("expected columns of equal length, got " + ", ".join(f"{k} {v}" for k, v in lengths.items()))
    n = next(iter(lengths.values()))
    if n == 0:
        raise ValueError(f"{', '.join(lengths)}: expected at least one image, got none")
    return n
