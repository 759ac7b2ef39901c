"""What a verification says: a line for every check, and the level that a submission has earned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from tlbench.records.levels import Level

Status = Literal["ok", "warning", "mismatch", "not checked"]
MEANING: Final = (
    "recomputed means that the arithmetic is right, every number follows from the stored predictions; "
    "not that the model made these predictions"
)
_SHOWN: Final = 20
_NEEDED: Final = ("schema", "suite", "values", "standard errors")
"""Checks without which nothing was recomputed."""


@dataclass(frozen=True)
class Check:
    """The answer to one question.

    Attributes
    ----------
    name : str
    status : {"ok", "warning", "mismatch", "not checked"}
        A warning is for a person to look at; only a mismatch makes a submission wrong.
    summary : str
        One line: what was checked, what is wrong, or why it could not be checked.
    count : int
        How many things are wrong.
    details : tuple of str
        The first of them.
    """

    name: str
    status: Status
    summary: str
    count: int = 0
    details: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON values."""
        return {
            "name": self.name,
            "status": self.status,
            "summary": self.summary,
            "count": self.count,
            "details": list(self.details),
        }


@dataclass
class Findings:
    """What is found wrong while one question is answered; the first things in words, all of them counted."""

    wrong: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    count: int = 0
    warnings: int = 0

    def add(self, text: str, count: int = 1) -> None:
        """Note something that is wrong, or ``count`` things of one kind of which the text tells the first."""
        self.count += count
        if count and len(self.wrong) < _SHOWN:
            self.wrong.append(text)

    def warn(self, text: str) -> None:
        """Note something that a person should look at."""
        self.warnings += 1
        if len(self.strange) < _SHOWN:
            self.strange.append(text)

    def check(self, name: str, done: str, unchecked: str = "") -> Check:
        """Return the answer: ``done`` says what was looked at, ``unchecked`` what could not be."""
        if self.count:
            more = f", {self.count} in all" if self.count > 1 else ""
            return Check(name, "mismatch", f"{self.wrong[0]}{more}", self.count, (*self.wrong, *self.strange))
        if unchecked:
            return Check(name, "not checked", f"{done}; {unchecked}" if done else unchecked, 0, tuple(self.strange))
        if self.strange:
            more = f", {self.warnings} in all" if self.warnings > 1 else ""
            return Check(name, "warning", f"{self.strange[0]}{more}", self.warnings, tuple(self.strange))
        return Check(name, "ok", done)


def not_checked(name: str, reason: str) -> Check:
    """Return that a question could not be asked, and why."""
    return Check(name, "not checked", reason)


@dataclass(frozen=True)
class Report:
    """What was found of one model.

    Attributes
    ----------
    folder : Path
    suite, suite_hash, model : str
        The suite is the one that it was held against.
    suite_version : int
    checks : tuple of Check
    numbers : int
        Numbers that were recomputed; ``predictions`` the stored rows that they follow from.
    files : mapping of str to str
        SHA-256 of every file of a submission, by name, as it was verified.
    seconds : float
    """

    folder: Path
    suite: str
    suite_version: int
    suite_hash: str
    model: str
    checks: tuple[Check, ...]
    numbers: int
    predictions: int
    files: Mapping[str, str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; what could not be checked is not wrong."""
        return not any(check.status == "mismatch" for check in self.checks)

    @property
    def level(self) -> Level:
        """``"recomputed"`` where nothing is wrong and every number was recomputed."""
        status = {check.name: check.status for check in self.checks}
        whole = all(status.get(name) in ("ok", "warning") for name in _NEEDED)
        return "recomputed" if self.ok and whole else "self-reported"

    def check(self, name: str) -> Check:
        """Return one check.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        for found in self.checks:
            if found.name == name:
                return found
        raise ValueError(f"there is no check {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the whole report as JSON values."""
        return {
            "folder": str(self.folder),
            "suite": self.suite,
            "suite_version": self.suite_version,
            "suite_hash": self.suite_hash,
            "model": self.model,
            "ok": self.ok,
            "level": self.level,
            "numbers": self.numbers,
            "predictions": self.predictions,
            "seconds": round(self.seconds, 3),
            "checks": [check.to_dict() for check in self.checks],
            "files": dict(self.files),
        }

    def to_text(self) -> str:
        """Return the report as lines: a heading, and one for every check."""
        width = max(len(check.name) for check in self.checks)
        lines = [f"{self.suite} / {self.model} ({self.folder})"]
        lines += [f"  {check.status:<11}  {check.name:<{width}}  {_line(check.summary)}" for check in self.checks]
        return "\n".join(lines)


def _line(text: str) -> str:
    """Return text as one line: names in it may be anyone's."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
