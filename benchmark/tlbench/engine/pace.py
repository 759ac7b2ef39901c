"""How far an evaluation is, and how long it takes against what was forecast when it began."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tlbench.engine.parts import Part, parts_of
from tlbench.engine.plan import PlannedFit
from tlbench.engine.probe import Speeds, recalled_speeds
from tlbench.engine.sizing import network_of, sizing_of
from tlbench.engine.variants import names_of
from tlbench.engine.workload import FitWork, Shared, Work, fit_work, measuring_work
from tlbench.errors import PluginError
from tlbench.methods.cost import Cost, cost_of
from tlbench.records.files import write_text
from tlbench.records.spent import noted_seconds
from tlbench.records.store import ModelStore

if TYPE_CHECKING:
    from tlbench.engine.workshop import Workshop

_FILE = "forecast.json"
_IDLE_SECONDS = 900.0
"""A longer pause before a measurement, beyond three times what it should take, counts as an interruption."""
_TELLING_SHARE = 0.02
"""Of the work: what less of it took says nothing about the rest."""
# Without a probe only proportions are known: a step asks three times what a forward pass does, a gradient twice.
_PROPORTIONS = {"forward": 1.0, "features": 1.0, "step": 3.0, "gradient": 2.0}


@dataclass(frozen=True)
class Pace:
    """What has been done of an evaluation, and how fast.

    Attributes
    ----------
    share : float
        Of the work, in [0, 1], each image weighed by what is done with it.
    spent_hours : float
        Taken by what is stored: fits and measurements of all processes together.
    forecast_hours : float or None
        For the whole, by the speeds of the probe when it began; None where nothing was probed.
    expected_hours : float or None
        For the whole, at the pace so far; None while less than a fiftieth of the work is done.
    """

    share: float
    spent_hours: float
    forecast_hours: float | None
    expected_hours: float | None


def store_forecast(work: Workshop, fits: Sequence[PlannedFit]) -> None:
    """Keep beside a model's card what its evaluation should take, for ``tlbench status`` to compare with.

    Nothing is measured: the speeds are those of the last probe of such a network on such a machine, if there was one.
    A forecast that is there already stays, so that a resumed evaluation is held against the first.
    """
    path = work.models.folder / _FILE
    if path.exists() or not fits:
        return
    try:
        cost = cost_of(work.model.method, work.suite.protocol.recipe, work.backbone)
        whole, speeds = whole_work(work, cost, fits), known_speeds(work, cost)
    except PluginError as error:
        # A plug-in that misjudges itself can be evaluated all the same.
        work.reporter.say(f"no forecast: {error}")
        return
    by_kind = speeds.hours_of(whole) if speeds else {}
    held = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "fits": len(fits),
        "measurements": sum(len(planned.measurements) for planned in fits),
        "work": dict(whole),
        "hours": sum(by_kind.values()) if speeds else None,
        "hours_by_kind": by_kind,
        "speeds": asdict(speeds) if speeds else None,
    }
    write_text(path, json.dumps(held, indent=1))


def stored_speeds(models: ModelStore) -> Speeds | None:
    """Return the speeds that a model's evaluation was forecast with when it began, or None."""
    try:
        held = json.loads((models.folder / _FILE).read_text(encoding="utf-8"))["speeds"]
        return Speeds(**held) if held else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def known_speeds(work: Workshop, cost: Cost) -> Speeds | None:
    """Return the speeds of the last probe of a model's network on this machine, or None."""
    protocol = work.suite.protocol
    network = network_of(cost, work.backbone)
    return recalled_speeds(network.name, cost.recipe or protocol.recipe, protocol, work.device)


def whole_work(work: Workshop, cost: Cost, fits: Sequence[PlannedFit]) -> Work:
    """Return what planned fits take from beginning to end, images already cached."""
    sizing = sizing_of(work.suite, cost, work.backbone)
    total, shared = Work(), Shared()
    for planned in fits:
        done = fit_work(
            planned,
            work.data,
            sizing,
            classes=len(work.data.classes(planned.key.task)),
            left=(),
            to_fit=False,
            decoded=0,
            whole_pictures=work.suite.protocol.resize == "center-crop",
            parts=parts_of(work, work.data, planned),
            shared=shared,
            all_variants=work.all_variants,
        )
        total += done.whole
    return total


