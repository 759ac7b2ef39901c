"""The guide of ood172: its commands are commands, and what it says of the suite is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from tlbench.cli import app
from tlbench.suites.load import load_suite

GUIDE = (Path(__file__).parents[1] / "docs" / "ood172.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```\n(.*?)```", GUIDE, re.DOTALL)
    for line in block.splitlines()
    if line.strip().startswith("tlbench ")
]
SUITE = load_suite("ood172")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_one(command: str) -> None:
    parser = typer.main.get_command(app)
    name, *words = shlex.split(command)
    context = parser.make_context(name, words)
    while hasattr(parser, "resolve_command"):
        name, parser, words = parser.resolve_command(context, [*context._protected_args, *context.args])
        context = parser.make_context(name, words, parent=context)


def test_the_table_names_every_task_and_its_folder() -> None:
    rows = [line for line in GUIDE.splitlines() if line.startswith("|")]
    for name, task in SUITE.tasks.items():
        assert any(name in row and f"`{task.path}`" in row for row in rows), name


def test_the_space_that_it_names_is_that_of_the_images() -> None:
    images = sum(d.counts.all for task in SUITE.tasks.values() for d in task.domains.values() if d.counts)
    needed = images * SUITE.protocol.image_size**2 * 3 / 1e9
    (told,) = re.findall(r"about (\d+) GB for all ten tasks", GUIDE)
    assert float(told) == pytest.approx(needed, rel=0.01)
