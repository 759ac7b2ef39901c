"""Figures: safe, equal every time, readable on light and dark ground; lines, labels and diagrams are what they say."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from xml.etree import ElementTree

import altair as alt
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from tlbench.leaderboard.board import Board
from tlbench.metrics.calibration import expected_calibration_error
from tlbench.report.content import Content
from tlbench.report.figures import INK, PALETTE, Figure, board_chart, draw, drawn_rows, labels
from tlbench.report.line import fit_line, probit
from tlbench.report.placing import place_labels
from tlbench.report.reliability import diagrams, figure
from tlbench.report.scatter import Scatter, scatter, small_multiples
from tlbench.report.scatter import figure as scatter_figure
from tlbench.suites.spec import Metrics

HOSTILE = '<script>alert(1)</script>"&\x00\u202e'


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Contrast of two colours as WCAG 2 defines it."""
    low, high = sorted([_luminance(one), _luminance(other)])
    return (high + 0.05) / (low + 0.05)


def _chart(names: list[str]) -> alt.Chart:
    return alt.Chart(pd.DataFrame({"x": range(len(names)), "name": names})).mark_text().encode(x="x:Q", text="name:N")


def _points(rows: int, **changes: object) -> pd.DataFrame:
    draw_ = np.random.default_rng(rows)
    inside = draw_.uniform(0.6, 0.95, rows)
    outside = 0.2 + 0.5 * inside + draw_.normal(0, 0.03, rows)
    columns: dict[str, object] = {"number": np.arange(1, rows + 1), "name": [f"m{n}" for n in range(rows)]}
    for name, value in (("id", inside), ("ood", outside)):
        columns |= {name: value, f"{name}_low": value - 0.02, f"{name}_high": value + 0.02, f"{name}_n": [100] * rows}
    return pd.DataFrame({**columns, "control": [False] * rows, **changes})


def test_a_strangers_name_is_text_in_a_drawing() -> None:
    drawn = draw(_chart([HOSTILE]), name="x", title=HOSTILE, description=HOSTILE)
    for markup in (str(drawn.inline()), drawn.files()["x.svg"].decode()):
        assert "<script" not in markup
        assert "\x00" not in markup
        ElementTree.fromstring(markup)


def test_equal_charts_give_equal_bytes() -> None:
    first, second = (draw(_chart(["a", "b"]), name="x", title="t", description="d").files() for _ in range(2))
    assert first == second


def test_a_figure_says_what_it_shows_and_carries_no_other_id() -> None:
    drawn = draw(_chart(["a"]), name="some.figure", title="A title", description="A description")
    root = ElementTree.fromstring(str(drawn.inline()))
    space = "{http://www.w3.org/2000/svg}"
    assert root.get("role") == "img"
    assert [root[0].tag, root[0].text, root[1].tag, root[1].text] == [
        f"{space}title", "A title", f"{space}desc", "A description",
    ]  # fmt: skip
    assert root.get("aria-labelledby") == "some.figure-title some.figure-desc"
    assert re.findall(r'\bid="([^"]*)"', str(drawn.inline())) == ["some.figure-title", "some.figure-desc"]


def test_on_a_page_the_ink_is_the_pages_own_colour() -> None:
    drawn = draw(_chart(["a"]), name="x", title="t", description="d")
    assert INK in drawn.svg
    assert INK not in drawn.inline()
    assert "currentColor" in drawn.inline()


def test_nothing_in_a_figure_is_fetched() -> None:
    svg = board_free = draw(_chart(["a"]), name="x", title="t", description="d").files()["x.svg"].decode()
    assert not re.search(r"(href|url\(|<image|<style|@import)", board_free)
    assert "http" not in svg.replace("http://www.w3.org/", "")


def test_a_png_is_on_white_and_of_twice_the_size() -> None:
    drawn = Figure("x", "t", "d", f'<svg viewBox="0 0 30 20"><rect width="5" height="5" fill="{INK}"/></svg>')
    png = drawn.files()["x.png"]
    assert png.startswith(b"\x89PNG")
    assert struct.unpack(">II", png[16:24]) == (60, 40)


@pytest.mark.parametrize("colour", PALETTE)
def test_series_are_seen_on_light_and_on_dark_ground(colour: str) -> None:
    assert contrast(colour, "#ffffff") >= 3
    assert contrast(colour, "#15171a") >= 3