def pace(rows: Sequence[tuple[Workshop, Sequence[FitWork]]]) -> Pace:
    """Return how far an evaluation is.

    Parameters
    ----------
    rows : sequence of (Workshop, sequence of FitWork)
        The whole evaluation of every model.
    """
    whole, left = [], []
    for _, fits in rows:
        whole.append(sum((one.whole for one in fits), Work()))
        left.append(sum((one.left for one in fits), Work()))
    speeds = [_speeds_of(work, own) for (work, _), own in zip(rows, whole, strict=True)]
    forecast = all(own is not None for own in speeds)
    # Hours of one row and proportions of another cannot be added up.
    weights = [own if forecast and own is not None else Speeds("", _PROPORTIONS) for own in speeds]
    hours = sum(sum(own.hours_of(work).values()) for own, work in zip(weights, whole, strict=True))
    rest = sum(sum(own.hours_of(work).values()) for own, work in zip(weights, left, strict=True))
    share = 1.0 - rest / hours if hours else 1.0
    counted: set[str] = set()
    spent = sum(sum(_spent_seconds(work, fits, own, counted)) for (work, fits), own in zip(rows, speeds, strict=True))
    return Pace(
        share=share,
        spent_hours=spent / 3600,
        forecast_hours=hours if forecast else None,
        expected_hours=spent / 3600 / share if share >= _TELLING_SHARE and spent > 0 else None,
    )


def _speeds_of(work: Workshop, whole: Work) -> Speeds | None:
    """Return the speeds that a model's work is weighed by: those of its first forecast, else of the last probe."""
    candidates = (
        stored_speeds(work.models),
        known_speeds(work, cost_of(work.model.method, work.suite.protocol.recipe, work.backbone)),
    )
    return next((own for own in candidates if own is not None and not own.lacks(whole)), None)


def _spent_seconds(
    work: Workshop, fits: Sequence[FitWork], speeds: Speeds | None, counted: set[str]
) -> Iterator[float]:
    """Yield the seconds of every stored fit, of what it asks for, and of its measurements.

    A measurement of an earlier version has not told how long it took: that is the time since the one before it, unless
    it was a pause. The seconds of a fit hold those of all that it asked for, whoever made that: each fit is counted
    once, with what is its own.
    """
    columns = ["fit_id", "started", "seconds", "status"]
    told = noted_seconds(work.models.folder)
    rows = {row["fit_id"]: row for row in work.models.fits().select(columns).to_pylist()}
    for one in fits:
        planned = one.planned
        row = rows.get(planned.key.fit_id)
        if row is None or not row["started"]:
            yield from _own_seconds(work, one.parts, counted)
            continue
        if planned.key.fit_id not in counted:
            counted.add(planned.key.fit_id)
            yield _beside(work, row["seconds"], one.parts)
        yield from _own_seconds(work, one.parts, counted)
        before = datetime.fromisoformat(row["started"]).timestamp() + row["seconds"]
        for moment, measurement_id, should in sorted(_measured(work, planned, speeds)):
            took = moment - before
            before = max(before, moment)
            if measurement_id in told:
                yield told[measurement_id]
            elif 0 < took <= _IDLE_SECONDS + 3 * should:
                yield took


def _own_seconds(work: Workshop, parts: Sequence[Part], counted: set[str]) -> Iterator[float]:
    for part in parts:
        if part.fit_id not in counted:
            counted.add(part.fit_id)
            yield _beside(work, _seconds_of(work, part.fit_id), part.parts)
            yield from _own_seconds(work, part.parts, counted)


def _beside(work: Workshop, seconds: float, parts: Sequence[Part]) -> float:
    """Return what a fit took without the fits that it asked for."""
    return max(0.0, seconds - sum(_seconds_of(work, part.fit_id) for part in parts))


def _seconds_of(work: Workshop, fit_id: str) -> float:
    """Return how long a stored fit took that has no row of its own."""
    try:
        kept = json.loads((work.store.fit_folder(fit_id) / "fit.json").read_text(encoding="utf-8"))
        return float(kept["facts"]["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0  # made again by whoever needs it


def _measured(work: Workshop, planned: PlannedFit, speeds: Speeds | None) -> Iterator[tuple[float, str, float]]:
    """Yield when each stored measurement of a fit was written, its id, and the seconds it should have taken."""
    for name in names_of(work, planned):
        for measurement in planned.measurements:
            measurement_id = measurement.id_for(planned.key.fit_id, name)
            written: float | None = work.models.written(measurement_id)
            if written is not None:
                hours: Mapping[str, float] = speeds.hours_of(measuring_work([measurement], 1.0)) if speeds else {}
                yield written, measurement_id, 3600 * sum(hours.values())
