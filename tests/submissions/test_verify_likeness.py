"""What a person should look at: a name, or predictions, that another published row has already."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tlbench_tampering import edit

from tlbench.records.inventory import INVENTORY
from tlbench.submissions.verification.report import Check
from tlbench.submissions.verify import Report, verify_folder


@pytest.fixture
def named(made: Any, tmp_path: Path) -> Callable[..., Path]:
    """Return a maker of the same submission under another name, with other facts on its fits."""

    def make(name: str, **facts: Any) -> Path:
        folder = Path(shutil.copytree(made.folder, tmp_path / "new" / name))
        document = json.loads((folder / INVENTORY).read_text())
        (folder / INVENTORY).write_text(json.dumps({**document, "model": name}))
        told = {key: value for key, value in facts.items() if key != "plugin_source"}
        edit(folder, "records", lambda frame: frame.assign(model=name, **told))
        edit(folder, "fits", lambda frame: frame.assign(model=name, **facts))
        return folder

    return make


def report_on(made: Any, folder: Path, model: str) -> Report:
    return verify_folder(folder, suite=made.suite, model=model, lock=made.lock, results=made.folder.parents[1])


def others(made: Any, folder: Path, model: str) -> Check:
    return report_on(made, folder, model).check("other rows")


def test_the_same_predictions_under_another_name_are_told_and_not_refused(made: Any, named: Any) -> None:
    report = report_on(made, named("brand-new"), "brand-new")
    check = report.check("other rows")
    assert check.status == "warning"
    assert "the same images as the published row 'm', in all 6 clean sets" in check.summary
    assert (report.ok, report.level) == (True, "recomputed")
    assert report.check("name").status == "ok"


def test_one_other_image_is_another_model(made: Any, named: Any) -> None:
    folder = named("brand-new")

    def change(frame: pd.DataFrame) -> None:
        bits = frame.loc[0, "correct"]
        frame.loc[0, "correct"] = bytes([bits[0] ^ 128, *bits[1:]])

    edit(folder, "outcomes", change)
    assert others(made, folder, "brand-new").status == "ok"


def test_a_row_is_not_held_against_its_own_earlier_version(made: Any) -> None:
    assert others(made, made.folder, "m").status == "ok"


def test_a_calibrator_of_ours_may_be_right_where_its_base_is(made: Any, named: Any) -> None:
    wrapping = json.dumps({"base": {"method": "linear-probe", "settings": {}}})
    facts = {"method": "temperature", "settings": wrapping}
    assert others(made, named("calibrated", **facts), "calibrated").status == "ok"
    # What a plug-in says of its settings nobody has checked.
    told = others(made, named("plugged", **facts, plugin_source="class X: ..."), "plugged")
    assert told.status == "warning"
    assert others(made, named("nested", method="mine", settings="[" * 5000), "nested").status == "warning"


def test_a_control_is_no_copy(made: Any, named: Any) -> None:
    assert others(made, named("nothing", control=True), "nothing").status == "ok"


def test_without_outcomes_and_predictions_nobody_can_tell(made: Any, named: Any) -> None:
    folder = named("brand-new")
    for name in ("outcomes", "predictions"):
        (folder / f"{name}.parquet").unlink()
    assert others(made, folder, "brand-new").status == "not checked"
    assert np.isin(["name", "other rows"], [check.name for check in report_on(made, folder, "x").checks]).all()


def test_a_name_like_a_published_one_is_told(made: Any, named: Any) -> None:
    check = report_on(made, named("M"), "M").check("name")
    assert check.status == "warning"
    assert check.summary == (
        "'M' can be taken for the published row 'm': they differ in capitals, separators or letters that look alike"
    )
