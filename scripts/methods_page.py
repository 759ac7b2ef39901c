"""Write what the published results say of every method into its page, between the markers.

``python scripts/methods_page.py [--check] [--run-dir FOLDER ...]``

A block is ``<!-- methods:KIND:SUITE -->`` or ``<!-- methods:pairs:SUITE:MODEL -->``, closed by ``<!-- /methods -->``;
prose stands outside and is left alone. The tables have the models that have a block ``pairs``, and the controls; what
others submit stands on the board. Hours cannot be published with a model's records: ``--run-dir`` reads them from
folders of finished evaluations into the table beside the page, from which the page is made.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tlbench.analysis.paired import Comparison, Difference, compare, compare_clusters
from tlbench.cli.showing_plan import hours
from tlbench.errors import TlbenchError
from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.tables import load_fits, load_predictions, load_results
from tlbench.leaderboard.text import plain
from tlbench.registry import BUILT_IN
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Suite

ROOT = Path(__file__).parents[1]
BASELINE: Final = "finetune"
BLOCK = re.compile(
    r"(<!-- methods:(?P<kind>[a-z]+):(?P<suite>[A-Za-z0-9._-]+)(?::(?P<model>[^\n]+))? -->\n)"
    r"(?P<made>.*?)(<!-- /methods -->)",
    re.DOTALL,
)
HOURS: Final = ["suite", "suite_hash", "model", "fits", "measurements", "forecast_hours", "spent_hours"]
_CONTROLS_LAST: Final = {"ranked": 0, "unranked": 0, "control": 1, "incomplete": 2}


class Published:
    """The results of one suite, of some models and the controls, read once from where ``load_results`` finds them."""

    def __init__(self, suite: str | Suite, hours_file: Path, models: Collection[str], **places: Any) -> None:
        self.suite = load_suite(suite) if isinstance(suite, str) else suite
        self._models = list(models)
        self._places = places
        self._hours_file = hours_file
        self._beside: dict[str, tuple[Comparison, pd.DataFrame]] = {}

    @cached_property
    def records(self) -> pd.DataFrame:
        return self._of_the_page(self._all_records)

    @cached_property
    def fits(self) -> pd.DataFrame:
        return self._of_the_page(load_fits(self.suite, **self._places))

    @cached_property
    def without_section(self) -> list[str]:
        """Our own methods of which something is published and the page says nothing."""
        told = {name.partition("(")[0] for name in self._models}
        rows = self._all_records[~self._all_records["control"].astype(bool)]
        return sorted({method for method in rows["method"] if method in BUILT_IN["methods"]} - told)

    @cached_property
    def _all_records(self) -> pd.DataFrame:
        return load_results(self.suite, **self._places)

    def _of_the_page(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[table["model"].isin(self._models) | table["control"].astype(bool)]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The board's rows, protocol by protocol; controls and what is not complete last."""
        frame = make_board(self.records, self.fits, self.suite).frame
        order = frame["standing"].map(_CONTROLS_LAST).fillna(0)
        frame = frame.assign(order=order, place=range(len(frame)))
        first = frame[order == 0].groupby("protocol")["place"].min()
        frame["protocol_place"] = frame["protocol"].map(first).fillna(len(frame))
        return frame.sort_values(["order", "protocol_place", "score"], ascending=[True, True, False], kind="stable")

    @cached_property
    def hours(self) -> pd.DataFrame:
        """What the evaluations of this version of the suite took, as kept beside the page."""
        kept = read_hours(self._hours_file)
        return kept[(kept["suite"] == self.suite.name) & (kept["suite_hash"] == self.suite.hash[:12])]

    def models(self) -> list[str]:
        """Return the models that the page must speak of."""
        return list(dict.fromkeys(self.rows[self.rows["standing"] != "control"]["model"]))

    def predictions(self, model: str) -> pd.DataFrame:
        return load_predictions(self.suite, model, **self._places, condition="clean")

    @cached_property
    def baseline(self) -> pd.DataFrame:
        return self.predictions(BASELINE)

    def beside(self, model: str, name: str) -> tuple[Comparison, pd.DataFrame]:
        """Return a row beside plain fine-tuning, and the clusters of targets that have too few for an interval.

        The name of a variant's row is ``model/variant``.
        """
        if name not in self._beside:
            own = self.predictions(model)
            mine = own["headline"].astype(bool) if name == model else own["variant"] == name.removeprefix(f"{model}/")
            compared = compare(own[mine], self.baseline)
            few = compared.pairs.loc[compared.pairs["low"].isna(), "target"].unique()
            told = [rows[rows["target"].isin(few)] for rows in (own[mine], self.baseline)]
            faces = compare_clusters(*told) if len(few) else pd.DataFrame()
            self._beside[name] = (compared, faces)
        return self._beside[name]

    def seeds(self, name: str) -> str:
        """Return which seeds a row has: all of the suite's, one fit for all, or those that there are."""
        own = self.records[self.records["model"] == name.partition("/")[0]]
        if own["deterministic"].astype(bool).all():
            return "fixed"
        run = sorted({int(seed) for seed in own["seed"]})
        return str(len(run)) if len(run) == len(self.suite.protocol.seeds) else f"{_and(run)} alone"


