"""After a merge: verify what it brought and write ``verification.json``: ``python scripts/submission/merge.py BEFORE``.

Run in the branch that was merged into, BEFORE being its commit before. Every submission that has changed since is
verified with this checkout's code, in a copy, to which files that lie elsewhere are fetched. Exit code 0, or 4 where
one does not verify: it then stays self-reported.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import unquote

from tlbench.api.publishing import verify_submitted
from tlbench.errors import TlbenchError
from tlbench.records.inventory import VERIFICATION, read_inventory
from tlbench.submissions.changes import RESULTS
from tlbench.submissions.download import Policy, fetch_file
from tlbench.submissions.verify import Report, write_level
from tlbench.suites.load import load_suite

REFUSED = 4


def changed_since(repository: Path, before: str) -> list[Path]:
    """Return the submissions that are there and differ from a commit, what was not committed yet included."""
    command = ["git", "-C", str(repository), "diff", "--name-only", "-z", "--no-renames", before, "--", RESULTS]
    paths = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode().split("\0")[:-1]
    kept = [path.split("/") for path in paths if path.count("/") == 3 and not path.endswith(f"/{VERIFICATION}")]
    folders = {repository / RESULTS / parts[1] / parts[2] for parts in kept}
    return sorted(folder for folder in folders if (folder / "records.parquet").is_file())


def published_before(repository: Path, before: str, folder: Path, into: Path) -> Path:
    """Write what was published of a model at a commit below a folder, nothing where there was nothing; return it."""
    place = folder.relative_to(repository)
    command = ["git", "-C", str(repository), "archive", "--format=tar", before, "--", str(place)]
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
    parser.add_argument("before", help="commit before the merge")
    parser.add_argument("--repository", type=Path, default=Path())
    options = parser.parse_args()
    wrong = 0
    for folder in changed_since(options.repository, options.before):
        try:
            with tempfile.TemporaryDirectory(prefix="tlbench-before-") as name:
                report = verified(folder, published_before(options.repository, options.before, folder, Path(name)))
            print(ascii(report.to_text()).replace("\\n", "\n")[1:-1])
            print(write_level(folder, report))
        except TlbenchError as problem:
            print(ascii(f"{folder}: {problem}")[1:-1], file=sys.stderr)
            wrong += 1
    if wrong:
        print(f"{wrong} submissions stay self-reported", file=sys.stderr)
    return REFUSED if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
