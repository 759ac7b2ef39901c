"""One command's work: everything is named, loaded and checked before the first second of compute."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.data.counts import check_counts
from tlbench.data.lock import check_lock
from tlbench.data.prepare import SuiteData
from tlbench.data.rehearsal.rehearse import is_rehearsal
from tlbench.engine.checks import check_hierarchies, check_suite, lacking
from tlbench.engine.chosen import card_of, chosen_model, in_precision, read_precision
from tlbench.engine.declared import DeclaredSizes
from tlbench.engine.execute import pending, write_not_run
from tlbench.engine.executors.local import run
from tlbench.engine.pace import store_forecast
from tlbench.engine.plan import PlannedFit, Selection, plan, sees_test_images
from tlbench.engine.progress import Reporter
from tlbench.engine.provenance import choose_device, set_exact_arithmetic
from tlbench.engine.workshop import Workshop
from tlbench.errors import DataError, UnknownNameError, UsageError, WeightsError, listed, nearest
from tlbench.methods.base import Method
from tlbench.methods.resolve import Model
from tlbench.metrics.catalogue import METRICS
from tlbench.models.zoo import UNTRAINED, load_backbone
from tlbench.records.store import Store
from tlbench.suites.load import find_suite, load_suite
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from torch import nn

    from tlbench.methods.base import Predictor
    from tlbench.models.backbone import Backbone

_KINDS: Mapping[str, frozenset[str]] = {
    "accuracy": frozenset({"clean"}),
    "calibration": frozenset({"clean"}),
    "robustness": frozenset({"attack"}),
    "corruption": frozenset({"corruption"}),
    "invariance": frozenset({"clean", "transform"}),
    "cost": frozenset({"clean"}),
}


@dataclass(frozen=True)
class Outcome:
    """What a session did.

    Attributes
    ----------
    model : str
    settings_hash, weights_hash : str
        Which version of the model: a plug-in's source may have changed under one name. Empty where nothing was planned.
    failures : tuple of str
        One line each.
    missing : mapping of str to str
        Selected tasks that were not run for want of data, and where these were looked for.
    complete : bool
    seconds : float
    notes : tuple of str
        What is to be known of the measurements that were made now, one line each.
    inapplicable : tuple of str
        Where the method does not apply, and why, one line a reason; whether that was found out now or before.
    """

    model: str
    settings_hash: str
    weights_hash: str
    failures: tuple[str, ...]
    missing: Mapping[str, str]
    complete: bool
    seconds: float
    notes: tuple[str, ...] = ()
    inapplicable: tuple[str, ...] = ()


@dataclass
class Session:
    """A checked plan and the workshop that carries it out.

    Attributes
    ----------
    fits : tuple of PlannedFit
        Whose data are here.
    absent : tuple of PlannedFit
        What the missing tasks would have been; its hashes are of no data.
    missing : mapping of str to str
        Selected tasks whose data are not here, and where these were looked for.
    notes : tuple of str
        What is to be known of the data.
    """

    suite: Suite
    work: Workshop
    fits: tuple[PlannedFit, ...]
    absent: tuple[PlannedFit, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def count(self) -> dict[str, int]:
        """Return how much there is, and how much is left to do."""
        left = {planned.key.fit_id: pending(self.work, planned) for planned in self.fits}
        todo = [measurement for measurements in left.values() for measurement, _ in measurements]
        attacked = sum(m.n for m in todo if m.condition.kind == "attack")
        return {
            "fits": len(self.fits),
            "measurements": sum(len(planned.measurements) for planned in self.fits),
            "fits_to_do": sum(
                bool(left[planned.key.fit_id]) and not self.work.store.has_fit(planned.key.fit_id)
                for planned in self.fits
            ),
            "measurements_to_do": len(todo),
            "images": sum(m.n * _strengths(m.condition) for m in todo if m.condition.kind != "attack"),
            "attacked_images": attacked,
        }

    def run(self) -> Outcome:
        """Do what is left, and say how it went.

        Raises
        ------
        DataError
            If a measurement that is to be made needs what is not on this machine; before any compute.
        UsageError
            If the model's predictions depend on their batch, and some of them were made in batches of another size.
        """
        started = time.monotonic()
        self._check_available()
        self._check_batch_size()
        self.work.store.prepare(self.suite.model_dump(mode="json"))
        self.work.models.prepare(card_of(self.work.model))
        for planned in self.fits[:1]:
            # What failed in an older source of a plug-in, or with other weights, is not this model's failure.
            key = planned.key
            self.work.models.forget_failures_but(settings_hash=key.settings_hash, weights_hash=key.weights_hash)
        self._tell_of_data()
        store_forecast(self.work, self.fits)
        self.work.reporter.total = self.count()["measurements_to_do"]
        with self.work.reporter:
            run(self.work, self.fits)
        complete = not self.missing and not any(pending(self.work, planned) for planned in self.fits)
        first = self.fits[0].key if self.fits else None
        return Outcome(
            self.work.model.name,
            first.settings_hash if first else "",
            first.weights_hash if first else "",
            tuple(self.work.failures),
            dict(self.missing),
            complete,
            time.monotonic() - started,
            tuple(self.work.notes),
            self._inapplicable(),
        )

    def _inapplicable(self) -> tuple[str, ...]:
        """Return where the method does not apply, one line a reason."""
        sources = {planned.key.fit_id: f"{planned.key.task}/{planned.key.source}" for planned in self.fits}
        places: dict[str, dict[str, None]] = {}
        for row in self.work.models.fits().select(["fit_id", "status", "reason"]).to_pylist():
            if row["status"] == "not_applicable" and row["fit_id"] in sources:
                places.setdefault(row["reason"], {})[sources[row["fit_id"]]] = None
        return tuple(
            f"{self.work.model.name} does not apply to {', '.join(of)}: {reason}" for reason, of in places.items()
        )

    def _check_available(self) -> None:
        missing = lacking(m.condition for planned in self.fits for m in planned.measurements)
        for planned in self.fits if missing else ():
            for measurement, variant in pending(self.work, planned):
                problem = missing.get((measurement.condition.kind, measurement.condition.name))
                own_id = measurement.id_for(planned.key.fit_id, variant)
                # What an equal model of another name has measured is taken over, and not made.
                if problem is not None and not any(model.has(own_id) for model in self.work.store.models()):
                    raise problem

    def _check_batch_size(self) -> None:
        if not sees_test_images(self.work.model.method) or not self.fits:
            return
        own, names = self.fits[0].key, ("settings_hash", "weights_hash")
        for row in self.work.models.fits().select([*names, "status", "batch_size"]).to_pylist():
            same = row["status"] == "ok" and all(row[name] == getattr(own, name) for name in names)
            if same and row["batch_size"] != self.work.batch_size:
                raise UsageError(
                    f"--batch-size {self.work.batch_size}: the predictions of '{own.model}' depend on their batch, and "
                    f"were made in batches of {row['batch_size']} so far; go on with --batch-size {row['batch_size']}, "
                    "or begin anew under another --name"
                )

    def _tell_of_data(self) -> None:
        """Say what is to be known of the data, and record what cannot be run for want of them."""
        for note in self.notes:
            self.work.reporter.say(note)
        for task, place in self.missing.items():
            self.work.reporter.say(f"not run: {task}, {place}")
        for task in {planned.key.task for planned in self.fits}:
            self.work.models.forget_failures(f"not-run~{task}~")
        for planned in self.absent:
            write_not_run(self.work, planned, self.missing[planned.key.task])


def open_session(
    suite: str | Path | Suite,
    model: str | Method | Model | None,
    *,
    selection: Mapping[str, Any],
    predictors: Mapping[str, nn.Module | Predictor | str | Path] | None = None,
    backbone: str | None = None,
    settings: Sequence[str] = (),
    name: str | None = None,
    metrics: Sequence[str] | None = None,
    device: str | None = None,
    data_root: str | Path | None = None,
    run_dir: Path,
    threads: int | None = None,
    batch_size: int = 128,
    precision: str = "float32",
    keep_outputs: bool = False,
    all_variants: bool = False,
    quiet: bool = False,
) -> Session:
    """Turn names into objects and a suite into a plan; see ``tlbench.api.evaluate`` for the arguments.

    Raises
    ------
    TlbenchError
        For every mistake that can be known before any compute.
    """
    read = suite if isinstance(suite, Suite) else load_suite(suite)
    base = None if isinstance(suite, Suite) else find_suite(suite).parent
    check_suite(read, None if isinstance(suite, Suite) else suite)
    kinds = condition_kinds(metrics)
    measured_in = read_precision(precision)
    chosen = in_precision(
        chosen_model(model, predictors, settings, backbone, name, read.protocol.backbone), measured_in
    )
    if predictors is not None:
        only = dict(selection.get("only") or {})
        if not set(only.get("source", predictors)) & set(predictors):
            raise UsageError(f"--only source={','.join(only['source'])}: networks were given for {listed(predictors)}")
        only["source"] = tuple(source for source in predictors if source in only.get("source", predictors))
        selection = {**selection, "only": only}
    chosen_selection = Selection(**selection)
    chosen_selection.check(read)
    if batch_size < 1:
        raise UsageError(f"--batch-size {batch_size}: expected at least 1")
    set_exact_arithmetic(threads)
    reporter = Reporter(0, quiet=quiet)
    data = SuiteData(
        read,
        base=base,
        data_root=Path(data_root) if data_root else None,
        progress=functools.partial(_tell_of_images, reporter),
    )
    refuse_rehearsal(read, data)
    missing = _missing(read, data, chosen_selection, read.name if isinstance(suite, Suite) else str(suite))
    network = _network(chosen, chosen.backbone or read.protocol.backbone)
    store = Store(run_dir, read.name, read.hash, metrics=read.metrics.model_dump(mode="json"))
    present = [task for task in selected_tasks(read, chosen_selection) if task not in missing]
    _check(data, present)
    check_hierarchies(read, data, chosen.method, present, None if isinstance(suite, Suite) else suite)
    notes = check_counts(data, present)
    work = Workshop(
        suite=read,
        data=data,
        model=chosen,
        backbone=network,
        store=store,
        models=store.model(chosen.name),
        device=choose_device(device),
        batch_size=batch_size,
        reporter=reporter,
        data_notes={
            task: "; ".join([*(n for n in notes if n.startswith(f"{task}/")), *data.notes(task)]) for task in present
        },
        precision=measured_in,
        keep_outputs=keep_outputs,
        all_variants=all_variants,
    )
    fits = plan(read, data, chosen, network, chosen_selection, tasks=present, precision=measured_in)
    absent: tuple[PlannedFit, ...] = ()
    if missing:
        # Not a shard of them: what is not run is told whole by every one.
        whole = replace(chosen_selection, shard=None)
        sizes = DeclaredSizes(read, unknown=0)
        absent = plan(read, sizes, chosen, network, whole, tasks=list(missing), precision=measured_in)
    _hold_against_lock(suite, data)
    return Session(
        read,
        work,
        tuple(only_kinds(planned, kinds) for planned in fits),
        tuple(only_kinds(planned, kinds) for planned in absent),
        missing,
        tuple(notes),
    )


def _tell_of_images(reporter: Reporter, label: str, done: int, total: int) -> None:
    """Say that a domain's images are prepared, once they are; before that, how far they are."""
    reading = label.endswith(": reading")
    if done == total and not reading:
        reporter.say(f"{label}: {total} images prepared")
    else:
        reporter.doing(f"{label} ({done}/{total} {'files' if reading else 'images prepared'})")


