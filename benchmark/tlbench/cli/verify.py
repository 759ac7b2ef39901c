"""`tlbench verify`: every number again, from the predictions that it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from tlbench.cli.console import printable, say, show_json
from tlbench.errors import UsageError

MISMATCH: Final = 4
EXAMPLES = """Examples:

tlbench verify tlbench-runs

tlbench verify results/digits/ncm

tlbench verify results/digits --json

Exit code 4: something does not follow from what is stored."""


def verify(
    path: Annotated[
        Path, typer.Argument(metavar="RUN_OR_SUBMISSION", help="a run folder, results/SUITE/MODEL, or results/SUITE")
    ],
    suite: Annotated[
        str | None, typer.Option("--suite", help="one of ours or a file of yours; default: what the folder names")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="one row alone; default: every one that is there")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(
            "--results",
            help="published results to look for earlier versions of the same model in; default: what came with tlbench",
        ),
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="what is missing or failed is a warning, no mismatch")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="the whole report as JSON")] = False,
) -> int:
    """Recompute every number from the stored predictions; one line a check."""
    from tlbench import api
    from tlbench.submissions.verify import MEANING

    if results is not None and not results.is_dir():
        raise UsageError(f"--results {results}: expected a folder of published results, found none")
    reports = api.verify(path, suite=suite, model=model, results=results, allow_incomplete=allow_incomplete)
    wrong = [report for report in reports if not report.ok]
    if json:
        show_json({"ok": not wrong, "meaning": MEANING, "reports": [report.to_dict() for report in reports]})
        return MISMATCH if wrong else 0
    for report in reports:
        print("\n".join(printable(line) for line in report.to_text().splitlines()))
        seconds = f"{report.numbers:,} numbers from {report.predictions:,} predictions in {report.seconds:.1f} s"
        print(f"  {report.level if report.ok else 'mismatch'}: {seconds}")
    if any(report.level == "recomputed" for report in reports):
        say(MEANING)
    if len(reports) > 1:
        say(
            f"{len(reports)} models, {len(wrong)} with a mismatch" + "".join(f"\n  {printable(r.model)}" for r in wrong)
        )
    return MISMATCH if wrong else 0
