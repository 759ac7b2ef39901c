"""What a report shows: the boards of a suite, its records and fits, and one model's predictions when a page asks."""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from tlbench.errors import StoreError, UsageError
from tlbench.leaderboard.board import Board
from tlbench.leaderboard.forms import form
from tlbench.leaderboard.tables import RUN_DIR, load_fits, load_predictions, load_results
from tlbench.metrics.catalogue import METRICS
from tlbench.records.published import PublishedModel, published_models
from tlbench.records.store import Store
from tlbench.report.comparisons import Comparisons
from tlbench.seeds import digest
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from tlbench.analysis.questions import Analysis

MAX_CARD_BYTES: Final = 200_000

LEVELS: Final[Mapping[str, str]] = {
    "self-reported": "the numbers that were submitted; nobody has checked them yet",
    "recomputed": "every number was computed again, by the board's own workflow, from the submitted predictions: the "
    "arithmetic is right, which does not show that the model made these predictions",
    "reproduced": "a maintainer ran the model again, from its code and weights, and came to the same numbers",
    "disputed": "there is an open doubt about these numbers, told in the pull request that raised it",
    "own": "your own results, from a run folder on this machine; they are not published",
}
"""What the levels on a record mean."""

# No dot, so that what follows one is ours; lower case, for there are disks to which A and a are one file.
_PLAIN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,60}")
_HASHED: Final = re.compile(r".*-[0-9a-f]{10}")
_TAKEN: Final = frozenset(
    {"index", "con", "prn", "aux", "nul"} | {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}
)


def page_name(name: str) -> str:
    """Return a file name, without its ending, for a name that a stranger chose.

    Two names have two file names, on a disk that takes capitals for small letters too, and a name's own does not
    depend on which others there are.

    >>> page_name("linear-probe"), page_name("Linear-Probe")
    ('linear-probe', 'linear-probe-3cd2ae50a2')
    """
    if _PLAIN.fullmatch(name) and not _HASHED.fullmatch(name) and name not in _TAKEN:
        return name
    readable = re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-_")[:50].rstrip("-_")
    return f"{readable or 'name'}-{digest(name)[:10]}"


def model_path(model: str, origin: str) -> str:
    """Return where in a report the page of a model lies; one's own results have a page beside the published ones."""
    return f"models/{page_name(model)}{'.own' if origin == 'local' else ''}.html"


def task_path(task: str) -> str:
    """Return where in a report the page of a task lies."""
    return f"tasks/{page_name(task)}.html"


