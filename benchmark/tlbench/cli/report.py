"""`tlbench report`: results as pages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlbench.cli.console import say, show_json
from tlbench.cli.options import RUNS, JsonOption, RunDirOption, SuiteOption, check_run_dir

EXAMPLES = """Examples:

tlbench report --suite digits --out site

tlbench report --suite digits --own --no-analysis --out mine"""


def report(
    suite: SuiteOption,
    out: Annotated[Path, typer.Option("--out", help="folder of the pages; an earlier report there is replaced")] = Path(
        "site"
    ),
    metric: Annotated[
        str | None, typer.Option("--metric", help="measure that the board opens with; default: the suite's")
    ] = None,
    run_dir: RunDirOption = RUNS,
    published: Annotated[
        bool, typer.Option("--published/--own", help="the published results and your own, or your own alone")
    ] = True,
    analysis: Annotated[
        bool,
        typer.Option(
            "--analysis/--no-analysis", help="answer the study's questions on a page, too, as `tlbench analyze` does"
        ),
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Write static pages: the board, one a model, one a task, the method, the analysis."""
    from tlbench import api

    check_run_dir(run_dir)
    files = api.report(suite, out, metric=metric, run_dir=run_dir, published=published, analysis=analysis)
    if as_json:
        show_json({"suite": suite, "page": str(files[0]), "files": [str(file) for file in files]})
        return
    print(files[0])
    say(f"{len(files)} files; open the first one in a browser")
