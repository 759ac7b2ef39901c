"""Several predictors of one fit: everything is measured on the ranked one, clean sets on the others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import Tensor, nn

from tlbench import api
from tlbench.cli import main
from tlbench.engine.session import open_session
from tlbench.methods.base import Context, Fitted, Method, Predictor
from tlbench.methods.linear_probe import LinearProbe
from tlbench.suites.load import load_suite


class Twice(Method):
    """A probe, and a probe with a heavier penalty."""

    def fit(self, context: Context) -> Fitted:
        nets = [context.fitted(LinearProbe(penalties=(penalty,))).predictor().module for penalty in (0.01, 10.0)]
        state = {f"{i}/{name}": value for i, net in enumerate(nets) for name, value in net.state_dict().items()}
        return self.build(context, state, {})

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        def network(i: int) -> Predictor:
            net = context.backbone.fresh(context.classes)
            net.load_state_dict({name[2:]: value for name, value in state.items() if name.startswith(f"{i}/")})
            return Predictor(net.eval())

        variants = {"main": lambda: network(0), "heavy": lambda: network(1)}
        return Fitted(variants, headline="main", state=state)


def kinds(frame: pd.DataFrame, variant: str) -> set[str]:
    return set(frame.query(f"variant == '{variant}' and source == 'left'").condition)


@pytest.fixture(scope="module")
def run_dir(blobs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    result = api.evaluate(blobs, Twice(), run_dir=folder, seeds=[0], quiet=True, threads=1)
    assert (result.complete, result.failures) == (True, ())
    return folder


def test_the_unranked_are_measured_on_clean_sets_alone(blobs: Path, run_dir: Path) -> None:
    frame = api.load_results(blobs, run_dir=run_dir, published=False)
    assert kinds(frame, "main") == {"clean", "shift", "contrast", "apgd-dlr"}
    assert kinds(frame, "heavy") == {"clean"}
    assert {"id-val", "id-test", "ood-test"} == set(frame.query("variant == 'heavy'").role)


def test_progress_counts_every_variant_and_what_is_taken_over(blobs: Path, run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "runs")
    for folder, name in ((tmp_path / "new", None), (tmp_path / "runs", "equal")):
        asked: dict[str, Any] = {"run_dir": folder, "selection": {"seeds": (0,)}, "metrics": ["accuracy"], "threads": 1}
        session = open_session(blobs, Twice(), name=name, quiet=True, **asked)
        session.run()
        # Two variants; ID-val and ID-test of two sources, and three pairs.
        assert (session.work.reporter.done, session.work.reporter.total) == (14, 14)


def test_asked_for_all_of_them_it_measures_what_is_missing(blobs: Path, run_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(run_dir, tmp_path / "runs")
    run_dir = tmp_path / "runs"
    asked = {"run_dir": run_dir, "seeds": [0], "quiet": True, "threads": 1}
    assert api.evaluate(blobs, Twice(), all_variants=True, **asked).complete
    frame = api.load_results(blobs, run_dir=run_dir, published=False)
    assert kinds(frame, "heavy") == kinds(frame, "main")
    before = api.load_results(blobs, run_dir=tmp_path / "runs", published=False)
    assert api.evaluate(blobs, Twice(), **asked).complete
    pd.testing.assert_frame_equal(api.load_results(blobs, run_dir=run_dir, published=False), before)


def test_both_stand_on_the_board(blobs: Path, run_dir: Path) -> None:
    board = api.leaderboard(blobs, run_dir=run_dir, published=False)
    rows = board.frame.set_index("name")
    assert rows.standing.to_dict() == {"twice": "unranked", "twice/heavy": "variant"}
    assert rows.seeds.to_dict() == {"twice": "1 of 2", "twice/heavy": "1 of 2"}
    text = board.to_text("markdown")
    assert "**Variants, never ranked**" in text
    assert "twice is not ranked: 1 of 2 seeds" in text


def raised(blobs: Path, folder: Path, *changes: tuple[str, str]) -> Path:
    text = blobs.read_text()
    for old, new in (('name = "blobs"\n', 'name = "blobs"\nversion = 2\n'), *changes):
        assert old in text
        text = text.replace(old, new)
    folder.mkdir()
    (folder / "blobs").symlink_to(blobs.parent / "blobs")
    (folder / "blobs.toml").write_text(text)
    return folder / "blobs.toml"


def measured_anew(suite: Path, run_dir: Path) -> int:
    """Return how many measurements took time."""
    folder = next(run_dir.glob(f"blobs-{load_suite(suite).hash[:12]}"))
    lines = (folder / "models" / "linear-probe" / "seconds.txt").read_text().split("\n")
    return sum(float(line.split()[1]) > 0 for line in lines if line)


def test_a_new_version_of_a_suite_takes_over_what_did_not_change(blobs: Path, tmp_path: Path) -> None:
    asked = {"run_dir": tmp_path / "runs", "quiet": True, "threads": 1}
    api.evaluate(blobs, "linear-probe", **asked)
    second = raised(blobs, tmp_path / "second", ("severities = [1, 5]", "severities = [1, 4]"))
    assert load_suite(second).hash != load_suite(blobs).hash
    result = api.evaluate(second, "linear-probe", **asked)
    assert result.complete
    assert measured_anew(second, tmp_path / "runs") == 2  # the corruption of two sources
    now = api.load_results(second, run_dir=tmp_path / "runs", published=False)
    assert set(now.suite_hash) == {load_suite(second).hash}
    assert set(now.suite_version) == {2}
    fresh = {**asked, "run_dir": tmp_path / "fresh"}
    api.evaluate(second, "linear-probe", **fresh)
    columns = ["source", "target", "role", "condition", "severity", "epsilon", "metric"]
    frames = [
        api.load_results(second, run_dir=run_dir, published=False).sort_values(columns, ignore_index=True)
        for run_dir in (tmp_path / "runs", tmp_path / "fresh")
    ]
    pd.testing.assert_frame_equal(*frames)


def test_numbers_counted_by_other_bins_are_not_taken_over(blobs: Path, tmp_path: Path) -> None:
    asked = {"run_dir": tmp_path / "runs", "quiet": True, "threads": 1, "metrics": ["accuracy"]}
    api.evaluate(blobs, "linear-probe", **asked)
    second = raised(blobs, tmp_path / "second", ("[tasks.blobs]", "[metrics]\nece_bins = 7\n\n[tasks.blobs]"))
    api.evaluate(second, "linear-probe", **asked)
    assert measured_anew(second, tmp_path / "runs") > 2


class OtherSeed(Method):
    """What a fine-tuned network of another seed is."""

    repeat: int = 1

    def fit(self, context: Context) -> nn.Module:
        return context.fitted("finetune", repeat=self.repeat).predictor().module


def test_a_fit_of_another_seed_is_the_one_that_a_run_of_that_seed_makes(blobs: Path, tmp_path: Path) -> None:
    asked = {"quiet": True, "threads": 1, "metrics": ["accuracy"], "only": "source=right"}
    api.evaluate(blobs, "finetune", run_dir=tmp_path, seeds=[0, 1], **asked)
    result = api.evaluate(blobs, OtherSeed(), run_dir=tmp_path, seeds=[0], **asked)
    assert result.failures == ()
    frame = api.load_results(blobs, run_dir=tmp_path, published=False).query("metric == 'nll'")
    by_model = {
        key: rows.set_index(["target", "role"]).value.sort_index()
        for key, rows in frame.groupby(["model", "seed"], sort=False)
    }
    pd.testing.assert_series_equal(by_model["other-seed", 0], by_model["finetune", 1])
    assert not by_model["finetune", 0].equals(by_model["finetune", 1])
    fits = list(next(tmp_path.glob("blobs-*")).glob("fits/*"))
    assert len(fits) == 3  # two seeds, and what another seed is: nothing was fitted twice


def test_a_method_that_does_not_apply_says_so_every_time(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--suite", str(blobs), "--model", "lora", "--seeds", "0", "--run-dir", str(tmp_path)]
    for more in ([], [], ["--quiet"]):
        assert main([*words, *more]) == 0
        told = capsys.readouterr().err
        assert "lora does not apply to blobs/left, blobs/right: lora adapts" in told
        assert told.count("does not apply") == 1
    assert main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["not_applicable"]) == 1


def test_a_row_of_one_seed_is_submitted_when_asked_for_and_stands_unranked(
    blobs: Path, run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["submit", str(run_dir), "--suite", str(blobs), "--model", "twice", "--results", str(tmp_path)]
    assert main(words) != 0
    assert "--allow-incomplete publishes it as it is, unranked" in capsys.readouterr().err
    assert main([*words, "--allow-incomplete"]) == 0
    assert (tmp_path / "blobs" / "twice" / "records.parquet").exists()


def test_a_wrapping_method_is_submitted_by_its_own_name(
    blobs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"run_dir": tmp_path, "quiet": True, "threads": 1, "metrics": ["accuracy"]}
    api.evaluate(blobs, "temperature", **asked)
    words = ["submit", str(tmp_path), "--suite", str(blobs), "--results", str(tmp_path / "results")]
    assert main([*words, "--model", "temperature", "--allow-incomplete"]) == 0
    assert (tmp_path / "results" / "blobs" / "temperature(linear-probe)").is_dir()
