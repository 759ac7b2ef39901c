"""One model's stored tables, as far as they can be read: whatever is in them, reading ends in words, not an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from tlbench.errors import PluginError, StoreError
from tlbench.methods.card import read_published_card
from tlbench.records.inventory import MOVABLE, Inventory, read_inventory
from tlbench.records.published import LATER_TABLES, PUBLISHED_TABLES, PublishedModel
from tlbench.records.schema import FITS, RECORDS
from tlbench.records.store import ModelStore
from tlbench.submissions.verification.report import Check, Findings
from tlbench.suites.spec import Suite

UNREADABLE: Final = (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError)
"""What PyArrow may raise of a file that somebody has damaged, or made to do damage."""
_MAX_CARD_BYTES: Final = 64_000
_SHORT: Final = 12
_MOVABLE: Final = tuple(name.removesuffix(".parquet") for name in MOVABLE)


@dataclass(frozen=True)
class Submission:
    """What is to be verified.

    Attributes
    ----------
    folder : Path
    suite : Suite
        What it is held against.
    model : str
    published : bool
        Whether it is a folder below published results, and not of a run.
    tables : mapping of str to pa.Table
        The tables that could be read.
    problems : mapping of str to str
        Why a table could not be read.
    """

    folder: Path
    suite: Suite
    model: str
    published: bool
    tables: Mapping[str, pa.Table]
    problems: Mapping[str, str]

    @cached_property
    def inventory(self) -> Inventory | None:
        """What the submission says that it holds; None where it says nothing that can be read."""
        if not self.published:
            return None
        try:
            return read_inventory(self.folder)
        except (StoreError, OSError):
            return None

    @cached_property
    def records(self) -> pd.DataFrame:
        """The records, none where they cannot be read; a text that is absent is None."""
        return _frame(self.tables.get("records", RECORDS.empty_table()))

    @cached_property
    def fits(self) -> pd.DataFrame:
        """The fits, none where they cannot be read."""
        return _frame(self.tables.get("fits", FITS.empty_table()))

    def lacks(self, *names: str) -> str:
        """Return why a check of these tables cannot be made, in words; empty where all of them are there."""
        for name in names:
            if name in self.problems:
                return f"{name} cannot be read"
            if name not in self.tables:
                return f"{name} lie elsewhere" if self.elsewhere(name) else f"there are no {name}"
        return ""

    def elsewhere(self, name: str) -> bool:
        """Return whether the submission says that a table lies elsewhere."""
        return self.inventory is not None and f"{name}.parquet" in self.inventory.elsewhere


def read_published(folder: Path, suite: Suite, model: str) -> Submission:
    """Return a folder of published results, or of a pull request that wants to become one."""
    published = PublishedModel(folder, suite.name, model)
    tables: dict[str, pa.Table] = {}
    problems: dict[str, str] = {}
    found = Submission(folder, suite, model, True, tables, problems)
    for name in PUBLISHED_TABLES:
        path = folder / f"{name}.parquet"
        absent = not path.exists() and not path.is_symlink()
        if not (absent and (name in LATER_TABLES or found.elsewhere(name))):
            _read(name, partial(published.table, name), tables, problems)
    return found


def read_run(models: ModelStore, suite: Suite) -> Submission:
    """Return one model's work in a run folder."""
    tables: dict[str, pa.Table] = {}
    problems: dict[str, str] = {}
    _read("records", models.records, tables, problems)
    _read("fits", models.fits, tables, problems)
    for name in _MOVABLE:
        _read(name, partial(models.table, name, PUBLISHED_TABLES[name]), tables, problems)
    return Submission(models.folder, suite, models.name, False, tables, problems)


def check_schema(submission: Submission) -> Check:
    """Answer whether every file can be read and has the written columns."""
    found = Findings()
    for problem in submission.problems.values():
        found.add(problem)
    if submission.published:
        _check_card(submission.folder / "card.toml", found)
    sizes = ", ".join(f"{name} {len(table):,}" for name, table in submission.tables.items())
    return found.check("schema", f"{len(submission.tables)} tables with the written columns; rows: {sizes}")


def check_suite(submission: Submission) -> Check:
    """Answer whether all of it belongs to one version of the suite, the one that it is held against."""
    found, suite = Findings(), submission.suite
    reason = submission.lacks("records", "fits")
    for name, frame in (("records", submission.records), ("fits", submission.fits)):
        wanted = (("suite", suite.name), ("suite_version", suite.version), ("suite_hash", suite.hash))
        for column, value in (*wanted, ("model", submission.model)):
            others = frame[column][frame[column] != value]
            if len(others):
                shown, given = (
                    str(text)[:_SHORT] if column == "suite_hash" else text for text in (value, others.iloc[0])
                )
                found.add(f"{name}: {len(others)} rows of {column} {given}, expected {shown}")
    if suite.synthetic:
        found.warn("the suite's data are made up: there is nothing to publish")
    done = f"version {suite.version} of '{suite.name}', hash {suite.hash[:_SHORT]}"
    return found.check("suite", done, reason)


def _read(name: str, read: Callable[[], pa.Table], tables: dict[str, pa.Table], problems: dict[str, str]) -> None:
    try:
        # Confidences that were left out are exponentials, which overflow where somebody wrote nonsense.
        with np.errstate(all="ignore"):
            table = read()
            table.validate(full=True)
    except StoreError as problem:
        problems[name] = " ".join(str(problem).split())
    except UNREADABLE as problem:
        first = (str(problem).strip().splitlines() or [""])[0]
        problems[name] = f"{name}.parquet: not a readable table ({type(problem).__name__}: {first[:200]})"
    else:
        tables[name] = table


def _check_card(path: Path, found: Findings) -> None:
    if path.is_symlink() or not path.is_file():
        found.add(f"{path}: expected a model card, found {'a link' if path.is_symlink() else 'nothing'}")
    elif path.stat().st_size > _MAX_CARD_BYTES:
        found.add(f"{path}: expected at most {_MAX_CARD_BYTES:,} bytes, got {path.stat().st_size:,}")
    else:
        try:
            read_published_card(path)
        except PluginError as problem:
            found.add(" ".join(str(problem).split()))
        except RecursionError:
            found.add(f"{path}: nested too deeply")


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
