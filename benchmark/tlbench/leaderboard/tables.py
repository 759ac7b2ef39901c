"""Stored results as tidy pandas tables: published ones and one's own, told apart by the column ``origin``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

import numpy as np
import pandas as pd

from tlbench.errors import StoreError, UnknownNameError, listed, nearest
from tlbench.leaderboard.costs import PRICED
from tlbench.leaderboard.images import with_images
from tlbench.leaderboard.prepared import SCORED
from tlbench.records.coded import as_coded, joined, rows_of, rows_of_pairs, with_word, words_of
from tlbench.records.damage import Survey, check_some_sound, survey
from tlbench.records.levels import Level, level_of
from tlbench.records.schema import FITS, PREDICTIONS, RECORDS
from tlbench.records.store import ModelStore, Store, stores
from tlbench.suites.load import load_suite, suite_names
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    import pyarrow as pa

RUN_DIR: Final = "tlbench-runs"
_SHORT: Final = 12  # digits of a hash in messages and in the names of run folders
_TO_IMAGES: Final = ("measurement_id", "split_hash")
_MEASUREMENT: Final = [
    "measurement_id", "origin", "model", "variant", "headline", "settings_hash", "backbone", "weights_hash", "protocol",
    "deterministic", "task", "source", "target", "role", "shots", "seed", "fit_target", "condition", "norm",
    "split_hash", "precision",
]  # fmt: skip


def load_results(
    suite: str | Path | Suite | None = None,
    *,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
    results: str | Path | None = None,
    all_versions: bool = False,
) -> pd.DataFrame:
    """Return records as a tidy table, one number a row.

    Parameters
    ----------
    suite : str, Path or Suite, optional
        A name, a suite file or a suite; by default every suite.
    run_dir : str or Path
        Where one's own results are; it need not exist.
    published : bool
        Whether to include published results.
    results : str or Path, optional
        Folder of published results; by default those that came with tlbench.
    all_versions : bool
        Whether to include results of other versions of the suite. No board may mix them.

    Returns
    -------
    DataFrame
        The columns of ``docs/schema.md``, ``origin``: ``"published"`` or ``"local"``, and ``level``: how far somebody
        has verified them, of ``records.levels.Level``. What is in both places is there twice. ``attrs["notes"]`` lists,
        in words, what was left out.

    Raises
    ------
    StoreError
        If there are results, but of other versions of the suite only; if a file of one's own cannot be read; or if all
        that is published is damaged. A damaged folder among others is left out, with a ``LeftOutWarning``.
    UnknownNameError
        If nobody knows the suite and there are no results of that name.

    Examples
    --------
    >>> load_results("digits", run_dir="nowhere", published=False).shape[0]
    0
    """
    return _load("records", RECORDS, _wanted(suite, run_dir, published, results), all_versions)


def load_fits(
    suite: str | Path | Suite | None = None,
    *,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
    results: str | Path | None = None,
    all_versions: bool = False,
) -> pd.DataFrame:
    """Return provenance and cost, one fit a row; parameters and errors as for `load_results`."""
    return _load("fits", FITS, _wanted(suite, run_dir, published, results), all_versions)


def load_predictions(
    suite: str | Path | Suite,
    model: str,
    *,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
    results: str | Path | None = None,
    condition: str | None = None,
    lock: Path | None = None,
) -> pd.DataFrame:
    """Return a model's predictions, one image and setting a row, with what they are predictions of.

    Parameters
    ----------
    suite : str, Path or Suite
    model : str
        A row of the board.
    run_dir, published, results
        As for `load_results`.
    condition : str, optional
        One alone, such as ``"clean"``: a fifth of the rows, sooner there.
    lock : Path, optional
        The suite's lock, by default the one beside our suite; where it is there, the columns ``image``, ``cluster``
        and ``group`` are filled.

    Returns
    -------
    DataFrame
        The columns of the predictions table, the task, source, target, role, shots, seed, variant and condition of
        each measurement, whether its method is ``deterministic``, ``origin``, ``image``, ``cluster`` and ``group``.

    Raises
    ------
    UnknownNameError
        If the model has no results; the message gives the nearest one that has.
    StoreError
        As for `load_results`.
    """
    wanted = _wanted(suite, run_dir, published, results)
    parts = [part for part in _parts(wanted) if part.model == model]
    if not parts:
        check_some_sound(found for found in _surveyed(wanted).damaged if found.model == model)
    # Of all models the records are read only to say which there are.
    records = _load("records", RECORDS, wanted, all_versions=False, parts=parts or None)
    if model not in set(records["model"]):
        known = sorted(set(records["model"]))
        hint = nearest(model, known) or (f"; there are {listed(known)}" if known else "; nothing has been measured yet")
        raise UnknownNameError(f"suite '{wanted.name}' has no results of model {model!r}{hint}")
    chosen = records["condition"] == condition if condition is not None else records["condition"].notna()
    measured = records.loc[chosen, _MEASUREMENT].drop_duplicates(["measurement_id", "origin"])
    tables = [_frame(part.read("predictions"), PREDICTIONS, part.origin) for part in parts]
    rows = pd.concat(tables, ignore_index=True).merge(measured, on=["measurement_id", "origin"], how="inner")
    # 0.9 as a float32 is not 0.9; the records keep the exact step.
    rows["severity"] = rows["severity"].astype(np.float64).round(6)
    rows = rows.astype({"predicted": "Int32", "rank": "Int32", "correct_clean": "boolean"})
    return with_images(rows, wanted.suite, lock)


def load_scored(
    suite: Suite,
    pairs: Collection[tuple[str, str]],
    *,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
    results: str | Path | None = None,
) -> pd.DataFrame:
    """Return what a board needs of a suite's records: millions of them fit into memory.

    Parameters
    ----------
    suite : Suite
    pairs : collection of (condition, metric)
        Records of any other are left out.
    run_dir, published, results
        As for `load_results`.

    Returns
    -------
    DataFrame
        The columns ``prepared.SCORED``, ``measurement_id`` and ``split_hash``, ``origin`` and ``level``, texts as
        categories; else as from `load_results`. The two that lead to a measurement's images are empty where nobody has
        published these.

    Raises
    ------
    StoreError
        As for `load_results`.
    """
    return _coded("records", SCORED, _wanted(suite, run_dir, published, results), suite, pairs)


def load_priced(
    suite: Suite,
    *,
    run_dir: str | Path = RUN_DIR,
    published: bool = True,
    results: str | Path | None = None,
) -> pd.DataFrame:
    """Return what a board needs of a suite's fits: ``costs.PRICED``, ``origin`` and ``level``, as `load_fits`."""
    frame = _coded("fits", PRICED, _wanted(suite, run_dir, published, results), suite)
    return frame.astype({name: "str" for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)})


