"""The study's questions, A1 to A17, asked of one table of runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pandas as pd

from tlbench.analysis.answer import Answer
from tlbench.analysis.clustered import DRAWS
from tlbench.analysis.correlations import correlations, negative_pairs
from tlbench.analysis.effects import augmentations, regimes
from tlbench.analysis.factors import factors
from tlbench.analysis.incremental import added_value, adversarial_value, corruption_value
from tlbench.analysis.predictors import predictors, second_domain
from tlbench.analysis.ranks import backbone_ranks
from tlbench.analysis.runs import Runs
from tlbench.analysis.seeds import seeds
from tlbench.analysis.shapes import shapes
from tlbench.analysis.trajectories import trajectories
from tlbench.analysis.transfer import calibration, transfer
from tlbench.analysis.upstream import upstream
from tlbench.errors import UnknownNameError, nearest

_FACTOR_DRAWS: Final = 10  # times fewer: every draw is a model fitted
_Ask = Callable[[Runs, pd.DataFrame | None, int], Answer]

QUESTIONS: Final[Mapping[str, _Ask]] = MappingProxyType(
    {
        "A1": lambda runs, published, draws: correlations(runs.table, draws=draws),
        "A2": lambda runs, published, draws: negative_pairs(runs.table),
        "A3": lambda runs, published, draws: shapes(runs.table, draws=draws),
        "A4": lambda runs, published, draws: predictors(runs.table, draws=draws),
        "A5": lambda runs, published, draws: second_domain(runs.table, draws=draws),
        "A6": lambda runs, published, draws: added_value(runs.table, draws=draws),
        "A7": lambda runs, published, draws: corruption_value(runs.table, draws=draws),
        "A8": lambda runs, published, draws: transfer(runs.table, draws=draws),
        "A9": lambda runs, published, draws: calibration(runs.table, draws=draws),
        "A10": lambda runs, published, draws: adversarial_value(runs.table, draws=draws),
        "A11": lambda runs, published, draws: factors(runs.table, draws=draws // _FACTOR_DRAWS),
        "A12": lambda runs, published, draws: augmentations(runs.table, draws=draws),
        "A13": lambda runs, published, draws: regimes(runs.table, draws=draws),
        "A14": lambda runs, published, draws: upstream(runs.table, published, draws=draws),
        "A15": lambda runs, published, draws: backbone_ranks(runs.table),
        "A16": lambda runs, published, draws: trajectories(runs.table, runs.candidates, draws=draws),
        "A17": lambda runs, published, draws: seeds(runs.table, draws=draws),
    }
)


@dataclass(frozen=True)
class Analysis:
    """What a suite's runs say to the questions.

    Attributes
    ----------
    suite : str
    runs : DataFrame
        One row a run; see ``docs/analysis.md`` for the columns.
    answers : mapping of str to Answer
        By question, A1 first.
    notes : tuple of str
        What was left out of the runs, in words.
    """

    suite: str
    runs: pd.DataFrame
    answers: Mapping[str, Answer]
    notes: tuple[str, ...]

    @property
    def frame(self) -> pd.DataFrame:
        """Return one row a question: ``id``, ``title``, ``answered``, ``sentence``, ``too_small``."""
        rows = [(one.id, one.title, not one.too_small, one.sentence, one.too_small) for one in self.answers.values()]
        return pd.DataFrame(rows, columns=["id", "title", "answered", "sentence", "too_small"])

    def to_dict(self) -> dict[str, Any]:
        """Return suite, number of runs, notes and answers as JSON values, tables as lists of rows."""
        return {
            "suite": self.suite,
            "runs": len(self.runs),
            "notes": list(self.notes),
            "answers": [
                {
                    "id": one.id,
                    "title": one.title,
                    "sentence": one.sentence,
                    "too_small": one.too_small,
                    "tables": {name: table.to_dict("records") for name, table in one.tables.items()},
                }
                for one in self.answers.values()
            ],
        }

    def write(self, folder: str | Path) -> list[Path]:
        """Write the tables as CSV and Parquet, and the sentences; return the files.

        ``runs.csv`` and ``answers.json`` lie in the folder, tables in ``A1/tasks.csv`` and so on. Floats of the CSV
        read back as the same numbers.
        """
        target = Path(folder)
        files = self.files()
        for name, content in files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
        return [target / name for name in files]

    def files(self) -> dict[str, bytes]:
        """Return what ``write`` writes, by its path in the folder."""
        files = _table_files(self.runs, "runs")
        for one in self.answers.values():
            for name, table in one.tables.items():
                files |= _table_files(table, f"{one.id}/{name}")
        sentences = self.frame.to_dict("records")
        facts = {"suite": self.suite, "runs": len(self.runs), "notes": list(self.notes), "answers": sentences}
        files["answers.json"] = (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
        return files


def ask(
    runs: Runs,
    *,
    suite: str,
    questions: Iterable[str] | None = None,
    published: pd.DataFrame | None = None,
    draws: int = DRAWS,
) -> Analysis:
    """Return the answers of a table of runs.

    Parameters
    ----------
    runs : Runs
    suite : str
        Its name.
    questions : iterable of str, optional
        Such as ``"A1"``; all by default.
    published : DataFrame, optional
        What is known of backbones, as from ``read_upstream``; A14 reads it.
    draws : int
        Bootstrap draws; a tenth of them for A11.

    Raises
    ------
    UnknownNameError
        If there is no such question.
    """
    wanted = check_questions(questions)
    answers = {name: QUESTIONS[name](runs, published, draws) for name in wanted}
    return Analysis(suite, runs.table, MappingProxyType(answers), runs.notes)


def check_questions(questions: Iterable[str] | None) -> list[str]:
    """Return the questions asked, in their order; errors as for `ask`."""
    asked = [name.upper() for name in questions] if questions is not None else list(QUESTIONS)
    for name in asked:
        if name not in QUESTIONS:
            raise UnknownNameError(f"there is no question '{name}'{nearest(name, QUESTIONS)}; they are A1 to A17")
    return [name for name in QUESTIONS if name in asked]


def _table_files(table: pd.DataFrame, stem: str) -> dict[str, bytes]:
    written = table.to_csv(index=False, lineterminator="\n").encode("utf-8")
    return {f"{stem}.csv": written, f"{stem}.parquet": table.to_parquet(None, index=False)}
