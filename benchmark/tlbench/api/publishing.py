"""From a run to the published results, and a run's many files into few."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tlbench.api.given import RUN_DIR, as_suite
from tlbench.errors import StoreError
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from tlbench.records.merge import Merging
    from tlbench.submissions.verification.report import Report


@dataclass(frozen=True)
class SubmitResult:
    """What a submission has written.

    Attributes
    ----------
    folder : Path
        ``results/<suite>/<model>``.
    suite, model : str
    files : mapping of str to int
        Bytes of every file of the folder.
    elsewhere : mapping of str to str
        Addresses where files must lie that are too large for the folder.
    elsewhere_folder : Path
        Where these are now.
    report : Report
        What the local verification found.
    """

    folder: Path
    suite: str
    model: str
    files: Mapping[str, int]
    elsewhere: Mapping[str, str]
    elsewhere_folder: Path
    report: Report = field(repr=False)


def submit(
    run: str | Path,
    *,
    suite: str | Path | Suite | None = None,
    model: str | None = None,
    card: str | Path | None = None,
    results: str | Path = "results",
    allow_incomplete: bool = False,
    predictions_url: str | None = None,
) -> SubmitResult:
    """Write a model's finished work to the results folder, ready for a pull request, once it has been verified.

    Parameters
    ----------
    run : path
        A run folder, or one model's folder inside it.
    suite, model : optional
        Which, where the run folder holds several. A card names its model.
    card : path, optional
        A model card to publish with the numbers.
    results : path
        The board's folder.
    allow_incomplete : bool
        Publish although measurements or seeds are missing: the row then stands unranked.
    predictions_url : str, optional
        Where the files will lie that are too large for the results: the address that their names follow.

    Returns
    -------
    SubmitResult

    Raises
    ------
    VerificationError
        If a number does not follow from the predictions; nothing is written then.
    """
    from tlbench.errors import VerificationError
    from tlbench.records.inventory import read_inventory
    from tlbench.submissions.locating import current_store, locate
    from tlbench.submissions.pack import submission_folder
    from tlbench.submissions.pack import submit as pack
    from tlbench.submissions.verify import verify_folder
    from tlbench.suites.load import find_suite

    card = Path(card) if card else None
    found_suite, found_model, run_dir = locate(Path(run), suite, model, card=card)
    # A suite of the user's has its lock beside its file; ours are found by their name.
    lock = find_suite(suite).with_suffix(".lock.parquet") if isinstance(suite, str | Path) else None
    reports: list[Report] = []

    def verify(written: Path) -> None:
        report = verify_folder(
            written,
            suite=found_suite,
            model=found_model,
            results=Path(results),
            lock=lock,
            allow_incomplete=allow_incomplete,
        )
        reports.append(report)
        wrong = [check for check in report.checks if check.status == "mismatch"]
        if wrong:
            raise VerificationError(
                f"{run_dir}: model '{found_model}' does not verify and is not submitted: "
                f"{wrong[0].name}: {wrong[0].summary}"
                + (f" (and {len(wrong) - 1} more; tlbench verify tells all)" if len(wrong) > 1 else "")
            )

    folder = pack(
        run_dir,
        suite=found_suite,
        model=found_model,
        card=card,
        results=Path(results),
        allow_incomplete=allow_incomplete,
        predictions_url=predictions_url,
        check=verify,
    )
    inventory = read_inventory(folder)
    return SubmitResult(
        folder=folder,
        suite=found_suite.name,
        model=found_model,
        files={path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        elsewhere={name: fact.url for name, fact in inventory.elsewhere.items()} if inventory else {},
        elsewhere_folder=submission_folder(current_store(run_dir, found_suite).model(found_model)),
        report=reports[0],
    )


def compact(
    run_dir: str | Path = RUN_DIR,
    *,
    suite: str | Path | Suite | None = None,
    each: Callable[[Merging], None] | None = None,
) -> tuple[Merging, ...]:
    """Put the many small files of a run folder into one a model; evaluations may go on meanwhile.

    Parameters
    ----------
    run_dir : path
    suite : str, Path or Suite, optional
        This suite's work alone, of all its versions.
    each : callable, optional
        Told of every model as soon as it is done.

    Returns
    -------
    tuple of Merging
        What became of every model's files.

    Raises
    ------
    StoreError
        If there is no work, or a file is damaged.
    """
    from tlbench.records.merge import merge
    from tlbench.records.store import all_stores, stores

    folder = Path(run_dir)
    name = None if suite is None else as_suite(suite).name
    found = all_stores(folder) if name is None else stores(folder, name)
    if not found:
        of = "" if name is None else f" of suite '{name}'"
        raise StoreError(f"{folder}: there is no work{of} in this run folder; tlbench evaluate makes some")
    told = []
    for models in (models for store in found for models in store.models()):
        told.append(merge(models))
        if each is not None:
            each(told[-1])
    return tuple(told)


def verify(
    path: str | Path,
    *,
    suite: str | Path | Suite | None = None,
    model: str | None = None,
    results: str | Path | None = None,
    allow_incomplete: bool = False,
) -> tuple[Report, ...]:
    """Recompute every number of a run or a submission from its predictions, and check all that needs no model.

    Parameters
    ----------
    path : path
        A run folder, or a suite's or a model's folder in it; or ``results/<suite>/<model>``, or ``results/<suite>``.
    suite, model : optional
        Which, where there are several.
    results : path, optional
        Where earlier versions are published; by default the results that came with tlbench.
    allow_incomplete : bool
        Whether measurements that are missing or failed are a warning, and no mismatch.

    Returns
    -------
    tuple of Report
        One a model: ``report.ok``, ``report.level`` and ``report.checks``.
    """
    from tlbench.submissions.verify import verify as check

    return check(
        Path(path),
        suite=suite,
        model=model,
        results=None if results is None else Path(results),
        allow_incomplete=allow_incomplete,
    )


def verify_submitted(folder: str | Path, *, model: str, suite: Suite, results: str | Path) -> Report:
    """Verify a submission as the board's own workflow does: what a row says of itself is held against the methods, too.

    Beyond `verify` this needs PyTorch, and that everything that was submitted is listed.

    Parameters
    ----------
    folder : path
        ``results/<suite>/<model>``, with the files that lie elsewhere fetched into it.
    model : str
    suite : Suite
    results : path
        Where earlier versions are published.
    """
    from tlbench.engine.identity import identity_problems, unchecked_identity
    from tlbench.leaderboard.images import lock_path
    from tlbench.records.inventory import INVENTORY
    from tlbench.records.lock import read_lock
    from tlbench.records.published import PublishedModel
    from tlbench.submissions.verification.report import Check, Findings, not_checked
    from tlbench.submissions.verify import verify_folder

    place = Path(folder)
    report = verify_folder(place, suite=suite, model=model, results=Path(results))
    found = Findings()
    if not (place / INVENTORY).is_file():
        found.add(f"{INVENTORY} is missing: tlbench submit writes it")
    try:
        fits = PublishedModel(place, suite.name, model).table("fits").to_pylist()
    except StoreError as problem:
        checks = [not_checked("identity", str(problem)), not_checked("weights and fit ids", str(problem))]
    else:
        lock = lock_path(suite)
        splits = read_lock(lock) if lock.is_file() else {}
        problems, warnings = identity_problems(fits, suite, splits)
        for text in problems:
            found.add(text)
        for text in warnings:
            found.warn(text)
        unchecked = "; ".join(unchecked_identity(fits, suite, splits))
        checks = [
            found.check("identity", f"{len(fits)} fits are what registered methods make of their settings and data"),
            not_checked("weights and fit ids", unchecked)
            if unchecked
            else Check("weights and fit ids", "ok", f"{len(fits)} fits have the ids that registered weights give them"),
        ]
    return replace(report, checks=(*report.checks, *checks))
