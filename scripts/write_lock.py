"""Write the lock of a released suite: which image stands at which place of which split.

Run once when a suite is released, from a checkout: ``python scripts/write_lock.py digits``. From then on the suite's
splits are held against ``suites/digits.lock.parquet`` before anything is computed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tlbench.data.prepare import SuiteData
from tlbench.records.lock import write_lock
from tlbench.suites.load import find_suite, load_suite


def main() -> None:
    """Write the lock beside the suite's file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", help="a name of ours, or a TOML file")
    parser.add_argument("--data-root", type=Path, help="where the data are, if not beside the suite's file")
    arguments = parser.parse_args()
    path = find_suite(arguments.suite)
    data = SuiteData(load_suite(arguments.suite), base=path.parent, data_root=arguments.data_root)
    manifests = data.manifests()
    lock = path.with_suffix(".lock.parquet")
    write_lock(lock, manifests)
    print(f"{lock}: {len(manifests)} splits, {sum(len(m) for m in manifests)} images")


if __name__ == "__main__":
    main()
