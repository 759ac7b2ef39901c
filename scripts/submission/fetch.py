"""Fetch the files of submissions that lie elsewhere: ``python scripts/submission/fetch.py FOLDER [FOLDER ...]``.

A FOLDER is a submission, or holds some (``results/<suite>/<model>`` below it). Only known hosts are asked, over https,
for as many bytes as ``submission.json`` states, and what comes must have the hash that it states. Exit code 0, 2 where
a folder is not there, or 4 where a file was refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tlbench.cli.steps import run_step
from tlbench.errors import TlbenchError
from tlbench.records.inventory import INVENTORY, read_inventory
from tlbench.submissions.download import Policy, fetch_file

REFUSED, USAGE = 4, 2


def fetch(folder: Path, policy: Policy | None = None) -> list[Path]:
    """Return the files that were fetched into a submission's folder; raises `TlbenchError` where one was not."""
    inventory = read_inventory(folder)
    return [fetch_file(name, fact, folder, policy) for name, fact in (inventory.elsewhere if inventory else {}).items()]


def main() -> int:
    """Fetch what every folder lacks; go on where one is refused, so that all problems are told at once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--refused", type=Path, help="write what was refused to this file, a line each")
    options = parser.parse_args()
    absent = [f"{root}: expected a folder, found none" for root in options.folders if not root.is_dir()]
    refused: list[str] = []
    for root in options.folders:
        for path in sorted({*root.glob(INVENTORY), *root.glob(f"results/*/*/{INVENTORY}")}):
            try:
                for fetched in fetch(path.parent):
                    print(f"{fetched}: {fetched.stat().st_size:,} bytes")
            except TlbenchError as problem:
                # As in results/<suite>/<model>, whatever the folder that holds them is called here.
                refused.append(ascii(f"{path.parent.relative_to(root)}: {problem}")[1:-1])
    for line in [*absent, *refused]:
        print(line, file=sys.stderr)
    if options.refused is not None:
        options.refused.write_text("".join(f"{line}\n" for line in [*absent, *refused]), encoding="utf-8")
    return REFUSED if refused else USAGE if absent else 0


if __name__ == "__main__":
    sys.exit(run_step(main))
