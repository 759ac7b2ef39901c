"""Results that are there: on a board, and as tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tlbench.api.given import RUN_DIR, as_suite
from tlbench.errors import UsageError, listed, nearest
from tlbench.suites.spec import Role, Suite

if TYPE_CHECKING:
    import pandas as pd

    from tlbench.analysis.compared import Compared
    from tlbench.analysis.paired import Measure
    from tlbench.leaderboard.board import Board


def leaderboard(
    suite: str | Path | Suite, *, metric: str | None = None, run_dir: str | Path = RUN_DIR, published: bool = True
) -> Board:
    """Return a suite's board from published and local results.

    Parameters
    ----------
    suite : str, Path or Suite
    metric : str, optional
        Ranked by this instead of the suite's primary metric.
    run_dir : path
        Local results, whose rows are marked.
    published : bool
        Whether to show the published results.
    """
    from tlbench.leaderboard.board import make_board, needed
    from tlbench.leaderboard.effective import baseline_of
    from tlbench.leaderboard.measured import load_measured
    from tlbench.leaderboard.tables import load_priced, load_scored

    read = as_suite(suite)
    records = load_scored(read, needed(read, metric), run_dir=Path(run_dir), published=published)
    fits = load_priced(read, run_dir=Path(run_dir), published=published)
    measured = load_measured(read, metric, records=records, run_dir=Path(run_dir), published=published)
    board = make_board(records, fits, read, metric=metric, measured=measured, baseline=baseline_of(read))
    return board if isinstance(suite, Suite) else replace(board, reference=str(suite))


def compare(
    suite: str | Path | Suite,
    first: str,
    second: str,
    *,
    metric: Measure = "accuracy",
    role: Role = "ood-test",
    shots: str | tuple[str, str] | None = None,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
) -> Compared:
    """Return how far two rows of a board are apart on the same clean images, and which images flipped.

    Parameters
    ----------
    suite : str, Path or Suite
    first, second : str
        Rows of the board; ``published:NAME`` and ``local:NAME`` where a name stands for both.
    metric : {"accuracy", "nll", "brier"}
    role : {"ood-test", "id-test", "id-val"}
    shots : str or tuple of two, optional
        ``"full"`` or training images a class, of both or of each, where there are rows of several.
    run_dir : path
        Local results.
    published : bool
        Whether to look among the published results.

    Returns
    -------
    Compared
        With the tidy tables ``frame`` and ``images``; see ``docs/pandas.md`` for their columns.

    Raises
    ------
    UnknownNameError
        If there is no such row; the message has the nearest name.
    UsageError
        If a name stands for several rows, the two have nothing in common, or what the metric needs was not published.
    """
    from tlbench.analysis.compared import Compared
    from tlbench.analysis.flips import find_flips
    from tlbench.analysis.paired import MEASURES
    from tlbench.analysis.paired import compare as paired
    from tlbench.leaderboard.rows import class_names, load_row, row_named, rows_of_board, seeds_and_pairs, told_apart

    if metric not in MEASURES:
        raise UsageError(f"metric: expected {listed(MEASURES)}, got '{metric}'{nearest(metric, MEASURES)}")
    if role not in get_args(Role):
        raise UsageError(f"role: expected {listed(get_args(Role))}, got '{role}'{nearest(role, get_args(Role))}")
    read, place = as_suite(suite), Path(run_dir)
    rows, notes = rows_of_board(read, run_dir=place, published=published)
    each = (shots, shots) if shots is None or isinstance(shots, str) else shots
    names = (first, second)
    found = [row_named(name, rows, read, shots=own, notes=notes) for name, own in zip(names, each, strict=True)]
    if found[0] == found[1]:
        raise UsageError(f"'{first}' and '{second}': expected two rows of the board, got one twice")
    loaded = [load_row(read, row, run_dir=place) for row in found]
    for name, (_, whole) in zip(names, loaded, strict=True):
        if not whole and metric != "accuracy":
            raise UsageError(f"'{name}': its predictions are not published with its records; only accuracy is compared")
        if not whole:
            notes.append(f"what {name} predicted is not shown: its predictions are not published with its records")
    ours, theirs = (table for table, _ in loaded)
    try:
        return Compared(
            suite=read.name,
            suite_version=read.version,
            suite_hash=read.hash,
            first=first,
            second=second,
            metric=metric,
            role=role,
            differences=paired(ours, theirs, measure=metric, role=role),
            flips=find_flips(ours, theirs, role=role, classes=class_names(read)),
            notes=(*told_apart(*found), *seeds_and_pairs(ours, theirs, role), *notes),
        )
    except ValueError as problem:
        raise UsageError(f"'{first}' and '{second}': {problem}") from None


def load_results(
    suite: str | Path | Suite | None = None, *, run_dir: str | Path = RUN_DIR, published: bool = True
) -> pd.DataFrame:
    """Return records as a tidy frame, one number a row; see ``docs/schema.md`` for its columns."""
    from tlbench.leaderboard.tables import load_results as load

    return load(suite, run_dir=Path(run_dir), published=published)


def load_predictions(
    suite: str | Path | Suite, model: str, *, run_dir: str | Path = RUN_DIR, published: bool = True
) -> pd.DataFrame:
    """Return a model's predictions as a tidy frame, one image under one setting a row."""
    from tlbench.leaderboard.tables import load_predictions as load

    return load(suite, model, run_dir=Path(run_dir), published=published)
