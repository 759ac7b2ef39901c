"""Write what the tests hold of every method into a page: ``python scripts/properties_page.py [--check]``.

A test's name is the sentence that it shows, so the page is their names: nothing stands in it that CI has not run.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from tlbench.methods.base import Method, method_name
from tlbench.registry import BUILT_IN

ROOT: Final = Path(__file__).parents[1]
TESTS: Final = ROOT / "tests" / "methods"
# Test modules that are about several methods.
SHARED: Final = ("test_controls.py", "test_finetune.py", "test_knn_and_ncm.py")
INTRODUCTION: Final = """\
# What the tests hold of every method

A method's row means something only if the method is what its paper describes. This page lists, method by method, the
properties that its tests show, in the tests' own words; all of them run in CI on every change. *Bit for bit* names the
setting at which a method has nothing of its own left, and the simpler method that it then equals in weights and
predictions, on the same data in the same order. Beside these, `tlbench.testing.check_method` holds every method to the
promises of a plug-in ([plugins.md](plugins.md)), and `tests/engine/test_parts.py` holds the forecast of every method
against what its fit really sees and trains. What the methods do on data is in [methods.md](methods.md); measures,
attacks and corruptions are held against other people's code in [agreement.md](agreement.md).

This page is written by `python scripts/properties_page.py` from the tests' names; a test says when it is stale.
"""


def modules() -> dict[str, list[str]]:
    """Return the test modules, each with the methods that it is about, in alphabetical order of the first."""
    found: dict[str, list[str]] = {}
    for name in sorted(BUILT_IN["methods"]):
        found.setdefault(_module_of(name), []).append(name)
    return found


def _module_of(name: str) -> str:
    own = f"test_{name.replace('-', '_')}.py"
    if (TESTS / own).exists():
        return own
    wanted = _kind(name).__name__
    for shared in SHARED:
        imports = (
            node for node in ast.parse((TESTS / shared).read_text("utf-8")).body if isinstance(node, ast.ImportFrom)
        )
        if any(alias.name == wanted for node in imports for alias in node.names):
            return shared
    raise LookupError(f"no module of tests/methods is about {name}: name it {own}, or add it to SHARED")


def _kind(name: str) -> type[Method]:
    module, _, own = BUILT_IN["methods"][name].partition(":")
    kind: type[Method] = getattr(import_module(module), own)
    return kind


def sentences(path: Path) -> Iterator[str]:
    """Yield the sentences that a module's tests are named by, as they stand in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name.removeprefix("test_").replace("_", " ")


def equality(name: str) -> str:
    """Return a method's setting without anything of its own, and the simpler method that this equals; '' for none."""
    kind = _kind(name)
    try:
        pair = kind().null_config()
    except (TypeError, ValueError):
        return ""  # it wraps another method, and has no setting of its own before that is named
    return "" if pair is None else f"`{_spelt(pair[0])}` equals `{_spelt(pair[1])}`"


def _spelt(method: Method) -> str:
    name = method_name(type(method))
    default = _settings_or_none(type(method))
    own = {
        key: value["method"] if isinstance(value, Mapping) and "method" in value else value
        for key, value in method.settings().items()
        if key not in default or default[key] != value
    }
    return f"{name}({', '.join(f'{key}={value}' for key, value in own.items())})" if own else name


def _settings_or_none(kind: type[Method]) -> dict[str, Any]:
    try:
        return kind().settings()
    except (TypeError, ValueError):
        return {}


def page() -> str:
    """Return the whole page."""
    return "\n".join([INTRODUCTION, *(_section(module, methods) for module, methods in modules().items())])


def _section(module: str, methods: list[str]) -> str:
    equal = [text for text in map(equality, methods) if text]
    blocks = [
        f"## {', '.join(methods)}",
        f"Tests: `tests/methods/{module}`." + (f" Bit for bit: {'; '.join(equal)}." if equal else ""),
        "\n".join(f"- {text[0].upper()}{text[1:]}." for text in sentences(TESTS / module)),
    ]
    return "\n\n".join(blocks) + "\n"


def main() -> int:
    """Rewrite the page, or with ``--check`` exit with 1 where it is stale."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is stale")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "properties.md")
    options = parser.parse_args()
    made = page()
    if not options.check:
        options.page.write_text(made, encoding="utf-8")
        return 0
    if not options.page.exists() or options.page.read_text(encoding="utf-8") != made:
        print(f"{options.page}: the page is stale; run python scripts/properties_page.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