def selected_tasks(suite: Suite, selection: Selection) -> list[str]:
    """Return the tasks with a pair that the selection takes."""
    taken = {
        pair.task
        for pair in suite.pairs
        if all(selection.takes(*one) for one in (("task", pair.task), ("source", pair.source), ("target", pair.target)))
    }
    return [task for task in suite.tasks if task in taken]


def _missing(suite: Suite, data: SuiteData, selection: Selection, shown: str) -> dict[str, str]:
    """Return the selected tasks whose data are not here.

    Raises
    ------
    DataError
        If that is all of them.
    """
    wanted = selected_tasks(suite, selection)
    missing = {task: place for task, place in data.missing().items() if task in wanted}
    if wanted and len(missing) == len(wanted):
        first = next(iter(missing.values()))
        raise DataError(
            f"suite '{suite.name}': none of {listed(missing)} is here ({first}); --data-root names the folder that "
            f"holds them, and `tlbench data status --suite {shown}` says where they are to be had"
        )
    return missing


def _network(model: Model, name: str) -> Backbone:
    """Return the backbone; for a method that starts from no pretrained weights, their absence is no matter.

    Raises
    ------
    WeightsError
        If its weights are not on this machine, and the method starts from them.
    """
    try:
        return load_backbone(name)
    except WeightsError:
        if model.method.pretrained or ":" not in name or "@" in name:
            raise
        return load_backbone(f"{name}@{UNTRAINED}")


