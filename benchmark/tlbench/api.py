"""What a user calls: each function a short composition of the floors below.

The engine and pandas are imported inside the functions that need them, so that reading a suite or
printing help costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.errors import UsageError
from tlbench.suites.load import find_suite, load_suite
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from tlbench.leaderboard.board import Board
    from tlbench.methods.base import Method, Predictor
    from tlbench.methods.resolve import Model

RUN_DIR = "tlbench-runs"


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation left behind.

    Attributes
    ----------
    suite : Suite
    model : str
    run_dir : Path
        Where its records are.
    failures : tuple of str
        One line each; empty when everything worked.
    complete : bool
        Whether every selected measurement is now stored.
    seconds : float
    table : list of dict
        One row a pair: ID and OOD accuracy, mean over seeds.
    headline : dict
        The model's line of the board: measure to value.
    """

    suite: Suite = field(repr=False)
    model: str
    run_dir: Path
    failures: tuple[str, ...]
    complete: bool
    seconds: float
    table: list[dict[str, Any]] = field(default_factory=list)
    headline: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanSummary:
    """What an evaluation will cost.

    Attributes
    ----------
    fits, measurements : int
        In the selected part of the suite.
    fits_to_do, measurements_to_do : int
        Not stored yet.
    images : int
        Predictions that the measurements to do will make, attacks not counted.
    attacked_images : int
        Images that will be attacked.
    """

    fits: int
    measurements: int
    fits_to_do: int
    measurements_to_do: int
    images: int
    attacked_images: int


def evaluate(
    suite: str | Path | Suite,
    model: str | Method | Model | None = None,
    *,
    predictors: Mapping[str, nn.Module | Predictor | str | Path] | None = None,
    backbone: str | None = None,
    settings: Sequence[str] = (),
    name: str | None = None,
    seeds: Sequence[int] | None = None,
    shots: Sequence[str] | None = None,
    only: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    device: str | None = None,
    data_root: str | Path | None = None,
    run_dir: str | Path = RUN_DIR,
    shard: str | None = None,
    threads: int | None = None,
    batch_size: int = 128,
    quiet: bool = False,
) -> EvaluationResult:
    """Fit a model on every source of a suite and measure it; what is stored already is not done again.

    Parameters
    ----------
    suite : str, Path or Suite
        A name of ours (``"digits"``), or a TOML file.
    model : str, Method or Model
        As ``--model`` takes it: a name, a composition, a file, an import path, a card; or an object.
    predictors : mapping of source to nn.Module, Predictor or path, optional
        Already trained networks instead of a model; a path is a checkpoint of the backbone's form.
    backbone : str, optional
        Instead of the card's or the suite's.
    settings : sequence of str
        ``key=value``.
    name : str, optional
        The model's row of the board.
    seeds, shots, only, metrics, shard
        The part of the suite to work on: seeds; ``"full"`` or images a class; ``task=``, ``source=`` and
        ``target=`` filters; metrics whose conditions are to be measured; ``"i/n"``.
    device : str, optional
        A GPU where one is at hand, by default.
    data_root : path, optional
        Where the data are, instead of the suite file's folder.
    run_dir : path
        Where work is kept.
    threads, batch_size : int
        Recorded; equal ones give equal bits.
    quiet : bool
        No progress.

    Returns
    -------
    EvaluationResult

    Raises
    ------
    TlbenchError
        For every mistake of the user, before any compute where it can be known by then.
    """
    # Importing the engine brings PyTorch, which no other command needs.
    from tlbench.engine.session import open_session

    if isinstance(model, type):
        raise UsageError(f"expected a method object, got a class; write {model.__name__}()")
    session = open_session(
        suite,
        model,
        predictors=predictors,
        backbone=backbone,
        settings=settings,
        name=name,
        selection=_selection(seeds, shots, only, shard),
        metrics=_several(metrics),
        device=device,
        data_root=data_root,
        run_dir=Path(run_dir),
        threads=threads,
        batch_size=batch_size,
        quiet=quiet,
    )
    outcome = session.run()
    version = {"settings_hash": outcome.settings_hash, "weights_hash": outcome.weights_hash}
    table, headline = _summary(session.suite, outcome.model, Path(run_dir), version)
    return EvaluationResult(
        session.suite,
        outcome.model,
        Path(run_dir),
        outcome.failures,
        outcome.complete,
        outcome.seconds,
        table,
        headline,
    )


