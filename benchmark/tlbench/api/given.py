"""What most calls are given: a suite, by name or as an object; a model; a run folder."""

from __future__ import annotations

from pathlib import Path

from tlbench.errors import UsageError
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Suite

RUN_DIR = "tlbench-runs"


def as_suite(suite: str | Path | Suite) -> Suite:
    """Return the suite that a call means; errors as for ``load_suite``."""
    return suite if isinstance(suite, Suite) else load_suite(suite)


def check_is_made(model: object) -> None:
    """Raise ``UsageError`` where a class stands for an object of it."""
    if isinstance(model, type):
        raise UsageError(f"expected a method object, got a class; write {model.__name__}()")
