"""What the results of an evaluation look like when a command prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tlbench.cli.console import say, show_json, show_table
from tlbench.cli.options import RUNS

if TYPE_CHECKING:
    from tlbench.api.result import EvaluationResult, GridRowResult

_TRY_AGAIN = "the same command tries the rest again"


def result_as_json(result: EvaluationResult) -> dict[str, Any]:
    """Return what `tlbench evaluate --json` prints."""
    return {
        "suite": result.suite.name,
        "suite_version": result.suite.version,
        "suite_hash": result.suite.hash,
        "model": result.model,
        "run_dir": str(result.run_dir),
        "complete": result.complete,
        "seconds": result.seconds,
        "failures": list(result.failures),
        "notes": list(result.notes),
        "not_applicable": list(result.inapplicable),
        "not_run": dict(result.missing),
        "synthetic": result.suite.synthetic,
        "headline": dict(result.headline),
        "table": list(result.table),
    }


def show_result(result: EvaluationResult, suite: str, *, told: bool = False, rest: str = _TRY_AGAIN) -> None:
    """Print a result: a row a pair, the model's line of the board, where the records are, what to type next.

    Parameters
    ----------
    result : EvaluationResult
    suite : str
        As the user named it.
    told : bool
        Whether every note and failure was told when it came up: failures are counted then, and not told again.
    rest : str
        What an incomplete result means.
    """
    if result.table:
        keys = list(dict.fromkeys(key for row in result.table for key in row))
        show_table(keys, [[row.get(key) for key in keys] for row in result.table])
        print()
    if result.headline:
        show_table(["measure", result.model], list(result.headline.items()))
    for line in () if told else (*result.notes, *(f"failed: {failure}" for failure in result.failures)):
        say(line)
    for line in result.inapplicable:
        say(line)
    failed = f"{len(result.failures)} failed; " if result.failures else ""
    state = failed + ("complete" if result.complete else f"not complete; {_rest(result, rest)}")
    say(f"{state}; {result.seconds:.0f} s; records in {result.run_dir}")
    if result.suite.synthetic:
        say("the data are made up: the run says what works and how long it takes, its numbers mean nothing")
        return
    say(
        f"next: tlbench leaderboard --suite {suite}"
        + ("" if result.run_dir == RUNS else f" --run-dir {result.run_dir}")
    )


def _rest(result: EvaluationResult, rest: str) -> str:
    if not result.missing or result.failures:
        return rest
    pairs = sum(len(result.suite.pairs_of(task)) for task in result.missing)
    return f"{pairs} of {len(result.suite.pairs)} pairs not run, without data: {', '.join(result.missing)}"


def show_grid(rows: Sequence[GridRowResult], *, json: bool, told: bool) -> None:
    """Print a line a row of the board, and how many were evaluated."""
    if json:
        listed = [
            {
                "model": row.model,
                "backbone": row.backbone,
                "shots": row.shots,
                "problem": row.problem,
                "result": result_as_json(row.result) if row.result else None,
            }
            for row in rows
        ]
        show_json({"rows": listed})
        return
    lines: list[list[object]] = []
    for row in rows:
        headline = row.result.headline if row.result else {}
        state = "not evaluated" if row.result is None else "complete" if row.result.complete else "not complete"
        lines.append([row.model, row.backbone, row.shots, *map(headline.get, ("id_accuracy", "ood_accuracy")), state])
    show_table(["model", "backbone", "shots", "id_accuracy", "ood_accuracy", ""], lines)
    for row in () if told else rows:
        for problem in (row.problem,) if row.result is None else row.result.failures:
            say(f"failed: {row.model}: {problem}")
    done = [row.result for row in rows if row.result is not None]
    complete = sum(result.complete for result in done)
    failures = sum(len(result.failures) for result in done)
    say(
        f"{len(rows)} rows: {complete} complete, {len(rows) - len(done)} not evaluated, {failures} failures; "
        f"{sum(result.seconds for result in done):.0f} s" + ("" if complete == len(rows) else f"; {_TRY_AGAIN}")
    )
