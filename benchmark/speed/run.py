"""The command: measure rows, print them, write them down, and exit by what was found."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from speed import machine, table
from speed.measure import Effort, one_thread
from speed.peers import missing
from speed.rows import Outcome, Row, Work, exit_code
from speed.works import WORKS

Theme = Callable[[Collection[str], Effort], Iterator[Outcome]]
"""Measures the rows that are wanted, by key, and yields an outcome for each."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 where every bar is met, 1 where one is not or numbers differ, 2 for a wrong call."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{work.key:24}{work.work}: {work.peer}" for work in WORKS.values()))
        return 0
    wanted = _wanted(parser, options.only)
    effort = Effort(repetitions=options.repetitions, quick=options.quick)
    if options.repetitions < 1:
        parser.error(f"--repetitions {options.repetitions}: expected at least 1")
    for option, file in (("--json", options.json), ("--write", options.write)):
        if file is not None and not file.parent.is_dir():
            parser.error(f"{option} {file}: expected a file in a folder that exists, there is no {file.parent}")
    if options.write is not None and (options.quick or options.repetitions < 3):
        parser.error("--write: the page is of whole work and at least 3 repetitions; leave out --quick")
    if options.write is not None and len(wanted) < len(WORKS) and options.keep is None:
        parser.error("--write: the page is of all rows; leave out --only, or name an earlier run's rows with --keep")
    _hold_to_one_thread()
    facts = machine.facts()
    earlier = _earlier(parser, options.keep, facts)
    fresh: dict[str, Outcome] = {}
    for outcome in measured([work for work in WORKS.values() if work.key in wanted], effort):
        fresh[outcome.key] = outcome
        _tell(Row(WORKS[outcome.key], outcome))
    found = {**earlier, **fresh}
    rows = [Row(work, found[work.key]) for work in WORKS.values() if work.key in found]
    print(table.plain(rows, facts))
    if options.quick:
        print("--quick: less work than the rows are named for; a missed bar means nothing, and is no error")
    if options.json is not None:
        options.json.write_text(table.as_json(rows, facts, effort.repetitions), encoding="utf-8")
    if options.write is not None:
        options.write.write_text(table.markdown(rows, facts, effort.repetitions), encoding="utf-8")
    return exit_code(rows, bars=not options.quick)


def measured(works: Sequence[Work], effort: Effort, themes: Mapping[str, Theme] | None = None) -> Iterator[Outcome]:
    """Yield the outcome of every work; what fails is an outcome, and the others go on.

    Parameters
    ----------
    works : sequence of Work
    effort : Effort
    themes : mapping of str to callable, optional
        What measures the works of a theme; by default the function ``measure`` of the module of that name.
    """
    for theme in dict.fromkeys(work.theme for work in works):
        todo: list[str] = []
        for work in works:
            if work.theme == theme:
                lacking = missing(work.packages)
                if lacking:
                    yield Outcome(work.key, absent=lacking)
                else:
                    todo.append(work.key)
        if todo:
            yield from _of_theme(theme, todo, effort, themes)


def _of_theme(theme: str, keys: Sequence[str], effort: Effort, themes: Mapping[str, Theme] | None) -> Iterator[Outcome]:
    """Measure rows of one theme together, which may share work; after a failure those that are left one by one."""
    left = list(keys)
    try:
        # Imported when it is its turn: a theme loads the peers that it measures.
        measure: Theme = themes[theme] if themes is not None else importlib.import_module(f"speed.{theme}").measure
        for outcome in measure(tuple(keys), effort):
            left.remove(outcome.key)
            yield outcome
    except Exception as error:  # a peer's failure must not take the other rows with it
        if len(left) > 1:
            for key in left:
                yield from _of_theme(theme, [key], effort, themes)
        else:
            traceback.print_exc()
            yield from (Outcome(key, failure=f"{type(error).__name__}: {error}") for key in left)
    else:
        yield from (Outcome(key, failure="gave no numbers") for key in left)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m speed", description=__doc__)
    parser.add_argument("--only", nargs="+", metavar="ROW", action="extend", help="rows to measure, by key")
    parser.add_argument("--list", action="store_true", help="print the rows' keys and stop")
    parser.add_argument(
        "--quick", action="store_true", help="smaller work, for a look at the direction; bars do not count"
    )
    parser.add_argument("--repetitions", type=int, default=3, help="turns of every side (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found as JSON")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="rows of an earlier --json that are not measured now")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page of the docs")
    return parser


def _wanted(parser: argparse.ArgumentParser, only: Sequence[str] | None) -> frozenset[str]:
    for key in only or ():
        if key not in WORKS:
            near = difflib.get_close_matches(key, WORKS, 1)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known are {', '.join(WORKS)}"
            parser.error(f"there is no row '{key}'{hint}")
    return frozenset(only or WORKS)


def _earlier(parser: argparse.ArgumentParser, keep: Path | None, facts: Mapping[str, str]) -> dict[str, Outcome]:
    if keep is None:
        return {}
    try:
        known, outcomes = table.outcomes_of(keep.read_text(encoding="utf-8"), WORKS)
    except (OSError, ValueError) as error:
        parser.error(f"--keep {keep}: {error}")
    if known != dict(facts):
        parser.error(f"--keep {keep}: measured on another machine or with other packages")
    return {outcome.key: outcome for outcome in outcomes}


def _hold_to_one_thread() -> None:
    # Read by OpenMP when a library is loaded: torch must not have been, and is not before the first theme.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    warnings.simplefilter("ignore")  # the peers' own deprecations are theirs
    one_thread()


def _tell(row: Row) -> None:
    cells = table.cells(row)
    print(f"{row.work.key}: {', '.join(cells[2:])} {table.why(row)}".rstrip(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
