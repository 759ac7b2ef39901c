"""A model's page: its numbers are the records', to the last bit; names are text; what is absent is said."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.tables import load_fits, load_predictions, load_results
from tlbench.metrics.calibration import reliability_diagram
from tlbench.report.content import Content, model_path, read_content
from tlbench.report.model_page import card_lines, model_page, model_pages
from tlbench.suites.load import load_suite

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def content(synthetic: Any, tmp_path_factory: pytest.TempPathFactory) -> Content:
    folder = tmp_path_factory.mktemp("pages") / "runs"
    run = synthetic.Run(folder, synthetic.make_suite())
    run.add("whole", tables=True)
    run.add(SCRIPT)
    run.add("reader", protocol="unlabelled-target", per_target=True)
    run.add("scored", without=lambda cell: cell.kind != "clean")
    run.add("broken", status=_trouble)
    place: dict[str, Any] = {"run_dir": folder, "published": False}
    tables = (load(run.suite, **place) for load in (load_results, load_fits))
    return read_content(run.suite, {"accuracy": make_board(*tables, run.suite)}, **place)


@pytest.fixture(scope="module")
def files(content: Content) -> dict[str, str | bytes]:
    return model_pages(content)


def _trouble(cell: Any) -> tuple[str, str] | None:
    if cell.kind == "attack":
        return "not_applicable", "no gradient <b>"
    return ("failed", "out of <memory>") if cell.kind == "corruption" and cell.source == "a" else None


def _page(files: Mapping[str, str | bytes], model: str, origin: str = "local") -> str:
    page = files[model_path(model, origin)]
    assert isinstance(page, str)
    return page


@pytest.fixture(scope="module")
def whole(files: dict[str, str | bytes]) -> str:
    return _page(files, "whole")


def _of(content: Content, model: str, **wanted: Any) -> pd.DataFrame:
    rows = content.records[content.records["model"] == model]
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows


def _table(page: str, start: str) -> str:
    begin = page.index(start)
    return page[begin : page.index("</table>", begin)]


def _values(text: str, name: str = "data-value") -> list[float]:
    return [float(value) for value in re.findall(rf'{name}="([^"]*)"', text)]


def test_every_model_has_a_page_and_figures_of_its_own(content: Content, files: dict[str, str | bytes]) -> None:
    assert {model_path(model, "local") for model, _ in content.models} == {n for n in files if n.endswith(".html")}
    assert {n.rsplit(".", 1)[1] for n in files if n.startswith("figures/")} == {"svg", "png"}
    for name, page in files.items():
        if isinstance(page, str):
            linked = {link.removeprefix("../") for link in re.findall(r'href="(\.\./figures/[^"]*)"', page)}
            assert linked <= set(files), name


def test_pages_and_figures_are_equal_every_time(content: Content, files: dict[str, str | bytes]) -> None:
    again = model_page(content, "whole", "local")
    assert len(again) > 1
    assert again == {name: files[name] for name in again}


def test_the_heat_map_shows_the_mean_over_seeds_of_every_pair(content: Content, whole: str) -> None:
    shown = _table(whole, 'data-task="t" data-metric="accuracy"')
    clean = _of(content, "whole", condition="clean", metric="accuracy", task="t")
    expected = []
    for source in "abc":
        for target in "abc":
            role = "id-test" if source == target else "ood-test"
            cell = clean[(clean["source"] == source) & (clean["target"] == target) & (clean["role"] == role)]
            assert len(cell) == 2
            expected.append(cell["value"].mean())
    assert _values(shown) == expected


def test_every_seed_of_every_pair_is_the_record_itself(content: Content, whole: str) -> None:
    shown = _table(whole, 'data-table="pair-seeds"')
    found = {
        tuple(html.unescape(place).split("|")): _values(row)
        for place, row in re.findall(r'<tr data-place="([^"]*)">(.*?)</tr>', shown, re.DOTALL)
    }
    clean = _of(content, "whole", condition="clean", metric="accuracy")
    wanted: dict[tuple[str, ...], list[float]] = {}
    for row in clean[clean["role"] != "id-val"].sort_values("seed").itertuples():
        wanted.setdefault((row.task, row.source, row.target, row.role), []).append(row.value)
    assert found == wanted


def test_the_score_and_the_sums_of_seeds_are_the_boards(content: Content, whole: str) -> None:
    row = content.board.frame[content.board.frame["name"] == "whole"].iloc[0]
    assert _values(re.search(r'<td data-score="accuracy"[^>]*>', whole)[0]) == [row["score"]]  # type: ignore[index]
    seeds = _table(whole, 'data-table="seeds"')
    lines = {
        words: (_values(line), _values(line, "data-mean")[0])
        for words, line in re.findall(r'class="text">([^<]*)</th>(.*?)</tr>', seeds, re.DOTALL)
        if "data-mean" in line
    }
    for words, column in {
        "OOD accuracy": "ood_accuracy",
        "ID accuracy": "id_accuracy",
        "ID mean corruption accuracy": "mean_corruption_accuracy",
        "ID mean robust accuracy": "mean_robust_accuracy",
        "OOD mean consistency": "mean_consistency",
    }.items():
        values, mean = lines[words]
        assert len(values) == 2
        assert mean == pytest.approx(row[column], rel=1e-12)


def test_the_corruption_grid_and_its_mean_are_the_boards(content: Content, whole: str) -> None:
    shown = _table(whole, 'data-grid="corruption_accuracy" data-role="id-test"')
    values = _values(shown)
    row = content.board.frame[content.board.frame["name"] == "whole"].iloc[0]
    assert values[-1] == pytest.approx(row["mean_corruption_accuracy"], rel=1e-12)
    fog = _of(content, "whole", condition="fog", metric="accuracy", severity=5.0, role="id-test")
    # Sources within a task first, then tasks.
    assert fog.groupby("task")["value"].mean().mean() == pytest.approx(values[1], rel=1e-12)


def test_the_table_of_transforms_shows_the_consistency_of_every_step(content: Content, whole: str) -> None:
    shown = _table(whole, 'data-table="invariance"')
    for step in (4.0, 8.0):
        line = re.search(rf'data-step="{step:g}">(.*?)</tr>', shown, re.DOTALL)
        assert line is not None
        for value, role in zip(_values(line[1]), ("id-test", "ood-test"), strict=True):
            rows = _of(content, "whole", condition="shift", metric="consistency", severity=step, role=role)
            assert value == pytest.approx(rows.groupby("task")["value"].mean().mean(), rel=1e-12)


def test_the_curves_table_is_the_mean_over_seeds_of_robust_accuracy(content: Content, whole: str) -> None:
    shown = _table(whole, 'data-attack="apgd-dlr"')
    rows = _of(content, "whole", condition="apgd-dlr", metric="robust_accuracy")
    cells = rows.groupby(["task", "source", "target", "role", "epsilon"])["value"].mean()
    assert _values(shown) == cells.tolist()
    means = cells.groupby(["task", "role", "epsilon"]).mean()
    assert _values(shown, "data-mean") == pytest.approx(means.tolist(), rel=1e-12)


def test_the_bins_of_the_reliability_diagram_are_the_metrics(content: Content, whole: str) -> None:
    rows = load_predictions(content.suite, "whole", run_dir=content.run_dir, published=False, condition="clean")
    for role in ("id-test", "ood-test"):
        for scaled, column in (("no", "confidence"), ("yes", "confidence_scaled")):
            shown = _table(whole, f'data-task="t" data-reliability="{role}" data-scaled="{scaled}"')
            own = rows[(rows["role"] == role) & (rows["task"] == "t")]
            bins = reliability_diagram(own[column].to_numpy(), (own["rank"] == 0).to_numpy(bool))
            assert _values(shown, "data-count") == bins.count.tolist()
            assert _values(shown, "data-accuracy") == bins.accuracy[bins.count > 0].tolist()


def test_costs_are_the_mean_over_fits(content: Content, whole: str) -> None:
    shown = _table(whole, 'data-table="costs"')
    fits = content.fits[content.fits["model"] == "whole"]
    for name in ("seconds", "images_seen", "saved_bytes", "peak_memory_bytes", "forward_passes"):
        found = re.search(rf'data-cost="{name}" data-value="([^"]*)"', shown)
        assert found is not None
        assert float(found[1]) == fits[name].mean()


def test_a_hostile_name_is_text(files: dict[str, str | bytes]) -> None:
    assert html.escape(SCRIPT) in _page(files, SCRIPT)
    for name, page in files.items():
        assert "<" not in name
        if name.endswith((".html", ".svg")):
            assert SCRIPT not in (page if isinstance(page, str) else page.decode())


def test_a_model_with_clean_measures_alone_says_what_it_lacks(files: dict[str, str | bytes]) -> None:
    page = _page(files, "scored")
    for words in ("No attack has been measured", "No corruption has been measured", "No transform has been measured"):
        assert words in page
    assert "data-grid" not in page
    assert 'data-metric="accuracy"' in page


def test_what_failed_and_what_does_not_apply_is_told_with_its_reason(files: dict[str, str | bytes]) -> None:
    shown = _table(_page(files, "broken"), 'data-table="absent"')
    rows = re.findall(r'<tr><th scope="row".*?</tr>', shown, re.DOTALL)
    told = [re.sub(r"<[^>]*>", "|", row) for row in rows]
    assert any("fog" in row and "failed" in row and "out of &lt;memory&gt;" in row for row in told)
    assert any("apgd-dlr" in row and "does not apply" in row and "no gradient &lt;b&gt;" in row for row in told)
    assert "failed" in told[0]  # failures come first


def test_a_mean_over_what_is_not_complete_is_not_shown(files: dict[str, str | bytes]) -> None:
    page = _page(files, "broken")
    shown = _table(page, 'data-task="t" data-metric="mean_corruption_accuracy"')
    values = {
        source: _values(row) for source, row in re.findall(r"<bdi>(.)</bdi></th>\s*<td(.*?)</tr>", shown, re.DOTALL)
    }
    assert values["a"] == []
    assert len(values["b"]) == len(values["c"]) == 1
    assert 'data-grid="corruption_accuracy"' not in page


def test_where_a_method_reads_its_target_id_is_the_mean_over_its_fits(
    content: Content, files: dict[str, str | bytes]
) -> None:
    shown = _table(_page(files, "reader"), 'data-task="t" data-metric="accuracy"')
    rows = _of(content, "reader", condition="clean", metric="accuracy", task="t", source="a", role="id-test")
    assert len(rows) == 4  # two seeds, two targets
    assert _values(shown)[0] == pytest.approx(rows["value"].mean(), rel=1e-15)


def test_figures_of_reports_have_no_id_twice(whole: str) -> None:
    ids = re.findall(r'\bid="([^"]*)"', whole)
    assert len(ids) == len(set(ids))


def test_a_paper_is_a_link_and_anything_else_is_text(content: Content) -> None:
    records = _of(content, "whole")
    card = {"paper": "https://example.org/p", "authors": ["javascript:alert(1)", "A <b>"], "licence": "MIT"}
    lines = dict(card_lines(card, records))
    assert lines["paper"] == [("https://example.org/p", "https://example.org/p")]
    assert lines["authors"] == [("javascript:alert(1)", ""), ("A <b>", "")]
    assert lines["licence"] == [("MIT", "")]


def test_shades_are_read_on_their_ground() -> None:
    source = (Path(__file__).parents[2] / "benchmark/tlbench/report/templates/model.css").read_text()
    ground = dict(re.findall(r"td\.h(\d+) \{ background: (#[0-9a-f]{6})", source))
    assert sorted(map(int, ground)) == list(range(11))
    for shade, colour in ground.items():
        words = "#10151c" if int(shade) <= 6 else "#ffffff"
        assert _contrast(colour, words) >= 4.5, shade


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_a_published_model_of_digits_is_shown_as_it_was_published() -> None:
    suite = load_suite("digits")
    records, fits = (load(suite, run_dir="nowhere") for load in (load_results, load_fits))
    records, fits = (frame[frame["model"] == "ncm"].reset_index(drop=True) for frame in (records, fits))
    content = Content(suite, {"accuracy": make_board(records, fits, suite)}, records, fits, Path("nowhere"))
    page = _page(model_page(content, "ncm", "published"), "ncm", "published")
    clean = records[(records["condition"] == "clean") & (records["metric"] == "accuracy")]
    values = {(r.source, r.target): r.value for r in clean[clean["role"] != "id-val"].itertuples()}
    domains = list(suite.tasks["digits"].domains)
    assert _values(_table(page, 'data-metric="accuracy"')) == [values[a, b] for a in domains for b in domains]
    ece = records[(records["condition"] == "clean") & (records["metric"] == "ece")]
    values = {(r.source, r.target): r.value for r in ece[ece["role"] != "id-val"].itertuples()}
    assert _values(_table(page, 'data-metric="ece"')) == [values[a, b] for a in domains for b in domains]
