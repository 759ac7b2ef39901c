"""Outputs in files, one image of one set a row: written while they are measured, and checked before they are believed.

Whoever computed outputs elsewhere gives them in this form, and what an evaluation keeps of its own has it too.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from tlbench.errors import DataError, listed, nearest
from tlbench.records.files import explained, temporary
from tlbench.records.record import FitKey, Precision
from tlbench.records.schema import OUTPUTS

OUTPUT_KEYS: Final = ("task", "source", "target", "role", "image", "seed")
_GROUP_BYTES: Final = 8 * 2**20
_PRECISION: Final = b"tlbench_precision"
"""In a Parquet file's metadata; a file without it is of float32."""


@dataclass(frozen=True, eq=False)
class OutputsFile:
    """The content of a file of outputs, or of a folder of them.

    Attributes
    ----------
    path : Path
    sha256 : str
        Of the file's bytes; of a folder, of the hashes of its files in the order of their names.
    task, source, target, role, image : object arrays of str, shape (n,)
    seed : int64 array, shape (n,)
    outputs : float64 array, shape (n, classes)
        NaN beyond an image's own number of outputs, where the files of a folder differ in it.
    width : int64 array, shape (n,)
        An image's own number of outputs.
    precision : {"float32", "bfloat16"}
        Of the forward passes that they come from; float32 where the file does not say.
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
    width: NDArray[np.int64]
    precision: Precision = "float32"

    def __len__(self) -> int:
        return len(self.seed)


def read_outputs(path: Path) -> OutputsFile:
    """Return the content of a Parquet or CSV file of outputs, or of a folder of Parquet files.

    Parameters
    ----------
    path : Path
        With the columns ``task``, ``source``, ``target``, ``role``, ``image``, ``seed``, and either ``output_0`` to
        ``output_{classes - 1}`` or, in Parquet, a list column ``outputs``.

    Raises
    ------
    DataError
        If the file cannot be read, a column is missing or of another kind, or a value is null; or if the files of a
        folder are of several precisions.
    """
    if path.is_dir():
        return _joined(path, [read_outputs(file) for file in _files(path)])
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
    outputs = _outputs(path, table)
    width = np.full(len(outputs), outputs.shape[1], dtype=np.int64)
    return OutputsFile(
        path, digest, **words, seed=seed, outputs=outputs, width=width, precision=_precision(path, table)
    )


def _precision(path: Path, table: pa.Table) -> Precision:
    said = (table.schema.metadata or {}).get(_PRECISION, b"float32").decode(errors="replace")
    for known in get_args(Precision):
        if said == known:
            return known  # type: ignore[no-any-return]
    raise DataError(f"{path}: expected outputs in {listed(get_args(Precision))}, its metadata says '{said}'")


def _files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.parquet"))
    if not files:
        found = {file.parent for file in folder.rglob("*.parquet")}
        # A run folder holds other tables, too.
        deeper = [one for one in sorted(found) if "outputs" in one.parts] or sorted(found)
        named = [str(one.relative_to(folder)) for one in deeper]
        way_out = f"; give one of the folders in it, {listed(named)}" if named else ""
        raise DataError(
            f"{folder}: expected a folder with the outputs of one variant, as --keep-outputs leaves them in "
            f".../outputs/<variant>/<shots>, found no Parquet files{way_out}"
        )
    return files


def _joined(folder: Path, parts: Sequence[OutputsFile]) -> OutputsFile:
    _check_precisions(folder, parts)
    widest = max(part.outputs.shape[1] for part in parts)
    outputs = np.full((sum(len(part) for part in parts), widest), np.nan)
    start = 0
    for part in parts:
        outputs[start : start + len(part), : part.outputs.shape[1]] = part.outputs
        start += len(part)
    words = {name: np.concatenate([getattr(part, name) for part in parts]) for name in OUTPUT_KEYS}
    width = np.concatenate([part.width for part in parts])
    digest = hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()
    return OutputsFile(folder, digest, **words, outputs=outputs, width=width, precision=parts[0].precision)


def _check_precisions(folder: Path, parts: Sequence[OutputsFile]) -> None:
    first_of = {part.precision: part.path.name for part in reversed(parts)}
    if len(first_of) > 1:
        told = " and ".join(f"{precision} ({name})" for precision, name in sorted(first_of.items()))
        raise DataError(f"{folder}: expected outputs of one precision, got {told}; give each a folder of its own")


def kept_outputs(folder: Path, key: FitKey, variant: str, measurement_id: str) -> Path:
    """Return where the outputs of a clean set are kept below a model's folder.

    What lies in one folder is of one variant and amount of shots, and no set is in it twice: it can be scored.
    """
    place = folder / "outputs" / _quoted(variant) / key.shots
    if key.fit_target is not None:
        place = place / _quoted(key.fit_target)
    return place / f"{measurement_id}.parquet"


def _quoted(name: str) -> str:
    # quote leaves dots alone, and a folder's name must not begin with one.
    return quote(name, safe="()=,+-_ ").replace(".", "%2E", 1 if name.startswith(".") else 0)


@contextlib.contextmanager
def writing_outputs(
    path: Path, key: FitKey, *, target: str, role: str, names: Sequence[str], precision: Precision = "float32"
) -> Iterator[OutputsWriter]:
    """Yield what takes the outputs for one set; the file appears once the block ends without an error.

    Parameters
    ----------
    path : Path
    key : FitKey
        For task, source and seed.
    target, role : str
    names : sequence of str
        The images' names, by their ids.
    precision : {"float32", "bfloat16"}
        Of the forward passes; it stands in the file's metadata.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        written = temporary(path)
        facts: dict[str, str | int] = {
            "task": key.task,
            "source": key.source,
            "target": target,
            "role": role,
            "seed": key.seed,
        }
        schema = OUTPUTS.with_metadata({**(OUTPUTS.metadata or {}), _PRECISION: precision.encode()})
        options: dict[str, Any] = {"use_dictionary": list(OUTPUT_KEYS), "write_statistics": False}
        try:
            with pyarrow.parquet.ParquetWriter(written, schema, compression="zstd", **options) as file:
                writer = OutputsWriter(file, facts, names)
                yield writer
                writer.flush()
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)