def _coded(
    name: Literal["records", "fits"],
    columns: Sequence[str],
    wanted: _Wanted,
    suite: Suite,
    pairs: Collection[tuple[str, str]] | None = None,
) -> pd.DataFrame:
    chosen = [*columns, *(_TO_IMAGES if name == "records" else ())]
    kept, notes = [], _Notes(wanted, {suite.name: suite.hash})
    for part in _parts(wanted):
        # Names of measurements would double what a million records without images take.
        table = part.read(name, chosen if part.has_images else list(columns))
        old = words_of(table, "suite_hash") - {suite.hash}
        if old:
            notes.leave_out(part, old)
            table = rows_of(table, "suite_hash", suite.hash)
        notes.found |= len(table) > 0
        if pairs is not None:
            table = rows_of_pairs(table, ("condition", "metric"), pairs)
        for column in chosen[len(table.column_names) :]:
            table = with_word(table, column, "", RECORDS.field(column))
        kept.append(_marked(table, part.origin, part.level))
    notes.check()
    blank = _marked(as_coded((RECORDS if name == "records" else FITS).empty_table(), chosen), "local", "self-reported")
    frame: pd.DataFrame = joined([blank, *kept]).to_pandas(self_destruct=True, split_blocks=True)
    frame.attrs["notes"] = notes.told()
    return frame


def _marked(table: pa.Table, origin: str, level: Level) -> pa.Table:
    return with_word(with_word(table, "origin", origin), "level", level)


@dataclass(frozen=True)
class _Wanted:
    """Whose results are looked for, and where; the suite is None where only its name is known."""

    name: str | None
    suite: Suite | None
    run_dir: Path
    published: bool
    results: Path | None


@dataclass(frozen=True)
class _Part:
    """One model's tables in one place."""

    origin: str
    suite: str
    model: str
    level: Level
    has_images: bool
    read: _Read


class _Read(Protocol):
    """Returns a table, or some of its columns with texts as codes."""

    def __call__(self, name: str, columns: list[str] | None = None) -> pa.Table: ...


def _wanted(
    suite: str | Path | Suite | None, run_dir: str | Path, published: bool, results: str | Path | None
) -> _Wanted:
    place = (Path(run_dir), published, None if results is None else Path(results))
    if suite is None or isinstance(suite, Suite):
        return _Wanted(suite.name if suite else None, suite, *place)
    try:
        found = load_suite(suite)
    except UnknownNameError:
        # A suite file of the user's that is not given, but whose results are here, goes by its bare name.
        wanted = _Wanted(str(suite), None, *place)
        if any(True for _ in _parts(wanted)):
            return wanted
        raise
    return _Wanted(found.name, found, *place)


