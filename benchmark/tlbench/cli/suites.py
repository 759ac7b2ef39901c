"""`tlbench suites`: what is measured, and how."""

from __future__ import annotations

from typing import Annotated

import typer

from tlbench.cli.checks import checked_suite
from tlbench.cli.console import say, show_json, show_table
from tlbench.cli.options import JsonOption
from tlbench.cli.showing_suite import show_suite

app = typer.Typer(help="List, show and check suites: what is measured, and how.", rich_markup_mode=None)


@app.command("list")
def list_suites(json: JsonOption = False) -> None:
    """List the suites that come with tlbench."""
    from tlbench.suites.load import load_suite, suite_names

    suites = [load_suite(name) for name in suite_names()]
    if json:
        keys = ("name", "version", "title")
        show_json([{**{key: getattr(suite, key) for key in keys}, "hash": suite.hash} for suite in suites])
        return
    headers = ["suite", "version", "tasks", "pairs", "title"]
    show_table(headers, [[s.name, s.version, len(s.tasks), len(s.pairs), s.title] for s in suites])


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="name or file")],
    pairs: Annotated[bool, typer.Option("--pairs", help="list every pair")] = False,
    json: JsonOption = False,
) -> None:
    """Show what a suite measures, and how."""
    from tlbench.suites.load import load_suite

    suite = load_suite(name)
    if json:
        listed = [pair.model_dump(mode="json") for pair in suite.pairs]
        show_json({**suite.model_dump(mode="json"), "hash": suite.hash, **({"pairs": listed} if pairs else {})})
    elif pairs:
        show_table(
            ["task", "source", "target", "shift"], [[p.task, p.source, p.target, p.shift or ""] for p in suite.pairs]
        )
    else:
        show_suite(suite)


@app.command()
def validate(file: Annotated[str, typer.Argument(help="a suite file of yours, or a name")]) -> None:
    """Check a suite file; a mistake is told with its place and the nearest name."""
    suite = checked_suite(file)
    missing = []
    if any(condition.kind != "clean" for condition in suite.conditions):
        # Conditions can only be made with PyTorch, which takes seconds to load.
        from tlbench.engine.checks import check_conditions, lacking

        check_conditions(suite, file)
        missing = [*lacking(suite.conditions).values()]
    print(f"{file}: a suite of {len(suite.tasks)} task(s), {len(suite.pairs)} pairs; hash {suite.hash}")
    if trees := [name for name, task in suite.tasks.items() if task.hierarchy is not None]:
        print(f"class hierarchies: {', '.join(trees)}")
        if unheld := [name for name in trees if not suite.tasks[name].classes]:
            say(f"note: {', '.join(unheld)}: the classes are found in the data, and the hierarchy is held against them")
    for problem in missing:
        say(f"note: {problem}")


@app.command()
def schema() -> None:
    """Print the JSON schema of a suite file, for an editor."""
    from tlbench.suites.load import suite_schema

    show_json(suite_schema())
