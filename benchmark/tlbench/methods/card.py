"""A model card: a TOML file that names a model, its method, its settings and who made it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tlbench.errors import PluginError
from tlbench.suites.spec import Name, Spec
from tlbench.suites.toml_file import explain, read_toml


class Card(Spec):
    """What a card may say; other keys are errors."""

    name: Name = Field(description="row of the board")
    method: str = Field(description="as --model takes it; a file lies beside the card or below it")
    settings: Mapping[str, Any] = Field(default_factory=dict)
    backbone: str | None = None
    authors: tuple[str, ...] = ()
    paper: str = ""
    licence: str = ""


def read_card(path: Path) -> Card:
    """Return a checked card; nothing that it names is loaded.

    Raises
    ------
    PluginError
        If the file cannot be read or is not a card; one line with file, place, expectation and what came.
    """
    document = read_toml(path, error=PluginError, what="a model card")
    try:
        return Card.model_validate(document)
    except ValidationError as problem:
        raise PluginError(f"{path}, {explain(problem, document, Card)}") from None