class OutputsWriter:
    """Writes outputs batch by batch and holds no more than a few megabytes of them."""

    def __init__(self, file: pyarrow.parquet.ParquetWriter, facts: dict[str, str | int], names: Sequence[str]) -> None:
        self._file = file
        self._facts = facts
        self._names = names
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
        self._bytes = 0

    def add(self, ids: NDArray[np.int64], outputs: NDArray[np.float32]) -> None:
        """Take the outputs for some images, shape (n, classes), by the images' ids."""
        self._waiting.append((ids, outputs))
        self._bytes += outputs.nbytes
        if self._bytes >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has been taken."""
        if not self._waiting:
            return
        ids = np.concatenate([ids for ids, _ in self._waiting])
        outputs = np.concatenate([outputs for _, outputs in self._waiting])
        n, classes = outputs.shape
        starts = pa.array(np.arange(0, n * classes + 1, classes, dtype=np.int32))
        columns = {
            **{name: pa.array([value] * n, OUTPUTS.field(name).type) for name, value in self._facts.items()},
            "image": pa.array([self._names[i] for i in ids], pa.string()),
            "outputs": pa.ListArray.from_arrays(starts, pa.array(outputs.reshape(-1))),
        }
        self._file.write_table(pa.Table.from_arrays([columns[name] for name in OUTPUTS.names], schema=OUTPUTS))
        self._waiting, self._bytes = [], 0


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
        lengths = sorted(set(pyarrow.compute.list_value_length(column).fill_null(0).to_pylist()))
        if len(lengths) != 1:
            raise DataError(f"{path}: column 'outputs': expected lists of one length, got {lengths[:4]}")
        # An output that is missing becomes NaN, which nothing is predicted from.
        flat: NDArray[np.float64] = column.flatten().cast(pa.float64()).to_numpy(zero_copy_only=False)
        return flat.reshape(len(table), -1)
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
