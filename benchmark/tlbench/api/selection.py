"""The part of a suite that a call names, read but not yet held against the suite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlbench.errors import UsageError


def read_selection(
    seeds: Sequence[int] | int | None = None,
    shots: Sequence[str | int] | str | int | None = None,
    only: Sequence[str] | str = (),
    shard: str | None = None,
) -> dict[str, Any]:
    """Return what the words of a call select: the fields of the engine's `Selection`.

    Raises
    ------
    UsageError
        Where words cannot be read, or name nothing.
    """
    seeds, only = several(seeds), several(only) or ()
    shots = None if shots is None else tuple(str(shot) for shot in several(shots) or ())
    for option, given in (("seeds", seeds), ("shots", shots)):
        if given is not None and not given:
            raise UsageError(f"{option}: expected at least one, got none; None means the suite's")
    filters: dict[str, tuple[str, ...]] = {}
    for text in [part for entry in only for part in entry.split(",")]:
        key, sign, value = text.partition("=")
        if not sign or not value:
            raise UsageError(f"--only {text}: expected task=NAME, source=NAME or target=NAME")
        filters[key.strip()] = (*filters.get(key.strip(), ()), value.strip())
    for shot in shots or ():
        if shot != "full" and not (shot.isdigit() and int(shot) > 0):
            raise UsageError(f"--shots {shot}: expected 'full' or a number of images a class")
    part = None
    if shard is not None:
        first, sign, last = shard.partition("/")
        if not (sign and first.isdigit() and last.isdigit()):
            raise UsageError(f"--shard {shard}: expected i/n, such as 1/4")
        part = (int(first), int(last))
    return {
        "seeds": seeds,
        "shots": shots,
        "only": filters or None,
        "shard": part,
    }


def read_shots(given: Sequence[str | int] | str | int | None) -> tuple[str, ...] | None:
    """Return amounts of training images a class as words, ``"full"`` or a number; ``None`` means the suite's."""
    chosen: tuple[str, ...] | None = read_selection(shots=given)["shots"]
    return chosen


def several(given: Any) -> tuple[Any, ...] | None:
    """Return a sequence as a tuple; a lone string or number, the usual slip in Python, is one entry."""
    if given is None:
        return None
    return (given,) if isinstance(given, str | int) else tuple(given)
