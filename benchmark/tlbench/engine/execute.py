"""One fit and everything that is measured on it: the unit of work that executors map."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlbench.engine.context import FitContext
from tlbench.engine.fitting import StoredFit, obtain, one_line, unmet_need
from tlbench.engine.measured import MeasuredPredictor
from tlbench.engine.measuring import Place, make_condition, measure, settings_of
from tlbench.engine.measuring import unmet_need as condition_unmet
from tlbench.engine.plan import ENGINE_VERSION, PlannedFit, PlannedMeasurement, method_identity
from tlbench.errors import FitError, NotApplicableError, StoreError, TlbenchError
from tlbench.methods.base import Fitted, Method, Predictor, Tag
from tlbench.methods.resolve import Model, resolve_model
from tlbench.models.probes import probe_batch_independence, probe_gradient
from tlbench.models.statistics import fit_temperature
from tlbench.records.store import write_text
from tlbench.seeds import digest

if TYPE_CHECKING:
    from tlbench.conditions.base import Condition
    from tlbench.data.domain import Split
    from tlbench.data.prepare import SuiteData
    from tlbench.engine.progress import Reporter
    from tlbench.models.backbone import Backbone
    from tlbench.records.store import ModelStore, Store
    from tlbench.suites.spec import Suite

_PROBED_IMAGES = 8
_EXAMPLE_IMAGES = 16


@dataclass
class Workshop:
    """Everything that the fits of one command share.

    Attributes
    ----------
    batch_size : int
        Images that a condition handles at a time, and the batch of a predictor that depends on its batch.
    failures : list of str
        One line a failure, in the order in which they happened.
    features : dict
        Pooled features by backbone and split, shared by all fits of the process.
    """

    suite: Suite
    data: SuiteData
    model: Model
    backbone: Backbone
    store: Store
    models: ModelStore
    device: str
    batch_size: int
    reporter: Reporter
    failures: list[str] = field(default_factory=list)
    features: dict[Any, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """What is known of one predictor of a fit before it is measured.

    Attributes
    ----------
    temperature : float or None
        Fitted on ID-val; None for scores and for predictors that adapt.
    gradient, batch : str
        Why a claim of the plug-in turned out false: its gradient, and its independence of the batch, without
        which nothing can be measured. Empty where the claim held.
    forward_passes : float
    parameters_stored : int
    note : str
        How the network was prepared for measuring.
    """

    temperature: float | None
    gradient: str
    batch: str
    forward_passes: float
    parameters_stored: int
    note: str


def pending(work: Workshop, planned: PlannedFit) -> list[tuple[PlannedMeasurement, str]]:
    """Return the measurements of a fit that are not stored, each with its variant.

    A fit that has not been made counts with one variant.
    """
    # A fit that does not apply leaves records under "main" and no predictor.
    names = list(_variants_on_disk(work, planned)) or ["main"]
    return [
        (measurement, name)
        for name in names
        for measurement in planned.measurements
        if not work.models.has(measurement.id_for(planned.key.fit_id, name))
    ]


def execute(work: Workshop, planned: PlannedFit) -> None:
    """Make one fit, or rebuild it, and all of its measurements that are not stored yet.

    What fails becomes a record with its reason, and the rest goes on; only what makes all further
    work pointless (a full disk, the user's interruption) leaves this function as an exception.
    """
    key = planned.key
    label = f"{key.model} {key.task}/{key.source} seed {key.seed}"
    work.reporter.doing(f"fit {label}")
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
    variants = _variants(work, planned, stored.fitted)
    _write_fit_row(work, planned, stored, variants)
    for name in stored.fitted.variants:
        _measure_variant(work, planned, stored.fitted, name, variants[name])


def _obtain(work: Workshop, planned: PlannedFit) -> StoredFit:
    context = make_context(work, planned, work.model.method)
    reason = unmet_need(
        work.model.method,
        work.backbone,
        sources=len(planned.sources),
        validation=len(context.val_split),
        info=context.class_info,
    )
    if reason:
        raise NotApplicableError(reason)
    return obtain(planned.key.fit_id, work.model.method, context, work.store, work.reporter.say)


def make_context(work: Workshop, planned: PlannedFit, method: Method) -> FitContext:
    """Return what a method is given for one planned fit."""
    key, data = planned.key, work.data
    amount = "full" if key.shots == "full" else int(key.shots)
    targets: dict[Tag, Split] = {}
    if key.fit_target is not None:
        targets = {
            "target_unlabeled_train": data.split(key.task, key.fit_target, "train"),
            "target_unlabeled_test": data.split(key.task, key.fit_target, "test"),
        }
    context = FitContext(
        method=method,
        backbone=work.backbone,
        train=data.training(key.task, planned.sources, "train", amount),
        val=data.training(key.task, planned.sources, "val"),
        targets=targets,
        classes=len(data.classes(key.task)),
        class_names=data.classes(key.task),
        class_info={},
        recipe=work.suite.protocol.recipe,
        device=work.device,
        seed=0 if method.deterministic else key.seed,
        source=key.source,
        target=key.fit_target,
        fit_other=lambda other: _fit_other(work, planned, other, context),
        resolve=lambda text: resolve_model(text).method,
        feature_cache=work.features,
    )
    return context


def _fit_other(work: Workshop, planned: PlannedFit, other: Method, parent: FitContext) -> Fitted:
    """Return another method's fit on the same data and seed, shared with whoever asks for it by name."""
    identity = {
        "engine": ENGINE_VERSION,
        "method": method_identity(other, work.model.source),
        "backbone": work.backbone.weights_hash,
        "recipe": work.suite.protocol.recipe.model_dump(mode="json"),
        "train": parent.train_split.hash,
        "val": parent.val_split.hash,
        "seed": 0 if other.deterministic else planned.key.seed,
        "target": None,
    }
    fit_id = digest("fit", identity)[:32]
    context = make_context(work, planned, other)
    with work.store.lock(fit_id, wait=True):
        stored = obtain(fit_id, other, context, work.store, work.reporter.say)
    parent.count(stored.facts)
    return stored.fitted


def _variants(work: Workshop, planned: PlannedFit, fitted: Fitted) -> dict[str, Variant]:
    """Return what is known of every variant: read where it is there, else probed and fitted once."""
    known = {name: Variant(**values) for name, values in _variants_on_disk(work, planned).items()}
    # What failed is tried again, as everything that failed is.
    if set(known) == set(fitted.variants) and not any(v.gradient or v.batch for v in known.values()):
        return known
    found = {name: _examine(work, planned, fitted.predictor(name)) for name in fitted.variants}
    path = work.store.fit_folder(planned.key.fit_id) / "variants.json"
    write_text(path, json.dumps({name: asdict(variant) for name, variant in found.items()}))
    return found


def _variants_on_disk(work: Workshop, planned: PlannedFit) -> dict[str, Any]:
    path = work.store.fit_folder(planned.key.fit_id) / "variants.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _examine(work: Workshop, planned: PlannedFit, predictor: Predictor) -> Variant:
    """Probe a predictor's claims and fit its temperature on ID-val."""
    val = work.data.measured(planned.key.task, planned.sources, planned.key.source, "id-val")
    images = val.head(_PROBED_IMAGES).batch(np.arange(min(_PROBED_IMAGES, len(val)))).images.float() / 255
    gradient = batch = ""
    parameters = sum(p.numel() for p in predictor.module.parameters())
    try:
        fixed = not (predictor.adapts or predictor.batch_dependent)
        measured = _measured(work, predictor, val)
        if fixed:
            result = probe_batch_independence(predictor.module, images.to(work.device))
            batch = "" if result.passed else result.detail
        if predictor.differentiable and not batch:
            result = probe_gradient(predictor.module, images.to(work.device))
            gradient = "" if result.passed else result.detail
        temperature = _temperature(measured, val, work.batch_size) if predictor.output != "scores" and fixed else None
        note = measured.note
    except StoreError:
        raise
    except Exception as error:
        # A predictor that cannot even be called: every measurement of it fails with this reason.
        return Variant(None, "", one_line(error), predictor.forward_passes, parameters, "as fitted")
    return Variant(temperature, gradient, batch, predictor.forward_passes, parameters, note)


def _temperature(measured: MeasuredPredictor, val: Split, batch_size: int) -> float:
    outputs = torch.cat([measured.outputs(batch.images) for batch in val.batches(batch_size)])
    return fit_temperature(outputs, torch.from_numpy(val.labels), measured.output)


def _measured(work: Workshop, predictor: Predictor, split: Split) -> MeasuredPredictor:
    example = split.head(_EXAMPLE_IMAGES).batch(np.arange(min(_EXAMPLE_IMAGES, len(split)))).images
    return MeasuredPredictor(
        predictor,
        classes=len(split.manifest.classes),
        device=work.device,
        chunk=min(work.batch_size, 64) if work.device == "cpu" else work.batch_size,
        example=example,
    )


def _measure_variant(work: Workshop, planned: PlannedFit, fitted: Fitted, name: str, variant: Variant) -> None:
    todo = [m for m in planned.measurements if not _have(work, planned, m, name)]
    if not todo:
        return
    val = work.data.measured(planned.key.task, planned.sources, planned.key.source, "id-val")
    measured: MeasuredPredictor | None = None
    for measurement in todo:
        place = place_of(planned, measurement, fitted, name)
        kind = measurement.condition.kind
        text = f"{planned.key.source} to {measurement.where.target}: {measurement.condition.name}"
        work.reporter.doing(text)
        before = measured.images_predicted if measured else 0
        try:
            if variant.batch:
                raise FitError(variant.batch)
            if kind == "attack" and variant.gradient:
                raise FitError(variant.gradient)
            measured = measured or _measured(work, fitted.predictor(name), val)
            _measure_one(work, planned, measurement, place, measured, variant)
        except (StoreError, MemoryError):
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, FitError) else one_line(error)
            records = place.absent(settings_of(measurement.condition), kind, "failed", reason)
            work.models.write_failure(place.measurement_id, records)
            _note_failure(work, f"{planned.key.model}, {text}: {reason}")
        work.reporter.advance(text, images=(measured.images_predicted if measured else 0) - before)