@pytest.mark.parametrize("name", ["", "A", "a/b", "../x", "a b"])
def test_a_figures_name_is_a_plain_file_name(name: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        Figure(name, "t", "d", '<svg viewBox="0 0 1 1"></svg>')


def test_long_names_are_cut_and_lose_control_characters() -> None:
    assert labels(["x" * 100]) == ["x" * 39 + "…"]
    assert labels(["a\u202eb\x1b"]) == ["ab"]


def test_the_board_is_drawn_with_every_ranked_row(content: Content) -> None:
    drawn = board_chart(content.board)
    root = ElementTree.fromstring(str(drawn.inline()))
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"steady", "Twin", "twin", "reader", "majority"} <= set(words)
    assert "half" not in words  # incomplete: it has no score


def test_dots_of_rows_that_are_not_ranked_are_hollow(content: Content) -> None:
    def without_filling(board: Board) -> int:
        root = ElementTree.fromstring(str(board_chart(board).inline()))
        dots = [path for path in root.iter("{http://www.w3.org/2000/svg}path") if path.get("d", "").startswith("M3.")]
        assert len(dots) == len(drawn_rows(board))
        return sum(path.get("fill") is None for path in dots)

    board = content.board
    assert without_filling(board) == 0
    one = board.frame.assign(standing=board.frame["standing"].where(board.frame["name"] != "twin", "unranked"))
    assert without_filling(replace(board, frame=one)) == 1
    # A measure that ranks nobody has no other dots to tell them from.
    none = board.frame.assign(standing=board.frame["standing"].replace("ranked", "unranked"))
    assert without_filling(replace(board, frame=none)) == 0


@given(st.integers(5, 40))
def test_the_line_and_its_interval_are_those_of_the_textbook(rows: int) -> None:
    draw_ = np.random.default_rng(rows)
    x, y = draw_.normal(size=rows), draw_.normal(size=rows)
    line = fit_line(x, y)
    assert line is not None
    known = scipy.stats.linregress(x, y)
    assert line.slope == pytest.approx(known.slope, abs=1e-12)
    assert line.intercept == pytest.approx(known.intercept, abs=1e-12)
    assert line.r_squared == pytest.approx(known.rvalue**2, abs=1e-12)
    # At x = 0 the line's height is the intercept, whose standard error scipy has.
    quantile = scipy.stats.t.ppf(0.975, rows - 2)
    assert line.margin(np.zeros(1))[0] == pytest.approx(quantile * known.intercept_stderr, rel=1e-10)


def test_the_interval_of_the_line_holds_the_truth_as_often_as_it_says() -> None:
    draw_ = np.random.default_rng(0)
    x, at = np.linspace(0, 1, 8), np.array([0.9])
    held = 0
    for _ in range(1000):
        line = fit_line(x, 1 + 2 * x + draw_.normal(size=8))
        assert line is not None
        held += abs(line.at(at)[0] - 2.8) <= line.margin(at)[0]
    assert 930 <= held <= 968


def test_too_few_points_or_equal_ones_have_no_line() -> None:
    assert fit_line(np.arange(4.0), np.arange(4.0)) is None
    assert fit_line(np.ones(6), np.arange(6.0)) is None
    assert "4 rows that are no controls, at least 5" in scatter(_points(4), "linear").why_no_line
    assert "equal" in scatter(_points(6, id=[0.5] * 6), "linear").why_no_line


def test_probits_are_the_normal_quantiles_and_clipping_is_told() -> None:
    share, n = np.array([0.0, 0.004, 0.5, 0.9, 1.0]), np.array([100] * 5)
    value, clipped = probit(share, n)
    assert value[[2, 3]] == pytest.approx(scipy.stats.norm.ppf([0.5, 0.9]))
    assert value[[0, 1]] == pytest.approx(scipy.stats.norm.ppf([0.005, 0.005]))
    assert value[4] == pytest.approx(scipy.stats.norm.ppf(0.995))
    assert clipped.tolist() == [True, True, False, False, True]


def test_a_clipped_point_is_an_open_triangle() -> None:
    points = _points(6, ood=[0.2, 0.3, 0.4, 0.5, 0.6, 1.0])
    drawn = scatter_figure(scatter(points, "probit"), name="x", task="t")
    assert drawn.svg.count('fill="none" stroke="#2b7bd6"') == 1
    assert scatter_figure(scatter(points, "linear"), name="x", task="t").svg.count('fill="none" stroke="#2b7bd6"') == 0


def test_the_line_is_fitted_in_the_shown_scale_and_without_controls() -> None:
    points = _points(9, control=[False] * 7 + [True] * 2)
    models = points.iloc[:7]
    for scale in ("linear", "probit"):
        line = scatter(points, scale).line  # type: ignore[arg-type]
        values = [models[name].to_numpy() for name in ("id", "ood")]
        x, y = values if scale == "linear" else [scipy.stats.norm.ppf(value) for value in values]
        assert line is not None
        assert line.points == 7
        assert line.slope == pytest.approx(scipy.stats.linregress(x, y).slope)


