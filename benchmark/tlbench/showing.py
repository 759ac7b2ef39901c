"""What suites, models and results look like when a command prints them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
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
        "not_run": dict(result.missing),
        "synthetic": result.suite.synthetic,
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
    state = failed + ("complete" if result.complete else f"not complete; {_rest(result, rest)}")
    say(f"{state}; {result.seconds:.0f} s; records in {result.run_dir}")
    if result.suite.synthetic:
        say("the data are made up: the run says what works and how long it takes, its numbers mean nothing")
        return
    say(
        f"next: tlbench leaderboard --suite {suite}"
        + ("" if result.run_dir == DEFAULT_RUNS else f" --run-dir {result.run_dir}")
    )


def _rest(result: EvaluationResult, rest: str) -> str:
    if not result.missing or result.failures:
        return rest
    pairs = sum(len(result.suite.pairs_of(task)) for task in result.missing)
    return f"{pairs} of {len(result.suite.pairs)} pairs not run, without data: {', '.join(result.missing)}"


def show_suite(suite: Suite) -> None:
    """Print what a suite measures, and how."""
    print(f"{suite.name}, version {suite.version}: {suite.title}")
    print(f"hash {suite.hash}\n")
    if suite.description:
        print(suite.description.strip() + "\n")
    _show_tasks(suite)
    print()
    _show_conditions(suite)
    print()
    protocol, grid = suite.protocol, suite.protocol.grid
    show_table(
        ["protocol", ""],
        [
            ["image size", f"{protocol.image_size} px"],
            ["backbone", protocol.backbone],
            ["seeds", ", ".join(map(str, protocol.seeds))],
            ["shots", ", ".join(map(str, protocol.shots))],
            ["recipe", ", ".join(f"{key} {_plain(value)}" for key, value in protocol.recipe)],
            *([f"grid: {key}", ", ".join(map(_plain, values))] for key, values in grid if values),
            *(
                [["selection", "highest ID-val accuracy, then lowest ID-val NLL, then grid order"]]
                if any(v for _, v in grid)
                else []
            ),
            ["calibration", f"{suite.metrics.ece_bins} bins, {suite.metrics.ece_closed}-closed"],
            ["ranked by", suite.metrics.primary],
        ],
    )


def _show_tasks(suite: Suite) -> None:
    """Print a row a task, and a row a domain where the suite says how many images it has."""
    rows = [
        [name, t.reader, ", ".join(t.domains), t.classes and len(t.classes), len(suite.pairs_of(name))]
        for name, t in suite.tasks.items()
    ]
    show_table(["task", "reader", "domains", "classes", "pairs"], rows)
    sources = sum(len(suite.sources_of(task)) for task in suite.tasks)
    print(f"\n{sources} training sets, {len(suite.pairs)} pairs (--pairs lists them)")
    counted = [
        [task, name, own.counts.train, own.counts.val, own.counts.test]
        for task, spec in suite.tasks.items()
        for name, own in spec.domains.items()
        if own.counts is not None
    ]
    if counted:
        print()
        show_table(["task", "domain", "train", "val", "test"], counted)


def _show_conditions(suite: Suite) -> None:
    """Print a row a condition; types of corruption that differ in nothing else share one."""
    rows: dict[tuple[Any, ...], list[str]] = {}
    for c in suite.conditions:
        most = "all" if c.max_images is None else str(c.max_images)
        marked = "addition" if c.addition else ""
        key = (c.kind, _strengths(c), ", ".join(c.roles), most, marked, "" if c.kind == "corruption" else c.name)
        rows.setdefault(key, []).append(c.name)
    shared = {names[0]: f"{len(names)} types" for names in rows.values() if len(names) > 1}
    show_table(
        ["condition", "name", "strengths", "measured on", "images a set", ""],
        [[kind, shared.get(names[0], names[0]), *rest] for (kind, *rest, _), names in rows.items()],
    )
    for names in rows.values():
        if names[0] in shared:
            print(fill(f"{shared[names[0]]}: {', '.join(names)}", width=118, break_on_hyphens=False))


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
