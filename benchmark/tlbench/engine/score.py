"""Outputs that were computed elsewhere, measured as a predictor's own would be: clean sets only."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tlbench.data.domain import Split
from tlbench.data.prepare import SuiteData
from tlbench.engine.measuring import Measurement, Place, clean_measurement, settings_of
from tlbench.engine.plan import PlannedMeasurement, PlannedSet
from tlbench.engine.provenance import packages, tlbench_version
from tlbench.errors import DataError, FitError, UsageError, listed, nearest
from tlbench.methods.resolve import check_row_name
from tlbench.models.statistics import Output, Statistics
from tlbench.models.temperature import fit_temperature
from tlbench.records.outputs import OutputsFile, read_outputs
from tlbench.records.record import FitKey, Precision, row_in_precision
from tlbench.records.store import Store
from tlbench.seeds import digest
from tlbench.suites.spec import Role, Suite

OUTPUTS: tuple[Output, ...] = ("logits", "log_probs", "scores")
_ONLY_CLEAN = "outputs from a file: clean measures only"
_VARIANT = "main"


@dataclass(frozen=True)
class ScoreOutcome:
    """What scoring a file did.

    Attributes
    ----------
    model : str
        Row of the board: the name that was given and, where the outputs are not of float32, their precision.
    sets : int
        Sets of images that were scored, seeds counted apart.
    missing : int
        Clean sets of the suite, for the seeds in the file, that are not in it.
    seconds : float
    """

    model: str
    sets: int
    missing: int
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether the file holds every clean set of the suite."""
        return self.missing == 0


@dataclass(frozen=True)
class _Found:
    """The outputs of one set, in the order of its manifest."""

    planned: PlannedMeasurement
    split: Split
    outputs: torch.Tensor


def score(
    file: Path,
    suite: Suite,
    *,
    model: str,
    output: str = "logits",
    run_dir: Path,
    base: Path | None = None,
    data_root: str | Path | None = None,
) -> ScoreOutcome:
    """Measure the outputs in a file and store records as an evaluation would.

    Parameters
    ----------
    file : Path
        As ``read_outputs`` takes it: one image of one set a row, found by its name. ID-val outputs of a source, where
        the file has them, give the temperature of the scaled measures.
    suite : Suite
    model : str
        Row of the board; it stands in a section of its own, for nobody knows how the outputs were made. Outputs that
        were kept of an evaluation in another precision than float32 have its name added, as that evaluation's row has.
    output : {"logits", "log_probs", "scores"}
        What the outputs are.
    run_dir : Path
    base : Path, optional
        Folder of the suite file.
    data_root : path, optional

    Returns
    -------
    ScoreOutcome

    Raises
    ------
    DataError
        If images are missing, unknown or there twice, outputs are not one a class, or allow no prediction. Nothing is
        written then.
    UsageError
        If ``output`` is no kind of outputs, or no row can have the name.
    """
    started = time.monotonic()
    if output not in OUTPUTS:
        raise UsageError(f"--output {output}: expected {listed(OUTPUTS)}{nearest(output, OUTPUTS)}")
    kind = next(known for known in OUTPUTS if known == output)
    content = read_outputs(file)
    model = row_in_precision(model, content.precision)
    check_row_name(model, "--model")
    data = SuiteData(suite, base=base, data_root=Path(data_root) if data_root else None)
    known = dict(_sets(suite))
    fits: dict[FitKey, list[tuple[Place, Measurement]]] = {}
    temperatures: dict[FitKey, float | None] = {}
    for (task, source, seed), rows in _groups(content, ("task", "source", "seed")):
        key = _key(content, suite, model, task, source, seed)
        found = [
            _matched(content, suite, data, known, key, target, role, rows[places])
            for (target, role), places in _groups(content, ("target", "role"), rows)
        ]
        try:
            temperatures[key] = _temperature(found, kind)
            fits[key] = [
                (
                    _place(key, one.planned, content.precision),
                    _measured(suite, key, one, kind, temperatures[key], content.precision),
                )
                for one in found
            ]
        except FitError as problem:
            raise DataError(f"{file}: {source}, seed {seed}: {problem}") from None
    store = Store(run_dir, suite.name, suite.hash)
    store.prepare(suite.model_dump(mode="json"))
    models = store.model(model)
    models.prepare({"model": model, "method": "outputs-file", "output": output, "sha256": content.sha256})
    for key, measured in fits.items():
        models.write_fit(_fit_row(key, temperatures[key], content.precision))
        for place, measurement in measured:
            models.write(place.measurement_id, measurement.records, measurement.tables)
        for place, spec in _inapplicable(suite, data, key, content.precision):
            absent = place.absent(settings_of(spec.condition), spec.condition.kind, "not_applicable", _ONLY_CLEAN)
            models.write(place.measurement_id, absent, {})
    done = sum(len(measured) for measured in fits.values())
    expected = len(known) * len({key.seed for key in fits})
    return ScoreOutcome(model, done, expected - done, time.monotonic() - started)


