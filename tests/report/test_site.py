"""A report's folder: whole or not there, never in place of something else, every link in it leading somewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest

import tlbench
from tlbench.errors import UsageError
from tlbench.report import site as site_module
from tlbench.report.content import Content
from tlbench.report.figures import drawn_rows
from tlbench.report.site import MARKER, check_out, write_site


class Addresses(HTMLParser):
    """Every address on a page, and every id."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.found.append(value)
            if name == "id" and value:
                self.ids.append(value)


def test_every_link_leads_to_a_file_of_the_report(site: Path) -> None:
    pages = {path: Addresses(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 10
    for path, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), path
        for address in page.found:
            parts = urlsplit(address)
            if parts.scheme in ("http", "https"):
                continue  # what a card names: a paper; nothing is loaded from there
            assert not parts.scheme, (path, address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_relative_to(site.resolve()), (path, address)
            assert target.is_file(), (path, address)
            if parts.fragment and target.suffix == ".html":
                assert parts.fragment in pages[site / target.relative_to(site.resolve())].ids, (path, address)


def test_every_row_has_a_page_and_every_task(site: Path, content: Content) -> None:
    assert len(list((site / "models").glob("*.html"))) == len(content.models)
    assert len(list((site / "tasks").glob("*.html"))) == len(content.suite.tasks)


def test_the_list_of_files_is_what_is_there(site: Path) -> None:
    listed = json.loads((site / MARKER).read_text())["files"]
    there = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    assert set(listed) | {MARKER} == there


def test_nothing_is_asked_of_a_network(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "<link" not in text, path
        assert "@import" not in text, path
        assert 'src="http' not in text, path


def test_variants_take_no_place_in_the_picture(content: Content) -> None:
    """Forty rows are drawn of those that have a dot, whatever stands between them."""
    frame = content.board.frame
    drawn = drawn_rows(content.board)

    def pictured(*parts: pd.DataFrame) -> tuple[str, int | None]:
        board = replace(content.board, frame=pd.concat(parts, ignore_index=True))
        picture, _, count = site_module._picture(replace(content, boards={**content.boards, board.metric: board}))
        return str(picture), count

    picture, count = pictured(*[frame.assign(standing="variant", name="other")] * 9, frame)
    assert count is None
    assert ">other<" not in picture
    assert all(f">{name}<" in picture for name in ("steady", "reader", "majority"))
    assert pictured(*[drawn] * 9)[1] == site_module.PICTURED < 9 * len(drawn)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawings, which other tests look at."""
    monkeypatch.setattr(site_module, "model_pages", lambda content: {})
    monkeypatch.setattr(site_module, "task_pages", lambda content: {})
    monkeypatch.setattr(site_module, "_picture", lambda content: ("", {}, None))


@pytest.mark.usefixtures("quick")
def test_an_earlier_report_is_replaced_as_a_whole(content: Content, tmp_path: Path) -> None:
    out = tmp_path / "site"
    first = write_site(content, out)
    assert first[0] == out / "index.html"
    (out / "method.html").write_text("old")
    write_site(content, out)
    assert (out / "method.html").read_text() != "old"
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.usefixtures("quick")
def test_two_reports_of_the_same_results_are_equal(content: Content, tmp_path: Path) -> None:
    one, other = (write_site(content, tmp_path / name) for name in ("one", "other"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


@pytest.mark.usefixtures("quick")
def test_a_folder_of_somebody_else_is_left_alone(content: Content, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"found 'chapter\.tex'; name another folder"):
        write_site(content, tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


@pytest.mark.usefixtures("quick")
def test_a_report_with_a_strange_file_in_it_is_left_alone(content: Content, tmp_path: Path) -> None:
    write_site(content, tmp_path / "site")
    (tmp_path / "site" / "notes").mkdir()
    (tmp_path / "site" / "notes" / "mine.txt").write_text("keep")
    with pytest.raises(UsageError, match=r"found 'notes/mine\.txt'"):
        write_site(content, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").is_file()


def test_a_link_and_a_file_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name, got in (("file", "a file"), ("link", "a link")):
        with pytest.raises(UsageError, match=f"expected a folder, got {got}"):
            check_out(tmp_path / name)


@pytest.mark.usefixtures("quick")
def test_a_report_that_fails_leaves_the_earlier_one(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_site(content, tmp_path / "site")

    def fails(content: Content) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(site_module, "method_page", fails)
    with pytest.raises(OSError, match="no space"):
        write_site(content, tmp_path / "site")
    assert (tmp_path / "site" / "index.html").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def _tlbench(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "tlbench", "report", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
    )


def test_the_command_prints_where_the_page_is(tmp_path: Path) -> None:
    done = _tlbench("--suite", "digits", "--own", "--out", "pages", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["page"] == "pages/index.html"
    assert all((tmp_path / file).is_file() for file in told["files"])


def test_the_command_refuses_a_folder_of_somebody_else_before_it_reads_anything(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("mine")
    done = _tlbench("--suite", "digits", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --out site: expected an empty folder or a report, found 'index.html'")
