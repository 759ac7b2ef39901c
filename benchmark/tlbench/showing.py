"""What suites, models and results look like when a command prints them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.console import say, show_table

if TYPE_CHECKING:
    from tlbench.api import EvaluationResult
    from tlbench.suites.spec import Suite

DEFAULT_RUNS = Path("tlbench-runs")


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
        "headline": dict(result.headline),
        "table": list(result.table),
    }


_TRY_AGAIN = "the same command tries the rest again"


def show_result(result: EvaluationResult, suite: str, *, told: bool = False, rest: str = _TRY_AGAIN) -> None:
    """Print a result: a row a pair, the model's line of the board, where the records are, what to type next.

    Parameters
    ----------
    result : EvaluationResult
    suite : str
        As the user named it.
    told : bool
        Whether every failure was told when it happened: it is counted then, and not told again.
    rest : str
        What an incomplete result means.
    """
    if result.table:
        keys = list(dict.fromkeys(key for row in result.table for key in row))
        show_table(keys, [[row.get(key) for key in keys] for row in result.table])
        print()
    if result.headline:
        show_table(["measure", result.model], list(result.headline.items()))
    for failure in () if told else result.failures:
        say(f"failed: {failure}")
    failed = f"{len(result.failures)} failed; " if result.failures else ""
    state = failed + ("complete" if result.complete else f"not complete; {rest}")
    say(f"{state}; {result.seconds:.0f} s; records in {result.run_dir}")
    say(
        f"next: tlbench leaderboard --suite {suite}"
        + ("" if result.run_dir == DEFAULT_RUNS else f" --run-dir {result.run_dir}")
    )


def show_suite(suite: Suite) -> None:
    """Print what a suite measures, and how."""
    print(f"{suite.name}, version {suite.version}: {suite.title}")
    print(f"hash {suite.hash}\n")
    if suite.description:
        print(suite.description.strip() + "\n")
    rows = [[name, t.reader, ", ".join(t.domains), len(suite.pairs_of(name))] for name, t in suite.tasks.items()]
    show_table(["task", "reader", "domains", "pairs"], rows)
    print()
    conditions = [
        [c.kind, c.name, _strengths(c), ", ".join(c.roles), "all" if c.max_images is None else c.max_images]
        for c in suite.conditions
    ]
    show_table(["condition", "name", "strengths", "measured on", "images a set"], conditions)
    print()
    protocol = suite.protocol
    show_table(
        ["protocol", ""],
        [
            ["image size", f"{protocol.image_size} px"],
            ["backbone", protocol.backbone],
            ["seeds", ", ".join(map(str, protocol.seeds))],
            ["shots", ", ".join(map(str, protocol.shots))],
            ["recipe", ", ".join(f"{key} {_plain(value)}" for key, value in protocol.recipe)],
            ["ranked by", suite.metrics.primary],
        ],
    )


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _strengths(condition: Any) -> str:
    if condition.kind == "attack":
        epsilons = ", ".join(f"{epsilon:g}" for epsilon in condition.epsilons)
        return f"{condition.norm} " + (
            epsilons if condition.denominator == 1 else f"({epsilons})/{condition.denominator:g}"
        )
    values = getattr(condition, "severities", getattr(condition, "steps", ()))
    return ", ".join(f"{value:g}" for value in values)


def show_model(facts: Mapping[str, Any]) -> None:
    """Print what `describe_model` tells."""
    print(f"{facts['name']}: {facts['summary'] or 'no description'}\n")
    if facts["settings"]:
        rows = [[s["name"], s["type"], s["value"], s["default"]] for s in facts["settings"]]
        show_table(["setting", "type", "value", "default"], rows)
        print()
    rest = ("reads", "requires", "version", "deterministic", "control")
    show_table(["", ""], [[key, _shown(facts[key])] for key in rest])


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "nothing"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
