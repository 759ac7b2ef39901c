"""Rows of scale, absolute and a guide: the study's whole results on a board, and a million predictions scored again.

``python -m speed.large FOLDER`` loads and ranks what lies in a folder, in a process of its own so that its peak of
memory is its own, and prints the seconds and bytes as JSON.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speed.measure import Effort, alternate
from speed.rows import Outcome
from speed.scale import MODELS, SUITE, write_results
from tlbench.leaderboard.board import make_board, needed
from tlbench.leaderboard.tables import load_priced, load_scored
from tlbench.metrics.evaluate import measure_clean
from tlbench.records.precision import as_stored
from tlbench.suites.load import load_suite

CLASSES, BINS = 345, 15


def measure(wanted: Collection[str], effort: Effort) -> Iterator[Outcome]:
    """Measure the rows of scale."""
    if "load-and-rank" in wanted:
        yield _loading(effort)
    if "rescore" in wanted:
        columns = predictions(effort.size(1_000_000, 100_000))
        timed = alternate({"ours": lambda: rescored(columns)}, repetitions=effort.repetitions)
        yield Outcome("rescore", ours_seconds=timed["ours"].median, note=f"{len(timed['ours'].result)} metrics")


def _loading(effort: Effort) -> Outcome:
    with TemporaryDirectory(prefix="speed-large-") as name:
        folder = Path(name) / "results"
        size = write_results(folder, models=effort.size(MODELS, 6))
        command = [sys.executable, "-m", "speed.large", str(folder)]
        # What goes wrong in the process is told on its standard error, which is this one's.
        runs = [
            json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            for _ in range(effort.repetitions)
        ]
    peak = max(run["peak_bytes"] for run in runs) / 1e9
    note = f"{size.records} records of {size.fits} fits; at its peak {peak:.1f} GB, a guide is 4"
    return Outcome("load-and-rank", ours_seconds=median(run["seconds"] for run in runs), note=note)


def load_and_rank(folder: Path) -> int:
    """Load the results below a folder and rank them; return the number of the board's rows."""
    suite = load_suite(SUITE)
    nowhere = folder / "no-local-results"
    records = load_scored(suite, needed(suite, None), run_dir=nowhere, results=folder)
    fits = load_priced(suite, run_dir=nowhere, results=folder)
    return len(make_board(records, fits, suite).frame)


def predictions(n: int) -> dict[str, NDArray[Any]]:
    """Return the stored columns of ``n`` clean predictions, made up."""
    draw = np.random.default_rng(0)
    label = draw.integers(CLASSES, size=n).astype(np.int32)
    rank = np.minimum(draw.geometric(0.6, size=n) - 1, CLASSES - 1).astype(np.int32)
    predicted = np.where(rank == 0, label, (label + 1) % CLASSES).astype(np.int32)
    confidence = draw.uniform(1 / CLASSES, 1, size=n)
    likelihood = np.where(rank == 0, np.log(confidence), np.log1p(-confidence) - draw.exponential(size=n))
    columns = {"confidence": confidence, "log_likelihood": likelihood, "brier": draw.uniform(0, 2, size=n)}
    columns |= {f"{name}_scaled": column for name, column in columns.items()}
    columns["scale_derivative"] = draw.normal(size=n)
    stored = {name: as_stored(column) for name, column in columns.items()}
    return {"id": np.arange(n, dtype=np.int32), "label": label, "predicted": predicted, "rank": rank, **stored}


def rescored(columns: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Return every metric of a clean set from its stored columns."""
    return dict(measure_clean(columns, classes=CLASSES, bins=BINS, closed="right", class_bins=None))


def _main() -> None:
    start = time.process_time()
    rows = load_and_rank(Path(sys.argv[1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kilobytes elsewhere
    print(json.dumps({"seconds": time.process_time() - start, "rows": rows, "peak_bytes": peak * unit}))


if __name__ == "__main__":
    _main()