_SetKey = tuple[str, str, str, str]


def _sets(suite: Suite) -> Iterator[tuple[_SetKey, PlannedSet]]:
    """Yield every set of the suite by task, source, target and role, the clean ones only."""
    roles = {role for condition in suite.conditions if condition.kind == "clean" for role in condition.roles}
    for key, where in _all_sets(suite):
        if where.role in roles:
            yield key, where


def _all_sets(suite: Suite) -> Iterator[tuple[_SetKey, PlannedSet]]:
    for task in suite.tasks:
        for sources in suite.sources_of(task):
            source = "+".join(sources)
            own: tuple[Role, ...] = ("id-val", "id-test")
            for role in own:
                yield (task, source, source, role), PlannedSet(role, source)
            for pair in suite.pairs_of(task):
                if pair.sources == sources:
                    yield (task, source, pair.target, "ood-test"), PlannedSet("ood-test", pair.target, pair.classes)


def _groups(
    content: OutputsFile, names: tuple[str, ...], rows: NDArray[np.int64] | None = None
) -> Iterator[tuple[tuple[Any, ...], NDArray[np.int64]]]:
    """Yield distinct values of some columns, in order of appearance, and the places that have them."""
    places: dict[tuple[Any, ...], list[int]] = {}
    columns = [getattr(content, name) if rows is None else getattr(content, name)[rows] for name in names]
    for place, values in enumerate(zip(*columns, strict=True)):
        places.setdefault(values, []).append(place)
    for values, found in places.items():
        yield values, np.array(found, dtype=np.int64)


def _matched(
    content: OutputsFile,
    suite: Suite,
    data: SuiteData,
    known: dict[_SetKey, PlannedSet],
    key: FitKey,
    target: str,
    role: str,
    rows: NDArray[np.int64],
) -> _Found:
    """Return the outputs of a set in manifest order, each found by the name of its image."""
    place = f"{content.path}: {key.task}, {key.source} to {target}, {role}, seed {key.seed}"
    where = known.get((key.task, key.source, target, role))
    if where is None:
        known_roles = sorted({of for *_, of in known})
        hint = nearest(f"{key.task} {key.source} {target} {role}", [" ".join(one) for one in known])
        raise DataError(f"{place}: suite '{suite.name}' has no such set (roles: {listed(known_roles)}){hint}")
    clean = next(one for one in suite.conditions if one.kind == "clean" and where.role in one.roles)
    split = data.measured(
        key.task,
        tuple(key.source.split("+")),
        target,
        where.role,
        classes=where.classes,
        max_images=clean.max_images,
    )
    manifest = split.manifest
    misfits = content.width[rows][content.width[rows] != len(manifest.classes)]
    if len(misfits):
        raise DataError(f"{place}: expected {len(manifest.classes)} outputs an image, got {misfits[0]}")
    given = content.image[rows]
    _check_names(place, [str(name) for name in given], manifest.names)
    row_of = {name: row for name, row in zip(given, rows, strict=True)}
    outputs = content.outputs[[row_of[name] for name in manifest.names], : len(manifest.classes)]
    return _Found(PlannedMeasurement(where, clean, split.hash, len(split)), split, torch.from_numpy(outputs))


