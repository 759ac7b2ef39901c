"""The written schema is the one that the documents show."""

from __future__ import annotations

from pathlib import Path

from tlbench.records.record import COLUMNS
from tlbench.records.schema import RECORDS, TABLES, describe

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"


def test_the_page_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == describe(), "run: python -m tlbench.records.schema > docs/schema.md"


def test_a_record_s_fields_are_the_schema_s_columns() -> None:
    assert tuple(RECORDS.names) == COLUMNS


def test_every_column_is_described() -> None:
    for name, schema in TABLES.items():
        for field in schema:
            assert f"| `{field.name}` | {field.type} |" in describe(), f"{name}.{field.name}"
