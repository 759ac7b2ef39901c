"""Which suite and model a path and two optional names mean."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from tlbench.errors import StoreError, UnknownNameError, UsageError, listed, nearest
from tlbench.methods.card import read_card
from tlbench.records.store import Store, stores
from tlbench.submissions.card import is_row_of
from tlbench.suites.load import load_suite, suite_names
from tlbench.suites.spec import Suite

_SHORT: Final = 12


def locate(
    run: Path, suite: str | Path | Suite | None = None, model: str | None = None, *, card: Path | None = None
) -> tuple[Suite, str, Path]:
    """Return which suite and model a path and two optional names mean, and the run folder they are in.

    Parameters
    ----------
    run : Path
        A run folder, a suite's folder in it, or a model's folder in that.
    suite : str, Path or Suite, optional
        Needed where the run folder holds several suites.
    model : str, optional
        Needed where it holds several models.
    card : Path, optional
        Its name chooses where it holds several and none is named.

    Returns
    -------
    tuple of Suite, str and Path

    Raises
    ------
    StoreError
        If there is nothing to submit, or only work on another version of the suite.
    UsageError
        If there are several suites or models and none was named.
    UnknownNameError
        If the named model has no work here.
    PluginError
        If the card is none.
    """
    suite_file, run_dir = _suite_file(run)
    if suite is not None:
        chosen = suite if isinstance(suite, Suite) else load_suite(suite)
    else:
        chosen = _only_suite(run_dir, [suite_file] if suite_file else sorted(run_dir.glob("*/suite.json")))
    store = current_store(run_dir, chosen)
    names = [found.name for found in store.models()]
    if model is None and run.parent.name == "models":
        model = next((found.name for found in store.models() if found.folder.resolve() == run.resolve()), None)
    if model is None:
        if len(names) > 1 and card is not None:
            told = read_card(card).name
            names = [name for name in names if is_row_of(told, name)] or names
        if len(names) != 1:
            raise UsageError(f"{store.folder}: expected --model, one of {listed(names)}")
        model = names[0]
    if model not in names:
        # A method that wraps another is called by both: `adabn` may well be `adabn(finetune)`.
        around = [name for name in names if name.startswith(f"{model}(")]
        if len(around) == 1:
            return chosen, around[0], run_dir
        hint = (
            f"; did you mean {listed(around)}?" if around else nearest(model, names) or f"; there are {listed(names)}"
        )
        raise UnknownNameError(f"{store.folder}: there is no work of model {model!r}{hint}")
    return chosen, model, run_dir


def current_store(run_dir: Path, suite: Suite) -> Store:
    """Return a run folder's store of this version of a suite.

    Raises
    ------
    StoreError
        If there is none; the message names the versions that there are.
    """
    store = Store(run_dir, suite.name, suite.hash)
    if (store.folder / "suite.json").is_file():
        return store
    others = [found.suite_hash[:_SHORT] for found in stores(run_dir, suite.name)]
    if others:
        raise StoreError(
            f"{run_dir}: expected results of suite '{suite.name}' with hash {suite.hash[:_SHORT]}, "
            f"got {listed(others)}: the suite has changed since; evaluate again"
        )
    raise StoreError(f"{run_dir}: there are no results of suite '{suite.name}'; make some with tlbench evaluate")


@dataclass(frozen=True)
class _Named:
    """A suite's file in a run folder, and what is in it."""

    path: Path
    document: dict[str, Any]


def _suite_file(run: Path) -> tuple[Path | None, Path]:
    """Return the suite file that a path lies in or under, if any, and the run folder."""
    for folder in (run, run.parent.parent):
        if (folder / "suite.json").is_file() and (folder == run or run.parent.name == "models"):
            return folder / "suite.json", folder.parent
    if not run.is_dir():
        raise StoreError(f"{run}: expected a run folder, found nothing; tlbench evaluate makes one")
    return None, run


def _only_suite(run_dir: Path, files: list[Path]) -> Suite:
    if not files:
        raise StoreError(f"{run_dir}: there is no work in this run folder; tlbench evaluate makes some")
    found = [_Named(path, _json(path)) for path in files]
    names = sorted({str(named.document.get("name")) for named in found})
    if len(names) > 1:
        raise UsageError(f"{run_dir}: expected --suite, one of {listed(names)}")
    if names[0] in suite_names():
        return load_suite(names[0])
    if len(found) > 1:
        raise UsageError(f"{run_dir}: expected --suite with the suite's file: there are {len(found)} versions of it")
    try:
        return Suite.model_validate(found[0].document)
    except ValidationError as problem:
        raise StoreError(f"{found[0].path}: expected a suite ({problem.error_count()} errors)") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as problem:
        raise StoreError(f"{path}: expected a suite as JSON ({problem})") from None
