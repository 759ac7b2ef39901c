"""`tlbench compact`: the many small files of a run folder into one a model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.console import say, show_json, show_table
from tlbench.cli.options import RUNS, JsonOption, RunDirOption

if TYPE_CHECKING:
    from tlbench.records.merge import Merging


def compact(
    run_dir: RunDirOption = RUNS,
    suite: Annotated[str | None, typer.Option("--suite", help="this suite's work alone; default: all")] = None,
    json: JsonOption = False,
) -> None:
    """Merge the many small files of a run folder into one a model; evaluations may go on meanwhile."""
    from tlbench import api

    done = api.compact(run_dir, suite=suite, each=None if json else _tell)
    if json:
        show_json({"run_dir": str(run_dir), "models": [dataclasses.asdict(one) for one in done]})
        return
    show_table(
        ["suite", "model", "files", "now", "MB", "now", ""],
        [
            [one.suite, one.model, one.files_before, one.files_after, _megabytes(one.bytes_before),
             _megabytes(one.bytes_after), _state(one)]
            for one in done
        ],
        right=(2, 3, 4, 5),
    )  # fmt: skip


def _tell(one: Merging) -> None:
    say(f"{one.model}: {_state(one)}")


def _state(one: Merging) -> str:
    if one.state == "busy":
        return "another process is merging it"
    left = f"; {one.left} left, in use or with files of yours" if one.left else ""
    if one.state == "nothing to do":
        return f"nothing to do{left}"
    return f"{one.measurements} measurements and {one.fits} fits merged{left}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
