"""The predictors of a fit before they are measured: what they claim is probed, their temperature is fitted."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from tlbench.engine.fitting import told
from tlbench.engine.measured import MeasuredPredictor
from tlbench.engine.provenance import exact_arithmetic
from tlbench.errors import StoreError
from tlbench.methods.fitted import test_time_mistake
from tlbench.models.probes import probe_batch_independence, probe_gradient, probe_reset
from tlbench.models.statistics import NonFiniteOutputs
from tlbench.models.temperature import fit_temperature
from tlbench.records.files import write_text
from tlbench.setting import CLEAN

if TYPE_CHECKING:
    from tlbench.data.domain import Split
    from tlbench.engine.plan import PlannedFit
    from tlbench.engine.workshop import Workshop
    from tlbench.methods.base import Fitted, Predictor
    from tlbench.records.record import Precision

_PROBED_IMAGES = 4
_EXAMPLE_IMAGES = 16


@dataclass(frozen=True)
class Variant:
    """What is known of one predictor of a fit before it is measured.

    Attributes
    ----------
    temperature : float or None
        Fitted on ID-val; None for scores, for predictors that adapt, and where that failed.
    broken : str
        Why it cannot be called at all, or sees other test images without saying so: nothing of it is measured.
    gradient : str
        Why its gradient cannot be followed although it claims to be differentiable: what needs one fails.
    scaling : str
        Why no temperature could be fitted.
    forward_passes : float
    parameters_stored : int
    note : str
        How the network was prepared for measuring.
    """

    temperature: float | None = None
    broken: str = ""
    gradient: str = ""
    scaling: str = ""
    forward_passes: float = 1.0
    parameters_stored: int = 0
    note: str = "as fitted"

    @property
    def sound(self) -> bool:
        """Whether nothing failed."""
        return not (self.broken or self.gradient or self.scaling)


def variants_of(work: Workshop, planned: PlannedFit, fitted: Fitted) -> dict[str, Variant]:
    """Return what is known of every variant, the headline first: as an earlier run left it, or found out now."""
    known = known_variants(work, planned)
    # What failed is tried again, as everything that failed is.
    if set(known) == set(fitted.variants) and all(variant.sound for variant in known.values()):
        return known
    names = sorted(fitted.variants, key=lambda name: name != fitted.headline)
    found = {name: _examine(work, planned, fitted, name) for name in names}
    path = _path(work, planned)
    write_text(path, json.dumps({name: asdict(variant) for name, variant in found.items()}))
    return found


def known_variants(work: Workshop, planned: PlannedFit) -> dict[str, Variant]:
    """Return what an earlier run learnt, the headline first; empty where there was none, or of another version."""
    path = _path(work, planned)
    try:
        return {name: Variant(**values) for name, values in json.loads(path.read_text(encoding="utf-8")).items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}


def _path(work: Workshop, planned: PlannedFit) -> Path:
    # The temperature is one of the outputs that are measured, and these differ with their precision.
    name = "variants.json" if work.precision == "float32" else f"variants-{work.precision}.json"
    return work.store.fit_folder(planned.key.fit_id) / name


def names_of(work: Workshop, planned: PlannedFit) -> list[str]:
    """Return the names of a fit's variants, the headline first."""
    # A fit that does not exist, failed or not applicable, leaves records under "main".
    return list(known_variants(work, planned)) or ["main"]


def _examine(work: Workshop, planned: PlannedFit, fitted: Fitted, name: str) -> Variant:
    """Probe a predictor's claims and fit its temperature on ID-val."""
    method = work.model.method
    val = work.data.measured(planned.key.task, planned.sources, planned.key.source, "id-val")
    few = val.head(_PROBED_IMAGES)
    images = (few.batch(np.arange(len(few))).images.float() / 255).to(work.device)
    gradient = scaling = ""
    temperature = None
    try:
        predictor = fitted.predictor(name)
        known = Variant(
            forward_passes=predictor.forward_passes,
            parameters_stored=sum(parameter.numel() for parameter in predictor.module.parameters()),
        )
        measured = made_ready(work, predictor, val, work.precision)
        if predictor.sees_test_images:
            return replace(known, broken=_test_time(work, measured, predictor, images))
        with contextlib.suppress(NonFiniteOutputs):
            measured.outputs(images)  # a wrong shape is told in plainer words than the probes have
        independent = probe_batch_independence(predictor.module, images)
        if not independent.passed:
            return replace(known, broken=independent.detail)
        if predictor.differentiable:
            followed = probe_gradient(predictor.module, images)
            gradient = "" if followed.passed else followed.detail
        if predictor.output != "scores":
            try:
                temperature = _temperature(measured, val, work.batch_size)
            except NonFiniteOutputs as error:
                scaling = str(error)
    except StoreError:
        raise
    except (Exception, SystemExit) as error:
        return Variant(broken=told(error, method))
    return replace(known, temperature=temperature, gradient=gradient, scaling=scaling, note=measured.note)


def _test_time(work: Workshop, measured: MeasuredPredictor, predictor: Predictor, images: torch.Tensor) -> str:
    """Return why a predictor that sees test images cannot be measured, or an empty string."""
    mistake = test_time_mistake(predictor, work.model.method)
    if mistake or predictor.reset is None:
        return mistake
    measured.start(CLEAN)
    with contextlib.suppress(NonFiniteOutputs):
        measured.outputs(images)  # a wrong shape is told in plainer words than the probe has
    put_back = probe_reset(predictor.module, predictor.reset, images)
    return "" if put_back.passed else put_back.detail


def _temperature(measured: MeasuredPredictor, val: Split, batch_size: int) -> float:
    outputs = torch.zeros(0, measured.classes)
    for start, batch in zip(range(0, len(val), batch_size), val.batches(batch_size), strict=True):
        piece = measured.outputs(batch.images)
        if not start:
            outputs = piece.new_empty(len(val), measured.classes)  # joining pieces would hold them twice
        outputs[start : start + len(piece)] = piece
    return fit_temperature(outputs, torch.from_numpy(val.labels), measured.output)


def made_ready(work: Workshop, predictor: Predictor, split: Split, precision: Precision) -> MeasuredPredictor:
    """Return a predictor as conditions see it, prepared on a few images of a split of its task."""
    exact_arithmetic()
    example = split.head(_EXAMPLE_IMAGES).batch(np.arange(min(_EXAMPLE_IMAGES, len(split)))).images
    return MeasuredPredictor(
        predictor,
        classes=len(split.manifest.classes),
        device=work.device,
        chunk=work.batch_size,
        example=example,
        tell=work.reporter.predicted,
        precision=precision,
    )
