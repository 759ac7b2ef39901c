"""A page per model: who made it and how, and all of its numbers, pair by pair, seed by seed, condition by condition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from markupsafe import Markup

from tlbench.errors import StoreError
from tlbench.leaderboard.prepared import ROW
from tlbench.leaderboard.text import plain
from tlbench.metrics.catalogue import METRICS
from tlbench.report import curves, reliability
from tlbench.report.absences import Absence, absences
from tlbench.report.board_data import level_of
from tlbench.report.board_page import export_path
from tlbench.report.cells import cell_means, numbers_of, seed_values
from tlbench.report.comparisons import Against, Without
from tlbench.report.content import LEVELS, Content, model_path, page_name, task_path
from tlbench.report.curves import Curves, robustness_curves
from tlbench.report.figures import Figure
from tlbench.report.grids import Grid, SeedLine, by_seed, grids, steps_of
from tlbench.report.heat_map import HeatMap, heat_maps
from tlbench.report.page import metric_words, render
from tlbench.report.provenance import Cost, broken_promises, costs_of, preparations, provenance, temperatures
from tlbench.report.reliability import Diagram, diagrams

FIGURES: Final = "figures/"
"""Where a report keeps the files of its figures."""

_KEY: Final = ["settings_hash", "backbone", "weights_hash", "protocol", "shots", "precision"]
"""What tells the rows of one model apart, besides the variant."""
_LINKS: Final = ("https://", "http://")


@dataclass(frozen=True)
class Drawn:
    """A figure on a page, and its files, relative to the report's folder."""

    markup: Markup
    files: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """A row's place on one board."""

    metric: str
    role: str | None
    unit: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Beside:
    """What a row is compared with on one board, and its scores without each task.

    Attributes
    ----------
    metric, words, unit, file : str
        Its name, its words, its unit, and where the board's JSON lies.
    higher : bool
    against : list of Against
    without : list of Without
    left : int
        Rows that are compared with it and not shown.
    """

    metric: str
    words: str
    unit: str
    file: str
    higher: bool
    against: list[Against]
    without: list[Without]
    left: int


@dataclass(frozen=True)
class RobustTable:
    """Robust accuracy by cell and epsilon.

    Attributes
    ----------
    curves : Curves
    figure : Drawn
    shown : tuple of str
        Epsilons in the suite's own unit.
    cells : list of (task, source, target, role, values, median, reversals)
    means : list of (task, role, values)
    """

    curves: Curves
    figure: Drawn
    shown: tuple[str, ...]
    cells: list[tuple[str, str, str, str, list[float | None], float | None, float | None]]
    means: list[tuple[str, str, list[float | None]]]


@dataclass(frozen=True)
class RowPart:
    """All that a page shows of one row: one variant, settings, backbone, shots.

    Attributes mirror the page's sections, in order.
    """

    anchor: str
    name: str
    key: Mapping[str, str]
    standings: list[Standing]
    beside: list[Beside]
    maps: Mapping[str, list[HeatMap]]
    reliability: list[tuple[str, list[Diagram], Drawn]]
    reliability_note: str
    robustness: list[RobustTable]
    corruptions: list[Grid]
    invariance: list[Grid]
    steps: list[tuple[str, float, list[float | None]]]
    seeds: tuple[int, ...]
    seed_lines: list[SeedLine]
    pair_seeds: list[tuple[str, str, str, str, list[float | None]]]
    costs: list[Cost]
    provenance: list[tuple[str, list[str]]]
    temperatures: list[tuple[str, str, int, float]]
    promises: list[str]
    absences: list[Absence]


def model_pages(content: Content) -> dict[str, str | bytes]:
    """Return the page of every model, and the files of its figures, by their path in the report."""
    files: dict[str, str | bytes] = {}
    for model, origin in content.models:
        files |= model_page(content, model, origin)
    return files


def model_page(content: Content, model: str, origin: str) -> dict[str, str | bytes]:
    """Return a model's page and the files of its figures, by path.

    Parameters
    ----------
    content : Content
    model : str
    origin : {"published", "local"}
    """
    files: dict[str, str | bytes] = {}

    def drawn(figure: Figure) -> Drawn:
        own = {f"{FIGURES}{name}": data for name, data in figure.files().items()}
        files.update(own)
        return Drawn(figure.inline(), tuple(own))

    records = content.records[(content.records["model"] == model) & (content.records["origin"] == origin)]
    fits = content.fits[(content.fits["model"] == model) & (content.fits["origin"] == origin)]
    predictions = content.predictions(model, origin, "clean")
    card, problem = _card(content, model, origin)
    path = model_path(model, origin)
    stem = page_name(model) + (".own" if origin == "local" else "")
    parts = [
        _part(content, model, own, _same(fits, own), _same(predictions, own), f"{stem}{_ending(number)}", number, drawn)
        for number, own in enumerate(_rows_of(records))
    ]
    lines = content.board.frame
    line = lines[(lines["model"] == model) & (lines["origin"] == origin)].to_dict("records")[0]
    level = level_of({str(key): value for key, value in line.items()})
    page = render(
        "model.html",
        path=path,
        styles=("model.css",),
        suite=content.suite,
        analysed=content.analysis is not None,
        model=model,
        origin=origin,
        level=level,
        level_words=LEVELS.get(level, ""),
        control=bool(records["control"].any()),
        card=card_lines(card, records),
        summary=_summary(card),
        card_problem=problem,
        parts=parts,
        variants=_variants(content, model, origin),
        task_paths={task: task_path(task) for task in content.suite.tasks},
        pairs=len(content.suite.pairs),
    )
    return {path: page, **files}


