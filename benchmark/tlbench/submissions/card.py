"""The card that is published beside the numbers: the submitter's, or one made from what the run knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tlbench.errors import PluginError
from tlbench.methods.card import read_card
from tlbench.records.store import ModelStore


def card_text(models: ModelStore, records: pd.DataFrame, card: Path | None) -> str:
    """Return the text of the card to publish.

    Parameters
    ----------
    models : ModelStore
        The model's part of the run folder.
    records : DataFrame
        Its records.
    card : Path, optional
        The submitter's, published as it is.

    Raises
    ------
    PluginError
        If it is no card, or one of another model.
    """
    if card is None:
        known = models.card()
        first = records.iloc[0]
        made = {"name": models.name, "method": first["method"], "backbone": first["backbone"], **known}
        return as_toml(made)
    name = read_card(card).name
    if not is_row_of(name, models.name):
        raise PluginError(f"{card}: expected the card of model {models.name!r}, got one that is named '{name}'")
    return card.read_text(encoding="utf-8").rstrip() + "\n"


def is_row_of(card: str, row: str) -> bool:
    """Return whether a row of the board is the model of a card of this name.

    With other settings or another backbone than the card's, a row is called ``name(lr=...)@backbone``.

    >>> is_row_of("mine", "mine(lr=0.1)"), is_row_of("mine", "mine2")
    (True, False)
    """
    return row == card or row.startswith((f"{card}(", f"{card}@"))


def as_toml(document: Mapping[str, Any]) -> str:
    """Return strings, numbers, lists and tables of them as TOML; what is None is left out.

    >>> print(as_toml({"name": "a", "settings": {"lr": 0.1}}), end="")
    name = "a"
    <BLANKLINE>
    [settings]
    lr = 0.1
    """
    plain = {key: value for key, value in document.items() if value is not None}
    lines = [f"{_key(key)} = {_toml(value)}" for key, value in plain.items() if not isinstance(value, Mapping)]
    for key, table in plain.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(key)}]"]
            lines += [f"{_key(inner)} = {_toml(value)}" for inner, value in table.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value if item is not None) + "]"
    if isinstance(value, Mapping):
        inside = (f"{_key(key)} = {_toml(item)}" for key, item in value.items() if item is not None)
        return "{ " + ", ".join(inside) + " }"
    # JSON's strings are TOML's, but for one control character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")


def _key(key: object) -> str:
    return str(key) if str(key).replace("-", "").replace("_", "").isalnum() and str(key).isascii() else _toml(str(key))
