"""Results as pages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.api.given import RUN_DIR, as_suite
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from tlbench.analysis.questions import Analysis
    from tlbench.report.content import Content


def report(
    suite: str | Path | Suite,
    out: str | Path = "site",
    *,
    metric: str | None = None,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
    analysis: bool = True,
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
    analysis : bool
        Whether to ask the study's questions, too, which takes longer than the other pages; see `analyze`.

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
    content = read_content(read, boards, run_dir=Path(run_dir), published=published)
    if analysis and len(content.records):
        content = replace(content, analysis=_asked(content))
    return write_site(content, folder)


def _asked(content: Content) -> Analysis:
    from tlbench.analysis.questions import ask
    from tlbench.analysis.runs import tidy_runs

    runs = tidy_runs(content.records, content.suite, content.fits)
    told = replace(runs, notes=(*runs.notes, *content.records.attrs.get("notes", [])))
    return ask(told, suite=content.suite.name)
