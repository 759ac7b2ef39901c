"""Whether attacked sets belong to the clean ones: what was right before, and which epsilon broke it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tlbench.submissions.verification.measured import Columns, Measurements
from tlbench.submissions.verification.report import Check, Findings
from tlbench.suites.spec import Attack

_TIE: Final = 1e-3
"""Other batch sizes agree to 1e-5: only where two classes are that near may the same image be right once and wrong
once."""


def check_attacks(measured: Measurements) -> Check:
    """Answer whether attacked images were right when clean where they say so, and broke at an epsilon of the suite."""
    found = Findings()
    reason = measured.submission.lacks("records") or measured.submission.lacks("predictions")
    sets, near, other = 0, 0, 0
    for number, groups in measured.predictions.groups_of.items() if not reason else ():
        condition = measured.conditions[number]
        if not isinstance(condition, Attack):
            continue
        sets += 1
        try:
            columns = measured.predictions.columns_of(groups[0])
            breaking, right = columns["breaking_epsilon"], columns["correct_clean"]
        except (ValueError, KeyError) as problem:
            found.add(f"{measured.place(number)}: not the predictions of an attack ({problem})")
            continue
        _check_epsilons(measured, number, condition, columns, found)
        broken = ~right & (breaking != 0)
        _note(measured, number, broken, "an epsilon that broke it, wrong when clean", columns, found)
        _check_audits(measured, number, columns, found)
        if measured.fact(number, "precision") != "float32":
            other += 1
            continue
        near += _check_clean(measured, number, columns, found)
    done = f"{sets:,} attacked sets agree with their clean ones"
    if near:
        done += f", but for {near} images between two classes"
    if other:
        reason = reason or f"{other} sets were measured in another precision when clean than when attacked"
    return found.check("attacks", done, reason)


def _check_epsilons(measured: Measurements, number: int, condition: Attack, columns: Columns, found: Findings) -> None:
    # The metrics compare epsilons as float32.
    allowed = np.array([0.0, *condition.radii, np.inf], dtype=np.float32)
    strange = ~np.isin(columns["breaking_epsilon"].astype(np.float32), allowed)
    _note(measured, number, strange, "a breaking epsilon that the suite does not have", columns, found)


def _check_audits(measured: Measurements, number: int, columns: Columns, found: Findings) -> None:
    for group in measured.audits.groups_of.get(number, []):
        audited = measured.audits.columns_of(group)
        place = np.searchsorted(columns["id"], audited["id"])
        known = place < len(columns["id"])
        breaking = columns["breaking_epsilon"][np.where(known, place, 0)]
        implied = breaking.astype(np.float32) > audited["epsilon"].astype(np.float32)
        wrong = known & (implied != audited["implied"])
        _note(measured, number, wrong, "an audited verdict that its breaking epsilon does not imply", audited, found)


def _check_clean(measured: Measurements, number: int, columns: Columns, found: Findings) -> int:
    """Hold an attacked set against its clean one; return how many images lie between two classes."""
    clean = measured.clean_of.get(measured.set_of(number))
    groups = [] if clean is None else measured.predictions.groups_of.get(clean, [])
    if not groups:
        found.add(f"{measured.place(number)}: attacked, but its clean set is not there")
        return 0
    whole = measured.predictions.columns_of(groups[0])
    place = np.searchsorted(whole["id"], columns["id"])
    there = place < len(whole["id"])
    row = np.where(there, place, 0)
    there &= whole["id"][row] == columns["id"]
    _note(measured, number, ~there, "attacked, but not there when clean", columns, found)
    differs = there & ((whole["rank"][row] == 0) != columns["correct_clean"])
    tied = differs & _between_classes(whole)[row]
    _note(measured, number, differs & ~tied, "right before the attack, or not, unlike the clean set", columns, found)
    return int(tied.sum())


def _between_classes(columns: Columns) -> NDArray[np.bool_]:
    """Return whether an image may be given to either of two classes, as far as its statistics tell."""
    if "confidence" not in columns or "brier" not in columns:
        return np.zeros(len(columns["id"]), dtype=bool)
    confidence, true = columns["confidence"].astype(np.float64), np.exp(columns["log_likelihood"].astype(np.float64))
    second: NDArray[Any] = columns["brier"].astype(np.float64) - (1 - true) ** 2
    wrong_tie = true >= confidence * (1 - _TIE)
    # Of an image that is right, the squares of all other classes bound that of the second one.
    right_tie = second >= (confidence * (1 - _TIE)) ** 2
    return np.asarray(np.where(columns["rank"] == 0, right_tie, wrong_tie))


def _note(
    measured: Measurements, number: int, wrong: NDArray[np.bool_], what: str, columns: Columns, found: Findings
) -> None:
    if wrong.any():
        first = columns["id"][np.flatnonzero(wrong)[0]]
        found.add(f"{measured.place(number)}, id {first}: {what} ({int(wrong.sum())} images)")
