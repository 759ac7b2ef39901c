"""A model card: a TOML file that names a model, its method, its settings and who made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from tlbench.errors import PluginError
from tlbench.suites.spec import Name, Spec
from tlbench.suites.toml_file import explain, read_toml

_LONGEST_TABLE: Final = 40_000  # letters of JSON


def _short(table: Mapping[str, Any]) -> Mapping[str, Any]:
    length = len(json.dumps(table, default=str))
    if length > _LONGEST_TABLE:
        raise ValueError(f"expected a table of at most {_LONGEST_TABLE:,} letters, got {length:,}")
    return table


_Table = Annotated[Mapping[str, Any], AfterValidator(_short)]


class _Told(Spec):
    """What a card says besides the model's name and method."""

    settings: _Table = Field(default_factory=dict)
    backbone: str | None = Field(None, max_length=300)
    authors: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field((), max_length=100)
    paper: str = Field("", max_length=500)
    licence: str = Field("", max_length=200)


class Card(_Told):
    """What a card may say; other keys are errors."""

    name: Name = Field(description="row of the board")
    method: str = Field(max_length=2000, description="as --model takes it; a file lies beside the card or below it")


class PublishedCard(_Told):
    """A card beside published numbers: one of a user's, or one made from a run, which may be a composition."""

    name: str = Field(min_length=1, max_length=300)
    method: str = Field("", max_length=2000)
    model: str = Field("", max_length=300, description="row of the board, where the card was made from a run")
    describes: _Table = Field(default_factory=dict, description="the method as the run knew it")


_AnyCard = TypeVar("_AnyCard", Card, PublishedCard)


def read_card(path: Path) -> Card:
    """Return a checked card; nothing that it names is loaded.

    Raises
    ------
    PluginError
        If the file cannot be read or is not a card; one line with file, place, expectation and what came.
    """
    return _read(path, Card)


def read_published_card(path: Path) -> PublishedCard:
    """Return the checked card of a published model; nothing that it names is loaded, and its texts are a stranger's.

    Raises
    ------
    PluginError
        As for `read_card`.
    """
    return _read(path, PublishedCard)


def _read(path: Path, kind: type[_AnyCard]) -> _AnyCard:
    document = read_toml(path, error=PluginError, what="a model card")
    try:
        return kind.model_validate(document)
    except ValidationError as problem:
        raise PluginError(f"{path}, {explain(problem, document, kind)}") from None
