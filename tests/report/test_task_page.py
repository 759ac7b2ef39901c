"""A task's page: points are the board's own means, lines those of the textbook, the best rows the best."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.stats

from tlbench.leaderboard.aggregate import score_rows
from tlbench.leaderboard.board import make_board
from tlbench.leaderboard.forms import form
from tlbench.leaderboard.prepared import ROW, prepare
from tlbench.leaderboard.tables import load_fits, load_results
from tlbench.report.content import Content, model_path, read_content, task_path
from tlbench.report.points import read_accuracies, task_points
from tlbench.report.task_page import best_rows, key_lines, task_pages, without_interval
from tlbench.seeds import derive

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def content(synthetic: Any, tmp_path_factory: pytest.TempPathFactory) -> Content:
    folder = tmp_path_factory.mktemp("tasks") / "runs"
    run = synthetic.Run(folder, synthetic.make_suite())
    for place, name in enumerate(("one", "two", "three", "four", SCRIPT)):
        run.add(name, value=_values_of(place))
    run.add("reader", protocol="unlabelled-target", per_target=True, value=_values_of(5))
    run.add("majority", control=True, value=0.2, deterministic=True)
    run.add("half", without=lambda cell: cell.target == "c" and cell.role == "ood-test", value=_values_of(6))
    run.add("unsure", error=lambda cell: None if cell.target == "b" else 0.01, value=_values_of(7))
    place: dict[str, Any] = {"run_dir": folder, "published": False}
    tables = (load(run.suite, **place) for load in (load_results, load_fits))
    return read_content(run.suite, {"accuracy": make_board(*tables, run.suite)}, **place)


def _values_of(model: int) -> Callable[[Any], float]:
    """Return accuracies that differ between models, cells and seeds."""
    return lambda cell: 0.2 + 0.7 * (derive(str(model), *(str(value) for value in vars(cell).values())) % 997) / 997


@pytest.fixture(scope="module")
def files(content: Content) -> dict[str, str | bytes]:
    return task_pages(content)


def _page(files: dict[str, str | bytes], task: str) -> str:
    page = files[task_path(task)]
    assert isinstance(page, str)
    return page


def _table(page: str, name: str) -> str:
    begin = page.index(f'data-table="{name}"')
    return page[begin : page.index("</table>", begin)]


def test_every_task_has_a_page_with_its_figures(content: Content, files: dict[str, str | bytes]) -> None:
    assert {name for name in files if name.endswith(".html")} == {task_path(task) for task in content.suite.tasks}
    for task in content.suite.tasks:
        page = _page(files, task)
        linked = {link.removeprefix("../") for link in re.findall(r'href="(\.\./figures/[^"]*)"', page)}
        assert len(linked) == 8  # two scales, mean and pairs, SVG and PNG
        assert linked <= set(files)
        ids = re.findall(r'\bid="([^"]*)"', page)
        assert len(ids) == len(set(ids))


def test_points_are_the_boards_sums_of_the_task(content: Content) -> None:
    suite = content.suite
    prepared = prepare(content.records, suite.protocol.seeds)
    accuracies = read_accuracies(content.records, suite)
    for task in suite.tasks:
        points = task_points(accuracies, suite, task)
        known = {row[: len(ROW)]: row for row in points.mean[[*ROW, "ood"]].itertuples(index=False, name=None)}
        whole = form(suite, "accuracy", "ood-test")
        terms = whole.terms[whole.terms["task"] == task]
        scores = score_rows(
            prepared, type(whole)("accuracy", "ood-test", terms.assign(weight=terms["weight"] * 2), whole.fits_of),
            suite.protocol.seeds,
        )  # fmt: skip
        complete = {row: score.value for row, score in scores.items() if score.value is not None}
        assert set(known) == set(complete)
        for row, value in complete.items():
            assert known[row][-1] == pytest.approx(value, rel=1e-12)


def test_points_of_a_pair_are_the_records(content: Content) -> None:
    points = task_points(read_accuracies(content.records, content.suite), content.suite, "t")
    clean = content.records[(content.records["condition"] == "clean") & (content.records["metric"] == "accuracy")]
    for pair, frame in points.pairs:
        for row in frame.to_dict("records"):
            own = clean[(clean["model"] == row["model"]) & (clean["task"] == "t") & (clean["source"] == pair.source)]
            outside = own[(own["role"] == "ood-test") & (own["target"] == pair.target)]["value"]
            assert row["ood"] == pytest.approx(outside.mean(), rel=1e-12)
            assert row["id"] == pytest.approx(own[own["role"] == "id-test"]["value"].mean(), rel=1e-12)
            if len(outside) == 2 and row["model"] != "unsure":
                reach = 1.959964 * np.sqrt(0.01**2 + outside.var(ddof=1) / 2)
                assert row["ood_high"] == pytest.approx(min(1, row["ood"] + reach), abs=1e-6)


def test_a_row_that_lacks_a_pair_has_no_mean_and_keeps_its_other_pairs(content: Content) -> None:
    points = task_points(read_accuracies(content.records, content.suite), content.suite, "t")
    assert "half" not in set(points.mean["name"])
    having = {pair.target for pair, frame in points.pairs if "half" in set(frame["name"])}
    assert having == {"a", "b"}
    line = next(line for line in key_lines(points) if line.name == "half")
    assert line.point is None


def test_where_a_set_has_no_standard_error_there_is_no_interval(content: Content) -> None:
    points = task_points(read_accuracies(content.records, content.suite), content.suite, "t")
    row = points.mean[points.mean["name"] == "unsure"].iloc[0]
    assert np.isnan(row["ood_low"])
    assert np.isnan(row["id_low"])
    assert without_interval(points) == []  # others have one there


def test_the_best_row_is_the_best_of_its_section_and_no_control(content: Content) -> None:
    points = task_points(read_accuracies(content.records, content.suite), content.suite, "t")
    found = best_rows(points, key_lines(points))
    assert {one.section for one in found} == {
        "source-only · full · float32 · ImageNet", "unlabelled-target · full · float32 · ImageNet",
    }  # fmt: skip
    assert len(found) == 12
    for one in found:
        frame = dict((pair.source + pair.target, frame) for pair, frame in points.pairs)[
            one.pair.source + one.pair.target
        ]
        rivals = frame[(frame["protocol"] == one.section.split(" · ")[0]) & ~frame["control"]]
        assert one.point["ood"] == rivals["ood"].max()
        assert one.line.name != "majority"


def test_the_tables_show_the_points_and_link_the_models(content: Content, files: dict[str, str | bytes]) -> None:
    page = _page(files, "t")
    points = task_points(read_accuracies(content.records, content.suite), content.suite, "t")
    shown = re.findall(r'data-id="([^"]*)".*?data-ood="([^"]*)"', _table(page, "key"), re.DOTALL)
    assert [(float(a), float(b)) for a, b in shown] == list(zip(points.mean["id"], points.mean["ood"], strict=True))
    for name in ("one", SCRIPT, "half", "majority"):
        assert f'href="../{model_path(name, "local")}"' in page


def test_the_lines_are_those_of_scipy_in_each_scale(content: Content, files: dict[str, str | bytes]) -> None:
    points = task_points(read_accuracies(content.records, content.suite), content.suite, "t")
    shown = _table(_page(files, "t"), "lines")
    frames = {"mean": points.mean, **{f"{pair.source} → {pair.target}": frame for pair, frame in points.pairs}}
    for title, frame in frames.items():
        models = frame[~frame["control"]]
        for scale in ("linear", "probit"):
            values = [models[name].to_numpy() for name in ("id", "ood")]
            x, y = values if scale == "linear" else [scipy.stats.norm.ppf(value) for value in values]
            known = scipy.stats.linregress(x, y)
            row = re.search(
                rf'data-title="{title}" data-scale="{scale}">.*?data-slope="([^"]*)".*?data-intercept="([^"]*)"',
                shown,
                re.DOTALL,
            )
            assert row is not None
            assert float(row[1]) == pytest.approx(known.slope, rel=1e-9, abs=1e-12)
            assert float(row[2]) == pytest.approx(known.intercept, rel=1e-9, abs=1e-12)


def test_hostile_names_are_text_on_the_page_and_in_its_drawings(files: dict[str, str | bytes]) -> None:
    for name, page in files.items():
        if name.endswith((".html", ".svg")):
            text = page if isinstance(page, str) else page.decode()
            assert SCRIPT not in text
    assert html.escape(SCRIPT) in _page(files, "t")


def test_one_task_alone_takes_the_boards_interval_of_its_mean(synthetic: Any, tmp_path: Any) -> None:
    suite = synthetic.make_suite(
        tasks={"t": {"reader": "embedded", "classes": ["p", "q", "r"], "domains": ["a", "b"]}},
        conditions=[{"kind": "clean"}],
    )
    run = synthetic.Run(tmp_path / "runs", suite)
    run.add("one")
    place: dict[str, Any] = {"run_dir": tmp_path / "runs", "published": False}
    board = make_board(load_results(suite, **place), load_fits(suite, **place), suite)
    frame = board.frame.assign(measurement_low=0.25, measurement_high=0.75)
    content = read_content(suite, {"accuracy": replace(board, frame=frame)}, **place)
    page = _page(task_pages(content), "t")
    assert "25.0 to 75.0" in _table(page, "key")
    assert "no line: 1 row that is no control, at least 5 are needed" in page
