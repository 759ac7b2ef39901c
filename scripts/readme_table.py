"""Write the published board into the README, between its markers: ``python scripts/readme_table.py [--check]``."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.measured import load_measured
from tlbench.leaderboard.tables import load_fits, load_results
from tlbench.suites.load import load_suite

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"(<!-- leaderboard:(?P<suite>[A-Za-z0-9._-]+) -->\n)(?P<table>.*?)(<!-- /leaderboard -->)", re.DOTALL
)


def board_as_markdown(suite: str, results: Path) -> str:
    """Return the published board of a suite, without variants; nobody's local results have a part in it."""
    loaded = load_suite(suite)
    places = {"run_dir": results / "none", "results": results}
    records, fits = load_results(loaded, **places), load_fits(loaded, **places)
    measured = load_measured(loaded, records=records, **places)
    board = make_board(records, fits, loaded, measured=measured)
    # A line of eleven soups says nothing to who meets the board for the first time.
    ranked_or_named = board.frame[board.frame["standing"] != "variant"].reset_index(drop=True)
    return replace(board, frame=ranked_or_named).to_text("markdown")


def with_boards(text: str, results: Path) -> str:
    """Return a page with every marked block made anew."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{board_as_markdown(found['suite'], results)}\n{found[4]}", text)


def main() -> int:
    """Rewrite the page, or with ``--check`` exit with 1 where it is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is stale")
    parser.add_argument("--page", type=Path, default=ROOT / "README.md")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    options = parser.parse_args()
    text = options.page.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        print(
            f"{options.page}: expected the markers <!-- leaderboard:SUITE --> and <!-- /leaderboard -->",
            file=sys.stderr,
        )
        return 2
    made = with_boards(text, options.results)
    if options.check and made != text:
        print(f"{options.page}: the board is stale; run python scripts/readme_table.py", file=sys.stderr)
        return 1
    if not options.check:
        options.page.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
