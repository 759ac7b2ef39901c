"""Where results live on disk: atomic, locked, resumable.

::

    <run-dir>/<suite>-<hash>/
        suite.json                       the suite that everything below belongs to
        fits/<fit>/                      state.safetensors, fit.json: how to rebuild the predictors
        locks/                           one file an id, locked while somebody works on it
        models/<model>/
            card.json                    what the model is
            fits/<fit>.parquet           provenance and cost, one row
            measurements/<id>/           records.parquet, predictions.parquet, class_bins.parquet
            failures/<id>.parquet        records of what failed; gone once it succeeds
            merged.parquet               what ``tlbench compact`` has put into one file, out of the two above
            outputs/<variant>/<shots>/   outputs for clean sets, where they were asked for
            seconds.txt                  how long each measurement took, for ``tlbench status``

A folder appears by one rename once it is whole, so a kill at any moment leaves either all of it or
nothing. Locks are held by the kernel and vanish with their process.

Whoever reads looks at the small files first and at the merged one last: what is taken out of the former is in the
latter already.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute

from tlbench.errors import StoreError
from tlbench.records.files import appearing, explained, read_table, sweep, write_parquet, write_text
from tlbench.records.merged import Kind, merged_of
from tlbench.records.record import Record
from tlbench.records.schema import FITS, LATER, RECORDS

_HASH_DIGITS = 12


class Store:
    """All local work on one suite.

    Parameters
    ----------
    run_dir : Path
        Made when the first thing is written.
    suite, suite_hash : str
    metrics : mapping, optional
        The suite's table of metrics, where nothing may have been written yet; else as its file here has it.
    """

    def __init__(self, run_dir: Path, suite: str, suite_hash: str, *, metrics: Mapping[str, Any] | None = None) -> None:
        self.suite = suite
        self.suite_hash = suite_hash
        self._given_metrics = metrics
        self.folder = run_dir / f"{suite}-{suite_hash[:_HASH_DIGITS]}"

    def prepare(self, suite: Mapping[str, Any]) -> None:
        """Make the folder, or stop at once where it cannot be written.

        Raises
        ------
        StoreError
            If the folder cannot be made or written.
        """
        with explained(self.folder):
            for name in ("fits", "locks", "models"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            if not (self.folder / "suite.json").exists():
                write_text(self.folder / "suite.json", json.dumps(suite, indent=1))
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        sweep(self.folder)

    def model(self, name: str) -> ModelStore:
        """Return the part of one model."""
        return ModelStore(self.folder / "models" / quote(name, safe="()=,.+-_ "), name, self)

    def models(self) -> tuple[ModelStore, ...]:
        """Return every model that has work here, by name."""
        folders = sorted((self.folder / "models").glob("*/"))
        return tuple(ModelStore(folder, unquote(folder.name), self) for folder in folders)

    def other_versions(self) -> tuple[Store, ...]:
        """Return the work on other versions of the suite in the same run folder that counts in the same way.

        What is the same in both need not be done again: ids of fits and measurements hash all that they depend on, but
        for the suite's table of metrics, which must be equal.
        """
        others = []
        for folder in sorted(self.folder.parent.glob(f"{glob.escape(self.suite)}-*/")):
            other = Store(folder.parent, self.suite, folder.name.removeprefix(f"{self.suite}-"))
            if other.folder != self.folder and other._metrics() == self._metrics() != {}:
                others.append(other)
        return tuple(others)

    def _metrics(self) -> Mapping[str, Any]:
        if self._given_metrics is not None:
            return self._given_metrics
        try:
            return dict(json.loads((self.folder / "suite.json").read_text(encoding="utf-8"))["metrics"])
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def adopt_fit(self, fit_id: str) -> bool:
        """Take over an equal fit of another version of the suite; return whether it is here now.

        Call this under the fit's lock.
        """
        for other in () if self.has_fit(fit_id) else self.other_versions():
            if other.has_fit(fit_id):
                with appearing(self.fit_folder(fit_id), replacing=True) as folder:
                    shutil.copytree(other.fit_folder(fit_id), folder, dirs_exist_ok=True)
                break
        return self.has_fit(fit_id)

    def would_adopt(self, fit_id: str) -> bool:
        """Return whether a fit is here, or in another version of the suite from where it would be taken over."""
        return self.has_fit(fit_id) or any(other.has_fit(fit_id) for other in self.other_versions())

    def fit_folder(self, fit_id: str) -> Path:
        """Return where a fit's state is kept."""
        return self.folder / "fits" / fit_id

    def has_fit(self, fit_id: str) -> bool:
        """Return whether a fit's state is there, whole."""
        return (self.fit_folder(fit_id) / "fit.json").exists()

    @contextlib.contextmanager
    def writing_fit(self, fit_id: str) -> Iterator[Path]:
        """Yield a new folder that becomes the fit's when the block ends without an error.

        It takes the place of one that is there: who fits again could not use it. Call this under the fit's lock.
        """
        with appearing(self.fit_folder(fit_id), replacing=True) as folder:
            yield folder

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool) -> Iterator[bool]:
        """Hold the lock of an id; yield False at once where another process has it and ``wait`` is False."""
        path = self.folder / "locks" / f"{name}.lock"
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(handle)


