"""A run to a pull request: one model's complete work, written into the published results in one rename.

What is small lies in the folder, predictions of large suites lie elsewhere; ``submission.json`` says which, and every
file's hash. Equal runs give equal bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pyarrow as pa

from tlbench import __version__
from tlbench.errors import StoreError, UnknownNameError, UsageError, listed, nearest
from tlbench.methods.card import read_published_card
from tlbench.records.compact import without_derivable, write_compact
from tlbench.records.files import explained, write_text
from tlbench.records.inventory import CARD, INVENTORY, MOVABLE, PLUGIN, FileFact, Inventory, PlacedFact
from tlbench.records.outcomes import make_outcomes
from tlbench.records.published import model_folder
from tlbench.records.schema import AUDITS, CLASS_BINS, PREDICTIONS
from tlbench.records.store import ModelStore
from tlbench.submissions.card import as_toml, card_text
from tlbench.submissions.completeness import check_version, incompleteness
from tlbench.submissions.locating import current_store, locate
from tlbench.submissions.places import HOSTS, address
from tlbench.suites.spec import Suite

__all__ = ["CARRIED_BYTES", "as_toml", "incompleteness", "locate", "submission_folder", "submit"]

CARRIED_BYTES: Final = 16_000_000
"""Most bytes of predictions, class bins and audits together that a submission carries; the largest go elsewhere.

With records, plug-in and card they stay within what a reviewed folder may have, ``changes.MAX_FOLDER_BYTES``."""
MAX_PLUGIN_BYTES: Final = 1_000_000

ORDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "records": (
        "variant", "task", "source", "fit_target", "shots", "seed", "role", "target", "condition", "severity", "norm",
        "epsilon", "metric",
    ),
    "fits": ("task", "source", "fit_target", "shots", "seed"),
    "outcomes": ("measurement_id",),
    "predictions": ("measurement_id", "severity", "id"),
    "class_bins": ("measurement_id", "scaled", "class", "bin"),
    "audits": ("measurement_id", "id", "epsilon"),
}  # fmt: skip


def submission_folder(models: ModelStore) -> Path:
    """Return where a run keeps the files of a submission that are too large for the results."""
    return models.folder / "submission"


def submit(
    run: Path | str,
    *,
    suite: Suite,
    model: str,
    card: Path | None = None,
    results: Path,
    allow_incomplete: bool = False,
    predictions_url: str | None = None,
    carried_bytes: int = CARRIED_BYTES,
    check: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write one model's work into the published results.

    Parameters
    ----------
    run : Path or str
        Run folder.
    suite : Suite
    model : str
        A model with work in the run folder.
    card : Path, optional
        Published beside the numbers; by default one is made from what the run knows.
    results : Path
        Folder of published results; made where it does not exist.
    allow_incomplete : bool
        Whether to publish although measurements are missing or failed; the row then stands unranked.
    predictions_url : str, optional
        Where files that are too large will lie: their names follow this address.
    carried_bytes : int
        Of predictions, class bins and audits together, at most so many bytes are written into the results; what does
        not fit, the largest first, goes to the ``submission_folder``.
    check : callable
        Given the whole submission, all files together, before anything is replaced; raises to stop it.

    Returns
    -------
    Path
        ``results/<suite>/<model>``. What was there is replaced.

    Raises
    ------
    StoreError
        If the run holds another version of the suite, work that is not complete, fits of several versions of the
        model, or if the results cannot be written.
    UnknownNameError
        If the model has no work in the run folder.
    UsageError
        If the suite's data are made up; or if files are too large and nothing says where they will lie: they are
        then in the ``submission_folder``.
    PluginError
        If the card is none.
    """
    if suite.synthetic:
        raise UsageError(f"suite '{suite.name}': its data are made up, to rehearse with; there is nothing to publish")
    if predictions_url is not None:
        address(predictions_url, "")
    store = current_store(Path(run), suite)
    models = store.model(model)
    if not models.folder.is_dir():
        names = [found.name for found in store.models()]
        raise UnknownNameError(f"{store.folder}: there is no work of model {model!r}{nearest(model, names)}")
    records = models.records()
    frame = records.to_pandas()
    check_version(models, frame, suite)
    problem = incompleteness(frame, suite)
    if problem and not allow_incomplete:
        raise StoreError(
            f"{models.folder}: model '{model}' is not complete: {problem}; the same evaluate command does the rest, "
            "and --allow-incomplete publishes it as it is, unranked"
        )
    told = card_text(models, frame, card)
    target = model_folder(results, suite.name, model)
    with _replacing(target) as folder:
        _write_tables(folder, records, models)
        (folder / CARD).write_text(told, encoding="utf-8")
        read_published_card(folder / CARD)
        _write_plugin(folder, models)
        facts = {path.name: FileFact.of(path) for path in sorted(folder.iterdir())}
        _write_inventory(folder, suite, model, facts, {}, incomplete=bool(problem))
        check(folder)
        large = _too_large(facts, carried_bytes)
        _move(large, folder, submission_folder(models))
        if large and predictions_url is None:
            raise UsageError(
                f"{listed(large)}: too large for the results ({sum(facts[name].bytes for name in large):,} bytes, and "
                f"at most {carried_bytes:,} are carried); written to {submission_folder(models)}: put them on one of "
                f"{listed(HOSTS)} and give the same command with --predictions-url and the address that their names "
                "follow"
            )
        placed = {
            name: PlacedFact(**facts[name].model_dump(), url=address(predictions_url or "", name)) for name in large
        }
        _write_inventory(folder, suite, model, facts, placed, incomplete=bool(problem))
    return target