def _check(data: SuiteData, tasks: Sequence[str]) -> None:
    """Check the data of every task.

    Raises
    ------
    DataError
        For the first thing that is not as the suite says; where other tasks could do without it, how to run them.
    """
    for task in tasks:
        try:
            data.check([task])
        except DataError as problem:
            others = [other for other in tasks if other != task]
            if not others:
                raise
            rest = ",".join(f"task={other}" for other in others)
            raise DataError(f"{problem}; the others run with --only {rest}") from problem


def refuse_rehearsal(suite: Suite, data: SuiteData) -> None:
    """Stop before made-up data are measured under the name of the real ones."""
    rehearsal = is_rehearsal(data.root)
    if rehearsal is not None and not suite.synthetic:
        raise DataError(
            f"{data.root}: these are made-up data, to rehearse with; run them by their own suite: --suite {rehearsal}"
        )


def _hold_against_lock(suite: str | Path | Suite, data: SuiteData) -> None:
    """Stop where the images of a released suite are not those that it was released with."""
    if isinstance(suite, Suite):
        return
    lock = find_suite(suite).with_suffix(".lock.parquet")
    if lock.exists():
        check_lock(data.opened(), lock)


def condition_kinds(metrics: Sequence[str] | None) -> frozenset[str] | None:
    """Return the kinds of condition that the named metrics need; None for all."""
    if metrics is None:
        return None
    kinds: set[str] = set()
    for metric in metrics:
        if metric not in METRICS:
            hint = nearest(metric, METRICS) or f"; known are {listed(METRICS)}"
            raise UnknownNameError(f"there is no metric '{metric}'{hint}")
        kinds |= _KINDS[METRICS[metric].family]
    return frozenset(kinds)


def only_kinds(planned: PlannedFit, kinds: frozenset[str] | None) -> PlannedFit:
    """Return a planned fit with the measurements of some kinds of condition; None for all."""
    if kinds is None:
        return planned
    kept = tuple(m for m in planned.measurements if m.condition.kind in kinds)
    return PlannedFit(planned.key, planned.sources, kept)


def _strengths(condition: Any) -> int:
    return len(getattr(condition, "steps", getattr(condition, "severities", (1,))))
