"""`tlbench plan` and `tlbench status`: what an evaluation would do, and how much of it is stored."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from tlbench.cli.checks import stop_early
from tlbench.cli.console import FAILED, results_only, say, show_json
from tlbench.cli.options import (
    RUNS,
    AllVariantsOption,
    BackboneOption,
    DataRootOption,
    DeviceOption,
    GridOption,
    JsonOption,
    MetricsOption,
    ModelOption,
    NameOption,
    OnlyOption,
    PrecisionOption,
    RecipeOption,
    RunDirOption,
    SeedsOption,
    SetOption,
    ShardOption,
    ShotsOption,
    SuiteOption,
    part_of_suite,
)
from tlbench.cli.showing_plan import show_plan, show_status

EXAMPLES = """Examples:

tlbench plan --suite ood172-lite --model finetune

tlbench plan --suite ood172 --model linear-probe --data-root /data --budget 24h

Neither data nor weights are needed where the suite says how many images there are."""


def plan(
    suite: SuiteOption,
    model: ModelOption,
    backbone: BackboneOption = None,
    settings: SetOption = None,
    name: NameOption = None,
    seeds: SeedsOption = None,
    shots: ShotsOption = None,
    grid: GridOption = False,
    recipe: RecipeOption = None,
    only: OnlyOption = None,
    metrics: MetricsOption = None,
    device: DeviceOption = None,
    data_root: DataRootOption = None,
    run_dir: RunDirOption = RUNS,
    shard: ShardOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="24h", help="say what fits into this time: 90m, 24h, 2d")
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe/--no-probe", help="measure this machine's speed, or take the last probe's")
    ] = True,
    precision: PrecisionOption = "float32",
    all_variants: AllVariantsOption = False,
    json: JsonOption = False,
) -> None:
    """Say what an evaluation would do and how long it takes, before anything starts."""
    stop_early(suite, model, backbone)
    part = part_of_suite(seeds=seeds, shots=shots, only=only, metrics=metrics, shard=shard)
    from tlbench import api

    with results_only():
        summary = api.plan(
            suite,
            model,
            backbone=backbone,
            settings=tuple(settings or ()),
            name=name,
            **part,
            grid=grid,
            recipe=recipe,
            device=device,
            data_root=data_root,
            run_dir=run_dir,
            threads=threads,
            budget=budget,
            probe=probe,
            precision=precision,
            all_variants=all_variants,
        )
    if json:
        show_json(asdict(summary))
    else:
        show_plan(summary)


def status(
    suite: SuiteOption,
    model: ModelOption,
    backbone: BackboneOption = None,
    settings: SetOption = None,
    name: NameOption = None,
    seeds: SeedsOption = None,
    shots: ShotsOption = None,
    grid: GridOption = False,
    recipe: RecipeOption = None,
    only: OnlyOption = None,
    metrics: MetricsOption = None,
    shard: ShardOption = None,
    data_root: DataRootOption = None,
    run_dir: RunDirOption = RUNS,
    precision: PrecisionOption = "float32",
    all_variants: AllVariantsOption = False,
    json: JsonOption = False,
) -> int:
    """Say how much is stored, and how long that took against the forecast; exit 1 while something is missing."""
    stop_early(suite, model, backbone)
    if not run_dir.is_dir():
        say(f"note: --run-dir {run_dir}: there is no such folder yet")
    part = part_of_suite(seeds=seeds, shots=shots, only=only, metrics=metrics, shard=shard)
    from tlbench import api

    with results_only():
        summary = api.status(
            suite,
            model,
            backbone=backbone,
            settings=tuple(settings or ()),
            name=name,
            **part,
            grid=grid,
            recipe=recipe,
            data_root=data_root,
            run_dir=run_dir,
            precision=precision,
            all_variants=all_variants,
        )
    if json:
        show_json(asdict(summary))
    else:
        show_status(summary)
    return FAILED if summary.fits_to_do or summary.measurements_to_do else 0
