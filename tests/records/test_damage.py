"""One damaged folder of published results takes no other row with it, and is never left out in silence."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tlbench.cli import main
from tlbench.errors import LeftOutWarning, StoreError
from tlbench.leaderboard.board import make_board, needed
from tlbench.leaderboard.measured import load_measured
from tlbench.leaderboard.rows import rows_of_board
from tlbench.leaderboard.tables import load_fits, load_predictions, load_priced, load_results, load_scored
from tlbench.records import published
from tlbench.records.damage import survey
from tlbench.records.inventory import INVENTORY, FileFact, read_inventory
from tlbench.records.published import published_folder, published_models
from tlbench.report.content import read_content
from tlbench.suites.load import load_suite

pytestmark = pytest.mark.skipif(not published_models("digits"), reason="no published results in this checkout")

SOUND, DAMAGED = "majority", "random-features"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two published models, in a place where one of them may be damaged."""
    for model in (SOUND, DAMAGED):
        shutil.copytree(published_folder() / "digits" / model, tmp_path / "results" / "digits" / model)
    return tmp_path / "results"


def sign(folder: Path) -> None:
    """State the hashes that the files have now: what is damaged then is what they hold."""
    inventory = read_inventory(folder)
    assert inventory is not None
    files = {name: FileFact.of(folder / name) for name in inventory.files}
    (folder / INVENTORY).write_text(inventory.model_copy(update={"files": files}).to_json())


def records_overwritten_in_the_middle(folder: Path) -> None:
    path = folder / "records.parquet"
    content = bytearray(path.read_bytes())
    content[2000:2100] = bytes(100)
    path.write_bytes(bytes(content))


def records_cut_off_and_signed(folder: Path) -> None:
    (folder / "records.parquet").write_bytes((folder / "records.parquet").read_bytes()[:-100])
    sign(folder)


def no_records(folder: Path) -> None:
    (folder / "records.parquet").unlink()


def no_fits(folder: Path) -> None:
    (folder / "fits.parquet").unlink()


def a_bit_of_the_predictions(folder: Path) -> None:
    path = folder / "predictions.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def a_card_that_is_no_toml(folder: Path) -> None:
    (folder / "card.toml").write_text("name = [")
    sign(folder)


def an_inventory_that_is_no_json(folder: Path) -> None:
    (folder / INVENTORY).write_text("{")


def a_column_left_out(folder: Path) -> None:
    path = folder / "outcomes.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["correct"]), path)
    sign(folder)


def rows_of_another_model(folder: Path) -> None:
    shutil.copy(folder.parent / SOUND / "fits.parquet", folder / "fits.parquet")
    sign(folder)


def a_table_without_an_inventory(folder: Path) -> None:
    (folder / INVENTORY).unlink()
    (folder / "predictions.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")


def a_link(folder: Path) -> None:
    folder.rename(folder.parents[2] / "elsewhere")
    folder.symlink_to(folder.parents[2] / "elsewhere")


DAMAGES: dict[Callable[[Path], None], str] = {
    records_overwritten_in_the_middle: "records.parquet: its bytes are not those whose hash submission.json states",
    records_cut_off_and_signed: "records.parquet: not a readable Parquet file",
    no_records: "records.parquet: named in submission.json, and not in the folder",
    no_fits: "fits.parquet: named in submission.json, and not in the folder",
    a_bit_of_the_predictions: "predictions.parquet: its bytes are not those whose hash submission.json states",
    a_card_that_is_no_toml: "card.toml: expected TOML",
    an_inventory_that_is_no_json: "submission.json: expected JSON",
    a_column_left_out: "outcomes.parquet: column 'correct' is missing",
    rows_of_another_model: "fits.parquet: column 'model': expected 'random-features', got 'majority'",
    a_table_without_an_inventory: "predictions.parquet: not a readable Parquet file",
    a_link: "expected a folder, got a link",
}


