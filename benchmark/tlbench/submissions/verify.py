"""Every number of a submission again, from the predictions that it carries, and every check that needs no model."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from tlbench import __version__
from tlbench.errors import StoreError, UnknownNameError, UsageError, VerificationError, listed, nearest
from tlbench.records.files import write_text
from tlbench.records.inventory import SUBMITTED, VERIFICATION, read_json
from tlbench.records.levels import BY_MAINTAINERS, FORMAT, level_of
from tlbench.records.published import published_folder
from tlbench.records.store import ModelStore
from tlbench.submissions.locating import current_store, locate
from tlbench.submissions.verification.attacks import check_attacks
from tlbench.submissions.verification.bins import check_class_bins
from tlbench.submissions.verification.earlier import check_earlier
from tlbench.submissions.verification.files import check_files, hash_files
from tlbench.submissions.verification.images import Images
from tlbench.submissions.verification.likeness import check_name, check_other_rows
from tlbench.submissions.verification.measured import Measurements
from tlbench.submissions.verification.numbers import check_numbers
from tlbench.submissions.verification.outcomes import check_outcomes
from tlbench.submissions.verification.recompute import Recomputed, recompute
from tlbench.submissions.verification.report import MEANING, Check, Report
from tlbench.submissions.verification.sets import check_complete, check_images
from tlbench.submissions.verification.statistics import check_statistics
from tlbench.submissions.verification.submission import (
    UNREADABLE,
    Submission,
    check_schema,
    check_suite,
    read_published,
    read_run,
)
from tlbench.submissions.verification.tables import check_duplicates, check_fits, check_ranges
from tlbench.suites.load import find_suite, load_suite, suite_names, suites_folder
from tlbench.suites.spec import Suite

__all__ = ["MEANING", "Check", "Report", "verify", "verify_folder", "write_level"]

_MAX_LEVEL_BYTES: Final = 1_000_000
_STRANGE: Final = (*UNREADABLE, IndexError, ArithmeticError)


def verify(
    path: Path,
    *,
    suite: str | Path | Suite | None = None,
    model: str | None = None,
    results: Path | None = None,
    allow_incomplete: bool = False,
) -> tuple[Report, ...]:
    """Verify a run, a submission, or all submissions of a suite.

    Parameters
    ----------
    path : Path
        A run folder, or a suite's or a model's folder in it; or ``results/<suite>/<model>``, or ``results/<suite>``.
    suite : str, Path or Suite, optional
        Needed where the folder's name is not that of one of our suites, or where a run folder holds several.
    model : str, optional
        One alone of those that are there.
    results : Path, optional
        Where earlier versions are published; by default the results that came with tlbench.
    allow_incomplete : bool
        Whether measurements that are missing or failed are a warning, and no mismatch.

    Returns
    -------
    tuple of Report
        One a model, by name.

    Raises
    ------
    StoreError
        If there is nothing to verify.
    UsageError
        If the run folder holds several suites and none was named.
    UnknownNameError
        If nobody knows the suite or the model.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise StoreError(f"{path}: expected a run folder or a folder of results, found {found}")
    earlier = published_folder() if results is None else results
    if not _looks_published(path) and not any(_looks_published(folder) for folder in path.iterdir()):
        return tuple(
            _report(read_run(models, known), _lock(known, suite), earlier, allow_incomplete)
            for known, models in _in_run(path, suite, model)
        )
    folders = [path] if _looks_published(path) else sorted(f for f in path.iterdir() if _looks_published(f))
    reports = []
    names = [unquote(folder.name) for folder in folders]
    if model is not None and model not in names:
        raise UnknownNameError(f"{path}: there are no results of model {model!r}{nearest(model, names)}")
    for folder, name in zip(folders, names, strict=True):
        if model in (None, name):
            reports.append(
                verify_folder(
                    folder, suite=_suite_of(folder, suite), model=name, results=earlier, lock=_lock_file(suite),
                    allow_incomplete=allow_incomplete,
                )
            )  # fmt: skip
    return tuple(reports)


