"""Verify submissions and tell where they would stand: ``python scripts/submission/check.py FOLDER --results results``.

FOLDER is what ``changed.py --out`` has written: ``results/<suite>/<model>`` below it, with what ``fetch.py`` added. The
review is written as JSON (``--out``) and printed as Markdown. Exit code 0, 2 where a file or folder is not there or
not what it should be, or 4 where not every number was recomputed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from urllib.parse import unquote

from tlbench.api.publishing import verify_submitted
from tlbench.cli.steps import run_step
from tlbench.errors import StoreError, TlbenchError, UsageError
from tlbench.records.inventory import read_json
from tlbench.records.published import PublishedModel
from tlbench.submissions.comment import as_markdown
from tlbench.submissions.facts import CheckFact, Review, Reviews
from tlbench.submissions.review import review
from tlbench.suites.load import load_suite, suite_names

REFUSED = 4
MAX_BYTES = 20_000_000


def below(folder: Path) -> list[PublishedModel]:
    """Return every submission below a folder, whatever files it lacks."""
    places = sorted(folder.glob("results/*/*/"))
    return [PublishedModel(place, place.parent.name, unquote(place.name)) for place in places]


def reviewed(found: PublishedModel, results: Path) -> Review:
    """Return the review of one submission; whatever is in its files, this ends in words."""
    try:
        if found.suite not in suite_names():
            raise TlbenchError(f"there is no suite {found.suite!r}; a suite comes in a pull request of its own")
        suite = load_suite(found.suite)
        report = verify_submitted(found.folder, suite=suite, model=found.model, results=results)
        return review(found.folder, suite, found.model, report, results=results)
    except TlbenchError as problem:
        why = CheckFact(name="readable", status="mismatch", summary=" ".join(str(problem).split())[:1000])
        return Review(
            suite=found.suite,
            suite_version=0,
            model=found.model,
            ok=False,
            level="self-reported",
            numbers=0,
            checks=(why,),
        )


def problems_of(changed: Path) -> list[str]:
    """Return the problems that ``changed.py`` has printed."""
    problems = read_json(changed, MAX_BYTES).get("problems")
    if not isinstance(problems, list):
        raise StoreError(f"{changed}: expected what changed.py prints, with a list of 'problems'")
    return [str(problem) for problem in problems]


def main() -> int:
    """Write and print the reviews of all submissions below a folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--results", type=Path, help="the published results; default: results")
    parser.add_argument("--changed", type=Path, help="what changed.py printed: its problems are told, too")
    parser.add_argument("--fetched", type=Path, help="what fetch.py refused: a line each, told, too")
    parser.add_argument("--out", type=Path, help="where to write the review as JSON")
    options = parser.parse_args()
    problems = problems_of(options.changed) if options.changed else []
    refused = options.fetched.read_text(encoding="utf-8", errors="replace").splitlines() if options.fetched else []
    if options.results is not None and not options.results.is_dir():
        raise UsageError(f"--results {options.results}: expected a folder of published results, found none")
    # Of a request that was refused nothing has been copied.
    if not problems and not options.folder.is_dir():
        raise UsageError(f"{options.folder}: expected the folder that changed.py --out has written, found none")
    results = options.results or Path("results")
    models = [] if problems else below(options.folder)
    reviews = Reviews(
        problems=tuple(str(problem)[:2000] for problem in [*problems, *refused][:1000]),
        reviews=tuple(reviewed(found, results) for found in models),
    )
    if options.out is not None:
        options.out.write_text(reviews.model_dump_json(indent=1), encoding="utf-8")
    print(as_markdown(reviews), end="")
    whole = all(one.ok and one.level == "recomputed" for one in reviews.reviews)
    return REFUSED if problems or refused or not models or not whole else 0


if __name__ == "__main__":
    sys.exit(run_step(main))