@dataclass(frozen=True)
class Content:
    """All that the pages of one suite are made of.

    Attributes
    ----------
    suite : Suite
    boards : mapping from a metric to Board
        The metric that the page opens with comes first.
    records, fits : DataFrame
        As from ``load_results`` and ``load_fits``: whole, every model and condition.
    run_dir : Path
    published : bool
    results : Path or None
        Where results were read; predictions are read from there when a page asks.
    analysis : Analysis or None
        What the records say to the study's questions, where somebody has asked.
    """

    suite: Suite
    boards: Mapping[str, Board]
    records: pd.DataFrame
    fits: pd.DataFrame
    run_dir: Path = Path(RUN_DIR)
    published: bool = True
    results: Path | None = None
    analysis: Analysis | None = None
    _folders: dict[str, PublishedModel] = field(default_factory=dict, repr=False)

    @property
    def board(self) -> Board:
        """The board that the page opens with."""
        return next(iter(self.boards.values()))

    @cached_property
    def models(self) -> tuple[tuple[str, str], ...]:
        """Every model and origin that has a page, in the order of the board."""
        return tuple(dict.fromkeys(zip(self.board.frame["model"], self.board.frame["origin"], strict=True)))

    @cached_property
    def comparisons(self) -> dict[str, Comparisons]:
        """Who differs from whom, by the metric of a board."""
        return {metric: Comparisons(board) for metric, board in self.boards.items()}

    def predictions(self, model: str, origin: str, condition: str | None = None) -> pd.DataFrame:
        """Return one model's predictions, as ``load_predictions``: read anew on every call, for they are large.

        Parameters
        ----------
        model : str
        origin : {"published", "local"}
        condition : str, optional
            One alone, such as ``"clean"``.

        Returns
        -------
        DataFrame
            Empty where they were published as a hash and a place alone.
        """
        folder = self.folder(model, origin)
        if origin == "published" and (folder is None or not (folder / "predictions.parquet").is_file()):
            return pd.DataFrame()
        rows = load_predictions(
            self.suite,
            model,
            run_dir=self.run_dir,
            published=origin == "published",
            results=self.results,
            condition=condition,
        )
        return rows[rows["origin"] == origin].reset_index(drop=True)

    def folder(self, model: str, origin: str) -> Path | None:
        """Return the published folder of a model, None for what is one's own."""
        if origin != "published":
            return None
        if not self._folders:
            self._folders.update(
                (found.model, found) for found in published_models(self.suite.name, folder=self.results)
            )
        found = self._folders.get(model)
        return None if found is None else found.folder

    def card(self, model: str, origin: str) -> Mapping[str, Any]:
        """Return what a model's card says, empty where there is none: text of a stranger, as everything in it.

        Raises
        ------
        StoreError
            If the card is not TOML, or is too large.
        """
        if origin == "local":
            return Store(self.run_dir, self.suite.name, self.suite.hash).model(model).card()
        return self._read(model, origin, "card.toml")

    def document(self, model: str, origin: str, name: str) -> Mapping[str, Any]:
        """Return a JSON file of a published folder (``submission.json``, ``verification.json``), empty where absent.

        Raises
        ------
        StoreError
            If it is not a JSON object, or is too large.
        """
        return self._read(model, origin, name)

    def _read(self, model: str, origin: str, name: str) -> Mapping[str, Any]:
        folder = self.folder(model, origin)
        path = None if folder is None else folder / name
        if path is None or path.is_symlink() or not path.is_file():
            return {}
        if path.stat().st_size > MAX_CARD_BYTES:
            raise StoreError(f"{path}: expected at most {MAX_CARD_BYTES:,} bytes, got {path.stat().st_size:,}")
        try:
            text = path.read_text(encoding="utf-8")
            read = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except ValueError as problem:
            raise StoreError(f"{path}: cannot be read ({str(problem).splitlines()[0]})") from None
        if not isinstance(read, dict):
            raise StoreError(f"{path}: expected an object, got {type(read).__name__}")
        return read


def board_metrics(suite: Suite, first: str | None = None) -> tuple[str, ...]:
    """Return the measures of which a suite has a board: the proper ones that it measures, its primary one first.

    Parameters
    ----------
    suite : Suite
    first : str, optional
        The metric that the page opens with, which may be one that makes no ranks.
    """
    opening = first or suite.metrics.primary
    chosen: dict[tuple[Any, ...], str] = {_sum(suite, opening): opening}
    for name, info in METRICS.items():
        # 'robust_accuracy' is that of one epsilon; a board is of their mean, which has a name of its own.
        if info.proper and f"mean_{name}" not in METRICS:
            with contextlib.suppress(UsageError):  # a suite need not measure everything
                chosen.setdefault(_sum(suite, name), name)
    return tuple(chosen.values())


def _sum(suite: Suite, metric: str) -> tuple[Any, ...]:
    """Return what a metric's score is a sum of: under two names one board would stand twice."""
    weighed = form(suite, metric)
    return tuple(weighed.terms.itertuples(index=False, name=None))


def read_content(
    suite: Suite,
    boards: Mapping[str, Board],
    *,
    run_dir: Path = Path(RUN_DIR),
    published: bool = True,
    results: Path | None = None,
) -> Content:
    """Return what the pages of a suite are made of.

    Parameters
    ----------
    suite : Suite
    boards : mapping from a metric to Board
        The one to open with first.
    run_dir, published, results
        As for ``load_results``.

    Raises
    ------
    StoreError
        As for ``load_results``.
    """
    place: dict[str, Any] = {"run_dir": run_dir, "published": published, "results": results}
    return Content(suite, boards, load_results(suite, **place), load_fits(suite, **place), run_dir, published, results)
