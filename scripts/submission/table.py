"""The comment of a pull request from ``review.json``: ``python scripts/submission/table.py review.json > comment.md``.

The file may have been made by a job that a stranger could change: it is held to its form, and all its texts are shown
as code.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from tlbench.cli.steps import run_step
from tlbench.errors import StoreError
from tlbench.records.inventory import read_json
from tlbench.submissions.comment import as_markdown
from tlbench.submissions.facts import Reviews

MAX_BYTES = 5_000_000


def main() -> int:
    """Print the Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("review", type=Path)
    options = parser.parse_args()
    try:
        reviews = Reviews.model_validate(read_json(options.review, MAX_BYTES))
    except StoreError as problem:
        print(problem, file=sys.stderr)
        return 2
    except ValidationError as problem:
        print(f"{options.review}: expected a review ({problem.error_count()} errors)", file=sys.stderr)
        return 2
    print(as_markdown(reviews), end="")
    return 0


if __name__ == "__main__":
    sys.exit(run_step(main))
