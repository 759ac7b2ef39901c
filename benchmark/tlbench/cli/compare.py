"""`tlbench compare`: two rows of a board on the same images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from tlbench.cli.console import say, show_json
from tlbench.cli.options import RUNS, JsonOption, RunDirOption, SuiteOption, check_run_dir
from tlbench.cli.showing_comparison import as_json, show
from tlbench.errors import UsageError

EXAMPLES = """Examples:

tlbench compare lp-ft finetune --suite digits

tlbench compare local:finetune published:finetune --suite digits --metric nll --flips 0"""


def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="row of the board; published:NAME or local:NAME where both have it")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="row of the board that A is held against")],
    suite: SuiteOption,
    metric: Annotated[
        Literal["accuracy", "nll", "brier"], typer.Option("--metric", help="what is averaged over images")
    ] = "accuracy",
    role: Annotated[
        Literal["ood-test", "id-test", "id-val"],
        typer.Option("--role", help="whose images: the target's, the source's own, or those it was tuned on"),
    ] = "ood-test",
    shots: Annotated[
        str | None,
        typer.Option("--shots", metavar="K[,K]", help="training images a class, or full: of both, or of A and B"),
    ] = None,
    flips: Annotated[int, typer.Option("--flips", metavar="N", min=0, help="images that flipped to show")] = 10,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="<path>", help="write every flip to this CSV file")
    ] = None,
    run_dir: RunDirOption = RUNS,
    json: JsonOption = False,
) -> None:
    """Compare two rows: differences with intervals, and the images that flipped."""
    from tlbench import api

    check_run_dir(run_dir)
    found = api.compare(suite, first, second, metric=metric, role=role, shots=_shots(shots), run_dir=run_dir)
    if out is not None:
        _write(out, found.flips.rows.to_csv(index=False, lineterminator="\n"))
    if json:
        show_json(as_json(found, flips))
    else:
        show(found, flips)
    if out is not None:
        say(f"{len(found.flips.rows):,} flips in {out}")


def _shots(text: str | None) -> str | tuple[str, str] | None:
    words = tuple(word.strip() for word in text.split(",")) if text is not None else ()
    match words:
        case ():
            return None
        case (one,) if one:
            return one
        case (one, other) if one and other:
            return one, other
        case _:
            raise UsageError(f"--shots: expected one amount, or two with a comma, got '{text}'")


def _write(path: Path, text: str) -> None:
    """Write a table; over an earlier one, and over nothing else."""
    header = text.partition("\n")[0].encode()
    try:
        if path.is_file() and not path.read_bytes().startswith(header):
            raise UsageError(f"--out {path}: expected a new file or an earlier table of flips, found another file")
        path.write_text(text, encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise UsageError(f"--out {path}: expected a file in a folder that exists") from None
