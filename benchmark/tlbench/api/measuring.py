"""Runs: planned, done, looked at, and outputs from elsewhere scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.api.given import RUN_DIR, as_suite, check_is_made
from tlbench.api.result import EvaluationResult, GridRowResult
from tlbench.api.selection import read_selection, read_shots, several
from tlbench.errors import UsageError, WeightsError
from tlbench.suites.load import find_suite
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from torch import nn

    from tlbench.engine.summary import PlanSummary, StatusSummary
    from tlbench.methods.base import Method, Predictor
    from tlbench.methods.resolve import Model


def evaluate(
    suite: str | Path | Suite,
    model: str | Method | Model | None = None,
    *,
    predictors: Mapping[str, nn.Module | Predictor | str | Path] | None = None,
    backbone: str | None = None,
    settings: Sequence[str] = (),
    name: str | None = None,
    recipe: str | None = None,
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
    precision: str = "float32",
    keep_outputs: bool = False,
    all_variants: bool = False,
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
    recipe : str, optional
        ``"key=value,..."``, one point of the suite's grid: lr, epochs, regime, augment, backbone, shots, each one of
        the values that the grid lists; and precision.
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
    precision : {"float32", "bfloat16"}
        Of the forward passes on clean, corrupted and transformed images. What is measured in bfloat16 moves NLL and
        calibration, and stands as ``model@bfloat16`` in a section of its own; attacks and every gradient stay float32.
    keep_outputs : bool
        Write the outputs for clean sets to the run folder, in the form that ``score`` takes.
    all_variants : bool
        Measure every variant of a fit under every condition; by default the ranked one, and the others on clean sets.
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

    check_is_made(model)
    if recipe is not None:
        from tlbench.methods.declared_grid import at_point

        if model is None:
            raise UsageError("--recipe: networks that are already trained have no recipe")
        model, shots = at_point(
            as_suite(suite),
            model,
            recipe,
            settings=settings,
            backbone=backbone,
            shots=read_shots(shots),
            name=name,
        )
        settings, backbone, name = (), None, None
    selection = read_selection(seeds, shots, only, shard)
    session = open_session(
        suite,
        model,
        predictors=predictors,
        backbone=backbone,
        settings=settings,
        name=name,
        selection=selection,
        metrics=several(metrics),
        device=device,
        data_root=data_root,
        run_dir=Path(run_dir),
        threads=threads,
        batch_size=batch_size,
        precision=precision,
        keep_outputs=keep_outputs,
        all_variants=all_variants,
        quiet=quiet,
    )
    outcome = session.run()
    version = {"settings_hash": outcome.settings_hash, "weights_hash": outcome.weights_hash}
    if len(selection["shots"] or ()) == 1:
        version["shots"] = selection["shots"][0]
    table, headline = _summary(session.suite, outcome.model, Path(run_dir), version)
    return EvaluationResult(
        session.suite,
        outcome.model,
        Path(run_dir),
        outcome.failures,
        outcome.complete,
        outcome.seconds,
        outcome.missing,
        table,
        headline,
        outcome.notes,
        outcome.inapplicable,
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
    device: str | None = None,
    data_root: str | Path | None = None,
    run_dir: str | Path = RUN_DIR,
    shard: str | None = None,
    threads: int | None = None,
    batch_size: int = 128,
    grid: bool = False,
    recipe: str | None = None,
    budget: str | None = None,
    probe: bool = True,
    precision: str = "float32",
    all_variants: bool = False,
) -> PlanSummary:
    """Return how much an evaluation would do and how long that takes, without doing any of it.

    It needs neither data nor weights where the suite declares how many images there are.

    Parameters
    ----------
    suite, model, backbone, settings, name, seeds, shots, only, metrics, device, data_root, run_dir, shard, threads, \
    batch_size, grid, recipe, precision, all_variants
        As ``evaluate`` takes them. Speeds are those of float32.
    budget : str, optional
        Such as ``"24h"``, ``"90m"`` or ``"2d"``: say what fits into it.
    probe : bool
        Measure the speed of this machine, for some seconds; else take what the last probe of such a network found.

    Returns
    -------
    PlanSummary

    Raises
    ------
    TlbenchError
        For every mistake of the user.
    """
    from tlbench.engine.budget import read_budget

    check_is_made(model)
    hours = None if budget is None else read_budget(budget)
    # Importing the rest brings PyTorch.
    from tlbench.engine.forecast import forecast_row, open_place, open_plan
    from tlbench.engine.probe import Prober
    from tlbench.engine.summary import summarise

    place = open_place(
        suite,
        read_selection(seeds, shots, only, shard),
        data_root=Path(data_root) if data_root else None,
        run_dir=Path(run_dir),
    )
    opened = [
        open_plan(
            place,
            read_selection(seeds, own_shots, only, shard),
            own,
            **named,
            metrics=several(metrics),
            device=device,
            threads=threads,
            batch_size=batch_size,
            precision=precision,
            all_variants=all_variants,
        )
        for own, own_shots, named in _rows_to_plan(
            place.suite, model, grid, recipe, shots, backbone=backbone, settings=settings, name=name
        )
    ]
    prober = Prober(place.suite.protocol, opened[0].work.device, batch_size) if probe else None
    return summarise([forecast_row(one, prober) for one in opened], place.suite.protocol.image_size, hours)


def status(
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
    shard: str | None = None,
    device: str | None = None,
    data_root: str | Path | None = None,
    run_dir: str | Path = RUN_DIR,
    grid: bool = False,
    recipe: str | None = None,
    precision: str = "float32",
    all_variants: bool = False,
) -> StatusSummary:
    """Return how much of an evaluation is stored, and how long that took against its forecast.

    Arguments are those of ``plan``; no image is read.
    """
    from tlbench.engine.forecast import open_place, open_plan
    from tlbench.engine.pace import pace
    from tlbench.engine.summary import StatusSummary, count

    selection = read_selection(seeds, shots, only, shard)
    place = open_place(suite, selection, data_root=Path(data_root) if data_root else None, run_dir=Path(run_dir))
    opened = [
        open_plan(
            place,
            read_selection(seeds, own_shots, only, shard),
            own,
            **named,
            metrics=several(metrics),
            device=device,
            precision=precision,
            takes_over=False,
            all_variants=all_variants,
        )
        for own, own_shots, named in _rows_to_plan(
            place.suite, model, grid, recipe, shots, backbone=backbone, settings=settings, name=name
        )
    ]
    return StatusSummary(
        **count([fit for one in opened for fit in one.fits]),
        pace=pace([(one.work, one.fits) for one in opened]),
        notes=tuple(dict.fromkeys(note for one in opened for note in one.notes)),
        models=tuple(one.work.model.name for one in opened),
    )


def evaluate_grid(
    suite: str | Path | Suite,
    model: str | Method | Model,
    *,
    recipe: str | None = None,
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
    precision: str = "float32",
    keep_outputs: bool = False,
    all_variants: bool = False,
    quiet: bool = False,
    say: Callable[[str], None] | None = None,
) -> tuple[GridRowResult, ...]:
    """Evaluate every row of the grid that a suite declares, one after the other; see ``evaluate`` for the arguments.

    Learning rate and epochs are selected on ID-val within a row; backbones, shots, regimes and augmentations make rows.

    Parameters
    ----------
    recipe : str, optional
        A point of the grid, of which the rest is crossed.
    say : callable, optional
        Told which row comes next, and why one is left out.

    Returns
    -------
    tuple of GridRowResult
        A row whose backbone has no weights on this machine is left out with the reason, and the others go on.

    Raises
    ------
    TlbenchError
        For every other mistake of the user.
    """
    from tlbench.methods.declared_grid import rows_of

    check_is_made(model)
    read = as_suite(suite)
    rows = rows_of(read, model, settings=settings, backbone=backbone, shots=read_shots(shots), recipe=recipe, name=name)
    told = say or (lambda text: None)
    results = []
    for number, row in enumerate(rows, 1):
        told(f"row {number} of {len(rows)}: {row.model.name}, {row.backbone}, shots {row.shots}")
        try:
            result = evaluate(
                suite,
                row.model,
                backbone=row.backbone,
                seeds=seeds,
                shots=(row.shots,),
                only=only,
                metrics=metrics,
                device=device,
                data_root=data_root,
                run_dir=run_dir,
                shard=shard,
                threads=threads,
                batch_size=batch_size,
                precision=precision,
                keep_outputs=keep_outputs,
                all_variants=all_variants,
                quiet=quiet,
            )
        except WeightsError as problem:
            told(f"not evaluated: {row.model.name}: {problem}")
            results.append(GridRowResult(row.model.name, row.backbone, row.shots, problem=str(problem)))
        else:
            results.append(GridRowResult(row.model.name, row.backbone, row.shots, result))
    return tuple(results)


def score(
    file: str | Path,
    suite: str | Path | Suite,
    *,
    model: str,
    output: str = "logits",
    run_dir: str | Path = RUN_DIR,
    data_root: str | Path | None = None,
) -> EvaluationResult:
    """Score a file of outputs that were computed elsewhere; clean measures only.

    A folder of ``--keep-outputs`` (``.../outputs/<variant>/<shots>``) will do, too. Outputs of another precision than
    float32 become the row ``<model>@<precision>``, which the result names.
    """
    from tlbench.engine.score import score as run_score
    from tlbench.methods.resolve import check_row_name

    check_row_name(model, "--model")
    read = as_suite(suite)
    base = None if isinstance(suite, Suite) else find_suite(suite).parent
    outcome = run_score(
        Path(file), read, model=model, output=output, run_dir=Path(run_dir), base=base, data_root=data_root
    )
    table, headline = _summary(read, outcome.model, Path(run_dir))
    return EvaluationResult(
        read, outcome.model, Path(run_dir), (), outcome.complete, outcome.seconds, table=table, headline=headline
    )


def _rows_to_plan(
    suite: Suite,
    model: str | Method | Model,
    grid: bool,
    recipe: str | None,
    shots: Sequence[str] | None,
    **named: Any,
) -> list[tuple[str | Method | Model, Sequence[str] | None, dict[str, Any]]]:
    """Return the models that are planned for, each with its shots and what names it."""
    if not grid and recipe is None:
        return [(model, shots, named)]
    from tlbench.methods.declared_grid import at_point, rows_of

    if grid:
        rows = rows_of(suite, model, recipe=recipe, shots=read_shots(shots), **named)
        return [(row.model, (row.shots,), {"backbone": row.backbone}) for row in rows]
    assert recipe is not None
    chosen, amounts = at_point(suite, model, recipe, shots=read_shots(shots), **named)
    return [(chosen, amounts, {})]


def _summary(
    suite: Suite, model: str, run_dir: Path, version: Mapping[str, str] | None = None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a model's pairs and its line of the board; of one version where a plug-in has changed under its name."""
    from tlbench.leaderboard.one_model import line_of, pairs_of
    from tlbench.leaderboard.tables import load_fits
    from tlbench.leaderboard.tables import load_results as load

    records = load(suite, run_dir=run_dir, published=False)
    fits = load_fits(suite, run_dir=run_dir, published=False)
    for column, value in (version or {}).items():
        records, fits = records[records[column] == value], fits[fits[column] == value]
    return pairs_of(records, suite, model), line_of(records, fits, suite, model)
