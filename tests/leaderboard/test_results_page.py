"""The page on results says what works: its examples run, one after the other, on synthetic results."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tlbench.suites.load import load_suite

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def test_the_examples_of_the_page_run(
    synthetic: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = synthetic.Run(tmp_path / "tlbench-runs", load_suite("digits"))
    run.add("linear-probe", deterministic=True, tables=True)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert len(blocks) == 5
    assert names["pairs"].shape[0] == 12
    assert "linear-probe" in names["pairs"]
    assert (names["wrong"]["rank"] > 0).all()
    assert "linear-probe" in capsys.readouterr().out
