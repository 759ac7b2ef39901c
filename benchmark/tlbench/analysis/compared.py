"""Two rows of a board side by side: what `tlbench.compare` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pandas as pd

from tlbench.analysis.flips import Flips
from tlbench.analysis.paired import Comparison, Difference, Measure

_COLUMNS: Final = (
    "level", "task", "source", "target", "pairs", "images", "clusters", "difference", "standard_error", "low", "high",
    "seeds_sd", "verdict", "reason", "both_right", "first_only", "second_only", "both_wrong", "first_images",
    "second_images", "p",
)  # fmt: skip
_COUNTS: Final = ["both_right", "first_only", "second_only", "both_wrong"]
_WHOLE: Final = ["pairs", "images", "clusters", *_COUNTS, "first_images", "second_images"]
_REAL: Final = ["difference", "standard_error", "low", "high", "seeds_sd", "p"]
_TEXT: Final = ["level", "task", "source", "target", "verdict", "reason"]


@dataclass(frozen=True)
class Compared:
    """Two rows of a board on the same clean images.

    Attributes
    ----------
    suite, suite_version, suite_hash : str, int, str
    first, second : str
        Names of the two rows; differences are the first minus the second.
    metric : {"accuracy", "nll", "brier"}
    role : {"ood-test", "id-test", "id-val"}
    differences : Comparison
        By pair, by task and over all, with intervals over clusters of images and seeds.
    flips : Flips
        The images that one has right and the other wrong.
    notes : tuple of str
        What a reader must know: other protocols, seeds that only one has, predictions that are not there.
    """

    suite: str
    suite_version: int
    suite_hash: str
    first: str
    second: str
    metric: Measure
    role: str
    differences: Comparison
    flips: Flips
    notes: tuple[str, ...]

    @property
    def images(self) -> pd.DataFrame:
        """The images that flip, most flips first; the columns are those of `Flips`."""
        return self.flips.images

    @property
    def frame(self) -> pd.DataFrame:
        """One difference a row, tidy: the column ``level`` is all, judged (pairs with an interval), task or pair."""
        pairs = self.differences.pairs.merge(self.flips.pairs.drop(columns=["images", "seeds"]), how="left")
        pairs = pairs.assign(level="pair", pairs=1)
        judged = pairs[pairs["low"].notna()]
        rows = [self._together("all", self.differences.mean, pairs)]
        if self.differences.mean_judged is not None and len(judged) < len(pairs):
            rows.append(self._together("judged", self.differences.mean_judged, judged))
        tasks = self.differences.tasks.drop(columns="judged_pairs").assign(level="task")
        counted = pairs.groupby("task", sort=False)[_COUNTS].sum().reset_index()
        parts = [pd.DataFrame(rows), tasks.merge(counted, how="left"), pairs]
        whole = pd.concat([_typed(part) for part in parts], ignore_index=True)
        return whole[list(_COLUMNS)]

    def _together(self, level: str, found: Difference, pairs: pd.DataFrame) -> dict[str, object]:
        reasons = "; ".join(dict.fromkeys(reason for reason in pairs["reason"] if reason))
        return {
            "level": level,
            "pairs": len(pairs),
            "difference": found.value,
            "standard_error": found.standard_error,
            "low": found.low,
            "high": found.high,
            "verdict": found.verdict,
            "reason": reasons,
            **{name: int(pairs[name].sum()) for name in _COUNTS},
        }


def _typed(part: pd.DataFrame) -> pd.DataFrame:
    whole = part.reindex(columns=list(_COLUMNS))
    kinds = {name: "Int64" for name in _WHOLE} | {name: "float64" for name in _REAL} | {name: "str" for name in _TEXT}
    return whole.astype(kinds)
