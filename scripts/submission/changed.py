"""Which submissions a pull request writes: ``python scripts/submission/changed.py BASE HEAD --out FOLDER``.

Git's lists are read and its blobs copied; nothing of the head is checked out, so none of its code, hooks, attributes or
links does anything. Prints JSON. Exit code 0, 2 where a commit or folder is not there, or 4 where the request is
refused: nothing is copied then.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tlbench.cli.steps import run_step
from tlbench.errors import UsageError
from tlbench.records.inventory import VERIFICATION
from tlbench.submissions.changes import (
    MAX_REQUEST_BYTES,
    RESULTS,
    Entry,
    Touched,
    read_changes,
    read_tree,
    touched,
    tree_problems,
)

REFUSED = 4


def git(repository: Path, *words: str) -> bytes:
    """Return what a command of Git prints; paths in it are literal."""
    command = ["git", "--literal-pathspecs", "-C", str(repository), *words]
    return subprocess.run(command, check=True, capture_output=True).stdout


def commit_of(repository: Path, name: str) -> str:
    """Return the hash of a commit, however it was named; a branch could be called like an option of Git."""
    try:
        found = git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except subprocess.CalledProcessError as problem:
        said = problem.stderr.decode("utf-8", "replace").strip().removeprefix("fatal: ")
        raise UsageError(
            f"{repository}: expected the commit {name!r}, found none{f' ({said})' if said else ''}"
        ) from None
    return found.decode("ascii").strip()


def found_in(repository: Path, base: str, head: str) -> tuple[dict[Touched, list[Entry]], list[str]]:
    """Return the submissions that a head writes on top of where it left the base, with their files, and problems."""
    raw = git(repository, "diff", "--raw", "-z", "--no-renames", "--no-abbrev", "--no-ext-diff", f"{base}...{head}")
    places, problems = touched(read_changes(raw))
    found = {}
    for place in places:
        entries = read_tree(git(repository, "ls-tree", "-r", "-z", "-l", head, "--", f"{place.path}/"))
        beside = git(repository, "ls-tree", "-z", "--name-only", head, "--", f"{RESULTS}/{place.suite}/")
        names = [path.rpartition(b"/")[2].decode("utf-8", "replace") for path in beside.split(b"\0")[:-1]]
        problems += tree_problems(place, entries, names)
        found[place] = [entry for entry in entries if not entry.path.endswith(f"/{VERIFICATION}")]
    total = sum(entry.size for entries in found.values() for entry in entries)
    if total > MAX_REQUEST_BYTES:
        problems.append(f"expected at most {MAX_REQUEST_BYTES:,} bytes in one pull request, got {total:,}")
    return found, problems


def copy(repository: Path, found: dict[Touched, list[Entry]], out: Path) -> None:
    """Write the files of the submissions below a folder, as plain files."""
    for place, entries in found.items():
        folder = out / place.path
        folder.mkdir(parents=True)
        for entry in entries:
            content = git(repository, "cat-file", "blob", entry.blob)
            (folder / entry.path.rpartition("/")[2]).write_bytes(content)


def main() -> int:
    """Print what was found, and copy it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="commit of the branch that is merged into")
    parser.add_argument("head", help="commit of the pull request")
    parser.add_argument("--repository", type=Path, default=Path())
    parser.add_argument("--out", type=Path, help="folder to copy the submissions' files to; must not hold any")
    options = parser.parse_args()
    if options.out is not None and (options.out.is_file() or (options.out.is_dir() and any(options.out.iterdir()))):
        raise UsageError(f"--out {options.out}: expected a folder that is empty or not there yet")
    base, head = (commit_of(options.repository, name) for name in (options.base, options.head))
    found, problems = found_in(options.repository, base, head)
    if options.out is not None and not problems:
        copy(options.repository, found, options.out)
    print(json.dumps({"problems": problems, "submissions": [asdict(place) for place in sorted(found)]}, indent=1))
    for problem in problems:
        print(problem, file=sys.stderr)
    return REFUSED if problems else 0


if __name__ == "__main__":
    sys.exit(run_step(main))
