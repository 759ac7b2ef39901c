"""`tlbench leaderboard` and `score`: results that are there, and outputs on their way to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tlbench.cli.options import RUNS, DataRootOption, RunDirOption, SuiteOption, check_run_dir
from tlbench.cli.showing_result import show_result

EXAMPLES = """Examples:

tlbench leaderboard --suite digits

tlbench leaderboard --suite digits --metric nll --format csv"""


def leaderboard(
    suite: SuiteOption,
    metric: Annotated[
        str | None, typer.Option("--metric", help="measure to rank by, such as nll; default: the suite's")
    ] = None,
    format: Annotated[
        Literal["table", "markdown", "csv", "json"],
        typer.Option("--format", help="rates in % in the first two, fractions in the others"),
    ] = "table",
    as_json: Annotated[bool, typer.Option("--json", help="the same as --format json")] = False,
    run_dir: RunDirOption = RUNS,
    published: Annotated[
        bool, typer.Option("--published/--own", help="the published results and your own, or your own alone")
    ] = True,
) -> None:
    """Rank the models of a suite: the published ones and your own."""
    from tlbench import api

    check_run_dir(run_dir)
    print(
        api.leaderboard(suite, metric=metric, run_dir=run_dir, published=published).to_text(
            "json" if as_json else format
        )
    )


def score(
    file: Annotated[
        Path,
        typer.Argument(
            help="outputs of a network: Parquet, CSV, or what --keep-outputs left in a run folder, "
            ".../models/<model>/outputs/<variant>/<shots>; see docs/results.md"
        ),
    ],
    suite: SuiteOption,
    model: Annotated[str, typer.Option("--model", help="row of the board")],
    output: Annotated[
        Literal["logits", "log_probs", "scores"], typer.Option("--output", help="what the outputs are")
    ] = "logits",
    data_root: DataRootOption = None,
    run_dir: RunDirOption = RUNS,
) -> None:
    """Score a file of outputs; clean measures only."""
    from tlbench import api

    result = api.score(file, suite, model=model, output=output, data_root=data_root, run_dir=run_dir)
    show_result(result, suite, rest="not all clean sets of the suite are in the file")
