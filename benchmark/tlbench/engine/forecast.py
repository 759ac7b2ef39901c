"""What an evaluation will take, in images, bytes and hours: before anything starts, with data or without.

Sizes come from the data where they are here, and from what the suite declares where they are not; speeds from a short
probe of this machine. A backbone whose weights are elsewhere is probed without them: it is as fast.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlbench.data.counts import count_domain, refuse_other_counts
from tlbench.data.digests import NotRememberedError, remembered_only
from tlbench.data.prepare import SuiteData
from tlbench.engine.checks import check_suite, lacking
from tlbench.engine.chosen import chosen_model, in_precision, read_precision
from tlbench.engine.execute import pending
from tlbench.engine.fitting import unmet_need
from tlbench.engine.measurements import Elsewhere
from tlbench.engine.parts import parts_of
from tlbench.engine.plan import PlannedFit, Selection, Sizes, plan
from tlbench.engine.probe import Prober, Speeds, recalled_speeds, remember_speeds
from tlbench.engine.progress import Reporter
from tlbench.engine.provenance import choose_device, set_exact_arithmetic
from tlbench.engine.session import (
    condition_kinds,
    only_kinds,
    refuse_rehearsal,
    selected_tasks,
)
from tlbench.engine.sizes import KnownSizes
from tlbench.engine.sizing import network_of, sizing_of
from tlbench.engine.stored import Source, StoredWork, planned_fits
from tlbench.engine.variants import known_variants
from tlbench.engine.workload import FitWork, Preparation, Shared, fit_work
from tlbench.engine.workshop import Workshop
from tlbench.errors import DataError, FitError, TlbenchError, WeightsError, listed
from tlbench.methods.cost import Cost, cost_of, whole_cost
from tlbench.models.zoo import UNTRAINED, load_backbone
from tlbench.records.store import Store
from tlbench.suites.load import find_suite, load_suite
from tlbench.suites.spec import Suite

if TYPE_CHECKING:
    from tlbench.methods.base import Method
    from tlbench.methods.resolve import Model
    from tlbench.models.backbone import Backbone

_ASKED_OF_THE_NETWORK = {"forward": "forward", "features": "forward", "step": "train", "gradient": "gradient"}


@dataclass(frozen=True)
class Place:
    """A suite, its data as far as they are here, and where its results are kept.

    Attributes
    ----------
    suite : Suite
    data : SuiteData
    sizes : KnownSizes
    here : tuple of str
        Tasks whose data are here, and known well enough to be counted.
    store : Store
    held : StoredWork
        What that holds.
    preparation : Preparation
        What is to be cached, once for all models that are planned for.
    notes : tuple of str
    shared : Shared
        Fits that were counted for one of these models already.
    """

    suite: Suite
    data: SuiteData
    sizes: KnownSizes
    here: tuple[str, ...]
    store: Store
    held: StoredWork
    preparation: Preparation
    notes: tuple[str, ...]
    shared: Shared = field(default_factory=Shared)


@dataclass(frozen=True)
class Row:
    """One model's part of a plan.

    Attributes
    ----------
    model, backbone : str
    cost : Cost
        Of a fit, with all that it asks for.
    fits : tuple of FitWork
        In the plan's order.
    image_counts : mapping of (task, domain) to int
        Images of every domain that the fits need.
    cached : collection of (task, domain)
        Domains whose images are in the cache.
    speeds : Speeds or None
        Of this machine, where they are known.
    assumed : Speeds or None
        Of the device that the suite declares.
    notes : tuple of str
    """

    model: str
    backbone: str
    cost: Cost
    fits: tuple[FitWork, ...]
    image_counts: Mapping[tuple[str, str], int]
    cached: Collection[tuple[str, str]]
    speeds: Speeds | None
    assumed: Speeds | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Opened:
    """A plan whose sizes are known, and the workshop that would carry it out."""

    place: Place
    work: Workshop
    cost: Cost
    fits: tuple[FitWork, ...]
    image_counts: Mapping[tuple[str, str], int]
    notes: tuple[str, ...]


def open_place(
    suite: str | Path | Suite, selection: Mapping[str, Any], *, data_root: Path | None, run_dir: Path
) -> Place:
    """Find out how many images there are, in the data or from the suite; no image is read, nothing is written.

    Raises
    ------
    TlbenchError
        For every mistake in the suite, its data or the selection; and where neither the data nor the suite say how
        many images there are.
    """
    read = suite if isinstance(suite, Suite) else load_suite(suite)
    base = None if isinstance(suite, Suite) else find_suite(suite).parent
    check_suite(read, None if isinstance(suite, Suite) else suite)
    chosen = Selection(**selection)
    chosen.check(read)
    data = SuiteData(read, base=base, data_root=data_root)
    refuse_rehearsal(read, data)
    tasks = selected_tasks(read, chosen)
    missing = {task: place for task, place in data.missing().items() if task in tasks}
    with remembered_only():
        here, undecided, notes = _checked(data, [task for task in tasks if task not in missing])
        for task, place in missing.items():
            _need_counts(read, task, f"{place}, and", "--data-root names the folder of the data")
        for task in undecided:
            reason = "nobody has looked yet which of its files can be decoded, and"
            _need_counts(read, task, reason, "`tlbench data prepare` looks")
        if missing:
            notes.append(f"no data here for {', '.join(missing)}: as many images as the suite declares")
        if undecided:
            notes.append(
                f"{', '.join(undecided)}: which files can be decoded is not known before `tlbench data verify` or an "
                "evaluation has looked; as many images as the suite declares"
            )
        sizes, store = (
            KnownSizes(data, here),
            Store(run_dir, read.name, read.hash, metrics=read.metrics.model_dump(mode="json")),
        )
        tasks_sizes = {
            (task, domain): sizes.images(task, domain)
            for task in (*here, *undecided, *missing)
            for domain in read.tasks[task].domains
        }
        preparation = Preparation(read, tasks_sizes, frozenset(sizes.cached()))
    return Place(read, data, sizes, tuple(here), store, StoredWork(store), preparation, tuple(notes))


def _checked(data: SuiteData, tasks: Iterable[str]) -> tuple[list[str], list[str], list[str]]:
    """Check data as an evaluation does before it starts, as far as that goes without reading an image.

    Returns
    -------
    tasks : list of str
        Whose images can be counted.
    undecided : list of str
        The others.
    notes : list of str
    """
    here: list[str] = []
    undecided: list[str] = []
    counted = []
    for task in tasks:
        try:
            data.check([task])
            here.append(task)
        except NotRememberedError:
            undecided.append(task)
        for domain, own in data.suite.tasks[task].domains.items():
            if own.counts is not None:
                with suppress(NotRememberedError):
                    counted.append(count_domain(data, task, domain))
    return here, undecided, refuse_other_counts(counted, data.suite.name)


def _need_counts(suite: Suite, task: str, reason: str, way_out: str) -> None:
    for domain, spec in suite.tasks[task].domains.items():
        if spec.counts is None:
            raise DataError(
                f"{task}/{domain}: {reason} the suite declares no counts, so nobody knows how many images there are; "
                f"{way_out}"
            )


def open_plan(
    place: Place,
    selection: Mapping[str, Any],
    model: str | Method | Model,
    *,
    backbone: str | None = None,
    settings: Sequence[str] = (),
    name: str | None = None,
    metrics: Sequence[str] | None = None,
    device: str | None = None,
    threads: int | None = None,
    batch_size: int = 128,
    precision: str = "float32",
    takes_over: bool = True,
    all_variants: bool = False,
) -> Opened:
    """Turn names into a plan and count it; see ``tlbench.api.plan`` for the arguments.

    With ``takes_over``, what an equal model or another version of the suite has in the run folder is not left to do.

    Raises
    ------
    TlbenchError
        For every mistake that an evaluation would tell before any compute, missing data and weights excepted.
    """
    suite = place.suite
    kinds = condition_kinds(metrics)
    measured_in = read_precision(precision)
    chosen = in_precision(chosen_model(model, None, settings, backbone, name, suite.protocol.backbone), measured_in)
    set_exact_arithmetic(threads)
    network, notes = _backbone(chosen.backbone or suite.protocol.backbone)
    work = Workshop(
        suite=suite,
        data=place.data,
        model=chosen,
        backbone=network,
        store=place.store,
        models=place.store.model(chosen.name),
        device=choose_device(device),
        batch_size=batch_size,
        reporter=Reporter(0, quiet=True),
        precision=measured_in,
        all_variants=all_variants,
    )
    cost = whole_cost(chosen.method, suite.protocol.recipe, network)
    if cost.assumed:
        notes.append(f"{chosen.name} does not say what it costs: assumed is the suite's recipe on all weights")
    with remembered_only():
        planned, exact, by_rows = _planned(place, work, Selection(**selection))
        fits, unmet = _applicable(place, work, planned)
        elsewhere = Elsewhere.of(work) if takes_over else Elsewhere({})
        counted = _counted(place, work, [only_kinds(planned, kinds) for planned in fits], exact, elsewhere)
    if by_rows:
        names = ", ".join(sorted({task for task, _ in by_rows}))
        notes.append(f"{names}: what is stored was told by its rows, without the images, which are not in the cache")
    notes += [f"{chosen.name} does not apply to {listed(sources)}: {reason}" for reason, sources in unmet.items()]
    left = [m.condition for fit in counted if fit.measurements_left for m in fit.planned.measurements]
    notes += map(str, lacking(left).values())
    asking = {(fit.planned.key.task, fit.planned.key.source) for fit in counted if fit.parts_left}
    if place.held.nameless and asking - exact:
        names = ", ".join(sorted({task for task, _ in asking - exact}))
        notes.append(f"{names}: stored fits that others ask for cannot be told before the images are in the cache")
    images = {key: place.preparation.sizes[key] for key in place.preparation.seen}
    return Opened(place, work, cost, counted, images, (*notes, *place.notes))


def forecast_row(opened: Opened, prober: Prober | None) -> Row:
    """Return a counted plan with the speeds at which it would run.

    Parameters
    ----------
    opened : Opened
    prober : Prober or None
        None takes what the last probe of such a network found.
    """
    suite, cost, notes = opened.place.suite, opened.cost, [*opened.notes]
    recipe = cost.recipe or suite.protocol.recipe
    network = network_of(cost, opened.work.backbone)
    known = (network.name, recipe, suite.protocol, opened.work.device)
    wanted = {name for one in opened.fits for name in one.left}
    speeds = None
    if prober is not None:
        conditions = {m.condition.name: m.condition for one in opened.fits for m in one.planned.measurements}
        try:
            used = {"trains": cost.trained + cost.sampled > 0, "frozen": cost.forward + cost.validated > 0}
            speeds = prober.speeds(network, recipe, list(conditions.values()), **used)
        except (RuntimeError, ValueError, AssertionError, FitError, TlbenchError) as error:
            # A network may refuse the suite's image size, or not fit into memory: the rest of the plan still holds.
            notes.append(f"{network.name} cannot be probed here: {_first_line(error)}")
        else:
            speeds = remember_speeds(speeds, *known)
    else:
        speeds = recalled_speeds(*known)
        if speeds is None or speeds.lacks(wanted):
            speeds = None
            notes.append("the hours of this machine are not known without a probe")
    return Row(
        model=opened.work.model.name,
        backbone=network.name,
        cost=cost,
        fits=opened.fits,
        image_counts=opened.image_counts,
        cached=opened.place.preparation.cached,
        speeds=speeds,
        assumed=assumed_speeds(suite, network.name),
        notes=tuple(notes),
    )


def assumed_speeds(suite: Suite, network: str) -> Speeds | None:
    """Return the speeds of the device that a suite declares, or None where that is of another network.

    They are what the network is asked, and nothing else: images are decoded, cropped, corrupted and walked along by
    the CPU beside it, of which nobody knows how fast it is.
    """
    declared = suite.assumed
    if declared is None or network.partition("@")[0] != suite.protocol.backbone.partition("@")[0]:
        return None
    return Speeds(declared.device, {name: 1 / getattr(declared, own) for name, own in _ASKED_OF_THE_NETWORK.items()})


def _backbone(name: str) -> tuple[Backbone, list[str]]:
    try:
        return load_backbone(name), []
    except WeightsError:
        if "@" in name or ":" not in name:
            raise
        network = load_backbone(f"{name}@{UNTRAINED}")
        return network, [f"the weights of {name} are not on this machine: counted and probed without them"]


def _planned(
    place: Place, work: Workshop, selection: Selection
) -> tuple[list[PlannedFit], frozenset[Source], frozenset[Source]]:
    """Return the planned fits that the selection takes; see ``planned_fits``."""
    suite = place.suite
    tasks = selected_tasks(suite, selection)
    if not tasks:
        plan(suite, place.sizes, work.model, work.backbone, selection, tasks=[])  # says what is wrong
    whole = replace(selection, shard=None)
    fits, exact, by_rows = planned_fits(work, place.sizes, place.here, place.held, whole, tasks)
    if selection.shard is not None:
        fits = fits[selection.shard[0] - 1 :: selection.shard[1]]
    return fits, exact, by_rows


def _applicable(
    place: Place, work: Workshop, fits: Sequence[PlannedFit]
) -> tuple[list[PlannedFit], dict[str, list[str]]]:
    """Return the fits that a method can make, and where it cannot: sources, by the reason."""
    kept, unmet = [], dict[str, list[str]]()
    for planned in fits:
        key = planned.key
        tree = place.suite.tasks[key.task].hierarchy
        reason = unmet_need(
            work.model.method,
            work.backbone,
            sources=len(planned.sources),
            validation=len(place.sizes.training(key.task, planned.sources, "val")),
            info={} if tree is None else {"hierarchy": tree},
        )
        if not reason:
            kept.append(planned)
        elif (source := f"{key.task}/{key.source}") not in unmet.setdefault(reason, []):
            unmet[reason].append(source)
    return kept, unmet


def _counted(
    place: Place, work: Workshop, fits: Sequence[PlannedFit], exact: Collection[Source], elsewhere: Elsewhere
) -> tuple[FitWork, ...]:
    suite, sizes = place.suite, place.sizes
    sizing = sizing_of(suite, cost_of(work.model.method, suite.protocol.recipe, work.backbone), work.backbone)
    counted = []
    for planned in fits:
        left = [one for one, name in pending(work, planned) if not elsewhere.has(work, planned, one, name)]
        to_fit = bool(left) and not work.store.would_adopt(planned.key.fit_id)
        known = len(known_variants(work, planned))
        seen_by: Sizes = place.data if (planned.key.task, planned.key.source) in exact else sizes
        counted.append(
            fit_work(
                planned,
                sizes,
                sizing,
                classes=sizes.classes(planned.key.task),
                left=left,
                to_fit=to_fit,
                decoded=place.preparation.needed_by(planned) if left else 0,
                whole_pictures=suite.protocol.resize == "center-crop",
                parts=parts_of(work, seen_by, planned),
                stored=work.store.would_adopt,
                shared=place.shared,
                all_variants=work.all_variants,
                # A fit that does not apply, or failed, has the one under which it is recorded.
                variants=known or (None if left else 1),
            )
        )
    return tuple(counted)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