def board(page: Published) -> str:
    """Return all models in one table."""
    pairs = len(page.suite.pairs)
    rows = []
    for row in _each(page.rows[page.rows["standing"] != "variant"]):
        compared = None if row.standing == "incomplete" else page.beside(row.model, row.name)[0]
        mean, judged, tally = _beside(compared)
        rows.append(
            [
                _name(row.name) + (" (control)" if row.standing == "control" else ""),
                _protocol(row),
                page.seeds(row.name),
                _percent(row.id_accuracy),
                _percent(row.ood_accuracy),
                *(("", "", "") if row.name == BASELINE else (mean, judged, tally)),
                _percent(row.mean_corruption_accuracy),
                _percent(row.mean_robust_accuracy),
                _percent(row.mean_consistency),
                _nats(row.nll),
                _percent(row.ece),
            ]
        )
    headers = [
        "model", "protocol", "seeds", "ID", "OOD", f"difference, {pairs} pairs", _judged_header(page),
        "won / lost / undecided", "corrupted", "attacked", "consistent", "NLL", "ECE",
    ]  # fmt: skip
    return f"{_version(page)}\n\n{_table(headers, rows, left=3)}"


def variants(page: Published) -> str:
    """Return the predictors that came out of the same fits and are not ranked."""
    rows = []
    for row in _each(page.rows[page.rows["standing"] == "variant"]):
        mean, judged, tally = _beside(page.beside(row.model, row.name)[0])
        rows.append(
            [_name(row.name), page.seeds(row.name), _percent(row.id_accuracy), _percent(row.ood_accuracy),
             mean, judged, tally, _nats(row.nll), _percent(row.ece)]
        )  # fmt: skip
    if not rows:
        return "No published model has variants."
    headers = [
        "model/variant", "seeds", "ID", "OOD", f"difference, {len(page.suite.pairs)} pairs", _judged_header(page),
        "won / lost / undecided", "NLL", "ECE",
    ]  # fmt: skip
    return f"{_version(page)}\n\n{_table(headers, rows, left=2)}"