def _rows_of(records: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the records of every row of a model that may be ranked, the largest first."""
    headline = records[records["headline"].astype(bool)]
    found = [own for _, own in (headline if len(headline) else records).groupby([*_KEY, "variant"], sort=True)]
    return sorted(found, key=len, reverse=True)


def _same(table: pd.DataFrame, own: pd.DataFrame) -> pd.DataFrame:
    """Return the fits or predictions of a row; fits know no variant, and theirs is that of ``own`` anyway."""
    if not len(table):
        return table
    first = own.iloc[0]
    names = [name for name in (*_KEY, "variant") if name in table.columns]
    # A fit's precision is what its numbers say; the fits of one row may differ in nothing else.
    kept = pd.Series(True, index=table.index)
    for name in names:
        kept &= table[name] == first[name]
    return table[kept]


def _ending(number: int) -> str:
    return "" if number == 0 else f".{number + 1}"


def _part(
    content: Content,
    model: str,
    records: pd.DataFrame,
    fits: pd.DataFrame,
    predictions: pd.DataFrame,
    stem: str,
    number: int,
    drawn: Any,
) -> RowPart:
    suite = content.suite
    first = records.iloc[0]
    variant = str(first["variant"])
    values = seed_values(records, suite)
    means = cell_means(values)
    numbers = numbers_of(means)
    wanted = 1 if bool(first["deterministic"]) else len(suite.protocol.seeds)
    seeds, lines = by_seed(values, suite)
    invariance = grids(numbers, suite, "consistency")
    shown = plain(model)
    found = diagrams(predictions, suite.metrics) if len(predictions) else []
    tasks = [task for task in suite.tasks if any(diagram.task == task for diagram in found)]
    standings = _standings(content, first)
    return RowPart(
        anchor=f"row-{number + 1}",
        name=model if bool(first["headline"]) else f"{model}/{variant}",
        key={name: str(first[name]) for name in _KEY},
        standings=standings,
        beside=_beside(content, standings),
        maps=heat_maps(numbers, suite, wanted),
        reliability=[
            (task, own, drawn(reliability.figure(own, name=f"{stem}.reliability.{page_name(task)}", model=shown)))
            for task in tasks
            for own in [[diagram for diagram in found if diagram.task == task]]
        ],
        reliability_note=_reliability_note(predictions, found),
        robustness=[
            _robust(
                means, one, drawn(curves.figure(one, name=f"{stem}.{page_name(one.attack)}-{one.norm}", model=shown))
            )
            for one in robustness_curves(means, suite)
        ],
        corruptions=grids(numbers, suite, "corruption_accuracy"),
        invariance=invariance,
        steps=steps_of(invariance),
        seeds=seeds,
        seed_lines=lines,
        pair_seeds=_pair_seeds(records, content, seeds),
        costs=costs_of(fits),
        provenance=_provenance(fits, variant),
        temperatures=temperatures(fits, variant),
        promises=broken_promises(fits, variant),
        absences=absences(records, fits),
    )


def _reliability_note(predictions: pd.DataFrame, found: list[Diagram]) -> str:
    if found:
        return ""
    if not len(predictions):
        return "The predictions were published as a hash and a place, not with these pages: there is nothing to draw."
    return "The predictor gives no probabilities."


def _provenance(fits: pd.DataFrame, variant: str) -> list[tuple[str, list[str]]]:
    if not len(fits):
        return []
    prepared = preparations(fits, variant)
    return [*provenance(fits), *([("prepared for measuring", prepared)] if prepared else [])]


def _standings(content: Content, first: pd.Series[Any]) -> list[Standing]:
    found = []
    for metric, board in content.boards.items():
        frame = board.frame
        kept = (frame["model"] == first["model"]) & (frame["origin"] == first["origin"])
        for name in _KEY:
            kept &= frame[name] == first[name]
        name = first["model"] if bool(first["headline"]) else f"{first['model']}/{first['variant']}"
        for row in frame[kept & (frame["name"] == name)].to_dict("records"):
            told = {str(key): None if pd.isna(value) else value for key, value in row.items()}
            found.append(Standing(metric, board.role, METRICS[metric].unit, told))
    return found


def _beside(content: Content, standings: list[Standing]) -> list[Beside]:
    found = []
    for standing in standings:
        info = METRICS[standing.metric]
        row = tuple(str(standing.row[name]) for name in ROW)
        against, without, left = content.comparisons[standing.metric].of(row)
        if against or without:
            words, file = metric_words(standing.metric, standing.role), export_path(standing.metric, "json")
            found.append(Beside(standing.metric, words, info.unit, file, info.higher_is_better, against, without, left))
    return found


def _robust(means: pd.DataFrame, one: Curves, figure: Drawn) -> RobustTable:
    epsilons = sorted(set(one.cells["epsilon"]))
    beside = {
        metric: means[(means["condition"] == one.attack) & (means["norm"] == one.norm) & (means["metric"] == metric)]
        .set_index(["task", "source", "target", "role"])["value"]
        .to_dict()
        for metric in ("median_breaking_epsilon", "audit_reversals")
    }
    cells = []
    for place, own in one.cells.groupby(["task", "source", "target", "role"], sort=False):
        task, source, target, role = (str(part) for part in place)
        values = own.set_index("epsilon")["value"].to_dict()
        row = [values.get(epsilon) for epsilon in epsilons]
        median, reversals = (table.get((task, source, target, role)) for table in beside.values())
        cells.append((task, source, target, role, row, median, reversals))
    averages = []
    for place, own in one.means.groupby(["task", "role"], sort=False):
        values = own.set_index("epsilon")["value"].to_dict()
        averages.append((str(place[0]), str(place[1]), [values.get(epsilon) for epsilon in epsilons]))
    shown = tuple(f"{epsilon * one.denominator:.6g}" for epsilon in epsilons)
    return RobustTable(one, figure, shown, cells, averages)


def _pair_seeds(
    records: pd.DataFrame, content: Content, seeds: tuple[int, ...]
) -> list[tuple[str, str, str, str, list[float | None]]]:
    """Return clean accuracy by cell and seed, ID-test before OOD-test."""
    clean = records[(records["condition"] == "clean") & (records["metric"] == "accuracy") & (records["status"] == "ok")]
    values = clean.groupby(["task", "source", "target", "role", "seed"])["value"].mean().to_dict()
    places = []
    for task in content.suite.tasks:
        pairs = content.suite.pairs_of(task)
        places += [(task, source, source, "id-test") for source in dict.fromkeys(pair.source for pair in pairs)]
        places += [(task, pair.source, pair.target, "ood-test") for pair in pairs]
    rows = [(*place, [values.get((*place, seed)) for seed in seeds]) for place in places]
    return [row for row in rows if any(value is not None for value in row[-1])]


def _variants(content: Content, model: str, origin: str) -> list[dict[str, Any]]:
    frame = content.board.frame
    own = frame[(frame["model"] == model) & (frame["origin"] == origin) & (frame["standing"] == "variant")]
    return [{"name": str(row["name"]), "score": row["score"]} for row in own.to_dict("records")]


def _card(content: Content, model: str, origin: str) -> tuple[Mapping[str, Any], str]:
    try:
        return content.card(model, origin), ""
    except StoreError as problem:
        return {}, str(problem).rsplit("/", 1)[-1]  # the folder is nobody's business


def _summary(card: Mapping[str, Any]) -> str:
    summary = _table(card.get("describes")).get("summary")
    return plain_text(summary) if isinstance(summary, str) else ""


def card_lines(card: Mapping[str, Any], records: pd.DataFrame) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return what a card says: a word, and its values, each text and, for an address of the web, a link.

    What a card leaves out comes from the records; everything in either is a stranger's text.
    """
    first = records.iloc[0]
    described = _table(card.get("describes"))
    lines: list[tuple[str, list[tuple[str, str]]]] = [
        ("method", _texts(card.get("method") or described.get("method") or first["method"])),
        ("backbone", _texts(card.get("backbone") or sorted(set(records["backbone"].astype(str))))),
        ("protocol", _texts(sorted(set(records["protocol"].astype(str))))),
        ("authors", _texts(card.get("authors"))),
        ("paper", _texts(card.get("paper"))),
        ("licence", _texts(card.get("licence"))),
        ("settings", _settings(card, described, str(first["settings"]))),
    ]
    return [(word, values) for word, values in lines if values]


def _settings(card: Mapping[str, Any], described: Mapping[str, Any], recorded: str) -> list[tuple[str, str]]:
    try:
        settings = json.loads(recorded)
    except ValueError:
        settings = {}
    if not isinstance(settings, dict) or not settings:
        settings = dict(_table(card.get("settings")))
    told = described.get("settings")
    defaults = {
        str(one["name"]): one.get("default") == one.get("value")
        for one in (told if isinstance(told, list) else [])
        if isinstance(one, Mapping) and "name" in one
    }
    return [
        (plain_text(f"{name} = {_value(value)}") + ("" if not defaults.get(str(name)) else " (default)"), "")
        for name, value in settings.items()
    ]


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _value(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _texts(value: Any) -> list[tuple[str, str]]:
    values = value if isinstance(value, list | tuple) else [value]
    return [
        (plain_text(one), str(one) if str(one).startswith(_LINKS) and " " not in str(one) else "")
        for one in values
        if one not in (None, "")
    ]


def plain_text(value: object) -> str:
    """Return a stranger's text as one line without control characters, at most 600 letters."""
    from tlbench.leaderboard.text import plain_note

    text = plain_note(str(value))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


_LONGEST: Final = 600
