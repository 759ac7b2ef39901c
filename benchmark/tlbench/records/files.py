"""How files are written and read: whole or not at all, of the written schema, and told why where that fails."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tlbench.errors import StoreError
from tlbench.records.coded import as_coded
from tlbench.records.schema import LATER, SCHEMA_VERSION

_HOST = platform.node().replace(".", "-") or "host"


def read_table(
    path: Path, schema: pa.Schema | None, columns: list[str] | None = None, *, coded: bool = False
) -> pa.Table:
    """Read a Parquet file, or some of its columns, and hold it to its schema.

    With ``coded``, which needs a schema, texts come as codes into a dictionary: what repeats a word a million times
    then takes four bytes each time.

    Raises
    ------
    StoreError
        If the file is missing, damaged, of another schema version or has other columns.
    """
    if schema is not None and columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    texts = [field.name for field in schema if field.type == pa.string()] if schema is not None and coded else None
    try:
        if texts is None:
            table = pq.read_table(path, columns=columns, partitioning=None)
        else:
            there = set(pq.read_schema(path).names)  # a column that came later may be absent
            with pq.ParquetFile(path, read_dictionary=[name for name in texts if name in there]) as file:
                table = file.read(columns=columns)
    except FileNotFoundError:
        raise StoreError(f"{path}: expected a Parquet file, found nothing") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise StoreError(f"{path}: not a readable Parquet file ({_first_line(error)})") from None
    version = (table.schema.metadata or {}).get(b"tlbench_schema", b"").decode()
    if version != str(SCHEMA_VERSION):
        raise StoreError(f"{path}: expected schema version {SCHEMA_VERSION}, got {version or 'none'}")
    if schema is None:
        return table
    for field in schema:
        if field.name in LATER and field.name not in table.column_names:
            table = table.append_column(field, pa.array([LATER[field.name]] * len(table), field.type))
    missing = [name for name in schema.names if name not in table.column_names]
    if missing:
        raise StoreError(f"{path}: column '{missing[0]}' is missing")
    if texts is not None:
        table, schema = as_coded(table), as_coded(schema.empty_table()).schema
    try:
        return table.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, ValueError) as error:
        raise StoreError(f"{path}: columns are not of the written schema ({_first_line(error)})") from None


def write_parquet(path: Path, table: pa.Table, *, atomic: bool = True) -> None:
    """Write a table as compact Parquet; in one rename, unless its folder appears by one."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        target = temporary(path) if atomic else path
        floats = [f.name for f in table.schema if pa.types.is_floating(f.type)]
        others = [name for name in table.column_names if name not in floats]
        try:
            pq.write_table(
                table,
                target,
                compression="zstd",
                compression_level=9,
                use_dictionary=others,
                # Splitting floats by byte brings sign and exponent together: a third smaller.
                use_byte_stream_split=floats,
            )
            if atomic:
                target.replace(path)
        finally:
            if atomic:
                target.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file in one rename."""
    with explained(path):
        written = temporary(path)
        try:
            written.write_text(text, encoding="utf-8")
            written.replace(path)
        finally:
            written.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system says of a full disk or a read-only folder into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreError(f"{path}: the disk is full; free some space and give the same command again") from None
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(f"{path}: cannot be written; give another folder or its permissions") from None
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise StoreError(f"{path}: expected a folder, found a file in its place") from None
        raise


@contextlib.contextmanager
def appearing(target: Path, *, replacing: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``target`` by one rename, unless the block fails."""
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=temporary(target).name, dir=target.parent))
        try:
            yield folder
            folder.chmod(0o755)
            if replacing and target.exists():
                # Out of sight by a rename, so that nobody meets it half removed.
                old = Path(tempfile.mkdtemp(prefix=temporary(target).name, dir=target.parent))
                target.rename(old)
                shutil.rmtree(old)
            try:
                folder.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # Somebody finished the same work first: theirs is equal, and stays.
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def temporary(path: Path) -> Path:
    """Return where something lies until it is whole: hidden, and named after whoever writes it."""
    return path.with_name(f".{_HOST}.{os.getpid()}.{path.name}.")


def sweep(folder: Path) -> None:
    """Remove what killed processes of this machine left half-written."""
    # What is hidden itself may be renamed under our hands by a process at work.
    kept = "models/[!.]*/outputs/[!.]*/[!.]*"
    for place in (".", "fits", "fits/[!.]*", "models/[!.]*", "models/[!.]*/[!.]*", kept, f"{kept}/[!.]*"):
        with contextlib.suppress(FileNotFoundError):
            for left in folder.glob(f"{place}/.{_HOST}.*"):
                process = left.name.split(".")[2]
                if process.isdigit() and not _alive(int(process)):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
