"""Words on a command line to one call of `tlbench.api`: a file a group of commands.

Commands import what they need inside their bodies, so that help is printed without PyTorch or pandas.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from tlbench import __version__
from tlbench.cli import analyze, boards, compact, compare, data, evaluate, models, plan, report, submit, suites, verify
from tlbench.cli.console import run

_EXAMPLES = """Examples:

tlbench evaluate --suite digits --model linear-probe

tlbench leaderboard --suite digits

tlbench models list"""

app = typer.Typer(
    help="Transfer learning under distribution shift, measured and compared.",
    epilog=_EXAMPLES,
    add_completion=False,
    rich_markup_mode=None,
    invoke_without_command=True,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code.

    0 complete, 1 something failed, 2 a mistake in the command or its files, 4 verification mismatch,
    130 interrupted.
    """
    command = typer.main.get_command(app)
    words = list(sys.argv[1:] if arguments is None else arguments)
    return run(lambda: command.main(args=words, prog_name="tlbench", standalone_mode=False))


@app.callback()
def _tlbench(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"tlbench {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


# In the order of the help.
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=boards.EXAMPLES)(boards.leaderboard)
app.command(epilog=compare.EXAMPLES)(compare.compare)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=analyze.EXAMPLES)(analyze.analyze)
app.command(epilog=plan.EXAMPLES)(plan.plan)
app.command()(plan.status)
app.command()(boards.score)
app.command(epilog=submit.EXAMPLES)(submit.submit)
app.command(epilog=verify.EXAMPLES)(verify.verify)
app.command()(compact.compact)
app.add_typer(suites.app, name="suites")
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
