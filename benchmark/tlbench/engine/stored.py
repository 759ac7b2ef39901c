"""Which planned work is stored, told without looking at a picture.

Ids hash pixels. Where the images of a task are in the cache, ids are those of an evaluation; else stored fits are
recognised by what their rows say of them, and measurements by the splits that their records name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tlbench.data.digests import NotRememberedError
from tlbench.engine.plan import PlannedFit, PlannedMeasurement, Selection, plan
from tlbench.engine.variants import names_of
from tlbench.suites.spec import PART_OF_ROLE

if TYPE_CHECKING:
    from tlbench.engine.workshop import Workshop
    from tlbench.records.record import FitKey
    from tlbench.records.store import Store
    from tlbench.suites.spec import Suite

_COLUMNS = (
    "suite_hash",
    "task",
    "source",
    "fit_target",
    "shots",
    "seed",
    "deterministic",
    "settings_hash",
    "weights_hash",
    "fit_id",
    "started",
)
Source = tuple[str, str]
"""A task, and a training set in it."""
_Place = tuple[str, str, str]  # task, domain, part


@dataclass
class StoredWork:
    """What a store holds, read once for all rows of a plan.

    Attributes
    ----------
    store : Store
    unprepared : set of (task, source)
        Those of which some image turned out not to be in the cache.
    """

    store: Store
    unprepared: set[Source] = field(default_factory=set)

    def may_hold(self, task: str) -> bool:
        """Return whether something of a task may be stored."""
        # The points of a search that was stopped have no row yet, and their ids do not say whose they are.
        return task in self._tasks or self.nameless or self._elsewhere

    @cached_property
    def nameless(self) -> bool:
        """Whether fits are stored that no row names, such as the candidates of a search."""
        named = {fit_id for rows in self._rows.values() for *_, fit_id in rows}
        return any(place.parent.name not in named for place in self.store.folder.glob("fits/[!.]*/fit.json"))

    def named(self, key: FitKey) -> FitKey:
        """Return a planned fit's key with the id under which it is stored, itself where none is.

        That is the newest fit of the same suite, task, source, target, shots, seed, settings and weights, the model's
        own before one of another name.
        """
        rows = self._rows.get(_identity(vars(key)), ())
        if not rows:
            return key
        *_, fit_id = max(rows, key=lambda row: (row[0] == key.model, row[1]))
        return replace(key, fit_id=fit_id)

    @cached_property
    def _elsewhere(self) -> bool:
        """Whether another version of the suite has fits, which are taken over by their ids."""
        return any(any(other.folder.glob("fits/[!.]*/fit.json")) for other in self.store.other_versions())

    @cached_property
    def _tasks(self) -> frozenset[str]:
        return frozenset(str(identity[1]) for identity in self._rows)

    @cached_property
    def _rows(self) -> Mapping[tuple[object, ...], list[tuple[str, str, str]]]:
        """Name of the model, start and id of every stored fit, by what identifies it."""
        found: dict[tuple[object, ...], list[tuple[str, str, str]]] = {}
        for models in self.store.models():
            for row in models.fits().select(list(_COLUMNS)).to_pylist():
                found.setdefault(_identity(row), []).append((models.name, row["started"], row["fit_id"]))
        return found


def planned_fits(
    work: Workshop, sizes: Any, here: Sequence[str], held: StoredWork, selection: Selection, tasks: Sequence[str]
) -> tuple[list[PlannedFit], frozenset[Source], frozenset[Source]]:
    """Return the planned fits under the ids of what is stored of them.

    Call this within ``remembered_only``: what it would take to compute an id is never read or decoded.

    Parameters
    ----------
    work : Workshop
    sizes : KnownSizes
        For fits whose ids cannot be computed.
    here : sequence of str
        Tasks whose data are here.
    held : StoredWork
    selection : Selection
    tasks : sequence of str
        Those that are planned for.

    Returns
    -------
    list of PlannedFit
        In the order of an evaluation's plan.
    frozenset of (task, source)
        Those whose ids are an evaluation's.
    frozenset of (task, source)
        Those of which something stored was recognised by its rows.
    """
    exact, by_rows = set(), set()
    fits: list[PlannedFit] = []
    sources = [(task, source) for task in tasks for source in _sources(work.suite, selection, task)]
    for task, source in sources:
        part = replace(selection, only={**(selection.only or {}), "source": (source,)})
        may_hold = held.may_hold(task)
        own = _exactly(work, held, part, (task, source)) if may_hold and task in here else None
        if own is not None:
            exact.add((task, source))
        else:
            own = list(_plan(work, sizes, part, task))
            if may_hold:
                named = [replace(planned, key=held.named(planned.key)) for planned in own]
                if any(a.key.fit_id != b.key.fit_id for a, b in zip(own, named, strict=True)):
                    by_rows.add((task, source))
                    own = named
        fits += own
    if by_rows:
        fits = _with_stored_splits(work, fits, by_rows)
    seeds = list(dict.fromkeys(planned.key.seed for planned in fits))
    fits.sort(key=lambda one: (seeds.index(one.key.seed), sources.index((one.key.task, one.key.source))))
    return fits, frozenset(exact), frozenset(by_rows)


def _plan(work: Workshop, sizes: Any, selection: Selection, task: str) -> tuple[PlannedFit, ...]:
    return plan(work.suite, sizes, work.model, work.backbone, selection, tasks=[task], precision=work.precision)


def _sources(suite: Suite, selection: Selection, task: str) -> list[str]:
    """Return the training sets of a task with a pair that is selected, in the suite's order."""
    taken = {
        pair.source
        for pair in suite.pairs_of(task)
        if selection.takes("source", pair.source) and selection.takes("target", pair.target)
    }
    return [name for sources in suite.sources_of(task) if (name := "+".join(sources)) in taken]


