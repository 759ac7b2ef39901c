"""The board of a suite: complete rows ranked within their section, controls and incomplete rows below."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pandas as pd

from tlbench.errors import UsageError
from tlbench.leaderboard.aggregate import Score, infinite_images, score_rows
from tlbench.leaderboard.beside import BESIDE, FORMS, of_same_seeds, scores_beside
from tlbench.leaderboard.costs import costs, fit_row
from tlbench.leaderboard.effective import Baseline, effective_robustness
from tlbench.leaderboard.forms import check_metric, form
from tlbench.leaderboard.generalisation import LEAST_TASKS
from tlbench.leaderboard.measured import Measured
from tlbench.leaderboard.notes import (
    AUDIT,
    audit_notes,
    batch_notes,
    batch_sizes,
    data_notes,
    notes_of,
    of_several_batches,
)
from tlbench.leaderboard.prepared import ROW, SPOKESMEN, prepare
from tlbench.leaderboard.statistics import DIFFERENCES, INTERVALS, RANKS, SECTION, WITHOUT, with_statistics
from tlbench.metrics.catalogue import METRICS
from tlbench.suites.spec import Role, Suite

Standing = Literal["ranked", "unranked", "variant", "incomplete", "control"]

__all__ = ["BESIDE", "LEAST_TASKS", "Board", "Standing", "make_board", "needed", "pretraining"]

# Rows are compared within one kind of pretraining data. A record names its backbone, and these are the ones we know.
_PRETRAINING: Final = {"efficientnet-lite0": "ImageNet", "unknown": "unknown"}
_UNTRAINED: Final = ("none", "untrained", "small-cnn")


@dataclass(frozen=True)
class Board:
    """A suite's rows by one metric.

    Attributes
    ----------
    suite, suite_version, suite_hash : str, int, str
    metric : str
    role : str or None
        Where the score was measured; None for a gap.
    proper : bool
        Whether rows may be ranked by this metric.
    these_pairs_only : bool
        Whether the suite has too few tasks to say anything about others.
    frame : DataFrame
        One row a row of the board, in the order in which they are shown: ``protocol``, ``shots``, ``precision`` and
        ``pretraining`` (the section), ``standing`` (``ranked``; ``unranked``, such as what has fewer seeds than the
        suite; ``variant``, which nobody named beforehand; ``control`` or ``incomplete``), ``rank``, ``name``,
        ``origin``, ``backbone``, ``settings_hash``, ``score``, ``standard_error``, ``seeds_sd``, ``seeds``, ``found``
        and ``expected`` (cells), ``low`` and ``high`` (bounds of an incomplete score), ``reason``, the measures beside
        it, and the columns of ``statistics``: ``level`` (how far the row has been verified), ``measurement_low`` and
        ``measurement_high``, ``generalisation_low`` and ``generalisation_high`` (95 % intervals), ``tie_group``,
        ``rank_low`` and ``rank_high``, ``rank_by_pairs`` and ``rank_by_images``, ``rank_without_low`` and
        ``rank_without_high`` (least and greatest rank when each task is left out), ``pareto``; and
        ``effective_robustness`` where the suite has a frozen baseline. Rates are fractions.
    notes : tuple of str
        What a reader must know.
    reference : str
        How a command names the suite: its file, where it is a user's.
    differences : DataFrame
        Every two ranked rows of a section, the better one first: the section's columns, ``first`` and ``second``
        (names; ``published:`` or ``local:`` stands before one that several rows share), ``difference``, ``low`` and
        ``high`` (simultaneous 95 % interval), ``p`` and ``adjusted_p``.
    without : DataFrame
        Every ranked row without each task: the section's columns, ``task``, ``name``, ``score`` and ``rank``.
    """

    suite: str
    suite_version: int
    suite_hash: str
    metric: str
    role: Role | None
    proper: bool
    these_pairs_only: bool
    frame: pd.DataFrame
    notes: tuple[str, ...]
    reference: str = ""
    differences: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(DIFFERENCES)))
    without: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(WITHOUT)))

    def to_text(
        self, format: Literal["table", "markdown", "csv", "json"] = "table", *, width: int | None = None
    ) -> str:
        """Return the board as text.

        Parameters
        ----------
        format : {"table", "markdown", "csv", "json"}
            Rates are percentages in the first two and fractions in the others.
        width : int, optional
            Columns of the terminal, for a table; by default those of the terminal at hand.

        Raises
        ------
        UsageError
            If the format is none of these.
        """
        from tlbench.leaderboard import text

        writers = {"markdown": text.as_markdown, "csv": text.as_csv, "json": text.as_json}
        if format == "table":
            return text.as_table(self, width)
        if format not in writers:
            raise UsageError(f"format: expected table, markdown, csv or json, got '{format}'")
        return writers[format](self)


def make_board(
    records: pd.DataFrame,
    fits: pd.DataFrame,
    suite: Suite,
    *,
    metric: str | None = None,
    measured: Measured | None = None,
    baseline: Baseline | None = None,
) -> Board:
    """Return a suite's board.

    Parameters
    ----------
    records, fits : DataFrame
        As from ``load_results`` and ``load_fits``, of this version of the suite alone.
    suite : Suite
    metric : str, optional
        By default the suite's primary metric.
    measured : Measured, optional
        What every image contributes to this metric, as from `load_measured`. Without it, measurement intervals are
        bounds from the recorded standard errors, and a suite of fewer than six tasks compares no rows.
    baseline : Baseline, optional
        The suite's frozen line of ID against OOD accuracy, as from `read_baseline`.

    Returns
    -------
    Board
        A row's score depends on its own records and on nothing else.

    Raises
    ------
    UnknownNameError
        If there is no such metric.
    UsageError
        If the suite does not measure it, or its data are made up.
    ValueError
        If records of another suite, or of another version of it, are among them.
    """
    if suite.synthetic:
        raise UsageError(
            f"suite '{suite.name}': its data are made up, to rehearse with, and no board takes its records; "
            "tlbench.load_results reads them"
        )
    name = check_metric(metric or suite.metrics.primary)
    ranking = form(suite, name)
    _check_hash(records, suite)
    seeds = suite.protocol.seeds
    prepared = prepare(records, seeds)
    scores = score_rows(prepared, ranking, seeds)
    beside = scores_beside(prepared, suite, seeds)
    if baseline is not None:
        beside["effective_robustness"] = effective_robustness(prepared, suite, baseline, seeds)
    levels = _levels(records)
    sizes = batch_sizes(fits)
    cost = costs(fits, seeds)
    infinite = infinite_images(prepared, ranking) if METRICS[name].unit == "nats" else {}
    rows = []
    for (row, score), control, headline in zip(scores.items(), prepared.control, prepared.headline, strict=True):
        of = dict(zip(ROW, row, strict=True))
        fit = fit_row(row)
        mixed = of_several_batches(sizes.get(fit, []))
        rows.append(
            {
                **of,
                "pretraining": pretraining(of["backbone"], of["weights_hash"]),
                "level": levels.get((of["origin"], of["model"]), "self-reported"),
                "standing": _standing(score, bool(control), bool(headline), METRICS[name].proper and not mixed),
                "score": score.value,
                "standard_error": score.standard_error,
                "seeds_sd": score.seeds_sd,
                "seeds": "" if score.value is None else _seeds(score),
                "found": score.found,
                "expected": score.expected,
                "low": score.low,
                "high": score.high,
                "reason": _reason(score, infinite.get(row, 0)) or mixed,
                **{column: of_same_seeds(table.get(row), score) for column, table in beside.items()},
                "fit_seconds": cost["fit_seconds"].get(fit),
            }
        )
    frame = _ranked(rows, list(beside), higher=METRICS[name].higher_is_better)
    said = with_statistics(frame, scores, ranking, measured)
    return Board(
        suite=suite.name,
        suite_version=suite.version,
        suite_hash=suite.hash,
        metric=name,
        role=ranking.role,
        proper=METRICS[name].proper,
        these_pairs_only=len(suite.tasks) < LEAST_TASKS,
        frame=said.frame[[*_COLUMNS, *(name for name in said.frame if name not in _COLUMNS)]],
        notes=(
            *notes_of(records, said.frame, suite, name, ranking),
            *said.notes,
            *audit_notes(records),
            *batch_notes(sizes),
            *data_notes(fits),
        ),
        differences=said.differences,
        without=said.without,
    )


def needed(suite: Suite, metric: str | None = None) -> frozenset[tuple[str, str]]:
    """Return the pairs of condition and metric whose records a board depends on; errors as for `make_board`."""
    forms = [form(suite, check_metric(metric or suite.metrics.primary))]
    for _, beside, role in FORMS:
        with contextlib.suppress(UsageError):
            forms.append(form(suite, beside, role))
    pairs = {(condition.name, AUDIT) for condition in suite.conditions if condition.kind == "attack"}
    for wanted in forms:
        for setting, name in wanted.terms[["setting", "metric"]].drop_duplicates().itertuples(index=False, name=None):
            pairs |= {(setting.partition("|")[0], told) for told in (name, "infinite_nll_count", *SPOKESMEN)}
    return frozenset(pairs)


def pretraining(backbone: str, weights_hash: str) -> str:
    """Return the data that a row's weights were pretrained on, as far as its records tell.

    >>> pretraining("efficientnet-lite0", "f00d"), pretraining("small-cnn", "f00d"), pretraining("timm:x", "f00d")
    ('ImageNet', 'none', 'that of timm:x')
    """
    if backbone in _UNTRAINED or weights_hash in _UNTRAINED or backbone.endswith("@untrained"):
        return "none"
    # Unknown weights stand in a section of their own: they may have seen the targets.
    return _PRETRAINING.get(backbone, f"that of {backbone}")


def _check_hash(records: pd.DataFrame, suite: Suite) -> None:
    strange = records[(records["suite"] != suite.name) | (records["suite_hash"] != suite.hash)]
    if len(strange):
        first = strange.iloc[0]
        raise ValueError(
            f"expected records of suite '{suite.name}' with hash {suite.hash[:12]}, got {len(strange)} others, "
            f"first '{first['suite']}' with hash {first['suite_hash'][:12]}"
        )


def _standing(score: Score, control: bool, headline: bool, comparable: bool) -> Standing:
    if control:
        return "control"
    if score.value is None:
        return "incomplete"
    if not headline:
        return "variant"
    whole = score.seeds == score.all_seeds
    return "ranked" if comparable and whole and math.isfinite(score.value) else "unranked"


def _seeds(score: Score) -> str:
    return str(score.seeds) if score.seeds == score.all_seeds else f"{score.seeds} of {score.all_seeds}"


def _reason(score: Score, infinite: int) -> str:
    if score.value is not None and math.isinf(score.value):
        return f"infinite: the true class of {infinite:,} images was given probability zero" if infinite else "infinite"
    return score.reason


_ORDER: Final = {"ranked": 0, "unranked": 1, "variant": 2, "control": 3, "incomplete": 4}
_COLUMNS: Final = (
    *SECTION, "standing", "rank", "name", "model", "origin", "level", "backbone", "settings_hash", "weights_hash",
    "score", "standard_error", "seeds_sd", "seeds", "found", "expected", "low", "high", "reason", *BESIDE, *INTERVALS,
    *RANKS, "pareto",
)  # fmt: skip


def _levels(records: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return how far every model has been verified, by origin and model."""
    if "level" not in records:
        return {}
    told = records[["origin", "model", "level"]].drop_duplicates().astype("str")
    return {(origin, model): level for origin, model, level in told.itertuples(index=False, name=None)}


