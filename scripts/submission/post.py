"""Post a review to its pull request through GitHub's gh: ``python scripts/submission/post.py FOLDER --head COMMIT``.

FOLDER is what the verifying job left: ``review.json`` and ``number``. Both may be a stranger's. So the table is made
here from the checked facts, and the number is believed only where that pull request's head is the commit that was
reviewed. A comment of an earlier run is replaced.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from tlbench.cli.steps import run_step
from tlbench.errors import StoreError
from tlbench.records.inventory import read_json
from tlbench.submissions.comment import MARK, as_markdown
from tlbench.submissions.facts import Reviews

MAX_BYTES = 5_000_000
_PLACE = "repos/{owner}/{repo}"  # gh fills them in
_OWN = f'.[] | select(.user.login == "github-actions[bot]" and (.body | startswith("{MARK}"))) | .id'


def gh(*words: str) -> str:
    """Return what gh prints."""
    return subprocess.run(["gh", *words], check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    """Post, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--head", required=True, help="commit that was reviewed")
    options = parser.parse_args()
    try:
        reviews = Reviews.model_validate(read_json(options.folder / "review.json", MAX_BYTES))
        number = (options.folder / "number").read_text(encoding="ascii")[:20].strip()
    except (StoreError, ValidationError, OSError, ValueError) as problem:
        print(f"{options.folder}: expected a review, got none ({type(problem).__name__})", file=sys.stderr)
        return 2
    if not number.isdecimal():
        print(f"{options.folder / 'number'}: expected a number, got {number!r}", file=sys.stderr)
        return 2
    head = gh("api", f"{_PLACE}/pulls/{number}", "--jq", ".head.sha")
    if head != options.head:
        print(f"pull request {number} has another head now: nothing is posted", file=sys.stderr)
        return 0
    with tempfile.NamedTemporaryFile("w", suffix=".md", encoding="utf-8") as file:
        file.write(as_markdown(reviews))
        file.flush()
        before = gh("api", "--paginate", f"{_PLACE}/issues/{number}/comments", "--jq", _OWN).split()
        if before:
            gh("api", "-X", "PATCH", f"{_PLACE}/issues/comments/{before[0]}", "-F", f"body=@{file.name}")
        else:
            gh("api", "-X", "POST", f"{_PLACE}/issues/{number}/comments", "-F", f"body=@{file.name}")
    return 0


if __name__ == "__main__":
    sys.exit(run_step(main))
