"""Where a row's numbers come from, and what its fits cost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

_COSTS: Final = (
    ("seconds", "seconds of a fit", "seconds", True),
    ("images_seen", "training images passed forward", "count", True),
    ("parameters_trained", "parameters trained", "count", False),
    ("parameters_stored", "parameters of the predictor", "count", False),
    ("saved_bytes", "most bytes saved for a backward pass", "bytes", False),
    ("forward_passes", "forward passes for a predicted image", "count", False),
    ("peak_memory_bytes", "peak memory", "bytes", False),
)
"""Column of the fits, words, unit, and whether a sum over fits makes sense."""


@dataclass(frozen=True)
class Cost:
    """One cost of a row's fits.

    Attributes
    ----------
    name, words, unit : str
    mean, low, high : float
        Over the fits that are there: the plain mean, the least and the greatest.
    total : float or None
    """

    name: str
    words: str
    unit: str
    mean: float
    low: float
    high: float
    total: float | None


def costs_of(fits: pd.DataFrame) -> list[Cost]:
    """Return what the fits of a row cost, of those that ended well; empty where there is none."""
    ok = fits[fits["status"] == "ok"]
    if not len(ok):
        return []
    return [
        Cost(
            name,
            words,
            unit,
            float(ok[name].mean()),
            float(ok[name].min()),
            float(ok[name].max()),
            float(ok[name].sum()) if summed else None,
        )
        for name, words, unit, summed in _COSTS
    ]


def provenance(fits: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return what is known of how a row's fits were made: a word, and every distinct value."""
    git = [state for state in _distinct(fits, "git_state") if state]
    started = sorted(str(value) for value in fits["started"] if value)
    told: list[tuple[str, list[str]]] = [
        ("fits", [f"{len(fits):,}, of which {int((fits['status'] == 'ok').sum()):,} ended well"]),
        ("first and last start", [started[0], started[-1]] if started else []),
        ("tlbench", _distinct(fits, "tlbench_version")),
        ("git state", git),
        ("device", _distinct(fits, "device")),
        ("precision", _distinct(fits, "precision")),
        ("threads", _distinct(fits, "threads")),
        ("images a forward pass", _distinct(fits, "batch_size")),
        ("data read", sorted({tag for value in fits["data_read"] for tag in _listed(value)})),
        ("notes on the data", [note for note in _distinct(fits, "data_notes") if note]),
        ("packages", _packages(fits)),
    ]
    return [(word, values) for word, values in told if values]


def temperatures(fits: pd.DataFrame, variant: str) -> list[tuple[str, str, int, float]]:
    """Return the temperature fitted on ID-val: task, source, seed and value of every fit that has one."""
    found = []
    for row in fits[fits["status"] == "ok"].itertuples():
        value = _table(row.temperatures).get(variant)
        if isinstance(value, int | float):
            found.append((str(row.task), str(row.source), int(row.seed), float(value)))  # type: ignore[arg-type]
    return sorted(found)


def broken_promises(fits: pd.DataFrame, variant: str) -> list[str]:
    """Return what the probes found against a predictor's claims: texts, each once."""
    return _probes(fits, variant, ("gradient", "broken"))


def preparations(fits: pd.DataFrame, variant: str) -> list[str]:
    """Return what was done to a predictor before it was measured, such as folding layers: texts, each once."""
    return _probes(fits, variant, ("prepared",))


def _probes(fits: pd.DataFrame, variant: str, names: tuple[str, ...]) -> list[str]:
    probes = [_table(value).get(variant) for value in dict.fromkeys(fits["probes"])]
    told = [one.get(name) for one in probes if isinstance(one, Mapping) for name in names]
    return list(dict.fromkeys(text for text in told if isinstance(text, str) and text))


def _packages(fits: pd.DataFrame) -> list[str]:
    versions: dict[str, set[str]] = {}
    for value in dict.fromkeys(fits["packages"]):
        for name, version in _table(value).items():
            versions.setdefault(str(name), set()).add(str(version))
    return [f"{name} {' / '.join(sorted(found))}" for name, found in sorted(versions.items())]


def _distinct(fits: pd.DataFrame, column: str) -> list[str]:
    return sorted({str(value) for value in fits[column]})


def _table(value: Any) -> Mapping[str, Any]:
    """Return a JSON object, empty for what is none: the tables may be anybody's."""
    try:
        read = json.loads(str(value))
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _listed(value: Any) -> list[str]:
    try:
        read = json.loads(str(value))
    except ValueError:
        return []
    return [str(item) for item in read] if isinstance(read, list) else []
