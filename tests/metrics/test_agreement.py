from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

# Tests are no package: the rows are loaded from their file. Dataclasses look their module up by name.
_spec = importlib.util.spec_from_file_location("tlbench_agreement", Path(__file__).with_name("agreement.py"))
assert _spec is not None
assert _spec.loader is not None
agreement = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = agreement
_spec.loader.exec_module(agreement)


# Attacks and corruptions are held to the same tolerances, on the same inputs, by tests/conditions.
ELSEWHERE = {"torchattacks", "imagecorruptions-imaug"}


@pytest.mark.parametrize(
    "row",
    [row for row in agreement.ROWS if row.package not in ELSEWHERE],
    ids=lambda row: f"{row.measure} = {row.outside}",
)
def test_agrees_with_an_outside_implementation(row):
    assert 0 <= row.difference() <= row.tolerance


def test_the_published_table_holds_these_rows_in_this_order_with_these_tolerances():
    lines = [line for line in agreement.TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")][2:]
    assert len(lines) == len(agreement.ROWS)
    for line, row in zip(lines, agreement.ROWS, strict=True):
        assert line.startswith(agreement.head_of(row))
        assert line.endswith(f"| {row.tolerance:.0e} |")
