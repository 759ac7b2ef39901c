"""`tlbench evaluate`: a model, or networks that are already trained, or every row of a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlbench.cli.checks import stop_early
from tlbench.cli.console import FAILED, results_only, say, show_json
from tlbench.cli.options import (
    MODEL,
    RUNS,
    AllVariantsOption,
    BackboneOption,
    DataRootOption,
    DeviceOption,
    GridOption,
    JsonOption,
    MetricsOption,
    NameOption,
    OnlyOption,
    PrecisionOption,
    QuietOption,
    RecipeOption,
    RunDirOption,
    SeedsOption,
    SetOption,
    ShardOption,
    ShotsOption,
    SuiteOption,
    part_of_suite,
)
from tlbench.cli.showing_result import result_as_json, show_grid, show_result
from tlbench.errors import UsageError

EXAMPLES = """Examples:

tlbench evaluate --suite digits --model linear-probe

tlbench evaluate --suite digits --model "temperature(finetune(lr=1e-3))" --seeds 0

tlbench evaluate --suite digits --model mymodel.py --set lr=0.01 --only source=mnist

tlbench evaluate --suite ./mine.toml --model linear-probe --data-root /data

tlbench evaluate --suite ood172 --model finetune --grid --recipe regime=full --data-root /data

What is stored already is not computed again: the same command resumes."""


def evaluate(
    suite: SuiteOption,
    model: Annotated[str | None, MODEL] = None,
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            metavar="SOURCE=FILE",
            help="instead of a model: a trained state dict (.safetensors, .pt) of the backbone; repeatable",
        ),
    ] = None,
    backbone: BackboneOption = None,
    settings: SetOption = None,
    name: NameOption = None,
    grid: GridOption = False,
    recipe: RecipeOption = None,
    seeds: SeedsOption = None,
    shots: ShotsOption = None,
    only: OnlyOption = None,
    metrics: MetricsOption = None,
    device: DeviceOption = None,
    data_root: DataRootOption = None,
    run_dir: RunDirOption = RUNS,
    shard: ShardOption = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="CPU threads; equal ones give equal bits")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, help="most images a forward pass when measuring")
    ] = 128,
    precision: PrecisionOption = "float32",
    keep_outputs: Annotated[
        bool,
        typer.Option(
            "--keep-outputs",
            help="write the outputs for clean sets into the run folder, as `tlbench score` takes them; never submitted",
        ),
    ] = False,
    all_variants: AllVariantsOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Fit a model on a suite's sources; measure it on every target."""
    checkpoints = _checkpoints(checkpoint)
    if (model is None) == (checkpoints is None):
        raise UsageError("expected --model, or --checkpoint SOURCE=FILE for networks that are already trained")
    if (grid or recipe) and model is None:
        raise UsageError("--grid, --recipe: networks that are already trained have no recipe; they go with --model")
    stop_early(suite, model, backbone)
    part = part_of_suite(seeds=seeds, shots=shots, only=only, metrics=metrics, shard=shard)
    from tlbench import api

    if grid and model is not None:
        with results_only():
            rows = api.evaluate_grid(
                suite,
                model,
                recipe=recipe,
                backbone=backbone,
                settings=tuple(settings or ()),
                name=name,
                **part,
                device=device,
                data_root=data_root,
                run_dir=run_dir,
                threads=threads,
                batch_size=batch_size,
                precision=precision,
                keep_outputs=keep_outputs,
                all_variants=all_variants,
                quiet=quiet,
                say=None if quiet else say,
            )
        show_grid(rows, json=json, told=not quiet)
        return FAILED if any(row.failed for row in rows) else 0
    with results_only():
        result = api.evaluate(
            suite,
            model,
            predictors=checkpoints,
            backbone=backbone,
            settings=tuple(settings or ()),
            name=name,
            recipe=recipe,
            **part,
            device=device,
            data_root=data_root,
            run_dir=run_dir,
            threads=threads,
            batch_size=batch_size,
            precision=precision,
            keep_outputs=keep_outputs,
            all_variants=all_variants,
            quiet=quiet,
        )
    if json:
        show_json(result_as_json(result))
    else:
        show_result(result, suite, told=not quiet)
    return FAILED if result.failures else 0


def _checkpoints(entries: list[str] | None) -> dict[str, str | Path] | None:
    found: dict[str, str | Path] = {}
    for entry in entries or ():
        source, sign, file = entry.partition("=")
        if not (source and sign and file):
            raise UsageError(f"--checkpoint {entry}: expected SOURCE=FILE, such as photo=photo.safetensors")
        if source in found:
            raise UsageError(f"--checkpoint {entry}: source '{source}' is given twice")
        found[source] = Path(file)
    return found or None
