"""Which image is which: the names, clusters and groups that a suite's lock gives to the rows of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from tlbench.records.lock import Key, read_lock
from tlbench.records.manifest import Manifest
from tlbench.suites.load import suites_folder
from tlbench.suites.spec import PART_OF_ROLE, Role, Suite

_SET: Final = ["task", "source", "target", "role", "split_hash"]


def lock_path(suite: Suite) -> Path:
    """Return where the lock of a released suite lies; it need not be there."""
    return suites_folder() / f"{suite.name}.lock.parquet"


def with_images(rows: pd.DataFrame, suite: Suite | None, lock: Path | None = None) -> pd.DataFrame:
    """Return predictions with the columns ``image``, ``cluster`` and ``group``, null where no lock tells them.

    Parameters
    ----------
    rows : DataFrame
        Predictions with the task, source, target, role and split hash of their measurement.
    suite : Suite or None
    lock : Path, optional
        By default the ``lock_path`` of the suite.

    Returns
    -------
    DataFrame
        A set whose hash the lock does not give (other images, several sources in one order) keeps its nulls: a wrong
        name would be worse.

    Raises
    ------
    StoreError
        If a lock was given, or lies beside our suite, and cannot be read.
    """
    rows = rows.assign(image=None, cluster=None, group=None)
    path = lock or (lock_path(suite) if suite is not None else None)
    if suite is None or path is None or (lock is None and not path.is_file()):
        return rows.astype({"image": "str", "cluster": "str", "group": "str"})
    locked = read_lock(path)
    names, clusters, groups = (np.full(len(rows), None, dtype=object) for _ in range(3))
    groups_of_rows: dict[Any, Any] = dict(rows.groupby(_SET, sort=False).indices)
    for (task, source, target, role, split_hash), places in groups_of_rows.items():
        ids = rows["id"].to_numpy()[places]
        manifest = locked_set(locked, suite, task, source, target, role, int(ids.max()) + 1)
        if manifest is None or manifest.hash != split_hash:
            continue
        names[places] = np.array(manifest.names, dtype=object)[ids]
        if manifest.clusters is not None:
            clusters[places] = np.array(manifest.clusters, dtype=object)[ids]
        if manifest.groups is not None:
            groups[places] = np.array(manifest.groups, dtype=object)[ids]
    return rows.assign(image=names, cluster=clusters, group=groups).astype(
        {"image": "str", "cluster": "str", "group": "str"}
    )


def locked_set(
    locked: dict[Key, Manifest], suite: Suite, task: str, source: str, target: str, role: Role, n: int
) -> Manifest | None:
    """Return the first ``n`` images of a set as the lock has it, of the pair's classes where it has some."""
    whole = locked.get((task, target, PART_OF_ROLE[role]))
    if whole is None:
        return None
    chosen = [pair.classes for pair in suite.pairs_of(task) if pair.source == source and pair.target == target]
    if role == "ood-test" and chosen and chosen[0] is not None:
        labels = [whole.classes.index(name) for name in chosen[0] if name in whole.classes]
        whole = whole.take(np.flatnonzero(np.isin(whole.labels, labels)))
    return whole if n >= len(whole) else whole.take(np.arange(n))
