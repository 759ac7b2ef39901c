"""`tlbench analyze`: what a suite's results say to the study's questions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.console import printable, say, show_json, show_table, wrapped
from tlbench.cli.options import RUNS, JsonOption, RunDirOption, SuiteOption, check_run_dir

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = """Examples:

tlbench analyze --suite digits

tlbench analyze --suite digits --question A1 --question A8 --out analysis/"""

_ROWS = 12
_INTERVAL = ("_low", "_high")


def analyze(
    suite: SuiteOption,
    question: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            metavar="A1",
            help="one of the study's, A1 to A17, as docs/analysis.md lists them; repeatable; default: all",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="a new folder, or an earlier analysis: for tables, figures and a page")
    ] = None,
    upstream: Annotated[
        Path | None,
        typer.Option("--upstream", help="CSV of backbones' published accuracies: backbone,accuracy,... (A14)"),
    ] = None,
    controls: Annotated[bool, typer.Option("--controls", help="count controls, such as majority, as models")] = False,
    protocol: Annotated[
        str, typer.Option("--protocol", help="such as unlabelled-target; models of another one are left out")
    ] = "source-only",
    run_dir: RunDirOption = RUNS,
    published: Annotated[
        bool, typer.Option("--published/--own", help="the published results and your own, or your own alone")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Answer the study's questions from a suite's results: correlations, shapes, effects, ranks, seeds."""
    from tlbench import api

    check_run_dir(run_dir)
    analysis = api.analyze(
        suite,
        questions=question,
        run_dir=run_dir,
        published=published,
        upstream=upstream,
        controls=controls,
        protocol=protocol,
        out=out,
    )
    for note in analysis.notes:
        say(f"note: {note}")
    if as_json:
        show_json(analysis.to_dict())
    else:
        for answer in analysis.answers.values():
            print(f"{answer.id}  {printable(answer.title)}")
            print(wrapped(printable(answer.sentence), first="    ", indent="    "))
            for name, table in list(answer.tables.items())[:1]:
                print()
                _show(name, table)
            print()
    if out is not None:
        say(f"written to {out}; begin with {out / 'index.html'}")


def _show(name: str, table: pd.DataFrame) -> None:
    """Print a table's first rows, every number with its interval in one cell."""
    headers = [column for column in table.columns if not column.endswith(_INTERVAL)]
    rows = [[_cell(table, row, column) for column in headers] for row in range(min(_ROWS, len(table)))]
    numbers = [place for place, column in enumerate(headers) if table[column].dtype.kind in "if"]
    show_table([column.replace("_", " ") for column in headers], rows, right=numbers)
    if len(table) > _ROWS:
        print(f"... {len(table) - _ROWS} more rows of '{name}' with --out or --json")


def _cell(table: pd.DataFrame, row: int, column: str) -> str:
    value = table[column].iloc[row]
    if table[column].dtype.kind != "f":
        return printable(str(value))
    if value != value:
        return "-"
    told = f"{value:.3f}"
    ends = [f"{column}{end}" for end in _INTERVAL]
    if all(end in table for end in ends):
        low, high = (table[end].iloc[row] for end in ends)
        told += "" if low != low else f" ({low:.3f} to {high:.3f})"
    return told
