"""All questions of one table: refusals, order of rows, files, page, and the results that are published."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tlbench
from tlbench.analysis.questions import QUESTIONS, ask
from tlbench.analysis.runs import Runs
from tlbench.api import analyze
from tlbench.cli import main
from tlbench.errors import UnknownNameError, UsageError
from tlbench.report.analysis_page import check_out, write_analysis


def _published(count: int) -> pd.DataFrame:
    return pd.DataFrame({"backbone": [f"backbone{b}" for b in range(count)], "accuracy": 0.5 + 0.03 * np.arange(count)})


@pytest.fixture(scope="module")
def runs(simulated: ModuleType) -> pd.DataFrame:
    shapes = {("t", *pair): simulated.RISING for pair in ("ab", "ba", "ca", "cb", "da", "ea")}
    world = simulated.World(
        backbones=10, methods=1, shape_of=shapes, augment_effect={"augmix": 0.2}, regimes=True, epochs=(10, 100)
    )
    return simulated.simulate(world)


def _ask(runs: pd.DataFrame, question: str) -> Any:
    table = Runs(runs, pd.DataFrame(), ())
    return ask(table, suite="s", questions=[question], published=_published(10), draws=10).answers[question]


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_question_has_an_answer_and_the_order_of_rows_makes_no_difference(
    runs: pd.DataFrame, question: str
) -> None:
    answer = _ask(runs, question)
    assert not answer.too_small
    assert answer.sentence.endswith(".")
    again = _ask(runs.sample(frac=1, random_state=0), question)
    assert again.sentence == answer.sentence
    for name, table in answer.tables.items():
        assert len(table)
        pd.testing.assert_frame_equal(again.tables[name], table, check_exact=False, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("question", [name for name in QUESTIONS if name != "A17"])
def test_four_models_are_too_few_for_any_number(simulated: ModuleType, question: str) -> None:
    world = simulated.World(backbones=2, methods=2, seeds=1, augment_effect={"augmix": 0.2}, regimes=True)
    answer = _ask(simulated.simulate(world), question)
    assert answer.too_small
    assert not answer.tables
    assert answer.sentence == f"Not answered: {answer.too_small}."


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_runs_at_all_are_told(runs: pd.DataFrame, question: str) -> None:
    assert _ask(runs.iloc[:0], question).too_small


def test_an_unknown_question_is_told_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="A1 to A17"):
        analyze("digits", questions=["A18"])


def test_tables_figures_and_a_page_are_written_and_read_back(runs: pd.DataFrame, tmp_path: Path) -> None:
    hostile = runs.replace({"target": {"b": "<script>alert(1)</script>"}})
    asked = ask(Runs(hostile, pd.DataFrame(), ("a <b>note</b>",)), suite="s", questions=["A1", "A3", "A15"], draws=20)
    files = write_analysis(asked, tmp_path)
    assert files[0] == tmp_path / "index.html"
    assert {path.suffix for path in files} == {".html", ".csv", ".parquet", ".json", ".svg", ".png"}
    table = asked.answers["A1"].tables["pairs"]
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "A1" / "pairs.parquet"), table)
    again = pd.read_csv(tmp_path / "A1" / "pairs.csv")
    assert again["spearman"].tolist() == table["spearman"].tolist()
    page = files[0].read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "a &lt;b&gt;note" in page
    for name in ("a1-pairs-spearman", "a3-scatter", "a15-ood-accuracy"):
        assert (tmp_path / "figures" / f"{name}.svg").is_file()
        assert f'id="{name}-title"' in page
    assert json.loads((tmp_path / "answers.json").read_text())["answers"][0]["id"] == "A1"


def test_the_published_digits_are_analysed(tmp_path: Path) -> None:
    """Warnings are errors here."""
    found = analyze("digits", run_dir=tmp_path, draws=50)
    frame = found.frame.set_index("id")
    assert list(frame.index) == list(QUESTIONS)
    assert frame.loc["A1", "answered"]
    assert not frame.loc["A14", "answered"]
    assert any("majority" in note for note in found.notes)
    assert not {"majority", "random-features", "shuffled-labels"} & set(found.runs["model"])
    assert len(found.answers["A1"].tables["pairs"]) == 12


def test_the_command_prints_sentences_and_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["analyze", "--suite", "digits", "--question", "a2"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("A2  Is there a pair")
    assert len(shown.out.splitlines()) > 12
    assert "controls are left out" in shown.err


def test_the_command_prints_json_and_loads_no_torch(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(tlbench.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    words = ["analyze", "--suite", "digits", "--question", "A2", "--json"]
    code = f"import sys; from tlbench.cli import main; main({words}); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert json.loads(done.stdout)["answers"][0]["id"] == "A2"


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--question", "B1"], ["--run-dir", str(tmp_path / "none")], ["--upstream", str(tmp_path / "x.csv")]):
        assert main(["analyze", "--suite", "digits", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_of_somebody_elses_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("mine")
    for place, told in (("mine", "found 'index.html'"), ("mine/index.html", "found a file"), ("/proc/x", "cannot be")):
        with pytest.raises(UsageError, match=told):
            check_out(tmp_path / place)
    check_out(tmp_path / "new")
    (tmp_path / "new" / "index.html").write_text("of an analysis")
    check_out(tmp_path / "new")