def test_controls_far_away_are_left_out_of_the_drawing_and_named() -> None:
    control = [False] * 6 + [True] * 2
    points = _points(8, control=control)
    points.loc[7, ["id", "ood"]] = 0.1
    one: Scatter = scatter(points, "linear")
    assert 8 in one.left_out
    assert set(range(1, 7)) <= set(one.drawn["number"])


def test_every_row_of_a_scatter_is_in_its_key() -> None:
    points = _points(40, name=[f"model {n} <b>" for n in range(40)])
    drawn = scatter_figure(scatter(points, "linear"), name="x", task="t")
    root = ElementTree.fromstring(str(drawn.inline()))
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {f"{n + 1}  model {n} <b>" for n in range(40)} <= words
    right = max(float(e.get("x", "0")) for e in root.iter("{http://www.w3.org/2000/svg}text"))
    assert right < float(root.get("width", "0"))


def test_small_multiples_have_a_panel_a_pair() -> None:
    several = [scatter(_points(6), "probit", title=f"a → {n}") for n in range(5)]
    drawn = small_multiples(several, name="x", task="t")
    titles = [e.text for e in ElementTree.fromstring(str(drawn.inline())).iter("{http://www.w3.org/2000/svg}text")]
    assert [title for title in titles if title and title.startswith("a → ")] == [f"a → {n}" for n in range(5)]


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(0, 200)), min_size=1, max_size=25))
def test_labels_stay_inside_and_where_there_is_room_do_not_overlap(points: list[tuple[float, float]]) -> None:
    placed = place_labels(points, [(12.0, 9.0)] * len(points), (200.0, 200.0))
    assert placed == place_labels(points, [(12.0, 9.0)] * len(points), (200.0, 200.0))
    assert all(6 <= x <= 194 and 4.5 <= y <= 195.5 for x, y in placed)


def test_labels_of_a_grid_of_points_do_not_overlap() -> None:
    points = [(20.0 + 35 * a, 20.0 + 35 * b) for a in range(5) for b in range(5)]
    placed = place_labels(points, [(12.0, 9.0)] * 25, (200.0, 200.0))
    for place, (x, y) in enumerate(placed):
        assert all(abs(x - u) >= 12 or abs(y - v) >= 9 for u, v in placed[:place])


def _predictions(n: int = 400) -> pd.DataFrame:
    draw_ = np.random.default_rng(n)
    confidence = draw_.uniform(0.3, 1, n).astype(np.float32)
    frame = pd.DataFrame(
        {
            "condition": ["clean"] * (n - 1) + ["fog"],
            "task": "t",
            "role": np.where(np.arange(n) % 3 == 0, "id-test", "ood-test"),
            "rank": pd.array(np.where(draw_.random(n) < confidence, 0, 1), dtype="Int32"),
            "confidence": confidence,
            "confidence_scaled": np.sqrt(confidence),
        }
    )
    return frame


def test_a_reliability_diagram_has_the_suites_bins_and_the_metrics_own_numbers() -> None:
    rows = _predictions()
    found = diagrams(rows, Metrics(ece_bins=10, ece_closed="left"))
    assert [(one.role, one.scaled) for one in found] == [
        ("id-test", False), ("id-test", True), ("ood-test", False), ("ood-test", True),
    ]  # fmt: skip
    for one in found:
        own = rows[(rows["condition"] == "clean") & (rows["role"] == one.role)]
        confidence = own["confidence_scaled" if one.scaled else "confidence"].to_numpy()
        right = (own["rank"] == 0).to_numpy(bool)
        assert one.n == len(own)
        assert one.ece == expected_calibration_error(confidence, right, bins=10, closed="left")
        # The definition, the slow way.
        for number in range(10):
            inside = [
                (c, r) for c, r in zip(confidence, right, strict=True) if number <= min(9, int(c * 10)) < number + 1
            ]
            assert one.bins.count[number] == len(inside)
            if inside:
                assert one.bins.accuracy[number] == pytest.approx(np.mean([r for _, r in inside]))


def test_a_reliability_diagram_shows_the_count_of_every_bin() -> None:
    found = diagrams(_predictions(), Metrics())
    drawn = figure(found, name="x", model="m")
    words = [e.text for e in ElementTree.fromstring(str(drawn.inline())).iter("{http://www.w3.org/2000/svg}text")]
    for one in found:
        for count in one.bins.count.tolist():
            assert str(count) in words


def test_a_predictor_without_probabilities_has_no_diagram() -> None:
    rows = _predictions().assign(confidence=np.nan, confidence_scaled=np.nan)
    assert diagrams(rows, Metrics()) == []
