"""A report's folder: every page and file made first, then put in place by one rename."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Final

from markupsafe import Markup

from tlbench import __version__
from tlbench.errors import UsageError
from tlbench.report.board_page import board_page, export_path
from tlbench.report.content import Content
from tlbench.report.export import board_files
from tlbench.report.method_page import method_page
from tlbench.report.model_page import model_pages
from tlbench.report.task_page import task_pages

MARKER: Final = "report.json"
"""The file that says that a folder is a report, and which files of it are ours."""
PICTURED: Final = 40
"""Rows of a board that its picture shows: a longer one nobody would look at."""
_FORMAT: Final = 1


def write_site(content: Content, out: Path) -> tuple[Path, ...]:
    """Write a suite's report and return its files, the page of the board first.

    Parameters
    ----------
    content : Content
    out : Path
        A folder that is not there yet, is empty, or holds an earlier report and nothing else: that is replaced as a
        whole, and stays as it was if anything goes wrong before.

    Raises
    ------
    UsageError
        If there is something else.
    """
    check_out(out)
    pages = site_files(content)
    out.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, text in pages.items():
            path = place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        place.chmod(0o755)
        _replace(out, place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return tuple(out / name for name in pages)


def site_files(content: Content) -> dict[str, str | bytes]:
    """Return every file of a report by its path in the folder, the page of the board first."""
    picture, drawings, pictured = _picture(content)
    files: dict[str, str | bytes] = {
        "index.html": board_page(content, picture=picture, figures=tuple(drawings), pictured=pictured),
        "method.html": method_page(content),
        **drawings,
        **model_pages(content),
        **task_pages(content),
        **_analysis(content),
    }
    for metric, board in content.boards.items():
        files |= {export_path(metric, ending): text for ending, text in board_files(board).items()}
    files[MARKER] = _marker(content, files)
    _check_names(files)
    return files


def check_out(out: Path) -> None:
    """Raise ``UsageError`` unless a report may be written to a folder; done before any work is."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise UsageError(f"--out {out}: expected a folder, got {'a link' if out.is_symlink() else 'a file'}")
    there = (
        {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()} if out.exists() else set()
    )
    if not there:
        return
    strange = sorted(there - _ours(out))
    if strange:
        more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
        raise UsageError(
            f"--out {out}: expected an empty folder or a report, found '{strange[0]}'{more}; name another folder"
        )


def _ours(out: Path) -> set[str]:
    try:
        marker = json.loads((out / MARKER).read_text(encoding="utf-8"))
        return {MARKER, *map(str, marker["files"])} if marker["format"] == _FORMAT else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _replace(out: Path, place: Path) -> None:
    if not out.exists():
        place.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    try:
        # Onto an empty folder, so that a report is gone for no longer than it takes to rename another.
        out.rename(old)
        place.rename(out)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _marker(content: Content, files: Mapping[str, str | bytes]) -> str:
    document = {
        "format": _FORMAT,
        "made_by": f"tlbench {__version__}",
        "suite": content.suite.name,
        "suite_version": content.suite.version,
        "suite_hash": content.suite.hash,
        "files": sorted(files),
    }
    return json.dumps(document, indent=1) + "\n"


def _check_names(files: Mapping[str, str | bytes]) -> None:
    """Raise ``ValueError`` if a page would leave the folder, or two would be one on a disk that ignores capitals."""
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise ValueError(f"expected a path inside the report, got {name!r}")
    if len({name.casefold() for name in files}) != len(files):
        raise ValueError("two files of the report differ in capitals alone")


def _analysis(content: Content) -> dict[str, bytes]:
    if content.analysis is None:
        return {}
    from tlbench.report.analysis_page import analysis_files

    return analysis_files(content.analysis, path="analysis.html", folder="analysis/", suite=content.suite)


def _picture(content: Content) -> tuple[Markup | str, dict[str, bytes], int | None]:
    """Return the board as a drawing, its files, and how many rows it shows where it could show more."""
    from tlbench.report.figures import board_chart, drawn_rows

    rows = drawn_rows(content.board)
    if rows.empty:
        return "", {}, None
    figure = board_chart(replace(content.board, frame=rows.head(PICTURED)))
    drawings = {f"figures/{name}": data for name, data in figure.files().items()}
    return figure.inline(), drawings, None if len(rows) <= PICTURED else PICTURED
