"""A file of outputs that somebody computed elsewhere: one image of one set a row, checked before it is believed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from tlbench.errors import DataError, listed, nearest

OUTPUT_KEYS: Final = ("task", "source", "target", "role", "image", "seed")


@dataclass(frozen=True, eq=False)
class OutputsFile:
    """The content of a file of outputs.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the file's bytes.
    task, source, target, role, image : object arrays of str, shape (n,)
    seed : int64 array, shape (n,)
    outputs : float64 array, shape (n, classes)
    """

    path: Path
    sha256: str
    task: NDArray[np.object_]
    source: NDArray[np.object_]
    target: NDArray[np.object_]
    role: NDArray[np.object_]
    image: NDArray[np.object_]
    seed: NDArray[np.int64]
    outputs: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.seed)


def read_outputs(path: Path) -> OutputsFile:
    """Return the content of a Parquet or CSV file of outputs.

    Parameters
    ----------
    path : Path
        With the columns ``task``, ``source``, ``target``, ``role``, ``image``, ``seed``, and either ``output_0`` to
        ``output_{classes - 1}`` or, in Parquet, a list column ``outputs``.

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing or of another kind, or a value is null.
    """
    table = _read(path)
    for name in OUTPUT_KEYS:
        if name not in table.column_names:
            raise DataError(f"{path}: column '{name}' is missing{nearest(name, table.column_names)}")
        if table.column(name).null_count:
            raise DataError(
                f"{path}: column '{name}': {table.column(name).null_count} of {len(table)} values are missing"
            )
    if not len(table):
        raise DataError(f"{path}: expected outputs, the file has no rows")
    words = {name: _text(path, table, name) for name in OUTPUT_KEYS if name != "seed"}
    try:
        seed = table.column("seed").cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        raise DataError(f"{path}: column 'seed': expected whole numbers, got {table.column('seed').type}") from None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return OutputsFile(path, digest, **words, seed=seed, outputs=_outputs(path, table))


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise DataError(f"{path}: expected a Parquet or CSV file of outputs, found nothing")
    try:
        if path.suffix == ".csv":
            # Names of images and domains may look like numbers; they are names.
            kinds = {name: pa.string() for name in OUTPUT_KEYS if name != "seed"}
            return pyarrow.csv.read_csv(path, convert_options=pyarrow.csv.ConvertOptions(column_types=kinds))
        if path.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                return file.read()
    except (pa.ArrowInvalid, OSError) as problem:
        raise DataError(f"{path}: cannot be read: {str(problem).splitlines()[0]}") from None
    raise DataError(f"{path}: expected a file that ends in .parquet or .csv, got '{path.suffix}'")


def _text(path: Path, table: pa.Table, name: str) -> NDArray[np.object_]:
    try:
        return np.array(table.column(name).cast(pa.string()).to_pylist(), dtype=object)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise DataError(f"{path}: column '{name}': expected text, got {table.column(name).type}") from None


def _outputs(path: Path, table: pa.Table) -> NDArray[np.float64]:
    numbered = [name for name in table.column_names if name.startswith("output_")]
    if "outputs" in table.column_names and not numbered:
        column = table.column("outputs").combine_chunks()
        kind = column.type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            raise DataError(f"{path}: column 'outputs': expected lists of numbers, got {kind}")
        rows = column.to_pylist()
        lengths = {len(row) if row is not None else 0 for row in rows}
        if len(lengths) != 1:
            raise DataError(f"{path}: column 'outputs': expected lists of one length, got {sorted(lengths)[:4]}")
        return np.array(rows, dtype=np.float64)
    expected = [f"output_{place}" for place in range(len(numbered))]
    if not numbered or sorted(numbered) != sorted(expected):
        raise DataError(
            f"{path}: expected the columns 'outputs', or 'output_0', 'output_1', ..., got {listed(numbered)}"
        )
    try:
        columns = [table.column(name).cast(pa.float64()).to_numpy() for name in expected]
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
        raise DataError(f"{path}: outputs: expected numbers ({str(problem).splitlines()[0]})") from None
    return np.stack(columns, axis=1)
