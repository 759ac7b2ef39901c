"""What has no number, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd

_WORD: Final = {"failed": "failed", "not_applicable": "does not apply", "not_run": "not run"}
_ORDER: Final = {"failed": 0, "not_run": 1, "not_applicable": 2}


@dataclass(frozen=True)
class Absence:
    """Numbers that are absent for one reason.

    Attributes
    ----------
    status, word : str
        ``failed``, ``not_applicable`` or ``not_run``, and how a page says it.
    condition : str
    metrics, places : tuple of str
        Every metric; the first few places, ``task: source → target (role), seed``.
    count : int
    reason : str
        Text, perhaps a stranger's.
    """

    status: str
    word: str
    condition: str
    metrics: tuple[str, ...]
    places: tuple[str, ...]
    count: int
    reason: str


_SHOWN: Final = 3


def absences(records: pd.DataFrame, fits: pd.DataFrame) -> list[Absence]:
    """Return why a row lacks numbers: failures first, fits before what was measured with them."""
    found = []
    broken = fits[fits["status"] != "ok"]
    for (status, reason), own in broken.groupby(["status", "reason"], sort=False):
        places = tuple(f"{row.task}: {row.source}, seed {row.seed}" for row in own.head(_SHOWN).itertuples())
        found.append(Absence(str(status), _word(status), "fit", (), places, len(own), str(reason)))
    lacking = records[records["status"] != "ok"]
    measured = []
    for (status, condition, reason), own in lacking.groupby(["status", "condition", "reason"], sort=False):
        places = tuple(
            f"{row.task}: {row.source} → {row.target} ({row.role}), seed {row.seed}"
            for row in own.drop_duplicates(["task", "source", "target", "role", "seed"]).head(_SHOWN).itertuples()
        )
        metrics = tuple(sorted(set(own["metric"].astype(str))))
        measured.append(Absence(str(status), _word(status), str(condition), metrics, places, len(own), str(reason)))
    return sorted([*found, *measured], key=lambda absence: _ORDER.get(absence.status, 3))


def _word(status: object) -> str:
    return _WORD.get(str(status), str(status))