def _ranked(rows: list[dict[str, Any]], beside: list[str], *, higher: bool) -> pd.DataFrame:
    given = [name for name in _COLUMNS if name not in ("rank", "pareto", *INTERVALS, *RANKS)]
    more = [name for name in beside if name not in given]
    frame = pd.DataFrame(rows, columns=[*given, *more])
    numbers = ["score", "standard_error", "seeds_sd", "low", "high", *BESIDE, *more]
    frame = frame.astype({column: "float64" for column in numbers})
    ranked = frame["standing"] == "ranked"
    by_section = frame[ranked].groupby(SECTION)["score"]
    frame["rank"] = by_section.rank(method="min", ascending=not higher).astype("Int64").reindex(frame.index)
    # Sections with more ranked rows first; names break ties, so that the order of the records never does.
    size = frame.assign(ranked=ranked).groupby(SECTION)["ranked"].transform("sum") if len(frame) else 0
    keys = frame.assign(
        size=-size, order=frame["standing"].map(_ORDER), best=-frame["score"] if higher else frame["score"]
    )
    by = ["size", *SECTION, "order", "best", "name", "origin", "settings_hash", "backbone", "weights_hash"]
    order = keys.sort_values(by, kind="stable").index
    return frame.loc[order].reset_index(drop=True)
