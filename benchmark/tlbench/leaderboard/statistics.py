"""What may be said of the rows of a board: intervals, who is told apart from whom, ranks under other weightings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.leaderboard.aggregate import Score
from tlbench.leaderboard.forms import Form
from tlbench.leaderboard.generalisation import LEAST_TASKS, over_tasks
from tlbench.leaderboard.intervals import Resampled, from_standard_error, resample
from tlbench.leaderboard.measured import Measured
from tlbench.leaderboard.pareto import unbeaten
from tlbench.leaderboard.prepared import ROW, Row
from tlbench.leaderboard.ties import Compared, compare_over_draws, compare_over_tasks, rank_intervals, tie_groups
from tlbench.leaderboard.weightings import image_weights, pair_weights, ranks, task_weights, tasks_of, without_each
from tlbench.metrics.catalogue import METRICS

SECTION: Final = ["protocol", "shots", "precision", "pretraining"]
INTERVALS: Final = ("measurement_low", "measurement_high", "generalisation_low", "generalisation_high")
RANKS: Final = (
    "tie_group", "rank_low", "rank_high", "rank_by_pairs", "rank_by_images", "rank_without_low", "rank_without_high",
)  # fmt: skip
DIFFERENCES: Final = (*SECTION, "first", "second", "difference", "low", "high", "p", "adjusted_p")
WITHOUT: Final = (*SECTION, "task", "name", "score", "rank")


@dataclass(frozen=True)
class Statistics:
    """What is added to a board.

    Attributes
    ----------
    frame : DataFrame
        The board's frame with the columns ``INTERVALS``, ``RANKS`` and ``pareto``.
    differences : DataFrame
        The columns ``DIFFERENCES``: every pair of ranked rows of a section, the better one first.
    without : DataFrame
        The columns ``WITHOUT``: every ranked row's score and rank without each task.
    notes : tuple of str
    """

    frame: pd.DataFrame
    differences: pd.DataFrame
    without: pd.DataFrame
    notes: tuple[str, ...]


def with_statistics(
    frame: pd.DataFrame, scores: Mapping[Row, Score], form: Form, measured: Measured | None
) -> Statistics:
    """Return a board's frame with what may be said of its rows.

    Parameters
    ----------
    frame : DataFrame
        In the order in which it is shown, with ``standing``, ``score`` and ``rank``.
    scores : mapping from Row to Score
    form : Form
    measured : Measured or None
        The rows' images; without them there is the recorded bound of the standard error.
    """
    keys: list[Row] = list(frame[list(ROW)].astype("str").itertuples(index=False, name=None))
    have = {row: scores[row] for row in keys if scores[row].value is not None}
    resampled = _resampled(have, measured)
    frame = frame.assign(**_intervals(keys, have, form, resampled))
    empty = pd.array([pd.NA] * len(frame), dtype="Int64")
    frame = frame.assign(**{name: empty.copy() for name in RANKS}, pareto=False)
    differences, without, alone = [], [], []
    ranked = frame["standing"] == "ranked"
    for section, rows in frame[ranked].groupby(SECTION, sort=False):
        own = _Section.of([scores[keys[place]] for place in rows.index], [keys[place] for place in rows.index], form)
        facts = dict(zip(SECTION, section, strict=True))
        compared, places = own.compare(resampled)
        for name, values in own.ranks(rows["score"].to_numpy(np.float64), compared, places).items():
            frame.loc[rows.index, name] = pd.array(values, dtype="Int64")
        goodness = rows["score"].to_numpy(np.float64) * own.sign
        frame.loc[rows.index, "pareto"] = unbeaten(goodness, rows["fit_seconds"].to_numpy(np.float64))
        names = np.array(row_labels(rows), dtype=object)
        differences.append(_differences(facts, names[places], compared))
        without.append(_without(facts, names, own))
        alone += [str(name) for name in np.delete(names, places)]
    return Statistics(
        frame,
        _together(differences, DIFFERENCES),
        _together(without, WITHOUT),
        _notes(frame, keys, have, form, measured, resampled, alone),
    )


def row_labels(rows: pd.DataFrame) -> list[str]:
    """Return what the rows of a section are called where one alone must be meant.

    A row goes by its name. Where several share it, ``published:`` or ``local:`` stands before it, as ``tlbench
    compare`` takes it; where that is not enough, settings, backbone and weights follow.
    """
    told = [
        (str(row["name"]), f"{row['origin']}:{row['name']}", str(row["settings_hash"])[:8], str(row["backbone"]))
        for row in rows[["name", "origin", "settings_hash", "backbone"]].to_dict("records")
    ]
    names, placed = Counter(one[0] for one in told), Counter(one[1] for one in told)
    labels = [
        name if names[name] == 1 else place if placed[place] == 1 else f"{place} ({settings}, {backbone})"
        for name, place, settings, backbone in told
    ]
    whole = Counter(labels)
    weights = rows["weights_hash"].astype("str").str[:8]
    return [
        label if whole[label] == 1 else f"{label}, weights {own}" for label, own in zip(labels, weights, strict=True)
    ]


def _resampled(have: Mapping[Row, Score], measured: Measured | None) -> Resampled | None:
    if measured is None or not have:
        return None
    return resample(
        measured,
        {row: float(score.value) for row, score in have.items() if score.value is not None},
        {row: score.ran for row, score in have.items()},
    )


def _intervals(
    keys: list[Row], have: Mapping[Row, Score], form: Form, resampled: Resampled | None
) -> dict[str, NDArray[np.float64]]:
    found = resampled.intervals() if resampled is not None else {}
    info = METRICS[form.metric]
    # Weights that sum to one keep a rate within its range, and an interval of it, too; those of a gap do not.
    most = 1.0 if info.unit == "fraction" and form.role is not None else np.inf
    by_task = task_weights(form)
    table = np.full((len(keys), len(INTERVALS)), np.nan)
    for place, row in enumerate(keys):
        score = have.get(row)
        if score is None or score.value is None or score.terms is None:
            continue
        measurement = found.get(row) or from_standard_error(score.value, score.standard_error)
        table[place] = (*measurement, *over_tasks(_products(by_task, score.terms)))
    if form.role is not None:
        table = np.clip(table, 0.0, most)  # no measure of one place is below nothing
    return {name: table[:, column] for column, name in enumerate(INTERVALS)}


@dataclass(frozen=True)
class _Section:
    """The ranked rows that may be compared with each other.

    Attributes
    ----------
    keys : list of Row
    form : Form
    tasks : float array, shape (rows, tasks)
    by_pairs, by_images : float arrays, shape (rows,)
    sign : int
        1 where higher is better, else -1.
    """

    keys: list[Row]
    form: Form
    tasks: NDArray[np.float64]
    by_pairs: NDArray[np.float64]
    by_images: NDArray[np.float64]
    sign: int

    @classmethod
    def of(cls, scores: list[Score], keys: list[Row], form: Form) -> _Section:
        by_task, by_pair = task_weights(form), pair_weights(form)
        terms = np.array([score.terms for score in scores])
        images = [score.images for score in scores]
        return cls(
            keys,
            form,
            np.array([_products(by_task, row) for row in terms]),
            terms @ by_pair,
            np.array(
                [
                    row @ image_weights(form, own) if own is not None else np.nan
                    for row, own in zip(terms, images, strict=True)
                ]
            ),
            1 if METRICS[form.metric].higher_is_better else -1,
        )

    def compare(self, resampled: Resampled | None) -> tuple[Compared | None, NDArray[np.int64]]:
        """Compare the rows; return also which of them take part."""
        every = np.arange(len(self.keys))
        if self.tasks.shape[1] >= LEAST_TASKS:
            return compare_over_tasks(self.tasks), every
        known = set(resampled.rows) if resampled is not None else set()
        places = np.array([place for place, row in enumerate(self.keys) if row in known], dtype=np.int64)
        if resampled is None or len(places) == 0:
            return None, places
        own = resampled.of([self.keys[place] for place in places])
        return compare_over_draws(own.values, own.samples, own.degrees_of_differences()), places

    def ranks(
        self, scores: NDArray[np.float64], compared: Compared | None, places: NDArray[np.int64]
    ) -> dict[str, Any]:
        higher = self.sign > 0
        n = len(scores)
        found: dict[str, Any] = {
            "rank_by_pairs": ranks(self.by_pairs, higher=higher).tolist(),
            "rank_by_images": ranks(self.by_images, higher=higher).tolist(),
        }
        if self.tasks.shape[1] > 1:
            without = ranks(without_each(self.tasks), higher=higher)
            found["rank_without_low"] = without.min(axis=1).tolist()
            found["rank_without_high"] = without.max(axis=1).tolist()
        if compared is not None:
            above = compared.above(len(places))
            better = np.zeros((n, n), dtype=np.bool_)
            better[np.ix_(places, places)] = above if higher else above.T
            group = tie_groups(better[np.ix_(places, places)], np.argsort(-self.sign * scores[places], kind="stable"))
            least, most = rank_intervals(better)
            for name, values in (("tie_group", group), ("rank_low", least[places]), ("rank_high", most[places])):
                found[name] = _at(places, values, n)
        return found


def _at(places: NDArray[np.int64], values: NDArray[np.int64], n: int) -> list[int | None]:
    of = dict(zip(places.tolist(), values.tolist(), strict=True))
    return [of.get(place) for place in range(n)]


def _products(weights: NDArray[np.float64], terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weighted sums of terms that may be infinite; nothing times infinity is nothing."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(weights != 0, weights * terms, 0.0).sum(axis=1))


def _differences(facts: Mapping[str, Any], names: NDArray[np.object_], compared: Compared | None) -> pd.DataFrame:
    if compared is None:
        return pd.DataFrame(columns=list(DIFFERENCES))
    return pd.DataFrame(
        {
            **{name: [value] * len(compared.first) for name, value in facts.items()},
            "first": names[compared.first],
            "second": names[compared.second],
            **{name: getattr(compared, name) for name in ("difference", "low", "high", "p", "adjusted_p")},
        }
    )


def _without(facts: Mapping[str, Any], names: NDArray[np.object_], section: _Section) -> pd.DataFrame:
    tasks = tasks_of(section.form)
    if len(tasks) < 2:
        return pd.DataFrame(columns=list(WITHOUT))
    scores = without_each(section.tasks)
    placed = ranks(scores, higher=section.sign > 0)
    rows, columns = np.indices(scores.shape)
    return pd.DataFrame(
        {
            **{name: [value] * scores.size for name, value in facts.items()},
            "task": np.array(tasks, dtype=object)[columns.ravel()],
            "name": names[rows.ravel()],
            "score": scores.ravel(),
            "rank": placed.ravel(),
        }
    )


def _together(tables: list[pd.DataFrame], columns: tuple[str, ...]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    texts = [name for name in columns if name in (*SECTION, "first", "second", "task", "name")]
    numbers = [name for name in columns if name not in texts]
    frame = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns))
    types = {name: "Int64" if name == "rank" else "float64" for name in numbers}
    return frame.astype({**{name: "str" for name in texts}, **types})


def _notes(
    frame: pd.DataFrame,
    keys: list[Row],
    have: Mapping[Row, Score],
    form: Form,
    measured: Measured | None,
    resampled: Resampled | None,
    alone: list[str],
) -> tuple[str, ...]:
    """Say what the intervals and the comparison rest on, where it is less than they should."""
    notes = []
    if measured is not None and resampled is not None and resampled.rows:
        for target, clusters in sorted(measured.few.items()):
            notes.append(
                f"{target}: {clusters} clusters are too few to draw from; its images are drawn within them, and "
                "intervals speak of these clusters alone"
            )
    bounded = [
        str(name)
        for name, row, low in zip(frame["name"], keys, frame["measurement_low"], strict=True)
        if row in have and np.isfinite(low) and (resampled is None or row not in resampled.rows)
    ]
    if bounded:
        told = "of all rows" if len(bounded) == len(have) else f"of {', '.join(bounded)}"
        notes.append(
            f"measurement intervals {told} are bounds from the recorded standard errors, of images alone: no outcome "
            "of every image is at hand"
        )
    tasks = len(tasks_of(form))
    if tasks < LEAST_TASKS and alone and METRICS[form.metric].proper:
        told = "no row is" if len(alone) == int((frame["standing"] == "ranked").sum()) else f"not {', '.join(alone)}:"
        notes.append(f"{told} compared with others: that needs what every image contributes")
    return tuple(notes)