def cost(page: Published) -> str:
    """Return what a fit costs, the mean over sources (and targets, where these are read) and seeds."""
    done = page.fits[page.fits["status"] == "ok"]
    rows = []
    for model in dict.fromkeys(page.rows["model"]):
        own = done[done["model"] == model]
        if not len(own):
            continue
        mean = own[["parameters_trained", "parameters_stored", "saved_bytes", "images_seen", "forward_passes"]].mean()
        rows.append(
            [
                _name(model),
                str(len(own) // own["seed"].nunique()),
                _thousands(mean["parameters_trained"]),
                _thousands(mean["parameters_stored"]),
                f"{mean['saved_bytes'] / 1e6:,.1f}",
                f"{mean['images_seen']:,.0f}",
                f"{mean['forward_passes']:g}",
                f"{own['seconds'].mean():,.1f}",
            ]
        )
    headers = [
        "model", "fits a seed", "trained, thousands", "stored, thousands", "saved for backward, MB", "images seen",
        "passes an image", "seconds a fit",
    ]  # fmt: skip
    return f"{_version(page)} Measured on {_machines(done)}.\n\n{_table(headers, rows, left=1)}"


def hours_table(page: Published) -> str:
    """Return what `tlbench plan` had forecast beside what the evaluations took."""
    known = page.hours[page.hours["model"].isin(set(page.rows["model"]))]
    if not len(known):
        return "Nobody has kept the hours of this version of the suite."
    of = known.set_index("model").reindex([m for m in dict.fromkeys(page.rows["model"]) if m in set(known["model"])])
    rows = [
        [
            _name(str(row.Index)),
            f"{row.fits:.0f}",
            f"{row.measurements:.0f}",
            *_hours(row.forecast_hours, row.spent_hours),
        ]
        for row in _each(of)
    ]
    both = of[of["forecast_hours"].notna()]
    sums = _hours(both["forecast_hours"].sum() if len(both) else float("nan"), both["spent_hours"].sum())
    rows.append(
        [
            f"together, of {len(both)} that were forecast",
            f"{both['fits'].sum():.0f}",
            f"{both['measurements'].sum():.0f}",
            *sums,
        ]
    )
    headers = ["model", "fits", "measurements", "forecast", "took", "took / forecast"]
    return f"{_version(page)}\n\n{_table(headers, rows, left=1)}"


def pairs(page: Published, model: str) -> str:
    """Return a model's differences to fine-tuning, source by target; fine-tuning's own accuracies for itself."""
    if model not in set(page.rows["model"]):
        return "Nothing is published of this model yet."
    if model == BASELINE:
        return f"Accuracy:\n\n{_matrix(page, _accuracies(page, model))}"
    row = page.rows[page.rows["name"] == model].iloc[0]
    if row["standing"] == "incomplete":
        return f"Not complete: {plain(row['reason'])}."
    compared, faces = page.beside(model, model)
    cells = {}
    for pair in _each(compared.pairs):
        text = _signed(pair.difference)
        if pd.notna(pair.low):
            text = f"{text} [{_signed(pair.low)}, {_signed(pair.high)}]"
            text = text if pair.verdict == "undecided" else f"**{text}**"
        else:
            own = faces[(faces["source"] == pair.source) & (faces["target"] == pair.target)]
            text += f" ({', '.join(_signed(d) for d in own['difference'])})" if len(own) else ""
        cells[pair.source, pair.target] = text
    mean, judged, _ = _beside(compared)
    told = [f"All {len(compared.pairs)} pairs: {mean}."]
    if compared.mean_judged is not None:
        told.append(
            f"The {int(compared.pairs['low'].notna().sum())} with an interval: {judged}; {_tally_words(compared)}."
        )
    if not compared.seeds_resampled:
        told.append(f"Seed {compared.seeds[0]} of both alone: intervals tell of other images, not of other seeds.")
    return f"{_matrix(page, cells)}\n\n{' '.join(told)}"


KINDS: Final[dict[str, Callable[[Published], str]]] = {
    "board": board,
    "variants": variants,
    "cost": cost,
    "hours": hours_table,
}


def with_blocks(text: str, suites: Mapping[str, Published]) -> str:
    """Return a page with every marked block made anew."""

    def made(found: re.Match[str]) -> str:
        page = suites[found["suite"]]
        if found["kind"] in (*KINDS, "pairs") and not len(page.rows):
            block = "Nothing is published yet."
        elif found["kind"] == "pairs" and found["model"]:
            block = pairs(page, found["model"])
        elif found["kind"] in KINDS and not found["model"]:
            block = KINDS[found["kind"]](page)
        else:
            raise ValueError(
                f"expected methods:{'|'.join(KINDS)}:SUITE or methods:pairs:SUITE:MODEL, got {found[1].strip()}"
            )
        return f"{found[1]}\n{block}\n\n<!-- /methods -->"

    return BLOCK.sub(made, text)


def read_hours(path: Path) -> pd.DataFrame:
    """Return the kept hours; none where there is no such file."""
    return pd.read_csv(path, dtype={"suite_hash": "str"}) if path.is_file() else pd.DataFrame(columns=HOURS)


def with_hours(kept: pd.DataFrame, page: Published, run_dirs: Iterable[Path]) -> pd.DataFrame:
    """Return the kept hours with those of the finished evaluations of some run folders."""
    from tlbench import api  # it loads torch, which the page itself does not need
    from tlbench.records.store import Store

    found = []
    for run_dir in run_dirs:
        store = Store(run_dir, page.suite.name, page.suite.hash)
        for model in dict.fromkeys(page.rows["model"]):
            if not store.model(model).folder.is_dir():
                continue
            own = page.records[page.records["model"] == model]
            status = api.status(page.suite.name, model, seeds=sorted(set(map(int, own["seed"]))), run_dir=run_dir)
            if status.fits_to_do or status.measurements_to_do:
                print(f"{run_dir}: {model} is not finished there; its hours are not taken", file=sys.stderr)
                continue
            amounts = (status.fits, status.measurements, status.pace.forecast_hours, round(status.pace.spent_hours, 4))
            found.append(dict(zip(HOURS, (page.suite.name, page.suite.hash[:12], model, *amounts), strict=True)))
    if not found:
        return kept
    new = pd.DataFrame(found, columns=HOURS)
    new["forecast_hours"] = new["forecast_hours"].astype("float64").round(4)
    both = new if kept.empty else pd.concat([kept, new], ignore_index=True)
    return both.drop_duplicates(["suite", "model"], keep="last").sort_values(["suite", "model"], ignore_index=True)


def _accuracies(page: Published, model: str) -> dict[tuple[str, str], str]:
    clean = page.records.query(
        "model == @model and headline and condition == 'clean' and metric == 'accuracy' and role != 'id-val'"
    )
    found = clean.groupby(["source", "target"], as_index=False)["value"].agg(["mean", "std"])
    return {
        (row.source, row.target): _percent(row.mean) + ("" if pd.isna(row.std) else f" (sd {_percent(row.std)})")
        for row in _each(found)
    }


def _each(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples())


def _matrix(page: Published, cells: dict[tuple[str, str], str]) -> str:
    sources, targets = (
        [name for task in page.suite.tasks.values() for name in task.domains if name in used]
        for used in ({pair.source for pair in page.suite.pairs}, {pair.target for pair in page.suite.pairs})
    )
    rows = [[f"from {source}", *(cells.get((source, target), "") for target in targets)] for source in sources]
    return _table(["", *(f"to {target}" for target in targets)], rows, left=1)


def _beside(compared: Comparison | None) -> tuple[str, str, str]:
    """Return the difference over all pairs, that over the judged ones with its interval, and the tally."""
    if compared is None:
        return "–", "–", "–"
    judged = compared.mean_judged
    verdicts = list(compared.pairs["verdict"])
    tally = " / ".join(str(verdicts.count(word)) for word in ("higher", "lower", "undecided"))
    return (
        _signed(compared.mean.value),
        "–" if judged is None else _with_interval(judged),
        # Of one seed the intervals say less, and the tally should not look the same.
        tally if compared.seeds_resampled else f"({tally})",
    )


def _tally_words(compared: Comparison) -> str:
    verdicts = list(compared.pairs["verdict"])
    return ", ".join(
        f"{word} {verdicts.count(verdict)}"
        for word, verdict in (("won", "higher"), ("lost", "lower"), ("undecided", "undecided"))
    )


def _judged_header(page: Published) -> str:
    first = next((m for m in page.models() if m != BASELINE), BASELINE)
    count = int(page.beside(first, first)[0].pairs["low"].notna().sum())
    return f"difference, {count} pairs [95 %]"


def _with_interval(found: Difference) -> str:
    return f"{_signed(found.value)} [{_signed(found.low)}, {_signed(found.high)}]"


def _protocol(row: Any) -> str:
    return plain(row.protocol) + (", no pretraining" if row.pretraining == "none" else "")


def _machines(fits: pd.DataFrame) -> str:
    counted = fits.drop_duplicates(["device", "threads"])[["device", "threads"]].sort_values(["device", "threads"])
    return "; ".join(
        f"{plain(row.device)}, {row.threads} thread{'' if row.threads == 1 else 's'}" for row in _each(counted)
    )


def _version(page: Published) -> str:
    return f"{page.suite.name}, version {page.suite.version} (hash {page.suite.hash[:12]})."


def _hours(forecast: float, spent: float) -> list[str]:
    known = forecast == forecast
    return [
        hours(forecast) if known else "–",
        hours(spent),
        f"{spent / forecast:.2f}" if known and forecast > 0 else "–",
    ]


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, left: int) -> str:
    sides = [":--" if place < left else "--:" for place in range(len(headers))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headers, sides, *rows))