def plan(
    suite: str | Path | Suite,
    model: str | Method | Model,
    *,
    backbone: str | None = None,
    settings: Sequence[str] = (),
    name: str | None = None,
    seeds: Sequence[int] | None = None,
    shots: Sequence[str] | None = None,
    only: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    data_root: str | Path | None = None,
    run_dir: str | Path = RUN_DIR,
    shard: str | None = None,
) -> PlanSummary:
    """Return how much an evaluation would do, without doing any of it."""
    from tlbench.engine.session import open_session

    session = open_session(
        suite,
        model,
        backbone=backbone,
        settings=settings,
        name=name,
        selection=_selection(seeds, shots, only, shard),
        metrics=_several(metrics),
        data_root=data_root,
        run_dir=Path(run_dir),
        quiet=True,
    )
    return PlanSummary(**session.count())


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
    from tlbench.leaderboard.board import make_board
    from tlbench.leaderboard.tables import load_fits
    from tlbench.leaderboard.tables import load_results as load

    read = suite if isinstance(suite, Suite) else load_suite(suite)
    records = load(read, run_dir=Path(run_dir), published=published)
    fits = load_fits(read, run_dir=Path(run_dir), published=published)
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


def submit(
    run: str | Path,
    *,
    suite: str | Path | Suite | None = None,
    model: str | None = None,
    card: str | Path | None = None,
    results: str | Path = "results",
) -> Path:
    """Write a model's finished work to the results folder, ready for a pull request.

    Parameters
    ----------
    run : path
        A run folder, or one model's folder inside it.
    suite, model : optional
        Which, where the run folder holds several.
    card : path, optional
        A model card to publish with the numbers.
    results : path
        The board's folder.

    Returns
    -------
    Path
        The folder that was written.
    """
    from tlbench.submissions.pack import locate
    from tlbench.submissions.pack import submit as pack

    found_suite, found_model, run_dir = locate(Path(run), suite, model)
    return pack(run_dir, suite=found_suite, model=found_model, card=Path(card) if card else None, results=Path(results))


def score(
    file: str | Path,
    suite: str | Path | Suite,
    *,
    model: str,
    output: str = "logits",
    run_dir: str | Path = RUN_DIR,
    data_root: str | Path | None = None,
) -> EvaluationResult:
    """Score a file of outputs that were computed elsewhere; clean measures only."""
    from tlbench.engine.score import score as run_score
    from tlbench.methods.resolve import check_row_name

    check_row_name(model, "--model")
    read = suite if isinstance(suite, Suite) else load_suite(suite)
    base = None if isinstance(suite, Suite) else find_suite(suite).parent
    outcome = run_score(
        Path(file), read, model=model, output=output, run_dir=Path(run_dir), base=base, data_root=data_root
    )
    table, headline = _summary(read, model, Path(run_dir))
    return EvaluationResult(read, model, Path(run_dir), (), outcome.complete, outcome.seconds, table, headline)


def _several(given: Any) -> tuple[Any, ...] | None:
    """Return a sequence as a tuple; a lone string or number, the usual slip in Python, is one entry."""
    if given is None:
        return None
    return (given,) if isinstance(given, str | int) else tuple(given)


def _selection(
    seeds: Sequence[int] | int | None,
    shots: Sequence[str | int] | str | int | None,
    only: Sequence[str] | str,
    shard: str | None,
) -> dict[str, Any]:
    """Return what the words of a command line select, read but not yet held against a suite."""
    seeds, only = _several(seeds), _several(only) or ()
    shots = None if shots is None else tuple(str(shot) for shot in _several(shots) or ())
    for option, given in (("seeds", seeds), ("shots", shots)):
        if given is not None and not given:
            raise UsageError(f"{option}: expected at least one, got none; None means the suite's")
    filters: dict[str, tuple[str, ...]] = {}
    for text in [part for entry in only for part in entry.split(",")]:
        key, sign, value = text.partition("=")
        if not sign or not value:
            raise UsageError(f"--only {text}: expected task=NAME, source=NAME or target=NAME")
        filters[key.strip()] = (*filters.get(key.strip(), ()), value.strip())
    for shot in shots or ():
        if shot != "full" and not (shot.isdigit() and int(shot) > 0):
            raise UsageError(f"--shots {shot}: expected 'full' or a number of images a class")
    part = None
    if shard is not None:
        first, sign, last = shard.partition("/")
        if not (sign and first.isdigit() and last.isdigit()):
            raise UsageError(f"--shard {shard}: expected i/n, such as 1/4")
        part = (int(first), int(last))
    return {
        "seeds": seeds,
        "shots": shots,
        "only": filters or None,
        "shard": part,
    }


def _summary(
    suite: Suite, model: str, run_dir: Path, version: Mapping[str, str] | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a model's pairs and its line of the board; of one version where a plug-in has changed under its name."""
    from tlbench.leaderboard.board import line_of, pairs_of
    from tlbench.leaderboard.tables import load_fits
    from tlbench.leaderboard.tables import load_results as load

    records = load(suite, run_dir=run_dir, published=False)
    fits = load_fits(suite, run_dir=run_dir, published=False)
    for column, value in (version or {}).items():
        records, fits = records[records[column] == value], fits[fits[column] == value]
    return pairs_of(records, suite, model), line_of(records, fits, suite, model)
