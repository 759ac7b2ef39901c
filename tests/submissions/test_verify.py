"""What verification says of a whole submission, run or folder, and the level that follows."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tlbench_tampering import a_value_by_a_millionth, edit, verified

from tlbench.errors import StoreError, UnknownNameError, UsageError, VerificationError
from tlbench.leaderboard.tables import load_fits, load_results, load_scored
from tlbench.records.levels import level_of
from tlbench.records.published import published_models
from tlbench.submissions.verify import verify, write_level
from tlbench.suites.load import load_suite


def test_a_good_submission_verifies_in_every_point(made: Any) -> None:
    report = verified(made, made.folder)
    status = {check.name: check.status for check in report.checks}
    assert status.pop("earlier version") == "not checked"
    assert set(status.values()) == {"ok"}, report.to_text()
    assert (report.ok, report.level) == (True, "recomputed")
    assert report.numbers == len(pq.read_table(made.folder / "records.parquet"))
    assert report.predictions == len(pq.read_table(made.folder / "predictions.parquet"))
    assert set(report.files) == {path.name for path in made.folder.iterdir()}


@pytest.mark.skipif(not published_models("digits"), reason="no published results in this checkout")
def test_a_published_model_of_digits_verifies() -> None:
    (folder,) = [found.folder for found in published_models("digits") if found.model == "ncm"]
    (report,) = verify(folder)
    assert (report.ok, report.level) == (True, "recomputed"), report.to_text()
    assert not [check for check in report.checks if check.status == "mismatch"]
    assert report.numbers > 1000


def test_a_run_is_verified_whole_or_by_model(made: Any) -> None:
    for path, options in (
        (made.run, {}),
        (made.run, {"model": "m"}),
        (next(made.run.glob("*/suite.json")).parent, {}),
        (next(made.run.glob("*/models/m")), {}),
    ):
        (report,) = verify(path, suite=made.suite_file, **options)
        assert (report.model, report.ok, report.level) == ("m", True, "recomputed")
        assert report.check("files").status == "not checked"


def test_a_folder_of_results_is_verified_model_by_model(made: Any, copy: Path) -> None:
    shutil.copytree(copy, copy.parent / "n")
    reports = verify(copy.parent, suite=made.suite_file)
    assert [(report.model, report.ok) for report in reports] == [("m", True), ("n", False)]
    # Records that name another model than the folder are somebody else's.
    assert "expected 'n', got 'm'" in reports[1].check("schema").summary
    (only,) = verify(copy.parent, suite=made.suite_file, model="m")
    assert only.model == "m"


def test_what_cannot_be_checked_is_said_and_is_no_mismatch(made: Any) -> None:
    report = verified(made, made.folder, lock=made.lock.with_name("absent.parquet"))
    assert report.ok
    assert report.level == "self-reported"
    for name, told in (
        ("images", "no manifest of 2 sets, such as t/a: the suite has no lock"),
        ("standard errors", "rest on clusters that no manifest here tells"),
        ("values", "rest on groups that no manifest here tells"),
    ):
        assert report.check(name).status == "not checked"
        assert told in report.check(name).summary


def test_an_earlier_version_that_differs_is_a_warning(made: Any, copy: Path) -> None:
    a_value_by_a_millionth(copy)
    report = verified(made, made.folder, results=copy.parents[1])
    check = report.check("earlier version")
    assert check.status == "warning"
    assert check.summary.startswith("1 of ")
    assert "nll" in check.summary
    assert report.level == "recomputed"
    same = verified(made, copy, results=made.folder.parents[1]).check("earlier version")
    assert same.status == "warning"


def test_the_report_is_json_and_one_line_a_check(made: Any) -> None:
    report = verified(made, made.folder)
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [check["name"] for check in told["checks"]] == [check.name for check in report.checks]
    assert len(report.to_text().splitlines()) == len(report.checks) + 1


def test_a_hostile_name_cannot_steer_a_terminal(made: Any, copy: Path) -> None:
    edit(copy, "records", lambda frame: frame.assign(task="\x1b[2J\nok"))
    text = verified(made, copy).to_text()
    assert "\x1b" not in text
    assert len(text.splitlines()) == len(verified(made, copy).checks) + 1


def test_mistakes_of_the_user_are_told(made: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="found nothing"):
        verify(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="found a file"):
        verify(tmp_path / "file")
    with pytest.raises(StoreError, match="expected a run folder or results/<suite>/<model>, found neither"):
        verify(tmp_path)
    with pytest.raises(UsageError, match="expected --suite, for no suite of ours is called 'tiny'; ours are 'digits'"):
        verify(made.folder)
    with pytest.raises(UnknownNameError, match="no results of model 'mm'; did you mean 'm'"):
        verify(made.folder.parent, suite=made.suite_file, model="mm")
    with pytest.raises(UnknownNameError, match="no work of model 'mm'; did you mean 'm'"):
        verify(made.run, suite=made.suite_file, model="mm")


def test_the_level_is_on_every_record_as_long_as_the_files_fit(made: Any, copy: Path, tmp_path: Path) -> None:
    def levels() -> set[str]:
        where: dict[str, Any] = {"run_dir": tmp_path / "none", "results": copy.parents[1]}
        scored = load_scored(made.suite, {("clean", "accuracy")}, **where)
        return {*load_results(made.suite, **where)["level"], *load_fits(made.suite, **where)["level"], *scored["level"]}

    assert levels() == {"self-reported"}
    path = write_level(copy, verified(made, copy))
    assert levels() == {"recomputed"}
    # What a maintainer says of the same files is not taken back by the workflow.
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "level": "reproduced", "by": "a maintainer"}))
    assert level_of(copy) == "reproduced"
    write_level(copy, verified(made, copy))
    assert json.loads(path.read_text())["by"] == "a maintainer"
    assert levels() == {"reproduced"}
    a_value_by_a_millionth(copy)
    assert levels() == {"self-reported"}
    with pytest.raises(VerificationError, match="not every number was recomputed: values: "):
        write_level(copy, verified(made, copy))


def test_own_work_is_self_reported(made: Any) -> None:
    assert set(load_results(made.suite, run_dir=made.run, published=False)["level"]) == {"self-reported"}


def test_the_example_suite_is_one(made: Any) -> None:
    assert tomllib.loads(made.suite_file.read_text())["name"] == load_suite(made.suite_file).name
