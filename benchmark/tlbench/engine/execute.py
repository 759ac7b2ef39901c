"""One fit and everything that is measured on it: the unit of work that executors map."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from tlbench.engine.context import FitContext
from tlbench.engine.fitting import StoredFit, obtain, told, unmet_need
from tlbench.engine.measured import MeasuredPredictor
from tlbench.engine.measurements import is_stored, make_measurement, place_of, taken_over
from tlbench.engine.measuring import Place, settings_of
from tlbench.engine.plan import PlannedFit, PlannedMeasurement, amount, fit_id_of
from tlbench.engine.variants import Variant, made_ready, names_of, variants_of
from tlbench.engine.workshop import Workshop
from tlbench.errors import FitError, NotApplicableError, StoreError, TlbenchError
from tlbench.methods.base import Fitted, Method, Tag, method_name
from tlbench.methods.resolve import resolve_model

if TYPE_CHECKING:
    from tlbench.data.domain import Split
    from tlbench.records.record import Precision


def pending(work: Workshop, planned: PlannedFit) -> list[tuple[PlannedMeasurement, str]]:
    """Return the measurements of a fit that are not stored, each with its variant.

    A fit that has not been made counts with one variant.
    """
    return [
        (measurement, name)
        for place, name in enumerate(names_of(work, planned))
        for measurement in _asked_of(work, planned, headline=place == 0)
        if not is_stored(work, planned, measurement, name)
    ]


def _asked_of(work: Workshop, planned: PlannedFit, *, headline: bool) -> list[PlannedMeasurement]:
    """Return what is measured on a variant: everything on the ranked one, clean sets on the others."""
    every = headline or work.all_variants
    return [one for one in planned.measurements if every or one.condition.kind == "clean"]


def execute(work: Workshop, planned: PlannedFit) -> None:
    """Make one fit, or rebuild it, and all of its measurements that are not stored yet.

    What fails becomes a record with its reason, and the rest goes on; only what makes all further
    work pointless (a full disk, the user's interruption) leaves this function as an exception.
    """
    key = planned.key
    label = f"{key.model} {key.task}/{key.source} seed {key.seed}"
    work.reporter.doing(f"fit {label}")
    expected = len(pending(work, planned))
    try:
        stored = _obtain(work, planned)
    except StoreError:
        raise
    except NotApplicableError as error:
        _write_inapplicable(work, planned, str(error))
        return
    except (FitError, TlbenchError) as error:
        _fail_fit(work, planned, str(error))
        return
    work.models.forget_failure(key.fit_id)
    if stored.trained:
        work.reporter.say(f"fitted {label} in {stored.facts['seconds']:.1f} s")
    variants = variants_of(work, planned, stored.fitted)
    _write_fit_row(work, planned, stored, variants)
    # How many variants there are is known from now on.
    work.reporter.total += len(pending(work, planned)) - expected
    for name, variant in variants.items():
        _measure_variant(work, planned, stored.fitted, name, variant)


def _obtain(work: Workshop, planned: PlannedFit) -> StoredFit:
    method = work.model.method
    context = make_context(work, planned, method)
    reason = unmet_need(
        method,
        work.backbone,
        sources=len(planned.sources),
        validation=len(context.val_split),
        info=context.class_info,
    )
    if reason:
        raise NotApplicableError(reason)
    return _made(work, planned.key.fit_id, method, context)


def _made(work: Workshop, fit_id: str, method: Method, context: FitContext) -> StoredFit:
    """Return a fit that no other process makes at the same time."""
    if fit_id in work.making:
        raise FitError(f"{method_name(type(method))} asks for its own fit, which is not made yet")
    work.making.append(fit_id)
    try:
        # Not the lock under which the fit is measured: who asks for it within another need not wait for that. A fit
        # asks only for fits that do not ask for it, so two processes never wait for each other.
        with work.store.lock(f"{fit_id}.fit", wait=True):
            return obtain(fit_id, method, context, work.store, work.reporter.say)
    finally:
        work.making.pop()


def make_context(work: Workshop, planned: PlannedFit, method: Method) -> FitContext:
    """Return what a method is given for one planned fit."""
    key, data = planned.key, work.data
    classes, hierarchy = data.classes(key.task), work.suite.tasks[key.task].hierarchy
    # One that is no tree over these classes has stopped who reads it before any compute, and is nothing to the others.
    tree = None if hierarchy is None or hierarchy.problem(classes) else hierarchy.of(classes)
    targets: dict[Tag, Split] = {}
    if key.fit_target is not None:
        targets = {
            "target_unlabeled_train": data.split(key.task, key.fit_target, "train"),
            "target_unlabeled_test": data.split(key.task, key.fit_target, "test"),
        }
    context = FitContext(
        method=method,
        backbone=work.backbone,
        train=data.training(key.task, planned.sources, "train", amount(key.shots)),
        val=data.training(key.task, planned.sources, "val"),
        targets=targets,
        classes=len(classes),
        class_names=classes,
        class_info={} if tree is None else {"hierarchy": tree},
        recipe=work.suite.protocol.recipe,
        device=work.device,
        seed=0 if method.deterministic else key.seed,
        source=key.source,
        target=key.fit_target,
        fit_other=lambda other, seed: _fit_other(work, planned, other, seed, context),
        resolve=lambda text: resolve_model(text).method,
        progress=work.reporter.step,
        feature_cache=work.features,
    )
    return context


def _fit_other(work: Workshop, planned: PlannedFit, other: Method, seed: int, parent: FitContext) -> Fitted:
    """Return another method's fit on the same data, shared with whoever asks for it by name."""
    planned = replace(planned, key=replace(planned.key, seed=seed))
    key = planned.key
    target = []
    if key.fit_target is not None:
        target = [work.data.split(key.task, key.fit_target, part).hash for part in ("train", "test")]
    fit_id = fit_id_of(
        work.suite,
        other,
        work.model.source,
        work.backbone.weights_hash,
        train=parent.train_split.hash,
        val=parent.val_split.hash,
        shots=key.shots,
        seed=key.seed,
        target=target,
        hierarchy=work.suite.tasks[key.task].hierarchy,
    )
    started = time.monotonic()
    inner = make_context(work, planned, other)
    try:
        stored = _made(work, fit_id, other, inner)
    except FitError:
        parent.budget.add(inner.budget)  # what it cost before it failed was spent
        raise
    parent.count(fit_id, stored.facts, time.monotonic() - started)
    return stored.fitted


def _measure_variant(work: Workshop, planned: PlannedFit, fitted: Fitted, name: str, variant: Variant) -> None:
    asked = _asked_of(work, planned, headline=name == fitted.headline)
    todo = []
    for one in asked:
        if is_stored(work, planned, one, name):
            continue
        if taken_over(work, planned, one, name):
            work.reporter.advance()
        else:
            todo.append(one)
    if not todo:
        return
    val = work.data.measured(planned.key.task, planned.sources, planned.key.source, "id-val")
    ready: dict[Precision, MeasuredPredictor] = {}
    for measurement in todo:
        place = place_of(planned, measurement, name, headline=name == fitted.headline)
        kind = measurement.condition.kind
        where = measurement.where
        text = f"{planned.key.source} to {where.target} ({where.role}): {measurement.condition.name}"
        work.reporter.doing(text)
        try:
            if variant.broken:
                raise FitError(variant.broken)
            # Whatever the others are measured in, an attack is one of float32.
            precision = "float32" if kind == "attack" else work.precision
            if precision not in ready:
                ready[precision] = made_ready(work, fitted.predictor(name), val, precision)
            make_measurement(work, planned, measurement, place, ready[precision], variant)
        except StoreError:
            raise
        except (Exception, SystemExit) as error:
            reason = told(error, work.model.method)
            records = place.absent(settings_of(measurement.condition), kind, "failed", reason)
            work.models.write_failure(place.measurement_id, records)
            _note_failure(work, f"{planned.key.model}, {text}: {reason}")
        work.reporter.advance()


def write_not_run(work: Workshop, planned: PlannedFit, reason: str) -> None:
    """Record that a fit's data are not here: a status and a reason, never a number."""
    key = planned.key
    records = [
        record
        for measurement in planned.measurements
        for record in place_of(planned, measurement, "main", headline=True).absent(
            settings_of(measurement.condition), measurement.condition.kind, "not_run", reason
        )
    ]
    work.models.write_failure(f"not-run~{key.task}~{key.shots}~{key.fit_id}", records)


def _without_fit(work: Workshop, planned: PlannedFit) -> list[tuple[PlannedMeasurement, Place]]:
    """Return what is missing of a fit that there is not, and where it belongs."""
    headline = names_of(work, planned)[0]
    return [(m, place_of(planned, m, name, headline=name == headline)) for m, name in pending(work, planned)]


def _fail_fit(work: Workshop, planned: PlannedFit, reason: str) -> None:
    missing = _without_fit(work, planned)
    records = [
        record
        for measurement, place in missing
        for record in place.absent(settings_of(measurement.condition), measurement.condition.kind, "failed", reason)
    ]
    work.models.write_failure(planned.key.fit_id, records)
    _write_row_without_fit(work, planned, missing, "failed", reason)
    _note_failure(work, f"{planned.key.model}, fit on {planned.key.source}, seed {planned.key.seed}: {reason}")
    work.reporter.advance(len(missing))


def _write_inapplicable(work: Workshop, planned: PlannedFit, reason: str) -> None:
    missing = _without_fit(work, planned)
    _write_row_without_fit(work, planned, missing, "not_applicable", reason)
    for measurement, place in missing:
        spec = measurement.condition
        work.models.write(
            place.measurement_id, place.absent(settings_of(spec), spec.kind, "not_applicable", reason), {}
        )
    work.models.forget_failure(planned.key.fit_id)
    work.reporter.advance(len(missing))


def _write_row_without_fit(
    work: Workshop, planned: PlannedFit, missing: Sequence[object], status: str, reason: str
) -> None:
    # Where some measurements are stored there was a fit, and its row says where they came from.
    names = range(len(names_of(work, planned)))
    whole = sum(len(_asked_of(work, planned, headline=place == 0)) for place in names)
    if len(missing) == whole or not work.models.has_fit_row(planned.key.fit_id):
        work.models.write_fit(_row(work, planned, {"status": status, "reason": reason}))


def _note_failure(work: Workshop, text: str) -> None:
    work.failures.append(text)
    work.reporter.say(f"failed: {text}")


def _write_fit_row(work: Workshop, planned: PlannedFit, stored: StoredFit, variants: Mapping[str, Variant]) -> None:
    headline = variants[stored.fitted.headline]
    facts = {
        **stored.facts,
        "batch_size": work.batch_size,
        "parameters_stored": headline.parameters_stored,
        "forward_passes": headline.forward_passes,
        "variants": json.dumps(list(variants)),
        "temperatures": json.dumps({name: variant.temperature for name, variant in variants.items()}),
        "probes": json.dumps(
            {name: {"gradient": v.gradient, "broken": v.broken, "prepared": v.note} for name, v in variants.items()}
        ),
    }
    work.models.write_fit(_row(work, planned, facts))


def _row(work: Workshop, planned: PlannedFit, facts: Mapping[str, Any]) -> dict[str, Any]:
    blank = {
        "status": "ok",
        "reason": "",
        "tlbench_version": "",
        "git_state": "",
        "plugin_source": work.model.source,
        "packages": "{}",
        "device": work.device,
        "precision": work.precision,
        "threads": torch.get_num_threads(),
        "batch_size": work.batch_size,
        "started": "",
        "seconds": 0.0,
        "peak_memory_bytes": 0,
        "parameters_trained": 0,
        "parameters_stored": 0,
        "images_seen": 0,
        "saved_bytes": 0,
        "forward_passes": 1.0,
        "data_read": "[]",
        "source_hash": work.data.training(planned.key.task, planned.sources, "train", amount(planned.key.shots)).hash,
        "variants": "[]",
        "temperatures": "{}",
        "probes": "{}",
        "candidates": "[]",
        "data_notes": work.data_notes.get(planned.key.task, ""),
    }
    return {**asdict(planned.key), **blank, **facts}
