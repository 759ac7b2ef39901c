"""Results as pages."""

from __future__ import annotations

from pathlib import Path

from tlbench.api.given import RUN_DIR, as_suite
from tlbench.suites.spec import Suite


def report(
    suite: str | Path | Suite,
    out: str | Path = "site",
    *,
    metric: str | None = None,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
) -> tuple[Path, ...]:
    """Write a suite's results as static pages, which need no server and no network.

    Parameters
    ----------
    suite : str, Path or Suite
    out : path
        The pages' folder; an earlier report there is replaced, anything else is left alone.
    metric : str, optional
        The measure that the board opens with, instead of the suite's primary one.
    run_dir : path
        Local results, whose rows are marked.
    published : bool
        Whether to show the published results.

    Returns
    -------
    tuple of Path
        Every file, the page to open first.

    Raises
    ------
    UsageError
        If ``out`` holds something that is not a report.
    """
    from tlbench.api.reading import leaderboard
    from tlbench.leaderboard.forms import check_metric
    from tlbench.report.content import board_metrics, read_content
    from tlbench.report.site import check_out, write_site

    read, folder = as_suite(suite), Path(out)
    check_out(folder)
    opening = None if metric is None else check_metric(metric)
    boards = {
        name: leaderboard(read, metric=name, run_dir=run_dir, published=published)
        for name in board_metrics(read, opening)
    }
    return write_site(read_content(read, boards, run_dir=Path(run_dir), published=published), folder)
