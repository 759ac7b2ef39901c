"""The README does what it says: its plug-in keeps its promises, its commands parse, its table code runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from tlbench.cli import app
from tlbench.records.published import published_models

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip()
    for language, block in BLOCKS
    if not language
    for line in block.replace("&&", "\n").splitlines()
    if line.strip().startswith("tlbench ")
]


def test_the_two_commands_stand_first_and_as_promised() -> None:
    first, second = (block.strip() for language, block in BLOCKS if not language and "pip install" in block)
    assert first == "pip install . && tlbench evaluate --suite digits --model linear-probe"
    assert second == "pip install tox && tox"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command: str) -> None:
    parser = typer.main.get_command(app)
    name, *words = shlex.split(command)
    context = parser.make_context(name, words, resilient_parsing=False)
    # Options are read by the command at the end of the line, which is not run.
    while hasattr(parser, "resolve_command"):
        name, parser, words = parser.resolve_command(context, [*context._protected_args, *context.args])
        context = parser.make_context(name, words, parent=context)


def test_the_plugin_keeps_its_promises(tmp_path: Path) -> None:
    from tlbench.methods.resolve import resolve_model
    from tlbench.testing import assert_method

    (source,) = [block for language, block in BLOCKS if language == "python" and "class MyMethod" in block]
    path = tmp_path / "mymodel.py"
    path.write_text(source, encoding="utf-8")
    assert_method(resolve_model(str(path)).method)


@pytest.mark.skipif(not published_models("digits"), reason="no published results in this checkout")
def test_the_table_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = [block for language, block in BLOCKS if language == "python" and "load_results" in block]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(source, names)
    assert len(names["clean"]) > 0  # type: ignore[arg-type]


def test_every_page_that_is_named_exists() -> None:
    for page in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (Path(__file__).parents[1] / page).exists(), page