def _have(work: Workshop, planned: PlannedFit, measurement: PlannedMeasurement, name: str) -> bool:
    """Return whether a measurement is stored, taking over an equal one of another model name."""
    measurement_id = measurement.id_for(planned.key.fit_id, name)
    if work.models.has(measurement_id):
        return True
    for other in work.store.models():
        if other.name != work.models.name and other.has(measurement_id):
            work.models.adopt(measurement_id, other, model=planned.key.model, seed=planned.key.seed)
            return True
    return False


def _measure_one(
    work: Workshop,
    planned: PlannedFit,
    measurement: PlannedMeasurement,
    place: Place,
    measured: MeasuredPredictor,
    variant: Variant,
) -> None:
    spec, where = measurement.condition, measurement.where
    condition = make_condition(spec, work.suite.protocol.image_size)
    reason = condition_unmet(condition, measured)
    if reason:
        records = place.absent(condition.settings, spec.kind, "not_applicable", reason)
        work.models.write(place.measurement_id, records, {})
        return
    split = work.data.measured(
        planned.key.task, planned.sources, where.target, where.role, classes=where.classes, max_images=spec.max_images
    )
    result = measure(
        work.suite,
        place,
        spec,
        condition,
        measured,
        split,
        batch_size=work.batch_size,
        temperature=variant.temperature,
        predicted_clean=_predicted_clean(work, planned, measurement, place.variant) if spec.kind == "transform" else None,
    )
    work.models.write(place.measurement_id, result.records, result.tables)


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


