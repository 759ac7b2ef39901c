"""How the copies of a good submission are spoiled, signed and verified again: what the tests of each check share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlbench.records.inventory import INVENTORY, FileFact, read_inventory
from tlbench.submissions.verify import Report, verify_folder


def verified(made: Any, folder: Path, **options: Any) -> Report:
    options = {"lock": made.lock, "results": folder / "nowhere", **options}
    return verify_folder(folder, suite=made.suite, model="m", **options)


def sign(folder: Path) -> None:
    """State the hashes that the files have now, as whoever tampers would."""
    inventory = read_inventory(folder)
    assert inventory is not None
    files = {name: FileFact.of(folder / name) for name in inventory.files}
    (folder / INVENTORY).write_text(inventory.model_copy(update={"files": files}).to_json())


Frames = Callable[[pd.DataFrame], "pd.DataFrame | None"]


def edit(folder: Path, name: str, change: Frames) -> None:
    """Change a table through pandas, and sign it; what a change returns takes the table's place."""
    path = folder / f"{name}.parquet"
    table = pq.read_table(path)
    whole = [field.name for field in table.schema if pa.types.is_integer(field.type) and field.nullable]
    frame = table.to_pandas().astype(dict.fromkeys(whole, "Int64"))
    changed = change(frame)
    frame = frame if changed is None else changed
    columns = []
    for field in table.schema:
        # NaN stays NaN where the change has put one: pandas tells null and NaN apart only in objects.
        values = frame[field.name].tolist()
        absent = [value is None or value is pd.NA or (isinstance(value, float) and value != value) for value in values]
        keep = getattr(change, "keeps_nan", False) and field.name == "value"
        values = [None if gone and not keep else value for value, gone in zip(values, absent, strict=True)]
        columns.append(pa.array(values, field.type, from_pandas=False))
    pq.write_table(pa.Table.from_arrays(columns, schema=table.schema), path)
    sign(folder)


def first(frame: pd.DataFrame, **where: Any) -> Any:
    """Return the index of the first row with these values."""
    chosen = pd.Series(True, index=frame.index)
    for name, value in where.items():
        chosen &= frame[name] == value
    assert chosen.any()
    return frame.index[chosen][0]


def measurement(folder: Path, **where: Any) -> str:
    records = pq.read_table(folder / "records.parquet").to_pandas()
    return str(records.loc[first(records, **where), "measurement_id"])


def clean(folder: Path) -> str:
    return measurement(folder, condition="clean", role="ood-test", target="b")


def a_value_by_a_millionth(folder: Path) -> None:
    def change(frame: pd.DataFrame) -> None:
        frame.loc[first(frame, metric="nll", status="ok"), "value"] += 1e-6

    edit(folder, "records", change)


def caught(tampered: Sequence[tuple[Callable[[Path], None], str, str]]) -> Callable[..., None]:
    """Return the test that each kind of tampering is caught by the check for it, and what that should have said."""

    @pytest.mark.parametrize(("tamper", "name", "told"), tampered, ids=lambda value: getattr(value, "__name__", None))
    def test(made: Any, copy: Path, tamper: Callable[[Path], None], name: str, told: str) -> None:
        tamper(copy)
        report = verified(made, copy)
        check = report.check(name)
        assert check.status == "mismatch", report.to_text()
        assert told in " ".join(check.details), check
        assert check.count >= 1
        assert (report.ok, report.level) == (False, "self-reported")
        # What is posted and published tells nobody where the folder lay.
        assert not [one for one in report.checks if str(copy) in " ".join((one.summary, *one.details))]

    return test