def verify_folder(
    folder: Path,
    *,
    suite: Suite,
    model: str,
    results: Path | None = None,
    lock: Path | None = None,
    allow_incomplete: bool = False,
) -> Report:
    """Verify one submission, wherever its folder lies and whatever that is called.

    Parameters
    ----------
    folder : Path
        With the files of ``results/<suite>/<model>``.
    suite : Suite
    model : str
        The row of the board that its records must name.
    results, allow_incomplete
        As for `verify`.
    lock : Path, optional
        The suite's lock; by default that of our suite of this name, where its hash is the same.

    Returns
    -------
    Report
    """
    earlier = published_folder() if results is None else results
    return _report(read_published(folder, suite, model), lock or _own_lock(suite), earlier, allow_incomplete)


def write_level(folder: Path, report: Report) -> Path:
    """Write ``verification.json`` beside what was verified: for the board's own workflow, and nobody else.

    Parameters
    ----------
    folder : Path
        The published model's folder, as it was when it was verified.
    report : Report

    Returns
    -------
    Path
        The file. ``reproduced`` or ``disputed``, set by a maintainer for the very same files, stays.

    Raises
    ------
    VerificationError
        If the report does not allow the level ``recomputed``.
    """
    if report.level != "recomputed":
        wrong = [check for check in report.checks if check.status in ("mismatch", "not checked")]
        told = f": {wrong[0].name}: {wrong[0].summary}" if wrong else ""
        raise VerificationError(f"{folder}: not every number was recomputed{told}")
    path = folder / VERIFICATION
    level = level_of(folder)
    document: dict[str, Any] = {
        "format": FORMAT,
        "level": level if level in BY_MAINTAINERS else report.level,
        "tlbench_version": __version__,
        "suite_hash": report.suite_hash,
        "checks": [{"name": c.name, "status": c.status, "summary": c.summary} for c in report.checks],
        "files": dict(report.files),
    }
    if level in BY_MAINTAINERS:
        # What a maintainer wrote beside the level, such as who and why, is kept.
        document = {**read_json(path, _MAX_LEVEL_BYTES), **document}
    write_text(path, json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return path


def _report(submission: Submission, lock: Path | None, results: Path, allow_incomplete: bool) -> Report:
    started = time.perf_counter()
    facts = hash_files(submission)
    images = Images(submission.suite, lock)
    measured = Measurements(submission)
    values, errors, numbers = _numbers(measured, images)
    asked: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("files", lambda: check_files(submission, facts)),
        ("schema", lambda: check_schema(submission)),
        ("suite", lambda: check_suite(submission)),
        ("completeness", lambda: check_complete(measured, allow_incomplete=allow_incomplete)),
        ("fits", lambda: check_fits(measured)),
        ("duplicates", lambda: check_duplicates(measured)),
        ("ranges", lambda: check_ranges(measured, images)),
        ("images", lambda: check_images(measured, images)),
        ("statistics", lambda: check_statistics(measured, images)),
        ("class bins", lambda: check_class_bins(measured, images)),
        ("attacks", lambda: check_attacks(measured)),
        ("outcomes", lambda: check_outcomes(measured, images)),
        ("values", lambda: values),
        ("standard errors", lambda: errors),
        ("earlier version", lambda: check_earlier(submission, results)),
        ("name", lambda: check_name(submission, results)),
        ("other rows", lambda: check_other_rows(submission, results)),
    )
    return Report(
        folder=submission.folder,
        suite=submission.suite.name,
        suite_version=submission.suite.version,
        suite_hash=submission.suite.hash,
        model=submission.model,
        checks=tuple(_within(submission.folder, _answered(name, check)) for name, check in asked),
        numbers=numbers,
        predictions=len(measured.predictions),
        files={name: fact.sha256 for name, fact in facts.items()},
        seconds=time.perf_counter() - started,
    )