def place_of(planned: PlannedFit, measurement: PlannedMeasurement, fitted: Fitted, name: str) -> Place:
    """Return where a measurement's records belong."""
    return Place(
        key=planned.key,
        variant=name,
        headline=name == fitted.headline,
        where=measurement.where,
        split_hash=measurement.split_hash,
        measurement_id=measurement.id_for(planned.key.fit_id, name),
    )


def _without_fit(planned: PlannedFit) -> Iterator[tuple[PlannedMeasurement, Place]]:
    nameless = Fitted({"main": lambda: Predictor(torch.nn.Identity())})
    for measurement in planned.measurements:
        yield measurement, place_of(planned, measurement, nameless, "main")


def _fail_fit(work: Workshop, planned: PlannedFit, reason: str) -> None:
    records = [
        record
        for measurement, place in _without_fit(planned)
        for record in place.absent(settings_of(measurement.condition), measurement.condition.kind, "failed", reason)
    ]
    work.models.write_failure(planned.key.fit_id, records)
    work.models.write_fit(_row(work, planned, {"status": "failed", "reason": reason}))
    _note_failure(work, f"{planned.key.model}, fit on {planned.key.source}, seed {planned.key.seed}: {reason}")
    work.reporter.advance("failed", units=len(planned.measurements))


def _write_inapplicable(work: Workshop, planned: PlannedFit, reason: str) -> None:
    for measurement, place in _without_fit(planned):
        if not work.models.has(place.measurement_id):
            spec = measurement.condition
            work.models.write(place.measurement_id, place.absent(settings_of(spec), spec.kind, "not_applicable", reason), {})
    work.models.write_fit(_row(work, planned, {"status": "not_applicable", "reason": reason}))
    work.reporter.say(f"{planned.key.model} does not apply to {planned.key.source}: {reason}")
    work.reporter.advance("not applicable", units=len(planned.measurements))


def _note_failure(work: Workshop, text: str) -> None:
    work.failures.append(text)
    work.reporter.say(f"failed: {text}")


def _write_fit_row(
    work: Workshop, planned: PlannedFit, stored: StoredFit, variants: Mapping[str, Variant]
) -> None:
    headline = variants[stored.fitted.headline]
    names = sorted(variants, key=lambda name: name != stored.fitted.headline)
    facts = {
        **stored.facts,
        "batch_size": work.batch_size,
        "parameters_stored": headline.parameters_stored,
        "forward_passes": headline.forward_passes,
        "variants": json.dumps(names),
        "temperatures": json.dumps({name: variant.temperature for name, variant in variants.items()}),
        "probes": json.dumps(
            {name: {"gradient": v.gradient, "batch": v.batch, "prepared": v.note} for name, v in variants.items()}
        ),
    }
    work.models.write_fit(_row(work, planned, facts))


def _row(work: Workshop, planned: PlannedFit, facts: Mapping[str, Any]) -> dict[str, Any]:
    amount = "full" if planned.key.shots == "full" else int(planned.key.shots)
    blank = {
        "status": "ok",
        "reason": "",
        "tlbench_version": "",
        "git_state": "",
        "plugin_source": work.model.source,
        "packages": "{}",
        "device": work.device,
        "precision": "float32",
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
        "source_hash": work.data.training(planned.key.task, planned.sources, "train", amount).hash,
        "variants": "[]",
        "temperatures": "{}",
        "probes": "{}",
    }
    return {**asdict(planned.key), **blank, **facts}
