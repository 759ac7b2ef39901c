"""A suite is held against what can be made of it before any compute; what is missing here stops only who needs it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from tlbench import api
from tlbench.cli import main
from tlbench.cli.showing_result import result_as_json
from tlbench.conditions.corruptions import frost
from tlbench.errors import DataError, SuiteError
from tlbench.suites.load import load_suite

WITH_PHOTOGRAPHS = pytest.mark.skipif(find_spec(frost.PACKAGE) is None, reason="the photographs of frost are not here")
FROST = 'kind = "corruption"\nname = "frost"\nseverities = [3]\ntable = 32'

SuiteOf = Callable[..., Path]


@pytest.fixture
def suite_of(blobs: Path, tmp_path: Path) -> SuiteOf:
    """Write the suite of blobs with some conditions beside the clean one."""

    def write(*conditions: str) -> Path:
        head = blobs.read_text().partition("[[conditions]]")[0]
        tables = ['kind = "clean"', *conditions]
        path = tmp_path / "mine.toml"
        path.write_text(head + "\n".join(f"[[conditions]]\n{table}" for table in tables))
        return path

    return write


def without_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frost, "find_spec", lambda name: None)


MISTAKES = [
    ('kind = "attack"\nname = "foolbox-l2-pgd"\nepsilons = [0.1]', r"attack 'foolbox-l2-pgd': .*write norm = \"l2\""),
    ('kind = "attack"\nname = "foolbox-boundary"\nepsilons = [0.1]', r"attack 'foolbox-boundary'.*write norm = \"l2\""),
    ('kind = "attack"\nname = "square"\nepsilons = [0.1]\nrestarts = 2', "attack 'square': it runs once, not 2 times"),
    (
        'kind = "attack"\nname = "apgd-ce"\nepsilons = [0.1]\ntargets = 4',
        "attack 'apgd-ce': 'targets' means nothing to",
    ),
    (
        'kind = "attack"\nname = "fab-t"\nepsilons = [0.1]\nqueries = 4',
        "attack 'fab-t': 'queries' means nothing to fab-t",
    ),
    ('kind = "corruption"\nname = "fog"', "corruption 'fog': .* not 16; name the table to use"),
]


@pytest.mark.parametrize(("table", "said"), MISTAKES)
def test_a_condition_that_cannot_be_made_is_told_before_anything_is_written(
    suite_of: SuiteOf, blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, said: str
) -> None:
    # The second entry stands for two conditions, so the third of the file is the fourth of the suite.
    path = suite_of('kind = "corruption"\ntypes = ["contrast", "brightness"]\ntable = 32', table)
    options = {"data_root": blobs.parent, "run_dir": tmp_path / "runs"}
    place = r"mine\.toml, conditions, entry 3: "
    for work in (lambda: api.evaluate(path, "ncm", quiet=True, **options), lambda: api.plan(path, "ncm", **options)):
        with pytest.raises(SuiteError, match=place + said):
            work()
    assert not (tmp_path / "runs").exists()
    assert main(["suites", "validate", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "mine.toml, conditions, entry 3: " in err


def test_a_suite_that_is_no_file_is_told_by_its_name(suite_of: SuiteOf, blobs: Path) -> None:
    suite = load_suite(suite_of(MISTAKES[0][0]))
    with pytest.raises(SuiteError, match="suite 'blobs', conditions, entry 2: attack 'foolbox-l2-pgd'"):
        api.plan(suite, "ncm", data_root=blobs.parent)


def test_frost_without_its_package_stops_only_who_would_measure_it(
    suite_of: SuiteOf, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_photographs(monkeypatch)
    path, run_dir = suite_of(FROST), tmp_path / "runs"
    options = {"data_root": blobs.parent, "run_dir": run_dir, "only": ["source=right"], "quiet": True, "threads": 1}
    with pytest.raises(DataError, match="or use the type 'frost-generated'"):
        api.evaluate(path, "ncm", **options)
    assert not run_dir.exists()
    assert api.evaluate(path, "ncm", metrics=["accuracy"], **options).complete


@WITH_PHOTOGRAPHS
def test_frost_that_is_stored_needs_no_package(
    suite_of: SuiteOf, blobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, run_dir = suite_of(FROST), tmp_path / "runs"
    options = {"data_root": blobs.parent, "run_dir": run_dir, "only": ["source=right"], "quiet": True, "threads": 1}
    assert api.evaluate(path, "ncm", **options).complete
    without_photographs(monkeypatch)
    assert api.evaluate(path, "ncm", **options).complete
    assert api.evaluate(path, "ncm", name="again", **options).complete
    assert not api.plan(path, "ncm", probe=False, **{k: options[k] for k in ("data_root", "run_dir", "only")}).notes[1:]


def test_frost_without_its_package_is_a_note_of_plan_and_of_validate(
    suite_of: SuiteOf,
    blobs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    without_photographs(monkeypatch)
    path = suite_of(FROST)
    options = {"data_root": blobs.parent, "run_dir": tmp_path / "runs", "probe": False}
    way_out = "pip install --no-deps imagecorruptions-imaug"
    assert any(way_out in note for note in api.plan(path, "ncm", **options).notes)
    assert not any(way_out in note for note in api.plan(path, "ncm", metrics=["accuracy"], **options).notes)
    assert main(["suites", "validate", str(path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{path}: a suite of 1 task(s)")
    assert err.startswith("note: corruption 'frost'")
    assert way_out in err


def test_frost_without_its_package_is_probed_all_the_same(
    suite_of: SuiteOf, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tlbench.engine import probe

    without_photographs(monkeypatch)
    monkeypatch.setattr(probe, "_TIMED_SECONDS", 0.0)
    spec = load_suite(suite_of(FROST)).conditions[1]
    found = probe._condition_speed(spec, probe._images(2, 16), 16)
    assert found.keys() == {"frost"}
    assert found["frost"] > 0


def test_what_an_attack_has_to_tell_is_returned(suite_of: SuiteOf, blobs: Path, tmp_path: Path) -> None:
    path = suite_of(
        'kind = "attack"\nname = "autoattack"\nepsilons = [0.5]\nsteps = 2\nqueries = 3\nroles = ["id-test"]\n'
        "max_images = 3"
    )
    options = {"data_root": blobs.parent, "only": ["source=right"], "quiet": True, "threads": 1}
    result = api.evaluate(path, "linear-probe", run_dir=tmp_path, **options)
    assert result.complete
    assert len(result.notes) == 1
    assert result.notes[0].startswith("linear-probe, right to right (id-test): autoattack: ")
    assert result_as_json(result)["notes"] == list(result.notes)
    # Nothing was made, so there is nothing to tell.
    assert api.evaluate(path, "linear-probe", run_dir=tmp_path, **options).notes == ()