def _name(name: str) -> str:
    return f"`{plain(name).replace('`', '').replace('|', '')}`"


def _and(values: Sequence[int]) -> str:
    return " and ".join(map(str, values))


def _percent(value: float) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.1f}"


def _signed(value: float | None) -> str:
    rounded = round(100 * float(value or 0.0), 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _nats(value: float) -> str:
    return "–" if pd.isna(value) else "∞" if value == float("inf") else f"{value:.3f}"


def _thousands(value: float) -> str:
    return f"{value / 1e3:,.1f}"


def main() -> int:
    """Rewrite the page, or with ``--check`` exit with 1 where it is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is stale")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "methods.md")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--hours", type=Path, default=ROOT / "docs" / "methods_hours.csv")
    parser.add_argument(
        "--run-dir", type=Path, action="append", default=[], help="take the hours of finished evaluations; repeatable"
    )
    options = parser.parse_args()
    text = options.page.read_text(encoding="utf-8")
    sections: dict[str, list[str]] = {}
    for found in BLOCK.finditer(text):
        sections.setdefault(found["suite"], []).extend([found["model"]] if found["model"] else [])
    if not sections:
        print(f"{options.page}: expected markers <!-- methods:board:SUITE --> and <!-- /methods -->", file=sys.stderr)
        return 2
    try:
        suites = {
            # Nobody's local results have a part in it.
            name: Published(name, options.hours, models, run_dir=options.results / "none", results=options.results)
            for name, models in sections.items()
        }
        if options.run_dir:
            kept = read_hours(options.hours)
            for page in suites.values():
                kept = with_hours(kept, page, options.run_dir)
            kept.to_csv(options.hours, index=False, lineterminator="\n")
        made = with_blocks(text, suites)
        silent = sorted(f"{name}:{method}" for name, page in suites.items() for method in page.without_section)
    except (TlbenchError, ValueError) as error:
        print(f"{options.page}: {error}", file=sys.stderr)
        return 2
    if not options.check:
        options.page.write_text(made, encoding="utf-8")
    if silent:
        print(f"{options.page}: says nothing of {', '.join(silent)}; add methods:pairs:... for each", file=sys.stderr)
    if options.check and silent:
        return 1
    if options.check and made != text:
        print(f"{options.page}: the page is stale; run python scripts/methods_page.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