def _parts(wanted: _Wanted) -> Iterator[_Part]:
    """Yield the tables of every model of the suite, all versions; published ones first."""
    if wanted.published:
        for found in _surveyed(wanted).sound:
            images = any((found.folder / f"{name}.parquet").exists() for name in ("outcomes", "predictions"))
            yield _Part("published", found.suite, found.model, level_of(found.folder), images, found.table)
    for store in _stores(wanted):
        for model in store.models():
            yield _Part("local", store.suite, model.name, "self-reported", True, _reader(model))


def _surveyed(wanted: _Wanted) -> Survey:
    return survey(wanted.name, folder=wanted.results) if wanted.published else Survey((), ())


def _stores(wanted: _Wanted) -> list[Store]:
    if wanted.name is not None:
        return list(stores(wanted.run_dir, wanted.name))
    names = {path.parent.name[: -_SHORT - 1] for path in wanted.run_dir.glob("*/suite.json")}
    return [store for name in sorted(names) for store in stores(wanted.run_dir, name)]


def _reader(model: ModelStore) -> _Read:
    def read(name: str, columns: list[str] | None = None) -> pa.Table:
        table = (
            model.records() if name == "records" else model.fits() if name == "fits" else model.table(name, PREDICTIONS)
        )
        return table if columns is None else as_coded(table, columns)

    return read


def _load(
    name: str, schema: pa.Schema, wanted: _Wanted, all_versions: bool, parts: Iterable[_Part] | None = None
) -> pd.DataFrame:
    current = _current_hashes(wanted)
    kept, notes = [], _Notes(wanted, current)
    for part in _parts(wanted) if parts is None else parts:
        frame = _leveled(_frame(part.read(name), schema, part.origin), part.level)
        now = current.get(part.suite)
        old = frame["suite_hash"] != now if now and not all_versions else pd.Series(False, index=frame.index)
        if old.any():
            notes.leave_out(part, set(frame.loc[old, "suite_hash"]))
        kept.append(frame[~old])
    # Concatenating empty tables would lose the types of their columns.
    filled = [frame for frame in kept if len(frame)]
    notes.found = bool(filled)
    notes.check()
    blank = _leveled(_frame(schema.empty_table(), schema, "local"), "self-reported")
    table = pd.concat(filled, ignore_index=True) if filled else blank
    if wanted.suite is None and wanted.name is not None and not all_versions:
        _check_one_version(table, wanted)
    table.attrs["notes"] = notes.told()
    return table


class _Notes:
    """What is left out because it is of another version of its suite, or damaged."""

    def __init__(self, wanted: _Wanted, current: Mapping[str, str]) -> None:
        self._wanted, self._current = wanted, current
        self._others: dict[tuple[str, str], set[str]] = {}
        self._surveyed = _surveyed(wanted)
        self.found = False

    def leave_out(self, part: _Part, hashes: set[str]) -> None:
        self._others.setdefault((part.origin, part.suite), set()).update(hashes)

    def told(self) -> list[str]:
        notes = []
        for (origin, suite), hashes in self._others.items():
            were = ", ".join(sorted(value[:_SHORT] for value in hashes))
            place = f"{self._wanted.run_dir}: " if origin == "local" else "published "
            notes.append(
                f"{place}results of suite '{suite}' with hash {were} are left out: "
                f"the suite is now {self._current[suite][:_SHORT]}"
            )
        return [*notes, *(one.note() for one in self._surveyed.damaged)]

    def check(self) -> None:
        """Raise ``StoreError`` where nothing else was found; warn of what is damaged where something was."""
        told = self.told()
        if self._others and not self.found:
            raise StoreError(
                f"{told[0]}, and there are no others; give the suite that they were made with, or run it again"
            )
        if not self.found:
            check_some_sound(self._surveyed.damaged)
        self._surveyed.warn()


def _current_hashes(wanted: _Wanted) -> dict[str, str]:
    """Return the hash that counts, by suite, as far as it is known."""
    if wanted.name is None:
        return {name: load_suite(name).hash for name in suite_names()}
    return {} if wanted.suite is None else {wanted.name: wanted.suite.hash}


def _check_one_version(table: pd.DataFrame, wanted: _Wanted) -> None:
    hashes = sorted(set(table["suite_hash"]))
    if len(hashes) > 1:
        short = listed(value[:_SHORT] for value in hashes)
        raise StoreError(
            f"{wanted.run_dir}: results of {len(hashes)} versions of suite '{wanted.name}', {short}; "
            "give the suite's file"
        )


def _frame(table: pa.Table, schema: pa.Schema, origin: str) -> pd.DataFrame:
    frame: pd.DataFrame = table.select(schema.names).to_pandas()
    # A column that is null throughout would otherwise become one of plain objects.
    frame = frame.astype({field.name: "str" for field in schema if str(field.type) == "string"})
    frame["origin"] = pd.Series(origin, index=frame.index, dtype="str")
    return frame


def _leveled(frame: pd.DataFrame, level: Level) -> pd.DataFrame:
    return frame.assign(level=pd.Series(level, index=frame.index, dtype="str"))