class ModelStore:
    """One model's fits, measurements and failures."""

    def __init__(self, folder: Path, name: str, store: Store) -> None:
        self.folder = folder
        self.name = name
        self.store = store

    def prepare(self, card: Mapping[str, Any]) -> None:
        """Make the model's folder and write its card."""
        with explained(self.folder):
            for name in ("fits", "measurements", "failures"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "card.json", json.dumps(card, indent=1, sort_keys=True))

    def card(self) -> dict[str, Any]:
        """Return the model's card, empty where there is none."""
        path = self.folder / "card.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def write_fit(self, row: Mapping[str, Any]) -> None:
        """Write a fit's row of provenance and cost."""
        path = self.folder / "fits" / f"{row['fit_id']}.parquet"
        write_parquet(path, pa.Table.from_pylist([{**LATER, **row}], schema=FITS))

    def has_fit_row(self, fit_id: str) -> bool:
        """Return whether this model has a row of the fit."""
        return (self.folder / "fits" / f"{fit_id}.parquet").exists() or fit_id in self._merged_ids("fit")

    def batch_size_of(self, fit_id: str) -> int | None:
        """Return the batch size with which a fit was measured, None where there is no row of it."""
        row = self._table_of("fit", fit_id, self.folder / "fits" / f"{fit_id}.parquet", "fits", ["batch_size"])
        return None if row is None else int(row.column("batch_size")[0].as_py())

    def has(self, measurement_id: str) -> bool:
        """Return whether a measurement is there, whole."""
        return self._place(measurement_id).is_dir() or measurement_id in self._merged_ids("measurement")

    def measured(self) -> set[str]:
        """Return the ids of all measurements that are there, whole."""
        # Hidden folders are half-written: by a process at work, or by one that was killed.
        small = {path.name for path in self.folder.glob("measurements/[!.]*")}
        return small.union(self._merged_ids("measurement"))

    def written(self, measurement_id: str) -> float | None:
        """Return when a measurement was stored, in seconds since 1970, None where it is not there."""
        try:
            return self._place(measurement_id).stat().st_mtime
        except FileNotFoundError:
            merged = merged_of(self.folder)
            if merged is None or measurement_id not in merged.ids("measurement"):
                return None
            return merged.written("measurement", measurement_id)

    def write(self, measurement_id: str, records: Sequence[Record], tables: Mapping[str, pa.Table]) -> None:
        """Write a measurement's records and tables in one rename, and forget its failure."""
        # Merged meanwhile: what is there is equal, and stays.
        if measurement_id not in self._merged_ids("measurement"):
            with appearing(self._place(measurement_id)) as folder:
                write_parquet(folder / "records.parquet", records_table(records), atomic=False)
                for name, table in tables.items():
                    write_parquet(folder / f"{name}.parquet", table, atomic=False)
        self.forget_failure(measurement_id)

    def adopt(self, measurement_id: str, other: ModelStore, **changes: Any) -> None:
        """Take over another model's equal measurement, its records renamed."""
        with appearing(self._place(measurement_id)) as folder:
            for name in other.tables_of(measurement_id):
                if name == "records":
                    continue
                try:
                    shutil.copy2(other._place(measurement_id) / f"{name}.parquet", folder)
                except FileNotFoundError:
                    write_parquet(folder / f"{name}.parquet", other.read(measurement_id, name), atomic=False)
            records = [LATER | row | changes for row in other.read(measurement_id, "records").to_pylist()]
            write_parquet(folder / "records.parquet", pa.Table.from_pylist(records, schema=RECORDS), atomic=False)
        self.forget_failure(measurement_id)

    def tables_of(self, measurement_id: str) -> list[str]:
        """Return the names of a measurement's tables."""
        small = sorted(path.stem for path in self._place(measurement_id).glob("*.parquet"))
        merged = None if small else merged_of(self.folder)
        return small if merged is None else merged.names("measurement", measurement_id)

    def read(self, measurement_id: str, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return one table of a measurement, by column.

        Raises
        ------
        StoreError
            If it is missing or damaged.
        """
        path = self._place(measurement_id) / f"{table}.parquet"
        found = self._table_of("measurement", measurement_id, path, table, columns)
        if found is None:
            raise StoreError(f"{path}: expected a Parquet file, found nothing")
        return found

    def write_failure(self, name: str, records: Sequence[Record]) -> None:
        """Write the records of something that failed; the same command tries it again."""
        write_parquet(self.folder / "failures" / f"{name}.parquet", records_table(records))

    def forget_failure(self, name: str) -> None:
        """Remove the records of a failure that has been mended."""
        path = self.folder / "failures" / f"{name}.parquet"
        with explained(path):
            path.unlink(missing_ok=True)

    def forget_failures(self, beginning: str) -> None:
        """Remove the records of every failure whose name begins so."""
        for path in self.folder.glob("failures/[!.]*.parquet"):
            if path.name.startswith(beginning):
                self.forget_failure(path.stem)

    def forget_failures_but(self, **wanted: str) -> None:
        """Remove the records of failures that differ in a column, such as those of an older source of a plug-in."""
        for path, table in self._failures():
            if any(set(table.column(name).to_pylist()) != {value} for name, value in wanted.items()):
                with explained(path):
                    path.unlink(missing_ok=True)

    def records(self) -> pa.Table:
        """Return every record of the model, failures included."""
        failed = pa.concat_tables([RECORDS.empty_table(), *(table for _, table in self._failures())])
        measured = self.table("records", RECORDS)
        # A kill between the two steps of `write` leaves a failure beside what mended it.
        there = pa.compute.unique(measured.column("measurement_id"))
        mended = pa.compute.is_in(failed.column("measurement_id"), there)
        return pa.concat_tables([measured, failed.filter(pa.compute.invert(mended))])

    def _failures(self) -> Iterator[tuple[Path, pa.Table]]:
        for path in sorted(self.folder.glob("failures/*.parquet")):
            try:
                yield path, read_table(path, RECORDS)
            except StoreError:
                if path.exists():
                    raise
                # Another process has mended it meanwhile.

    def fits(self) -> pa.Table:
        """Return the rows of the model's fits."""
        return self._all("fit", {path.stem: path for path in self.folder.glob("fits/[!.]*.parquet")}, "fits", FITS)

    def table(self, name: str, schema: pa.Schema) -> pa.Table:
        """Return ``records`` (without failures), ``predictions``, ``class_bins`` or ``audits`` of all measurements."""
        paths = {path.parent.name: path for path in self.folder.glob(f"measurements/[!.]*/{name}.parquet")}
        return self._all("measurement", paths, name, schema)

    def _place(self, measurement_id: str) -> Path:
        return self.folder / "measurements" / measurement_id

    def _merged_ids(self, kind: Kind) -> Collection[str]:
        merged = merged_of(self.folder)
        return () if merged is None else merged.ids(kind)

    def _table_of(self, kind: Kind, name: str, path: Path, table: str, columns: list[str] | None) -> pa.Table | None:
        """Return a table from its own file or the merged one, None where it is in neither."""
        try:
            return read_table(path, None, columns)
        except StoreError:
            if path.exists():
                raise
        merged = merged_of(self.folder)
        return None if merged is None else merged.read(kind, name, table, columns)

    def _all(self, kind: Kind, paths: Mapping[str, Path], name: str, schema: pa.Schema) -> pa.Table:
        """Return a table of all entries, each from its own file, where it still has one, or the merged one."""
        own: dict[str, pa.Table] = {}
        gone: dict[str, StoreError] = {}
        for entry in sorted(paths):
            try:
                own[entry] = read_table(paths[entry], schema)
            except StoreError as problem:
                if paths[entry].exists():
                    raise
                gone[entry] = problem
        merged = merged_of(self.folder)
        lost = [problem for entry, problem in gone.items() if merged is None or entry not in merged.ids(kind)]
        if lost:
            raise lost[0]
        rest = [] if merged is None else [merged.table(name, without=own)]
        return pa.concat_tables([schema.empty_table(), *own.values(), *rest])


def stores(run_dir: Path, suite: str) -> tuple[Store, ...]:
    """Return the store of every version of a suite under a run folder."""
    found = []
    for path in sorted(run_dir.glob(f"{suite}-*/suite.json")):
        short = path.parent.name.removeprefix(f"{suite}-")
        if len(short) == _HASH_DIGITS:
            found.append(Store(run_dir, suite, short))
    return tuple(found)


def all_stores(run_dir: Path) -> tuple[Store, ...]:
    """Return the store of every suite, and of every version of it, under a run folder."""
    names = {path.parent.name[: -_HASH_DIGITS - 1] for path in run_dir.glob("*/suite.json")}
    return tuple(store for name in sorted(names) for store in stores(run_dir, name))


def records_table(records: Iterable[Record]) -> pa.Table:
    """Return records as a table of the written schema."""
    return pa.Table.from_pylist([asdict(record) for record in records], schema=RECORDS)
