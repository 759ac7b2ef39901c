"""After a merge: verify what it brought and write ``verification.json``: ``python scripts/submission/merge.py BEFORE``.

Run in the branch that was merged into, BEFORE being its commit before. Every submission that has changed since is
verified with this checkout's code, in a copy, to which files that lie elsewhere are fetched. With ``--all`` in place of
BEFORE every submission is, changed or not. Exit code 0, 2 where the commit is not there, or 4 where a submission does
not verify: it then stays self-reported.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import unquote

from tlbench.api.publishing import verify_submitted
from tlbench.cli.steps import run_step
from tlbench.errors import TlbenchError, UsageError
from tlbench.records.inventory import SUBMITTED, VERIFICATION, read_inventory
from tlbench.submissions.changes import RESULTS
from tlbench.submissions.download import Policy, fetch_file
from tlbench.submissions.verify import Report, write_level
from tlbench.suites.load import load_suite

REFUSED = 4


def submissions(repository: Path) -> list[Path]:
    """Return every folder that is, or ought to be, a submission."""
    folders = sorted((repository / RESULTS).glob("[!.]*/[!.]*/"))
    return [folder for folder in folders if any(os.path.lexists(folder / name) for name in SUBMITTED)]


def changed_since(repository: Path, before: str) -> list[Path]:
    """Return the submissions that are there and differ from a commit, what was not committed yet included."""
    command = ["git", "-C", str(repository), "diff", "--name-only", "-z", "--no-renames", before, "--", RESULTS]
    paths = subprocess.run(command, check=True, capture_output=True).stdout.decode().split("\0")[:-1]
    kept = [path.split("/") for path in paths if path.count("/") == 3 and not path.endswith(f"/{VERIFICATION}")]
    folders = {repository / RESULTS / parts[1] / parts[2] for parts in kept}
    return [folder for folder in submissions(repository) if folder in folders]


def commit_of(repository: Path, name: str) -> str:
    """Return the hash of a commit."""
    command = ["git", "-C", str(repository), "rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except subprocess.CalledProcessError as problem:
        said = problem.stderr.strip().removeprefix("fatal: ")
        raise UsageError(f"{repository}: expected the commit {name!r}, found none ({said})") from None


def published_before(repository: Path, before: str, suite: str, into: Path) -> Path:
    """Write what was published of a suite at a commit below a folder, nothing where there was nothing; return it."""
    if not (into / RESULTS / suite).is_dir():
        command = ["git", "-C", str(repository), "archive", "--format=tar", before, "--", f"{RESULTS}/{suite}"]
        archive = subprocess.run(command, capture_output=True)
        if archive.returncode == 0:  # else the commit has no such folder
            with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
                files.extractall(into, filter="data")
    return into / RESULTS


def verified(folder: Path, results: Path, policy: Policy | None = None) -> Report:
    """Return the report on a copy of a submission, whole: with the files that lie elsewhere."""
    with tempfile.TemporaryDirectory(prefix="tlbench-merge-") as name:
        copy = Path(name) / "submission"
        shutil.copytree(folder, copy, symlinks=True)
        inventory = read_inventory(copy)
        for file, fact in (inventory.elsewhere if inventory else {}).items():
            fetch_file(file, fact, copy, policy)
        suite = load_suite(folder.parent.name)
        return verify_submitted(copy, suite=suite, model=unquote(folder.name), results=results)


def main() -> int:
    """Write the level of every submission that verifies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", nargs="?", help="commit before the merge")
    parser.add_argument("--all", action="store_true", help="verify every submission that is there, changed or not")
    parser.add_argument("--repository", type=Path, default=Path())
    options = parser.parse_args()
    repository: Path = options.repository
    if options.all == (options.before is not None):
        raise UsageError("expected the commit before the merge, or --all")
    if not (repository / RESULTS).is_dir():
        raise UsageError(f"{repository}: expected a checkout with a folder '{RESULTS}', found none")
    before = None if options.all else commit_of(repository, options.before)
    folders = submissions(repository) if before is None else changed_since(repository, before)
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="tlbench-before-") as name:
        for folder in folders:
            suite, results = folder.parent.name, repository / RESULTS
            try:
                if before is not None:
                    results = published_before(repository, before, suite, Path(name))
                report = verified(folder, results)
                print(ascii(report.to_text()).replace("\\n", "\n")[1:-1])
                print(write_level(folder, report))
            except TlbenchError as problem:
                print(ascii(f"{folder}: {problem}")[1:-1], file=sys.stderr)
                wrong += 1
    if wrong:
        print(f"{wrong} submissions stay self-reported", file=sys.stderr)
    return REFUSED if wrong else 0


if __name__ == "__main__":
    sys.exit(run_step(main))
