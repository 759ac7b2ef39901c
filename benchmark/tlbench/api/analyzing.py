"""What a suite's results say to the study's questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.api.given import RUN_DIR, as_suite
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from tlbench.analysis.questions import Analysis


def analyze(
    suite: str | Path | Suite,
    *,
    questions: Iterable[str] | None = None,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
    upstream: str | Path | None = None,
    controls: bool = False,
    protocol: str = "source-only",
    draws: int = 2000,
    out: str | Path | None = None,
) -> Analysis:
    """Return what a suite's results say to the questions A1 to A17, from published and local results.

    Parameters
    ----------
    suite : str, Path or Suite
    questions : iterable of str, optional
        Such as ``["A1", "A8"]``; all by default.
    run_dir : path
        Local results.
    published : bool
        Whether published results count.
    upstream : path, optional
        CSV with ``backbone``, ``accuracy`` and other columns of published fractions, for A14.
    controls : bool
        Whether controls count as models.
    protocol : str
        Models of another one are left out.
    draws : int
        Bootstrap draws.
    out : path, optional
        Folder for tables, figures and a page.

    Returns
    -------
    Analysis
        ``answers["A1"].tables["pairs"]`` and so on; ``frame`` is a summary.

    Raises
    ------
    UnknownNameError
        If there is no such suite, question or protocol.
    UsageError
        If the upstream file cannot be used.
    """
    from tlbench.analysis.questions import ask, check_questions
    from tlbench.analysis.runs import tidy_runs
    from tlbench.analysis.upstream import read_upstream
    from tlbench.leaderboard.tables import load_fits, load_results

    read = as_suite(suite)
    wanted = check_questions(questions)
    if out is not None:
        from tlbench.report.analysis_page import check_out

        check_out(out)
    known = read_upstream(upstream) if upstream is not None else None
    records = load_results(read, run_dir=run_dir, published=published)
    fits = load_fits(read, run_dir=run_dir, published=published)
    runs = tidy_runs(records, read, fits, controls=controls, protocol=protocol)
    runs = replace(runs, notes=(*runs.notes, *records.attrs.get("notes", [])))
    analysis = ask(runs, suite=read.name, questions=wanted, published=known, draws=draws)
    if out is not None:
        from tlbench.report.analysis_page import write_analysis

        write_analysis(analysis, out)
    return analysis
