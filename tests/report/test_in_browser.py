"""The pages in a real Chromium, opened from disk: sorted, filtered, switched, printed, read aloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tlbench.analysis.questions import Analysis
from tlbench.leaderboard.board import Board
from tlbench.report.board_page import board_page
from tlbench.report.content import Content
from tlbench.report.method_page import method_page

SCRIPT = "<script>alert(1)</script>"
ROWS = 2000
SMOOTH_SECONDS = 0.2


@pytest.fixture(scope="module")
def pages(content: Content, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages that this file is about, without those of models and tasks."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "index.html").write_text(board_page(content), encoding="utf-8")
    (folder / "method.html").write_text(method_page(content), encoding="utf-8")
    return folder


class Opened:
    """A page, and what it complained about."""

    def __init__(self, browser: Any, path: Path, address: str = "", **context: Any) -> None:
        self.complaints: list[str] = []
        self.page = browser.new_page(**{"viewport": {"width": 1440, "height": 900}, **context})
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.requests: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri() + address)

    def _dialog(self, dialog: Any) -> None:
        self.complaints.append("a dialog opened")
        dialog.dismiss()

    def names(self) -> list[str]:
        """Return the names of the rows that are there, in order."""
        told: list[str] = self.page.eval_on_selector_all(
            "#board tbody:not([hidden]) tr[data-row] bdi:first-of-type",
            "found => found.filter(e => e.closest('th')).map(e => e.textContent)",
        )
        return told

    def column(self, key: str) -> list[str]:
        """Return what the rows say in a column."""
        place = self.page.eval_on_selector_all(
            "#board thead button", f"found => found.findIndex(e => e.dataset.column === '{key}')"
        )
        told: list[str] = self.page.eval_on_selector_all(
            "#board tbody:not([hidden]) tr[data-row]", f"found => found.map(e => e.cells[{place}].innerText.trim())"
        )
        return told

    def sort(self, key: str) -> str | None:
        """Click a heading and return its ``aria-sort``."""
        button = self.page.locator(f"#board thead button[data-column={key}]")
        button.click()
        told: str | None = button.evaluate("e => e.parentElement.getAttribute('aria-sort')")
        return told


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Opened]]:
    """Open pages; none may complain until the test is over."""
    opened: list[Opened] = []

    def opening(path: Path, address: str = "", **context: Any) -> Opened:
        opened.append(Opened(browser, path, address, **context))
        return opened[-1]

    yield opening
    for one in opened:
        one.page.close()
        assert not one.complaints
        assert all(address.startswith("file:") for address in one.requests)


def test_a_heading_sorts_within_sections_and_says_which_way(
    pages: Path, content: Content, open_page: Callable[..., Opened]
) -> None:
    board = open_page(pages / "index.html")
    frame = content.board.frame.set_index("name")
    first = board.names()
    assert board.sort("nll") == "ascending"  # the best first
    ranked = [name for name in board.names() if name in frame.index and frame["standing"][name] == "ranked"]
    same = [
        name for name in ranked if frame["protocol"][name] == "source-only" and frame["pretraining"][name] != "none"
    ]
    assert len(same) > 3
    assert len(set(frame.loc[same, "nll"])) == len(same)
    assert board.names() != first
    assert list(frame.loc[same, "nll"]) == sorted(frame.loc[same, "nll"])
    # Sections keep their order: nobody of another protocol comes between.
    protocols = [frame["protocol"][name] for name in ranked]
    assert protocols == sorted(protocols)
    assert "sorted by NLL, ascending" in board.page.inner_text("#status")
    assert board.sort("nll") == "descending"
    assert board.sort("nll") is None
    assert board.names() == first


def test_what_is_not_ranked_stands_below_what_is(
    content: Content, open_page: Callable[..., Opened], tmp_path: Path
) -> None:
    frame = content.board.frame.copy()
    ranked = frame[(frame["standing"] == "ranked") & (frame["protocol"] == "source-only")]
    first = ranked.index[0]  # of the largest section, and the best of it
    section = list(ranked.loc[ranked["pretraining"] == ranked.loc[first, "pretraining"], "name"])
    frame.loc[first, "standing"] = "unranked"
    frame.loc[first, "rank"] = None
    shown = replace(content, boards={**content.boards, "accuracy": replace(content.board, frame=frame)})
    (tmp_path / "index.html").write_text(board_page(shown), encoding="utf-8")
    board = open_page(tmp_path / "index.html")
    own = board.names()
    assert own.index(section[0]) == own.index(section[-1]) + 1
    board.sort("score")
    assert board.names().index(section[0]) < board.names().index(section[1])


def test_the_comparison_is_that_of_the_measure_shown(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html")
    assert board.page.locator("#comparisons [data-metric=accuracy]").is_visible()
    board.page.select_option("#measure", "nll")
    assert board.page.locator("#comparisons [data-metric=nll]").is_visible()
    assert not board.page.locator("#comparisons [data-metric=accuracy]").is_visible()
    board.page.select_option("#task", "t")
    assert not board.page.locator("#comparisons").is_visible()


def test_every_column_sorts(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html", "#c=")
    keys = board.page.eval_on_selector_all("#board thead button", "found => found.map(e => e.dataset.column)")
    rows = sorted(board.names())
    for key in keys:
        if board.page.locator(f"#board thead button[data-column={key}]").is_visible():
            assert board.sort(key) in ("ascending", "descending")
            assert sorted(board.names()) == rows


def test_filters_leave_the_rows_that_fit_and_the_ranks_they_have(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html")
    whole = dict(zip(board.names(), board.column("rank"), strict=True))
    board.page.fill("#search", "TWIN")
    assert sorted(board.names()) == ["Twin", "twin"]
    assert {name: whole[name] for name in board.names()} == dict(zip(board.names(), board.column("rank"), strict=True))
    assert board.page.inner_text("#status").startswith("2 of 12 rows")
    board.page.fill("#search", "")
    board.page.select_option("#protocol", "unlabelled-target")
    assert board.names() == ["reader"]
    board.page.select_option("#protocol", "")
    board.page.select_option("#backbone", "small-cnn")
    assert board.names() == ["steady"]
    board.page.click("#clear")
    assert len(board.names()) == 12
    board.page.fill("#search", SCRIPT)
    assert board.names() == [SCRIPT]


def test_another_measure_shows_its_own_stored_board(
    pages: Path, content: Content, open_page: Callable[..., Opened]
) -> None:
    board = open_page(pages / "index.html")
    opening = [board.column(key) for key in ("rank", "score", "id_accuracy", "name")]
    board.page.select_option("#measure", "nll")
    frame = content.boards["nll"].frame.set_index("name")
    told = dict(zip(board.names(), board.column("score"), strict=True))
    assert told["twin"] == f"{frame['score']['twin']:.3f}"
    ranks = dict(zip(board.names(), board.column("rank"), strict=True))
    assert ranks["twin"] == str(frame["rank"]["twin"])
    assert board.page.inner_text("#words") == "OOD NLL"
    assert board.page.locator("#board thead button[data-column=nll]").is_hidden()  # it would be there twice
    assert board.page.locator("#board thead button[data-column=ood_accuracy]").is_visible()
    # Written by the page as it was written into the page.
    board.page.select_option("#measure", "accuracy")
    assert [board.column(key) for key in ("rank", "score", "id_accuracy", "name")] == opening


def test_one_task_shows_its_scores_and_no_ranks(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html")
    board.page.select_option("#task", "t")
    assert set(board.column("rank")) == {""}
    scores = dict(zip(board.names(), board.column("score"), strict=True))
    assert "–" not in scores["half"]  # whole on this task, and so in its section
    assert board.page.is_visible("#view-note")
    assert "task t alone" in board.page.inner_text("#view-note")
    board.page.select_option("#task", "u")
    scores = dict(zip(board.names(), board.column("score"), strict=True))
    assert scores["half"] == "0.0 – 100.0"
    board.page.select_option("#task", "")
    assert board.page.is_hidden("#view-note")
    assert "1" in board.column("rank")


def test_a_view_can_be_sent_as_an_address(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html")
    board.page.select_option("#measure", "nll")
    board.page.fill("#search", "twin")
    board.sort("name")
    address = "#" + board.page.url.partition("#")[2]
    other = open_page(pages / "index.html", address)
    assert other.names() == board.names() == ["Twin", "twin"]
    assert other.page.input_value("#measure") == "nll"
    hostile = open_page(pages / "index.html", "#m=%3Cscript%3E&q=%3Cimg%20src=x%3E&s=nowhere:up&c=__proto__")
    assert hostile.names() == []


def test_the_theme_follows_the_system_until_it_is_chosen_and_stays(
    pages: Path, open_page: Callable[..., Opened]
) -> None:
    board = open_page(pages / "index.html", color_scheme="dark")

    def ground() -> str:
        told: str = board.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return told

    dark = ground()
    board.page.click("#theme")
    assert board.page.inner_text("#theme") == "Theme: light"
    light = ground()
    assert light != dark
    board.page.reload()
    assert ground() == light
    board.page.click("#theme")
    assert ground() == dark


def test_names_of_strangers_are_text_and_nothing_of_theirs_runs(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html")
    assert {SCRIPT, '"><img src=x onerror=alert(2)>', "safegnp.exe", "../../climbing"} <= set(board.names())
    assert board.page.locator("main img, main iframe, main object").count() == 0
    # The page's policy, beside the escapes: a script that got in all the same would not run.
    board.page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); }"
    )
    assert board.page.evaluate("window.ran") is None
    assert "Content Security Policy" in board.complaints.pop()


def test_the_whole_report_opens_without_a_complaint(site: Path, open_page: Callable[..., Opened]) -> None:
    opened = open_page(site / "index.html")
    links = opened.page.eval_on_selector_all("main a[href], header a[href]", "found => found.map(e => e.href)")
    seen = {link.partition("#")[0] for link in links if link.partition("#")[0].endswith(".html")}
    assert len(seen) >= 14
    for link in sorted(seen):
        opened.page.goto(link)
        assert opened.page.locator("h1").count() == 1, link
        assert opened.page.title().endswith("tlbench")
        wide = opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, link


def test_the_way_to_every_page_fits_a_narrow_screen(
    content: Content, open_page: Callable[..., Opened], tmp_path: Path
) -> None:
    whole = replace(content, analysis=Analysis("tiny", pd.DataFrame(), {}, ()))
    (tmp_path / "method.html").write_text(method_page(whole), encoding="utf-8")
    opened = open_page(tmp_path / "method.html", viewport={"width": 400, "height": 800})
    assert opened.page.is_visible("nav >> text=Analysis")
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400


def test_a_narrow_screen_scrolls_the_table_and_not_the_page(pages: Path, open_page: Callable[..., Opened]) -> None:
    for name in ("index.html", "method.html"):
        opened = open_page(pages / name, viewport={"width": 400, "height": 800})
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 400, name


def test_words_stand_out_from_their_ground_in_both_themes(pages: Path, open_page: Callable[..., Opened]) -> None:
    for scheme in ("light", "dark"):
        opened = open_page(pages / "index.html", color_scheme=scheme)
        told = opened.page.evaluate(CONTRASTS)
        assert len(told) > 50
        assert not [one for one in told if one[1] < 4.5]


CONTRASTS = """() => {
  const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parts(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const worded = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll("body *")]
    .filter((e) => e.checkVisibility() && worded(e) && !["SCRIPT", "STYLE"].includes(e.tagName))
    .map((e) => { const pair = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a);
      return [e.tagName + " " + e.textContent.slice(0, 20), (pair[0] + 0.05) / (pair[1] + 0.05)]; });
}"""


def test_a_screen_reader_meets_a_table_with_headings(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html")
    session = board.page.context.new_cdp_session(board.page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node.get("ignored")]
    assert roles.count("rowheader") >= 12
    assert roles.count("columnheader") >= 15
    assert roles.count("table") == 1
    headers = [node for node in nodes if node.get("role", {}).get("value") == "rowheader"]
    assert "twin" in " ".join(node.get("name", {}).get("value", "") for node in headers)
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node.get("ignored")
        and node["role"]["value"] in ("button", "combobox", "searchbox", "checkbox", "link")
        and not node.get("name", {}).get("value")
    ]
    assert not unnamed


def test_the_keyboard_reaches_the_content_and_sorts(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html")
    board.page.keyboard.press("Tab")
    assert board.page.evaluate("document.activeElement.className") == "skip"
    board.page.keyboard.press("Enter")
    assert board.page.evaluate("document.activeElement.id") == "main"
    board.page.focus("#board thead button[data-column=nll]")
    outline = board.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    board.page.keyboard.press("Enter")
    assert board.page.get_attribute("#board thead [aria-sort]", "aria-sort") == "ascending"


def test_without_a_script_the_board_is_a_whole_table(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html", java_script_enabled=False)
    assert board.page.locator("#board tbody tr[data-row]").count() == 12
    assert board.page.is_hidden("#controls")


def test_it_prints(pages: Path, open_page: Callable[..., Opened]) -> None:
    board = open_page(pages / "index.html", color_scheme="dark")
    assert board.page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    board.page.emulate_media(media="print", color_scheme="dark")
    assert board.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert board.page.is_hidden("#controls")


def test_two_thousand_rows_sort_and_filter_smoothly(
    content: Content, many_rows: Callable[[Board, int], Board], tmp_path: Path, open_page: Callable[..., Opened]
) -> None:
    boards = {content.board.metric: many_rows(content.board, ROWS)}
    small = replace(content, boards=boards, records=content.records.iloc[:0], fits=content.fits.iloc[:0])
    (tmp_path / "index.html").write_text(board_page(small), encoding="utf-8")
    board = open_page(tmp_path / "index.html")
    session = board.page.context.new_cdp_session(board.page)
    # Time of the page's thread: how long a click takes on a machine that does nothing else.
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        told = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
        return float(sum(told[name] for name in ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")))

    def seconds(action: str) -> float:
        before = spent()
        board.page.evaluate(f"() => {{ {action}; document.body.offsetHeight; }}")
        return spent() - before

    click = "document.querySelector('#board thead button[data-column={}]').click()"
    for key in ("nll", "name", "score"):
        assert min(seconds(click.format(key)) for _ in range(3)) < SMOOTH_SECONDS, key
    search = "const s = document.getElementById('search'); s.value = '{}'; s.dispatchEvent(new Event('input'))"
    assert min(seconds(search.format(word)) for word in ("199", "", "17")) < SMOOTH_SECONDS
    assert len(board.names()) == len([number for number in range(ROWS) if "17" in f"{number:04d}"])