def _exactly(work: Workshop, held: StoredWork, selection: Selection, source: Source) -> list[PlannedFit] | None:
    """Return the fits on a source under the ids of an evaluation, None where images of theirs are not in the cache."""
    if source in held.unprepared:
        return None
    try:
        return list(_plan(work, work.data, selection, source[0]))
    except NotRememberedError:
        held.unprepared.add(source)
        return None


def _identity(row: Mapping[str, Any]) -> tuple[object, ...]:
    # One fit of a deterministic method stands for every seed.
    seed = None if row["deterministic"] else row["seed"]
    names = ("suite_hash", "task", "source", "fit_target", "shots", "settings_hash", "weights_hash")
    return (*(row[name] for name in names), seed)


def _with_stored_splits(work: Workshop, fits: Sequence[PlannedFit], by_rows: Collection[Source]) -> list[PlannedFit]:
    """Return fits whose measurements are of the splits that stored ones name, where those are theirs.

    Only those that were recognised by their rows; of the others the splits are known, or nothing is stored.
    """
    stored = work.models.measured()
    variants = {planned.key.fit_id: names_of(work, planned) for planned in fits}
    splits = _named_splits(work, fits, variants, stored)

    def found(planned: PlannedFit, measurement: PlannedMeasurement) -> PlannedMeasurement:
        fit_id = planned.key.fit_id
        for split_hash in splits.get(_place(planned, measurement), ()):
            own = replace(measurement, split_hash=split_hash)
            if any(own.id_for(fit_id, name) in stored for name in variants[fit_id]):
                return own
        return measurement

    return [
        replace(one, measurements=tuple(found(one, own) for own in one.measurements))
        if (one.key.task, one.key.source) in by_rows
        else one
        for one in fits
    ]


def _named_splits(
    work: Workshop, fits: Sequence[PlannedFit], variants: Mapping[str, Sequence[str]], stored: set[str]
) -> dict[_Place, list[str]]:
    """Return the hashes of the splits that records name.

    A split is measured under many conditions, on many fits: records that can be nothing but known splits of these fits
    are not opened, for there are thousands.
    """
    asked: dict[_Place, list[tuple[str, PlannedMeasurement]]] = {}
    for planned in fits:
        for measurement in planned.measurements:
            asked.setdefault(_place(planned, measurement), []).append((planned.key.fit_id, measurement))
    known: dict[_Place, list[str]] = {}
    explained: set[str] = set()
    for name in sorted(stored):
        if name in explained:
            continue
        for row in work.models.read(name, "records", ["task", "target", "role", "split_hash"]).slice(0, 1).to_pylist():
            place = (row["task"], row["target"], PART_OF_ROLE[row["role"]])
            if row["split_hash"] in known.setdefault(place, []):
                continue
            known[place].append(row["split_hash"])
            for fit_id, measurement in asked.get(place, ()):
                own = replace(measurement, split_hash=row["split_hash"])
                explained.update(own.id_for(fit_id, variant) for variant in variants[fit_id])
    return known


def _place(planned: PlannedFit, measurement: PlannedMeasurement) -> _Place:
    return planned.key.task, measurement.where.target, PART_OF_ROLE[measurement.where.role]