def _check_names(place: str, given: list[str], wanted: tuple[str, ...]) -> None:
    have, want = set(given), set(wanted)
    if len(have) < len(given):
        twice = next(name for number, name in enumerate(given) if name in given[:number])
        raise DataError(f"{place}: {len(given) - len(have)} of {len(given)} images are there twice, first '{twice}'")
    unknown = [name for name in given if name not in want]
    if unknown:
        hint = nearest(unknown[0], wanted)
        raise DataError(f"{place}: {len(unknown)} of {len(given)} images are unknown, first '{unknown[0]}'{hint}")
    missing = [name for name in wanted if name not in have]
    if missing:
        raise DataError(f"{place}: {len(missing)} of {len(wanted)} images are missing, first '{missing[0]}'")


def _temperature(found: list[_Found], output: Output) -> float | None:
    if output == "scores":
        return None
    for one in found:
        if one.planned.where.role == "id-val":
            return fit_temperature(one.outputs, torch.from_numpy(one.split.labels), output)
    return None


def _measured(
    suite: Suite, key: FitKey, found: _Found, output: Output, temperature: float | None, precision: Precision
) -> Measurement:
    statistics = Statistics(
        output=output,
        temperature=temperature,
        full=True,
        bins=suite.metrics.ece_bins,
        closed=suite.metrics.ece_closed,
    )
    statistics.add(torch.arange(len(found.split)), torch.from_numpy(found.split.labels.copy()), found.outputs)
    return clean_measurement(suite, _place(key, found.planned, precision), statistics, found.split.manifest)


def _inapplicable(
    suite: Suite, data: SuiteData, key: FitKey, precision: Precision
) -> Iterator[tuple[Place, PlannedMeasurement]]:
    """Yield the measurements of a fit that outputs cannot answer: other images would have been needed."""
    for (task, source, _, role), where in _all_sets(suite):
        for condition in suite.conditions:
            if (task, source) != (key.task, key.source) or condition.kind == "clean" or role not in condition.roles:
                continue
            split = data.measured(
                task,
                tuple(source.split("+")),
                where.target,
                where.role,
                classes=where.classes,
                max_images=condition.max_images,
            )
            planned = PlannedMeasurement(where, condition, split.hash, len(split))
            yield _place(key, planned, precision), planned


def _place(key: FitKey, planned: PlannedMeasurement, precision: Precision) -> Place:
    return Place(
        key=key,
        variant=_VARIANT,
        headline=True,
        where=planned.where,
        split_hash=planned.split_hash,
        measurement_id=planned.id_for(key.fit_id, _VARIANT),
        precision=precision,
    )


def _key(content: OutputsFile, suite: Suite, model: str, task: str, source: str, seed: int) -> FitKey:
    return FitKey(
        suite=suite.name,
        suite_version=suite.version,
        suite_hash=suite.hash,
        task=task,
        source=source,
        fit_target=None,
        shots="full",
        seed=int(seed),
        model=model,
        method="outputs-file",
        settings="{}",
        settings_hash=content.sha256[:16],
        backbone="unknown",
        weights_hash=content.sha256,
        protocol="outputs-file",
        deterministic=False,
        control=False,
        fit_id=digest("outputs", content.sha256, task, source, int(seed))[:32],
    )


def _fit_row(key: FitKey, temperature: float | None, precision: Precision) -> dict[str, Any]:
    return {
        **asdict(key),
        # No fit was made here, so its cost is not zero but unknown: this status keeps it out of every mean.
        "status": "not_applicable",
        "reason": "the outputs were computed elsewhere",
        "tlbench_version": tlbench_version(),
        "git_state": "",
        "plugin_source": "",
        "packages": packages(),
        "device": "unknown",
        "precision": precision,
        "threads": 0,
        "batch_size": 0,
        "started": "",
        "seconds": 0.0,
        "peak_memory_bytes": 0,
        "parameters_trained": 0,
        "parameters_stored": 0,
        "images_seen": 0,
        "saved_bytes": 0,
        "forward_passes": 0.0,
        "data_read": "[]",
        "source_hash": "",
        "variants": json.dumps([_VARIANT]),
        "temperatures": json.dumps({_VARIANT: temperature}),
        "probes": "{}",
    }