def _write_tables(folder: Path, records: pa.Table, models: ModelStore) -> None:
    predictions = models.table("predictions", PREDICTIONS)
    tables = {
        "records": records,
        "fits": models.fits(),
        "outcomes": make_outcomes(records, predictions),
        "predictions": without_derivable(predictions),
        "class_bins": models.table("class_bins", CLASS_BINS),
        "audits": models.table("audits", AUDITS),
    }
    for name, table in tables.items():
        if name != "audits" or len(table):
            delta = ("id",) if name == "predictions" else ()
            write_compact(folder / f"{name}.parquet", table, order=ORDERS[name], delta=delta)


def _write_plugin(folder: Path, models: ModelStore) -> None:
    sources = sorted(set(models.fits().column("plugin_source").to_pylist()) - {""})
    if len(sources) > 1:
        raise StoreError(
            f"{models.folder}: holds fits by {len(sources)} sources of one plug-in; evaluate in a fresh --run-dir"
        )
    if sources:
        content = sources[0].encode()
        if len(content) > MAX_PLUGIN_BYTES:
            raise StoreError(
                f"{models.folder}: expected the source of a plug-in of at most {MAX_PLUGIN_BYTES:,} bytes, "
                f"got {len(content):,}"
            )
        (folder / PLUGIN).write_bytes(content)


def _write_inventory(
    folder: Path,
    suite: Suite,
    model: str,
    facts: Mapping[str, FileFact],
    placed: Mapping[str, PlacedFact],
    *,
    incomplete: bool,
) -> None:
    inventory = Inventory(
        suite=suite.name,
        suite_version=suite.version,
        suite_hash=suite.hash,
        model=model,
        tlbench_version=__version__,
        files={name: fact for name, fact in facts.items() if name not in placed},
        elsewhere=placed,
        incomplete=incomplete,
    )
    write_text(folder / INVENTORY, inventory.to_json())


def _too_large(facts: Mapping[str, FileFact], most: int) -> list[str]:
    """Return the files that cannot be carried: the largest, until the rest fits."""
    by_size = sorted((name for name in MOVABLE if name in facts), key=lambda name: -facts[name].bytes)
    return [name for place, name in enumerate(by_size) if sum(facts[other].bytes for other in by_size[place:]) > most]


def _move(names: list[str], folder: Path, target: Path) -> None:
    """Move files out of the results; what an earlier submission left there goes."""
    with explained(target):
        shutil.rmtree(target, ignore_errors=True)
        for name in names:
            target.mkdir(exist_ok=True)
            shutil.move(folder / name, target / name)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Yield a new folder that takes the target's place when the block ends without an error."""
    with explained(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".new.{os.getpid()}.", dir=target.parent))
        folder, old = work / "new", work / "old"
        try:
            folder.mkdir()
            yield folder
            if target.exists():
                target.rename(old)
            try:
                folder.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