def _within(folder: Path, check: Check) -> Check:
    """Return a check whose texts name files as they lie in the folder, which the report names once.

    What is posted or published tells nobody where the folder lay on the machine that looked.
    """

    def told(text: str) -> str:
        return text.replace(f"{folder}{os.sep}", "").replace(f"{folder}: ", "")

    return replace(check, summary=told(check.summary), details=tuple(map(told, check.details)))


def _numbers(measured: Measurements, images: Images) -> tuple[Check, Check, int]:
    try:
        whole = not measured.submission.lacks("records", "predictions")
        again = recompute(measured, images) if whole else Recomputed({}, {}, set())
        return check_numbers(measured, again)
    except _STRANGE as problem:
        return _unasked("values", problem), _unasked("standard errors", problem), 0


def _answered(name: str, check: Callable[[], Check]) -> Check:
    """Return a check's answer; tables so strange that it cannot even be asked are a mismatch, told as such."""
    try:
        return check()
    except _STRANGE as problem:
        return _unasked(name, problem)


def _unasked(name: str, problem: BaseException) -> Check:
    told = " ".join(str(problem).split())[:200]
    return Check(name, "mismatch", f"the tables allow no check ({type(problem).__name__}: {told})", 1)


def _looks_published(folder: Path) -> bool:
    """Whether a folder holds, or ought to hold, a submission: some file of one lies in it."""
    return (
        not folder.name.startswith(".")
        and folder.is_dir()
        and any((folder / name).is_symlink() or (folder / name).exists() for name in SUBMITTED)
    )


def _suite_of(folder: Path, suite: str | Path | Suite | None) -> Suite:
    if isinstance(suite, Suite):
        return suite
    name = folder.resolve().parent.name
    if suite is None and name not in suite_names():
        raise UsageError(f"{folder}: expected --suite, for no suite of ours is called '{name}'; ours are {_ours()}")
    return load_suite(name if suite is None else suite)


def _in_run(path: Path, suite: str | Path | Suite | None, model: str | None) -> list[tuple[Suite, ModelStore]]:
    """Return the models of a run folder that are meant, each with its suite."""
    inside = path.parent.name == "models" and (path.parent.parent / "suite.json").is_file()
    if model is not None or inside:
        chosen, name, run_dir = locate(path, suite, model)
        return [(chosen, current_store(run_dir, chosen).model(name))]
    folders = [path] if (path / "suite.json").is_file() else sorted(file.parent for file in path.glob("*/suite.json"))
    if not folders:
        raise StoreError(f"{path}: expected a run folder or results/<suite>/<model>, found neither")
    # The first model tells which suite is meant, as for `tlbench submit`.
    first = next((place.name for folder in folders for place in sorted((folder / "models").glob("*/"))), None)
    if first is None:
        raise StoreError(f"{path}: there is no work in this run folder; tlbench evaluate makes some")
    if suite is None:
        chosen, _, run_dir = locate(path, None, unquote(first))
    else:
        chosen = suite if isinstance(suite, Suite) else load_suite(suite)
        run_dir = folders[0].parent
    return [(chosen, models) for models in current_store(run_dir, chosen).models()]


def _lock(suite: Suite, given: str | Path | Suite | None) -> Path | None:
    return _lock_file(given) or _own_lock(suite)


def _lock_file(suite: str | Path | Suite | None) -> Path | None:
    """Return where the lock of a suite that was named by its file would lie."""
    return None if suite is None or isinstance(suite, Suite) else find_suite(suite).with_suffix(".lock.parquet")


def _own_lock(suite: Suite) -> Path | None:
    if suite.name not in suite_names() or load_suite(suite.name).hash != suite.hash:
        return None
    return suites_folder() / f"{suite.name}.lock.parquet"


def _ours() -> str:
    return listed(suite_names())
