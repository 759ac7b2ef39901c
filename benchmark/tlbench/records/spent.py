"""How long each measurement took, a line each: what has been spent is told from it, and no number depends on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from tlbench.records.files import explained

_FILE: Final = "seconds.txt"


def note_seconds(folder: Path, measurement_id: str, seconds: float) -> None:
    """Append how long a measurement took to the file in a model's folder; several processes may at once."""
    path = folder / _FILE
    with explained(path):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            # One call: lines of several processes do not mix.
            os.write(file, f"{measurement_id} {seconds:.3f}\n".encode())
        finally:
            os.close(file)


def noted_seconds(folder: Path) -> dict[str, float]:
    """Return the seconds by measurement, all of them where it was made more than once.

    What a killed process left half written is passed over: it is missing, as are measurements of earlier versions.
    """
    try:
        lines = (folder / _FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    seconds: dict[str, float] = {}
    for line in lines:
        measurement_id, _, took = line.partition(" ")
        try:
            seconds[measurement_id] = seconds.get(measurement_id, 0.0) + float(took)
        except ValueError:
            continue
    return seconds
