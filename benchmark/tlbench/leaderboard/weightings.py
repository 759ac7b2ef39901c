"""The same numbers weighed otherwise: every pair equal, every image equal, one task left out."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.leaderboard.forms import Form


def tasks_of(form: Form) -> tuple[str, ...]:
    """Return the tasks of a form, in its order."""
    return tuple(dict.fromkeys(form.terms["task"]))


def task_weights(form: Form) -> NDArray[np.float64]:
    """Return weights whose product with the terms is the score of each task alone, shape (tasks, terms).

    The score is their plain mean.
    """
    tasks = tasks_of(form)
    inside = form.terms["task"].to_numpy(object)[None, :] == np.array(tasks, dtype=object)[:, None]
    return np.asarray(inside * form.terms["weight"].to_numpy(np.float64) * len(tasks))


def pair_weights(form: Form) -> NDArray[np.float64]:
    """Return weights of the terms under which every pair (every source, on ID-test) counts alike, shape (terms,)."""
    cells = _cells(form.terms)
    share = _within(form.terms, cells)
    return np.asarray(share / (cells.max() + 1))


def image_weights(form: Form, images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights of the terms under which every measured image counts alike, shape (terms,).

    Parameters
    ----------
    form : Form
        Of weights that are not negative.
    images : float array, shape (terms,)
        Images that each term rests on.
    """
    weights = _within(form.terms, _cells(form.terms)) * images
    return np.asarray(weights / weights.sum())


def without_each(tasks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scores without each task, shape (rows, tasks), from those of the tasks, shape (rows, tasks).

    >>> without_each(np.array([[1.0, 2.0, 6.0]]))
    array([[4. , 3.5, 1.5]])
    """
    return np.asarray((tasks.sum(axis=1, keepdims=True) - tasks) / (tasks.shape[1] - 1))


def ranks(scores: NDArray[np.float64], *, higher: bool) -> NDArray[np.int64]:
    """Return ranks from 1, equal scores sharing the better one, shape as the scores, shape (rows, ...).

    >>> ranks(np.array([0.5, 0.9, 0.5]), higher=True)
    array([2, 1, 2])
    """
    # Equal up to the last bits: the same numbers, summed in another order, are no difference.
    rounded = pd.DataFrame(np.round(scores.reshape(len(scores), -1), 12))
    found = rounded.rank(method="min", ascending=not higher).to_numpy(np.int64)
    return np.asarray(found.reshape(scores.shape))


def _cells(terms: pd.DataFrame) -> NDArray[np.int64]:
    return np.asarray(terms.groupby(["task", "source", "target", "role"], sort=False).ngroup(), dtype=np.int64)


def _within(terms: pd.DataFrame, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the share of every term in its cell."""
    weights = terms["weight"].to_numpy(np.float64)
    return np.asarray(weights / np.bincount(cells, weights=weights)[cells])
