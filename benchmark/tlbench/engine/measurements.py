"""One measurement of a fit: whether it is stored, taken over from an equal model, made, and its outputs kept."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tlbench.engine.measuring import Measurement, Place, make_condition, measure, unmet_need
from tlbench.engine.plan import sees_test_images
from tlbench.errors import FitError
from tlbench.records.outputs import OutputsWriter, kept_outputs, writing_outputs
from tlbench.records.spent import note_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from tlbench.data.domain import Split
    from tlbench.engine.measured import MeasuredPredictor
    from tlbench.engine.plan import PlannedFit, PlannedMeasurement
    from tlbench.engine.variants import Variant
    from tlbench.engine.workshop import Workshop
    from tlbench.records.record import Record
    from tlbench.records.store import ModelStore

_AGREEMENT = 1e-5
"""What measuring again may move a number by, with other threads or another batch size."""


def is_stored(work: Workshop, planned: PlannedFit, measurement: PlannedMeasurement, name: str) -> bool:
    """Return whether a measurement of a variant is stored, with its outputs where these are to be kept."""
    measurement_id = measurement.id_for(planned.key.fit_id, name)
    if not work.models.has(measurement_id):
        return False
    if not _keeps(work, measurement) or _outputs_file(work, planned, measurement, name).exists():
        return True
    # Where a method does not apply there are no outputs, and never will be.
    return "ok" not in work.models.read(measurement_id, "records", ["status"]).column("status").to_pylist()


def taken_over(work: Workshop, planned: PlannedFit, measurement: PlannedMeasurement, name: str) -> bool:
    """Return whether a measurement is stored, taking over an equal one of another model or version of the suite."""
    measurement_id = measurement.id_for(planned.key.fit_id, name)
    if not work.models.has(measurement_id):
        other = next((model for model in _elsewhere(work) if _is_equal(work, planned, measurement_id, model)), None)
        if other is not None:
            key = planned.key
            names = {"suite_version": key.suite_version, "suite_hash": key.suite_hash, "model": key.model}
            # An attack is the same in every precision; the row that it belongs to is not.
            work.models.adopt(measurement_id, other, **names, seed=key.seed, precision=measurement.precision)
            note_seconds(work.models.folder, measurement_id, 0.0)
    return is_stored(work, planned, measurement, name)


@dataclass(frozen=True)
class Elsewhere:
    """Measurements of other models and versions of the suite that need not be done again.

    Attributes
    ----------
    holders : mapping of str to list of ModelStore
        Who has a measurement, by its id.
    """

    holders: Mapping[str, list[ModelStore]]

    @classmethod
    def of(cls, work: Workshop) -> Elsewhere:
        """Look once, for all of a plan."""
        holders: dict[str, list[ModelStore]] = {}
        for model in _elsewhere(work):
            for measurement_id in model.measured():
                holders.setdefault(measurement_id, []).append(model)
        return cls(holders)

    def has(self, work: Workshop, planned: PlannedFit, measurement: PlannedMeasurement, name: str) -> bool:
        """Return whether a measurement of a variant would be taken over."""
        measurement_id = measurement.id_for(planned.key.fit_id, name)
        found = self.holders.get(measurement_id, [])
        return any(_is_equal(work, planned, measurement_id, model) for model in found)


def _is_equal(work: Workshop, planned: PlannedFit, measurement_id: str, model: ModelStore) -> bool:
    """Return whether another model's measurement is what would be measured here."""
    if not model.has(measurement_id):
        return False
    # A measurement's id knows no batch size, which moves the numbers of a test-time method.
    return not sees_test_images(work.model.method) or model.batch_size_of(planned.key.fit_id) == work.batch_size


def _elsewhere(work: Workshop) -> Iterator[ModelStore]:
    for store in (work.store, *work.store.other_versions()):
        yield from (model for model in store.models() if model.folder != work.models.folder)


def place_of(planned: PlannedFit, measurement: PlannedMeasurement, name: str, *, headline: bool) -> Place:
    """Return where a measurement's records belong."""
    return Place(
        key=planned.key,
        variant=name,
        headline=headline,
        where=measurement.where,
        split_hash=measurement.split_hash,
        measurement_id=measurement.id_for(planned.key.fit_id, name),
        precision=measurement.precision,
    )


