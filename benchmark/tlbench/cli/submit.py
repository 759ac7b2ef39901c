"""`tlbench submit`: from a run to a pull request."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlbench.cli.console import printable, say, show_json
from tlbench.cli.options import JsonOption

if TYPE_CHECKING:
    from tlbench.api.publishing import SubmitResult

EXAMPLES = """Examples:

tlbench submit tlbench-runs --card mymodel.toml

tlbench submit tlbench-runs --suite ood172 --card mymodel.toml --predictions-url https://zenodo.org/records/1234567/files
"""


def submit(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="run folder, as --run-dir named it")],
    suite: Annotated[
        str | None, typer.Option("--suite", help="whose records to submit, where the run holds several suites")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="row of the board to submit, where the run holds several")
    ] = None,
    card: Annotated[
        Path | None, typer.Option("--card", help="model card: name, method, settings, authors, paper, licence")
    ] = None,
    results: Annotated[Path, typer.Option("--results", help="folder of published results")] = Path("results"),
    allow_incomplete: Annotated[
        bool,
        typer.Option(
            "--allow-incomplete", help="submit although seeds or measurements are missing; the row is not ranked then"
        ),
    ] = False,
    predictions_url: Annotated[
        str | None,
        typer.Option(
            "--predictions-url",
            metavar="URL",
            help="where files that are too large for the results will lie: what their names follow, "
            "at github.com, huggingface.co or zenodo.org",
        ),
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open", help="commit, push to origin and open the pull request through gh")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Verify a model's records and write them into the published results, for a pull request."""
    from tlbench import api
    from tlbench.submissions.pull_request import check_can_open, open_pull_request

    if open_:
        check_can_open(results / "suite" / "model")
    written = api.submit(
        run_folder,
        card=card,
        suite=suite,
        model=model,
        results=results,
        allow_incomplete=allow_incomplete,
        predictions_url=predictions_url,
    )
    address = open_pull_request(written.folder, written.suite, written.model) if open_ else None
    if json:
        show_json(_document(written, address))
    else:
        print(written.folder)
        _say_what_is_next(written, address)


def _document(written: SubmitResult, address: str | None) -> dict[str, object]:
    from tlbench.submissions.pull_request import commands

    return {
        "folder": str(written.folder),
        "suite": written.suite,
        "model": written.model,
        "files": dict(written.files),
        "elsewhere": dict(written.elsewhere),
        "elsewhere_folder": str(written.elsewhere_folder) if written.elsewhere else None,
        "level": written.report.level,
        "checks": [check.to_dict() for check in written.report.checks],
        "next": [shlex.join(words) for words in commands(written.folder, written.suite, written.model)],
        "pull_request": address,
    }


def _say_what_is_next(written: SubmitResult, address: str | None) -> None:
    from tlbench.submissions.pull_request import commands

    size = sum(written.files.values())
    say(f"verified: {written.report.numbers:,} numbers; {len(written.files)} files, {size / 1e6:.2f} MB")
    for check in written.report.checks:
        if check.status == "warning":
            say(f"note: {check.name}: {printable(check.summary)}")
    for name, url in written.elsewhere.items():
        say(f"put {written.elsewhere_folder / name} where {url} serves it")
    if address is not None:
        say(f"pull request: {printable(address)}")
        return
    say("next, in your fork of the repository:")
    for words in commands(written.folder, written.suite, written.model):
        say(f"  {printable(shlex.join(words))}")
    say("the last of them needs GitHub's gh; a browser does as well")
