"""The lock of a released suite: which images stood in which split, in one Parquet file beside the suite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tlbench.errors import StoreError
from tlbench.records.files import read_table, write_parquet
from tlbench.records.manifest import Manifest
from tlbench.records.schema import MANIFESTS

Key = tuple[str, str, str]
_METADATA = b"tlbench_splits"


def write_lock(path: Path, manifests: Sequence[Manifest]) -> None:
    """Write the manifests of a suite's splits in one rename.

    Raises
    ------
    StoreError
        If the file cannot be written.
    ValueError
        If two manifests are of one task, domain and part.
    """
    keys = [(m.task, m.domain, m.part) for m in manifests]
    if len(set(keys)) != len(keys):
        raise ValueError("expected one manifest a task, domain and part")
    splits = [
        {
            "task": m.task,
            "domain": m.domain,
            "part": m.part,
            "n": len(m),
            "classes": list(m.classes),
            "counts": m.counts(),
            "image_size": m.image_size,
            "pixels": m.pixels,
            "hash": m.hash,
        }
        for m in manifests
    ]
    table = pa.concat_tables([MANIFESTS.empty_table(), *(_rows(m) for m in manifests)])
    metadata = {**(MANIFESTS.metadata or {}), _METADATA: json.dumps(splits).encode()}
    write_parquet(path, table.replace_schema_metadata(metadata))


def read_lock(path: Path) -> dict[Key, Manifest]:
    """Return the locked manifests by task, domain and part.

    Raises
    ------
    StoreError
        If the file is missing, damaged, or holds rows that are not what its own hashes say.
    """
    table = read_table(path, None)
    columns = read_table(path, MANIFESTS).to_pydict()
    try:
        splits = json.loads((table.schema.metadata or {})[_METADATA])
        places: dict[Key, list[int]] = {}
        for row, key in enumerate(zip(columns["task"], columns["domain"], columns["part"], strict=True)):
            places.setdefault(key, []).append(row)
        return {
            (s["task"], s["domain"], s["part"]): _manifest(
                path, s, columns, places.get((s["task"], s["domain"], s["part"]), [])
            )
            for s in splits
        }
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path}: expected the lock of a suite, got a file without its facts ({error})") from None


def _rows(manifest: Manifest) -> pa.Table:
    n = len(manifest)
    return pa.table(
        {
            "task": [manifest.task] * n,
            "domain": [manifest.domain] * n,
            "part": [manifest.part] * n,
            "place": np.arange(n, dtype=np.int32),
            "name": list(manifest.names),
            "label": manifest.labels.astype(np.int32),
            "cluster": [None] * n if manifest.clusters is None else list(manifest.clusters),
            "group": [None] * n if manifest.groups is None else list(manifest.groups),
        },
        schema=MANIFESTS,
    )


def _manifest(path: Path, split: dict[str, Any], columns: dict[str, list[Any]], rows: list[int]) -> Manifest:
    rows = sorted(rows, key=lambda row: columns["place"][row])

    def facts(name: str) -> tuple[str, ...] | None:
        values = tuple(columns[name][row] for row in rows)
        return None if any(value is None for value in values) else values

    manifest = Manifest(
        task=split["task"],
        domain=split["domain"],
        part=split["part"],
        classes=tuple(split["classes"]),
        names=tuple(columns["name"][row] for row in rows),
        labels=np.array([columns["label"][row] for row in rows], dtype=np.int64),
        pixels=split["pixels"],
        image_size=split["image_size"],
        clusters=facts("cluster"),
        groups=facts("group"),
    )
    if manifest.hash != split["hash"]:
        raise StoreError(
            f"{path}: the rows of {manifest.scope}, {manifest.part} do not have the hash that the file states"
        )
    return manifest