def make_measurement(
    work: Workshop,
    planned: PlannedFit,
    measurement: PlannedMeasurement,
    place: Place,
    measured: MeasuredPredictor,
    variant: Variant,
) -> None:
    """Measure a variant on a set under a condition; store what comes out, and how long it took.

    Raises
    ------
    FitError
        If what it needs is missing, if it would follow a gradient that cannot be followed, or if it was stored without
        its outputs, which are kept now, and the numbers that come with these are others.
    """
    started = time.perf_counter()
    spec, where = measurement.condition, measurement.where
    condition = make_condition(spec, work.suite.protocol.image_size)
    reason = unmet_need(condition, measured)
    if reason:
        records = place.absent(condition.settings, spec.kind, "not_applicable", reason)
        work.models.write(place.measurement_id, records, {})
        note_seconds(work.models.folder, place.measurement_id, 0.0)
        return
    if "gradients" in condition.needs and variant.gradient:
        raise FitError(variant.gradient)
    split = work.data.measured(
        planned.key.task, planned.sources, where.target, where.role, classes=where.classes, max_images=spec.max_images
    )
    with _keeping(work, planned, measurement, place, split) as keep:
        result = measure(
            work.suite,
            place,
            spec,
            condition,
            measured,
            split,
            batch_size=work.batch_size,
            temperature=variant.temperature,
            predicted_clean=_predicted_clean(work, planned, measurement, place.variant)
            if spec.kind == "transform"
            else None,
            keep=keep,
        )
        _store(work, place, result)
    note_seconds(work.models.folder, place.measurement_id, time.perf_counter() - started)
    for note in result.notes:
        text = f"{planned.key.model}, {planned.key.source} to {where.target} ({where.role}): {note}"
        work.notes.append(text)
        work.reporter.say(text)


def _store(work: Workshop, place: Place, result: Measurement) -> None:
    if not work.models.has(place.measurement_id):
        work.models.write(place.measurement_id, result.records, result.tables)
        return
    columns = ["metric", "severity", "value"]
    stored = work.models.read(place.measurement_id, "records", columns).to_pylist()
    _check_same({(row["metric"], row["severity"]): row["value"] for row in stored}, result.records)
    work.models.forget_failure(place.measurement_id)


def _check_same(stored: dict[tuple[str, float | None], float | None], records: Sequence[Record]) -> None:
    for record in records:
        if (record.metric, record.severity) not in stored:
            continue  # a metric that is younger than what is stored
        before, now = stored[record.metric, record.severity], record.value
        same = before == now if before is None or now is None else np.isclose(now, before, _AGREEMENT, _AGREEMENT)
        if not same:
            raise FitError(
                f"its outputs were to be kept, but measured again {record.metric} is {now}, and {before} is stored; "
                "evaluate into a fresh --run-dir"
            )


def _keeps(work: Workshop, measurement: PlannedMeasurement) -> bool:
    return work.keep_outputs and measurement.condition.kind == "clean"


def _outputs_file(work: Workshop, planned: PlannedFit, measurement: PlannedMeasurement, name: str) -> Path:
    measurement_id = measurement.id_for(planned.key.fit_id, name)
    return kept_outputs(work.models.folder, planned.key, name, measurement_id)


@contextlib.contextmanager
def _keeping(
    work: Workshop, planned: PlannedFit, measurement: PlannedMeasurement, place: Place, split: Split
) -> Iterator[OutputsWriter | None]:
    """Yield what takes the outputs, None where they are not to be kept."""
    if not _keeps(work, measurement):
        yield None
        return
    where = measurement.where
    path = _outputs_file(work, planned, measurement, place.variant)
    with writing_outputs(
        path,
        planned.key,
        target=where.target,
        role=where.role,
        names=split.manifest.names,
        precision=measurement.precision,
    ) as writer:
        yield writer


def _predicted_clean(
    work: Workshop, planned: PlannedFit, measurement: PlannedMeasurement, variant: str
) -> NDArray[np.int32] | None:
    """Return the clean predictions of a set, by the images' place; None where the suite measures none."""
    for other in planned.measurements:
        if other.where == measurement.where and other.condition.kind == "clean":
            measurement_id = other.id_for(planned.key.fit_id, variant)
            if not work.models.has(measurement_id):
                raise FitError("the clean predictions that consistency is measured against are missing")
            table = work.models.read(measurement_id, "predictions", ["id", "predicted"])
            predicted = np.empty(len(table), dtype=np.int32)
            predicted[table.column("id").to_numpy()] = table.column("predicted").to_numpy()
            return predicted
    return None
