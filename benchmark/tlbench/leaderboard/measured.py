"""What every image contributes to a score, summed by the units that are drawn: from outcomes, or from predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tlbench.leaderboard.forms import Form, check_metric, form, setting_key
from tlbench.leaderboard.images import lock_path
from tlbench.leaderboard.prepared import ROW, Row
from tlbench.leaderboard.tables import load_scored
from tlbench.leaderboard.units import Census, Place, Units
from tlbench.metrics.robustness import survives
from tlbench.records.coded import as_coded
from tlbench.records.damage import survey
from tlbench.records.lock import read_lock
from tlbench.records.outcomes import make_outcomes, unpacked
from tlbench.records.published import PublishedModel
from tlbench.records.store import ModelStore, stores
from tlbench.suites.spec import Attack, Suite

if TYPE_CHECKING:
    import pyarrow as pa

_COLUMNS: Final = [
    *(name for name in ROW if name != "name"), "variant", "headline", "seed", "fit_target", "task", "source", "target",
    "role", "split_hash", "measurement_id", "condition", "severity", "norm", "epsilon",
]  # fmt: skip

_Values = Callable[[Mapping[str, NDArray[Any]], tuple[float, ...]], NDArray[Any]]
_OF_IMAGE: Final[Mapping[str, tuple[str, _Values]]] = {
    "accuracy": ("rank", lambda c, radii: c["rank"] == 0),
    "top5_accuracy": ("rank", lambda c, radii: c["rank"] < 5),
    "top10_accuracy": ("rank", lambda c, radii: c["rank"] < 10),
    "nll": ("log_likelihood", lambda c, radii: -c["log_likelihood"]),
    "brier": ("brier", lambda c, radii: c["brier"]),
    "nll_scaled": ("log_likelihood_scaled", lambda c, radii: -c["log_likelihood_scaled"]),
    "brier_scaled": ("brier_scaled", lambda c, radii: c["brier_scaled"]),
    "mean_robust_accuracy": (
        "breaking_epsilon",
        lambda c, radii: survives(c["breaking_epsilon"], radii).mean(axis=1),
    ),
}
"""The measures that are means of one value an image: the column that is read, and the value."""


@dataclass(frozen=True)
class Part:
    """What a row's images contribute to its score on the sets of one source and one target.

    Attributes
    ----------
    source : tuple of str
        Task and source: parts of one source share the draws of their seeds.
    units : Units
    sums : mapping from Row to mapping from int to float array, shape (units,)
        By seed: the sum over each unit's images, times the weight of the term in the score.
    """

    source: tuple[str, str]
    units: Units
    sums: dict[Row, dict[int, NDArray[np.float64]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Measured:
    """The images of a form's terms, as far as anybody has published them.

    Attributes
    ----------
    parts : tuple of Part
    few : mapping from str to int
        Targets of too few clusters to be drawn, and how many they have.
    """

    parts: tuple[Part, ...]
    few: Mapping[str, int]


def load_measured(
    suite: Suite,
    metric: str | None = None,
    *,
    records: pd.DataFrame | None = None,
    run_dir: str | Path,
    published: bool = True,
    results: str | Path | None = None,
    lock: Path | None = None,
) -> Measured | None:
    """Return what the images of every model contribute to a score.

    Parameters
    ----------
    suite : Suite
    metric : str, optional
        The board's; by default the suite's primary metric.
    records : DataFrame, optional
        As from `load_scored` or `load_results` of the same folders, to spare reading them again.
    run_dir, published, results
        As for `load_results`.
    lock : Path, optional
        The suite's lock, which names images and clusters; by default the one beside our suite, if there is one.

    Returns
    -------
    Measured or None
        None where the score is no mean over images.

    Raises
    ------
    StoreError
        If a file that is there cannot be read.
    UnknownNameError, UsageError
        As for `form`.
    """
    wanted = form(suite, check_metric(metric or suite.metrics.primary))
    if wanted.terms["metric"].iloc[0] not in _OF_IMAGE:
        return None
    path = lock or lock_path(suite)
    census = Census(suite, read_lock(path) if lock is not None or path.is_file() else {})
    gathered = _Gathered(suite, wanted, census)
    if records is None:
        pairs = {(setting.partition("|")[0], name) for setting, name in _distinct(wanted.terms, "setting", "metric")}
        records = load_scored(suite, pairs, run_dir=run_dir, published=published, results=results)
    weighed = gathered.weighed(records)
    for origin, model in _models(suite, Path(run_dir), published, None if results is None else Path(results)):
        name = model.model if isinstance(model, PublishedModel) else model.name
        own = weighed[(weighed["origin"] == origin) & (weighed["model"] == name)]
        if len(own):
            gathered.add(model, own)
    return Measured(tuple(gathered.parts.values()), dict(census.few))


class _Gathered:
    """Sums by row, gathered model by model."""

    def __init__(self, suite: Suite, form: Form, census: Census) -> None:
        self._suite, self._form, self._census = suite, form, census
        terms = form.terms
        self._metric = str(terms["metric"].iloc[0])
        keys = _each(terms, "task", "source", "target", "role", "setting")
        self._weight = dict(zip(keys, terms["weight"].astype(float), strict=True))
        self._conditions = {setting.partition("|")[0] for setting in terms["setting"]}
        self._radii = {c.name: c.radii for c in suite.conditions if isinstance(c, Attack)}
        self.parts: dict[tuple[Any, ...], Part] = {}

    def add(self, model: PublishedModel | ModelStore, wanted: pd.DataFrame) -> None:
        """Take over what a model's images contribute to the records that are weighed."""
        if not _has_images(model, outcomes=self._of_outcomes):
            return
        try:
            found = dict(self._values(model, wanted))
        except _Elsewhere:
            return
        for row in wanted.itertuples(index=False):
            values = found.get((str(row.measurement_id), str(row.setting)))
            if values is not None:
                self._take(row, values)

    @property
    def _of_outcomes(self) -> bool:
        return self._metric == "accuracy" and self._conditions == {"clean"}

    def weighed(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the records that the form weighs, with the name of their row, their setting and weight."""
        mine = (
            (frame["suite_hash"] == self._suite.hash)
            & (frame["metric"] == self._metric)
            & frame["condition"].isin(self._conditions)
            & (frame["status"] == "ok")
            & (frame["measurement_id"] != "")
            & (frame["seed"].isin(self._suite.protocol.seeds) | frame["deterministic"].astype(bool))
        )
        frame = frame.loc[mine, list(dict.fromkeys(_COLUMNS))]
        frame = frame.astype({name: "object" for name in _COLUMNS if frame[name].dtype.kind not in "ifb"})
        frame["setting"] = [setting_key(*values) for values in _each(frame, "condition", "severity", "norm", "epsilon")]
        keys = _each(frame, "task", "source", "target", "role", "setting")
        frame["weight"] = np.array([self._weight.get(key, 0.0) for key in keys], dtype=np.float64)
        variant = frame["model"] + "/" + frame["variant"]
        frame["name"] = np.where(frame["headline"].astype(bool), frame["model"], variant)
        return frame[frame["weight"] != 0]

    def _values(
        self, model: PublishedModel | ModelStore, wanted: pd.DataFrame
    ) -> Iterator[tuple[tuple[str, str], NDArray[Any]]]:
        """Yield one value an image, in the manifest's order, by measurement and setting."""
        if self._of_outcomes:
            bits = unpacked(_outcomes(model, wanted))
            for measurement, setting in _distinct(wanted, "measurement_id", "setting"):
                if measurement in bits:
                    yield (measurement, setting), bits[measurement]
            return
        column, value = _OF_IMAGE[self._metric]
        yield from _of_predictions(_predictions(model, column, wanted), wanted, column, value, self._radii)

    def _take(self, row: Any, values: NDArray[Any]) -> None:
        place = Place(row.task, row.source, row.target, row.role, row.split_hash)
        units = self._census.units(place, len(values))
        if units is None:
            return
        key = (row.task, row.source, row.target, row.role, row.split_hash, len(values))
        part = self.parts.setdefault(key, Part((row.task, row.source), units))
        # A method that reads the target has one fit a pair, and as many values on the source's own images.
        shared = isinstance(row.fit_target, str) and row.role != "ood-test"
        weight = row.weight / (self._form.fits_of[row.task, row.source] if shared else 1)
        own = part.sums.setdefault(tuple(str(getattr(row, name)) for name in ROW), {})
        before = own.get(int(row.seed), 0.0)
        own[int(row.seed)] = before + weight * units.sums(np.asarray(values, dtype=np.float64))


class _Elsewhere(Exception):
    """A model's predictions are not in its folder."""


def _models(
    suite: Suite, run_dir: Path, published: bool, results: Path | None
) -> Iterator[tuple[str, PublishedModel | ModelStore]]:
    if published:
        for found in survey(suite.name, folder=results).sound:
            yield "published", found
    for store in stores(run_dir, suite.name):
        for model in store.models():
            yield "local", model


def _has_images(model: PublishedModel | ModelStore, *, outcomes: bool) -> bool:
    if isinstance(model, ModelStore):
        return True
    names = ("outcomes", "predictions") if outcomes else ("predictions",)
    return any((model.folder / f"{name}.parquet").exists() for name in names)


def _outcomes(model: PublishedModel | ModelStore, wanted: pd.DataFrame) -> pa.Table:
    """Return the outcomes of the wanted measurements, read or made."""
    if isinstance(model, PublishedModel) and (model.folder / "outcomes.parquet").exists():
        return model.table("outcomes")
    return make_outcomes(_as_records(wanted), _predictions(model, "rank", wanted))


def _as_records(wanted: pd.DataFrame) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pandas(wanted[["measurement_id", "condition", "split_hash"]], preserve_index=False)


def _predictions(model: PublishedModel | ModelStore, column: str, wanted: pd.DataFrame) -> pa.Table:
    columns = ["measurement_id", "severity", "id", column]
    if isinstance(model, PublishedModel):
        return model.table("predictions", columns)
    import pyarrow as pa

    tables = []
    for measurement in wanted["measurement_id"].unique():
        # Records may be there without predictions: those of a network that somebody else has run.
        if "predictions" in model.tables_of(measurement):
            tables.append(model.read(measurement, "predictions", columns))
    if not tables:
        raise _Elsewhere
    return pa.concat_tables(tables)


def _of_predictions(
    table: pa.Table, wanted: pd.DataFrame, column: str, value: _Values, radii: Mapping[str, tuple[float, ...]]
) -> Iterator[tuple[tuple[str, str], NDArray[Any]]]:
    """Yield one value an image by measurement and setting; sets with holes are left out."""
    frame: pd.DataFrame = as_coded(table).to_pandas()
    frame = frame[frame["measurement_id"].isin(set(wanted["measurement_id"]))]
    # 0.9 as a float32 is not 0.9; the records keep the exact step.
    frame["severity"] = frame["severity"].astype(np.float64).round(6)
    condition_of = dict(zip(wanted["measurement_id"], wanted["condition"], strict=True))
    rows_of: dict[Any, Any] = dict(frame.groupby(["measurement_id", "severity"], observed=True, dropna=False).indices)
    ids, numbers = frame["id"].to_numpy(), frame[column].to_numpy()
    every: Iterable[tuple[str, float, str]] = _each(wanted, "measurement_id", "severity", "setting")
    settings = {
        (name, None if math.isnan(severity) else round(severity, 6)): setting for name, severity, setting in every
    }
    for (measurement, severity), places in rows_of.items():
        setting = settings.get((measurement, None if pd.isna(severity) else float(severity)))
        order = places[np.argsort(ids[places], kind="stable")]
        whole = np.array_equal(ids[order], np.arange(len(order))) and not pd.isna(numbers[order]).any()
        if setting is not None and whole:
            of = {column: numbers[order]}
            yield (measurement, setting), value(of, radii.get(condition_of[measurement], ()))


def _each(frame: pd.DataFrame, *columns: str) -> Iterable[Any]:
    return frame[list(columns)].itertuples(index=False, name=None)


def _distinct(frame: pd.DataFrame, *columns: str) -> Iterable[Any]:
    return _each(frame.drop_duplicates(list(columns)), *columns)
