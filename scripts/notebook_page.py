"""Run the notebook page and write what its code gives below it, in place; charts become files beside the page.

``python scripts/notebook_page.py [--check] [--page docs/notebook.md]``

The blocks of Python run from the first to the last, in an empty folder, so that nobody's own runs are shown. The value
of a block's last line is its output: a table as text, an Altair chart as a picture.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

ROOT: Final = Path(__file__).parents[1]
CELL: Final = re.compile(
    r"(?P<code>```python\n(?P<source>.*?)```\n)(?P<output>\n<!-- output -->\n.*?<!-- /output -->\n)?", re.DOTALL
)
_WIDTH: Final = 118
_DIGITS: Final = 3


def main(words: Sequence[str] | None = None) -> int:
    """Return 0 where the page is what its code gives, or has become so; 1 where it is stale; 2 for a mistake."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "notebook.md")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the page is stale")
    arguments = parser.parse_args(words)
    page: Path = arguments.page.resolve()
    text = page.read_text(encoding="utf-8")
    if not CELL.search(text):
        print(f"{page}: expected blocks of Python, found none", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        made, pictures = executed(text, page)
    stale = [] if made == text else [page]
    stale += [path for path, svg in pictures.items() if _content(path) != _content_of(svg)]
    if arguments.check:
        for path in stale:
            print(f"{path} is not what the code of {page.name} gives; run scripts/notebook_page.py", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made if path == page else pictures[path], encoding="utf-8")
        print(os.path.relpath(path, ROOT))
    return 0


def executed(text: str, page: Path) -> tuple[str, dict[Path, str]]:
    """Return the page with every output anew, and its pictures by file."""
    names: dict[str, Any] = {}
    pictures: dict[Path, str] = {}

    def cell(found: re.Match[str]) -> str:
        value = _run(found["source"], names, str(page))
        if value is None:
            return found["code"]
        return f"{found['code']}\n<!-- output -->\n{_shown(value, page, pictures)}\n<!-- /output -->\n"

    return CELL.sub(cell, text), pictures


def _run(source: str, names: dict[str, Any], where: str) -> Any:
    """Run a block; return the value of its last line, None where that is no expression."""
    tree = ast.parse(source, where)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, where, "exec"), names)
        return None
    exec(compile(ast.Module(tree.body[:-1], []), where, "exec"), names)
    return eval(compile(ast.Expression(last.value), where, "eval"), names)


def _shown(value: Any, page: Path, pictures: dict[Path, str]) -> str:
    import altair as alt

    if isinstance(value, alt.TopLevelMixin):
        name = page.stem if not pictures else f"{page.stem}-{len(pictures) + 1}"
        path = page.parent / "figures" / f"{name}.svg"
        pictures[path] = _picture(value)
        title = value.to_dict().get("title", name)
        return f"![{title}](figures/{path.name})"
    if isinstance(value, pd.DataFrame | pd.Series):
        with pd.option_context("display.precision", _DIGITS, "display.width", _WIDTH):
            lines = value.to_string(na_rep="").splitlines()
        return "\n".join(["```text", *(line.rstrip() for line in lines), "```"])
    return f"```text\n{value}\n```"


def _picture(chart: Any) -> str:
    """Return a chart as SVG, with a hash of what it shows: letters are as wide as this machine's fonts make them."""
    import vl_convert

    spec = chart.to_dict()
    spec["config"] = {"background": "white", "font": "sans-serif"}
    svg: str = vl_convert.vegalite_to_svg(spec)
    shown = "\n".join(_points(spec))
    return f"{svg.rstrip()}\n<!-- shows {hashlib.sha256(shown.encode()).hexdigest()} -->\n"


def _points(spec: dict[str, Any]) -> Iterator[str]:
    for rows in spec["datasets"].values():
        for row in rows:
            yield repr({key: round(value, 9) if isinstance(value, float) else value for key, value in row.items()})


def _content(path: Path) -> str | None:
    return _content_of(path.read_text(encoding="utf-8")) if path.is_file() else None


def _content_of(svg: str) -> str | None:
    found = re.search(r"<!-- shows ([0-9a-f]+) -->", svg)
    return found[1] if found else None


if __name__ == "__main__":
    sys.exit(main())
