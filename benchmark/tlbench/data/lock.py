"""Found data held against the lock of a released suite."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tlbench.errors import DataError
from tlbench.records.lock import Key, read_lock
from tlbench.records.manifest import Manifest

_SHOWN = 40


def check_lock(manifests: Sequence[Manifest], path: Path) -> None:
    """Hold splits against a lock; what was not prepared is not checked.

    Parameters
    ----------
    manifests : sequence of Manifest
    path : Path
        As written by ``records.lock.write_lock``.

    Raises
    ------
    DataError
        If any split differs: a table with one line a split, counts expected and found, and what differs.
    StoreError
        If the lock cannot be read.
    """
    locked = read_lock(path)
    differing = [
        _line(found, expected)
        for found in manifests
        if (expected := locked.get(_key(found))) is None or expected.hash != found.hash
    ]
    if not differing:
        return
    header = ("split", "expected", "found", "difference")
    shown = [header, *differing[:_SHOWN]]
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in shown]
    if len(differing) > _SHOWN:
        lines.append(f"... and {len(differing) - _SHOWN} more")
    raise DataError(
        f"{path.name}: {len(differing)} of {len(manifests)} splits are not those of the released suite; "
        "get the data that it names\n  " + "\n  ".join(lines)
    )


def _key(manifest: Manifest) -> Key:
    return manifest.task, manifest.domain, manifest.part


def _line(found: Manifest, expected: Manifest | None) -> tuple[str, str, str, str]:
    split = f"{found.scope} {found.part}"
    if expected is None:
        return split, "-", str(len(found)), "not in the lock"
    return split, str(len(expected)), str(len(found)), _difference(found, expected)


def _difference(found: Manifest, expected: Manifest) -> str:
    """Return the first thing that differs, from the coarse to the fine."""
    if found.classes != expected.classes:
        strange = sorted(set(found.classes) ^ set(expected.classes))
        return f"class '{strange[0]}'" if strange else "order of the classes"
    if found.image_size != expected.image_size:
        return f"image size {found.image_size}, expected {expected.image_size}"
    if found.names != expected.names:
        strange = sorted(set(found.names) ^ set(expected.names))
        whose = "missing" if strange and strange[0] in set(expected.names) else "unexpected"
        return f"{len(strange)} images, such as '{strange[0]}' ({whose})" if strange else "order of the images"
    if not np.array_equal(found.labels, expected.labels):
        return f"{int((found.labels != expected.labels).sum())} labels"
    return f"pixels {found.pixels[:12]}, expected {expected.pixels[:12]}"
