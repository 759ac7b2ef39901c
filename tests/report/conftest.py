"""Synthetic results with names that nobody should trust, as the content of a report, and a browser to read it with."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlbench.leaderboard.board import Board, make_board
from tlbench.leaderboard.tables import load_fits, load_results
from tlbench.report.content import Content
from tlbench.report.site import write_site
from tlbench.seeds import derive

SCRIPT = "<script>alert(1)</script>"
IMAGE = '"><img src=x onerror=alert(2)>'
TURNED = "safe\u202egnp.exe"
CLIMBING = "../../climbing"
FORMULA = '=HYPERLINK("http://x")'
LATEX = r"\input{secret}%_$#&"
METRICS = ("accuracy", "nll", "mean_robust_accuracy")
HOSTILE = (SCRIPT, IMAGE, TURNED, CLIMBING, FORMULA, LATEX)


@pytest.fixture(scope="session")
def content(synthetic: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Content:
    """A report's content: two tasks, two protocols, a control, an incomplete row, and hostile names."""
    folder = tmp_path_factory.mktemp("content") / "runs"
    run = synthetic.Run(folder, synthetic.make_suite())
    run.add("steady", backbone="small-cnn", value=varied("steady"))
    run.add("Twin", value=varied("Twin"))
    run.add("twin", value=varied("twin"))
    run.add("reader", protocol="unlabelled-target", per_target=True, value=varied("reader"))
    run.add("majority", control=True, value=0.2, deterministic=True)
    run.add("half", without=lambda cell: cell.task == "u", value=varied("half"))
    for name in HOSTILE:
        run.add(name, value=varied(name))
    return make_content(run, folder)


@pytest.fixture(scope="session")
def site(content: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole report of that content, on disk."""
    folder = tmp_path_factory.mktemp("report") / "site"
    write_site(content, folder)
    return folder


def varied(model: str) -> Callable[[Any], float]:
    """Return numbers that differ from model to model."""

    def value(cell: Any) -> float:
        if cell.metric == "infinite_nll_count":
            return 0.0
        return 0.2 + 0.6 * (derive(model, *(str(part) for part in vars(cell).values())) % 1000) / 1000

    return value


def make_content(run: Any, folder: Path) -> Content:
    """Return the content of a run's report."""
    place: dict[str, Any] = {"run_dir": folder, "published": False}
    records, fits = load_results(run.suite, **place), load_fits(run.suite, **place)
    boards = {metric: make_board(records, fits, run.suite, metric=metric) for metric in METRICS}
    return Content(run.suite, boards, records, fits, **place)


@pytest.fixture(scope="session")
def many_rows() -> Callable[[Board, int], Board]:
    """Makes a board of many rows of one that has some."""
    return with_rows


def with_rows(board: Board, rows: int) -> Board:
    """Return a board of many ranked rows in two sections, with every column that a board may have."""
    draw = np.random.default_rng(rows)
    first = board.frame[board.frame["standing"] == "ranked"].iloc[[0]]
    frame = pd.concat([first] * rows, ignore_index=True)
    names = [f"model-{number:04d}" for number in range(rows)]
    frame["name"] = frame["model"] = pd.array(names, dtype="str")
    frame["protocol"] = pd.array(np.where(np.arange(rows) < rows // 2, "source-only", "test-time"), dtype="str")
    score = np.concatenate([np.sort(draw.random(half))[::-1] for half in (rows // 2, rows - rows // 2)])
    frame["score"] = score
    for column in ("nll", "ece", "id_accuracy", "fit_seconds"):
        frame[column] = draw.random(rows)
    frame["measurement_low"], frame["measurement_high"] = score - 0.02, score + 0.03
    frame["generalisation_low"], frame["generalisation_high"] = score - 0.07, score + 0.08
    rank = np.concatenate([np.arange(rows // 2), np.arange(rows - rows // 2)]) + 1
    for column in ("rank", "rank_low", "rank_high", "rank_by_pairs", "rank_by_images"):
        frame[column] = pd.array(rank, dtype="Int64")
    frame["rank_without_low"], frame["rank_without_high"] = frame["rank"], frame["rank"] + 2
    frame["tie_group"] = pd.array(1 + rank // 10, dtype="Int64")
    frame["pareto"] = draw.random(rows) < 0.1
    frame["level"] = pd.array(np.where(rank % 2 == 0, "recomputed", "self-reported"), dtype="str")
    frame["origin"] = pd.array(["published"] * rows, dtype="str")
    return replace(board, frame=frame)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A real Chromium; tests that need one are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()