@pytest.mark.parametrize(("how", "problem"), DAMAGES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_folder_is_found_and_named(results: Path, how: Callable[[Path], None], problem: str) -> None:
    assert [one.model for one in survey("digits", folder=results).sound] == [SOUND, DAMAGED]
    how(results / "digits" / DAMAGED)
    found = survey("digits", folder=results)
    assert [one.model for one in found.sound] == [SOUND]
    (damaged,) = found.damaged
    assert damaged.problem.startswith(problem)
    assert damaged.told().startswith(f"{results / 'digits' / DAMAGED}: {problem}")
    assert damaged.told().endswith(f"tlbench verify {results / 'digits' / DAMAGED} tells all")
    assert str(results) not in damaged.note()


def test_the_other_rows_are_read_and_what_is_left_out_is_told(results: Path, tmp_path: Path) -> None:
    records_overwritten_in_the_middle(results / "digits" / DAMAGED)
    suite = load_suite("digits")
    place = {"run_dir": tmp_path / "none", "results": results}
    for load in (
        load_results,
        load_fits,
        load_priced,
        lambda suite, **where: load_scored(suite, needed(suite), **where),
    ):
        with pytest.warns(LeftOutWarning, match="random-features' is left out; tlbench verify "):
            frame = load(suite, **place)
        assert set(frame["model"]) == {SOUND}
        assert any("'random-features' are damaged and left out" in note for note in frame.attrs["notes"])


def test_the_board_and_its_json_name_it(results: Path, tmp_path: Path) -> None:
    no_fits(results / "digits" / DAMAGED)
    suite = load_suite("digits")
    place = {"run_dir": tmp_path / "none", "results": results}
    with pytest.warns(LeftOutWarning):
        records, fits = load_scored(suite, needed(suite), **place), load_priced(suite, **place)
    measured = load_measured(suite, records=records, **place)
    board = make_board(records, fits, suite, measured=measured)
    assert set(board.frame["model"]) == {SOUND}
    (note,) = [note for note in json.loads(board.to_text("json"))["notes"] if "damaged" in note]
    assert note.startswith("the published results of 'random-features' are damaged and left out: fits.parquet: ")
    assert note in board.to_text("markdown").replace("\\", "")
    with pytest.warns(LeftOutWarning):
        content = read_content(suite, {"accuracy": board}, **place)
    assert set(content.records["model"]) == {SOUND}
    with pytest.warns(LeftOutWarning):
        rows, notes = rows_of_board(suite, **place)
    assert ({row.model for row in rows}, note in notes) == ({SOUND}, True)


def test_who_asks_for_the_damaged_model_itself_is_told_what_is_wrong(results: Path, tmp_path: Path) -> None:
    records_overwritten_in_the_middle(results / "digits" / DAMAGED)
    with pytest.raises(StoreError, match=r"random-features: records\.parquet: its bytes are not those"):
        load_predictions("digits", DAMAGED, run_dir=tmp_path / "none", results=results)


def test_a_board_of_damaged_folders_alone_is_an_error(results: Path, tmp_path: Path) -> None:
    for model in (SOUND, DAMAGED):
        no_records(results / "digits" / model)
    for load in (load_results, load_fits):
        with pytest.raises(StoreError, match=r"majority: records\.parquet: .*; so are 1 more, and nothing else is"):
            load("digits", run_dir=tmp_path / "none", results=results)


def test_a_folder_that_is_mended_is_read_again(results: Path) -> None:
    path = results / "digits" / DAMAGED / "records.parquet"
    whole = path.read_bytes()
    records_overwritten_in_the_middle(path.parent)
    assert len(survey("digits", folder=results).damaged) == 1
    path.write_bytes(whole)
    assert survey("digits", folder=results).damaged == ()


def test_what_is_no_submission_at_all_is_no_damage(results: Path) -> None:
    (results / "digits" / "notes").mkdir()
    (results / "digits" / "notes" / "todo.txt").write_text("x")
    (results / "digits" / ".half").mkdir()
    (results / "digits" / ".half" / "card.toml").write_text("[")
    assert survey("digits", folder=results).damaged == ()


def test_the_command_line_tells_it_in_one_line(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records_overwritten_in_the_middle(results / "digits" / DAMAGED)
    monkeypatch.setattr(published, "published_folder", lambda: results)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["leaderboard", "--suite", "digits", "--json"]) == 0
    out, err = capsys.readouterr()
    assert {row["model"] for row in json.loads(out)["rows"]} == {SOUND}
    lines = err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: {results / 'digits' / DAMAGED}: records.parquet: ")
    no_records(results / "digits" / SOUND)
    assert main(["leaderboard", "--suite", "digits"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
