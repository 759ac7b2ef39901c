"""Results that are there: on a board, and as tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.api.given import RUN_DIR, as_suite
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    import pandas as pd

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
    from tlbench.leaderboard.tables import load_priced, load_scored

    read = as_suite(suite)
    records = load_scored(read, needed(read, metric), run_dir=Path(run_dir), published=published)
    fits = load_priced(read, run_dir=Path(run_dir), published=published)
    board = make_board(records, fits, read, metric=metric)
    return board if isinstance(suite, Suite) else replace(board, reference=str(suite))


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
