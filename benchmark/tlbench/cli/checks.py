"""What is wrong with a command is said before the engine takes seconds to load."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tlbench.errors import UsageError

if TYPE_CHECKING:
    from tlbench.suites.spec import Suite


def stop_early(suite: str, model: str | None, backbone: str | None) -> None:
    """Raise for what is wrong in the suite or its name, or the method's, before the engine takes seconds to load."""
    from tlbench import registry
    from tlbench.methods.resolve import resolve_model

    checked_suite(suite)
    if backbone is not None and not backbone.strip():
        raise UsageError(f"--backbone: expected a name, got '{backbone}'")
    if model is not None and re.fullmatch(r"[\w-]*", model) and model not in registry.names("methods"):
        resolve_model(model)


def checked_suite(ref: str) -> Suite:
    """Return a suite all of whose names exist; a mistake is told with the file that it stands in."""
    from tlbench import registry
    from tlbench.conditions.catalogue import condition_names
    from tlbench.data.readers.catalogue import READERS
    from tlbench.metrics.catalogue import METRICS
    from tlbench.suites.load import check_names, load_suite

    suite = load_suite(ref)
    check_names(
        suite,
        where=ref,
        readers=READERS,
        conditions=condition_names(),
        backbones=registry.names("backbones"),
        metrics=METRICS,
    )
    return suite
