"""A plug-in may do anything; what it breaks is told, kept as a record, and tried again, and the rest goes on."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tlbench import api
from tlbench.errors import PluginError

HEAD = """
import os
from pathlib import Path
import torch
from torch import nn
import tlbench
from tlbench.methods.base import Fitted, Predictor

class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.ReLU()), nn.Linear(8, classes)
    def forward(self, images):
        return self.head(self.body(images))
"""

Plugin = Callable[[str], Path]


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    """Write a user's file: the class ``Net`` and what the test adds."""

    def write(text: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(HEAD + textwrap.dedent(text))
        return path

    return write


@pytest.fixture
def evaluate(blobs: Path, tmp_path: Path) -> Callable[..., tuple[api.EvaluationResult, pd.DataFrame]]:
    """Evaluate on one source, two seeds at most, and return the result with all records."""

    def run(model: Path | str, **options: object) -> tuple[api.EvaluationResult, pd.DataFrame]:
        chosen = {"seeds": [0], "only": ["source=right"], "quiet": True, "threads": 1, **options}
        result = api.evaluate(blobs, str(model), run_dir=tmp_path / "runs", **chosen)
        return result, api.load_results(blobs, run_dir=tmp_path / "runs", published=False)

    return run


def clean(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.condition == "clean"]


def test_a_plugin_that_raises_on_import_is_a_mistake_and_nothing_is_written(
    plugin: Plugin, evaluate: Callable, tmp_path: Path
) -> None:
    path = plugin("raise RuntimeError('no licence')")
    with pytest.raises(PluginError, match=r"mine.py, line \d+: RuntimeError: no licence"):
        evaluate(path)
    assert not (tmp_path / "runs").exists()


def test_a_fit_that_raises_on_one_source_leaves_the_other_alone(plugin: Plugin, evaluate: Callable) -> None:
    text = """
    class Picky(tlbench.Method):
        def fit(self, context):
            if context.source == "left":
                raise ValueError("left is\\nnot right")
            return Net(context.classes)
    """
    path = plugin(text)
    line = 1 + (HEAD + textwrap.dedent(text)).splitlines().index('            raise ValueError("left is\\nnot right")')
    result, frame = evaluate(path, only=[])
    assert not result.complete
    assert [f"fit raised ValueError: left is not right (mine.py, line {line})" in text for text in result.failures] == [
        True
    ]
    assert set(frame[frame.source == "left"].status) == {"failed"}
    assert frame[frame.source == "left"].reason.str.endswith(f"(mine.py, line {line})").all()
    assert frame[frame.source == "left"].value.isna().all()
    # One record for every setting: clean on val; clean, shift, two severities, two epsilons on test; clean and shift on
    # two targets.
    assert len(frame[frame.source == "left"]) == 1 + 6 + 2 * 2
    assert (frame[frame.source == "right"].status == "ok").any()
    assert "failed" not in set(frame[frame.source == "right"].status)

    # The source is part of a fit's id: the mended plug-in starts anew, and the old failures are not its own.
    path.write_text(path.read_text().replace('if context.source == "left"', "if False"))
    again, mended = evaluate(path, only=[], seeds=[0])
    assert again.complete
    assert "failed" not in set(mended.status)
    assert {row["source"] for row in again.table} == {"left", "right"}


@pytest.mark.parametrize("way", ["sys_exit", "wrong_type", "undeclared", "asks_for_itself"])
def test_whatever_a_fit_does_is_a_failure_with_its_reason(plugin: Plugin, evaluate: Callable, way: str) -> None:
    body, reason = {
        "sys_exit": ("raise SystemExit(3)", "fit raised SystemExit: 3"),
        "wrong_type": ("return {'net': Net(3)}", "a torch module, a Predictor or a Fitted, it returned dict"),
        "undeclared": ("context.data('target_labels')", "reads 'target_labels' and did not declare it"),
        "asks_for_itself": ("return context.fitted(self)", "odd asks for its own fit"),
    }[way]
    path = plugin(f"""
    class Odd(tlbench.Method):
        def fit(self, context):
            {body}
    """)
    result, frame = evaluate(path)
    assert len(result.failures) == 1
    assert reason in result.failures[0]
    assert set(frame.status) == {"failed"}
    assert frame.reason.str.contains(reason, regex=False).all()


def test_a_failure_is_tried_again_by_the_same_command_and_then_forgotten(
    plugin: Plugin, evaluate: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugin("""
    class Moody(tlbench.Method):
        def fit(self, context):
            if os.environ.get("MOOD") == "bad":
                raise OSError(12, "no mood")
            return Net(context.classes)
    """)
    monkeypatch.setenv("MOOD", "bad")
    result, frame = evaluate(path)
    assert (len(result.failures), result.complete) == (1, False)
    again, same = evaluate(path)
    assert len(again.failures) == 1
    pd.testing.assert_frame_equal(frame, same)
    monkeypatch.delenv("MOOD")
    better, frame = evaluate(path)
    assert (better.failures, better.complete) == ((), True)
    assert set(frame.status) <= {"ok", "not_applicable"}


def test_a_lost_measurement_whose_fit_fails_now_does_not_cost_the_others(
    plugin: Plugin, evaluate: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = plugin("""
    class Moody(tlbench.Method):
        def fit(self, context):
            if os.environ.get("MOOD") == "bad":
                raise OSError(12, "no mood")
            return Net(context.classes)
        def build(self, context, state, recipe):
            raise KeyError("mood")
    """)
    _, before = evaluate(path)
    lost = next((tmp_path / "runs").rglob("measurements/*"))
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    monkeypatch.setenv("MOOD", "bad")
    result, frame = evaluate(path)
    assert len(result.failures) == 1
    assert set(frame[frame.status == "failed"].measurement_id) == {lost.name}
    assert len(frame[frame.status == "ok"]) >= 0.5 * len(before)
    monkeypatch.delenv("MOOD")
    _, after = evaluate(path)
    pd.testing.assert_frame_equal(after, before)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        ("return self.net(images)[:, :2]", "must return outputs of shape (4, 3) for 4 images, it returned (4, 2)"),
        ("return self.net(images), 1", "it returned tuple"),
        ("return self.net(images).argmax(1, keepdim=True).expand(-1, 3)", "floating-point outputs"),
        ("return self.net(images) / self.nothing", "AttributeError: 'Odd' object has no attribute 'nothing' (mine.py"),
        ("return self.net(images - images.mean(0))", "they depend on the batch"),
    ],
)
def test_a_predictor_that_cannot_be_measured_fails_every_measurement(
    plugin: Plugin, evaluate: Callable, forward: str, reason: str
) -> None:
    path = plugin(f"""
    class Odd(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net
        def forward(self, images):
            {forward}

    class Mine(tlbench.Method):
        def fit(self, context):
            return Odd(Net(context.classes))
    """)
    result, frame = evaluate(path)
    assert not result.complete
    assert len(result.failures) == 1 + 4 + 2
    assert set(frame.status) == {"failed"}
    assert frame.reason.str.contains(reason, regex=False).all()


def test_a_detached_network_fails_under_attack_and_is_measured_clean(plugin: Plugin, evaluate: Callable) -> None:
    path = plugin("""
    class Detached(Net):
        def forward(self, images):
            with torch.no_grad():
                hidden = self.body(images)
            return self.head(hidden)

    class Mine(tlbench.Method):
        def fit(self, context):
            return Detached(context.classes)
    """)
    result, frame = evaluate(path)
    attacked = frame[frame.condition == "apgd-dlr"]
    assert set(attacked.status) == {"failed"}
    assert attacked.reason.str.contains("network is detached").all()
    assert len(result.failures) == 1
    assert set(frame[frame.condition != "apgd-dlr"].status) <= {"ok", "not_applicable"}


def test_a_detached_network_is_still_asked_by_attacks_that_follow_no_gradient(
    plugin: Plugin, blobs: Path, tmp_path: Path
) -> None:
    path = plugin("""
    class Mine(tlbench.Method):
        def fit(self, context):
            return Detached(context.classes)

    class Detached(Net):
        def forward(self, images):
            with torch.no_grad():
                return super().forward(images)
    """)
    suite = tmp_path / "mine.toml"
    tables = 'name = "square"\nqueries = 3', 'name = "foolbox-boundary"\nnorm = "l2"\nqueries = 3', 'name = "apgd-ce"'
    attack = '\n[[conditions]]\nkind = "attack"\nepsilons = [0.1]\nmax_images = 2\n'
    head = blobs.read_text().partition("[[conditions]]")[0]
    suite.write_text(head + '[[conditions]]\nkind = "clean"' + "".join(attack + table for table in tables))
    options = {"data_root": blobs.parent, "run_dir": tmp_path / "runs", "quiet": True, "threads": 1}
    result = api.evaluate(suite, str(path), seeds=[0], only=["source=right"], **options)
    (failure,) = result.failures
    assert "apgd-ce: the outputs carry no gradient" in failure
    assert "or declare Predictor(module, differentiable=False): what needs a gradient does not apply then" in failure
    frame = api.load_results(suite, run_dir=tmp_path / "runs", published=False)
    statuses = frame.groupby("condition").status.agg(set).to_dict()
    assert statuses["apgd-ce"] == {"failed"}
    assert "failed" not in statuses["square"] | statuses["foolbox-boundary"]
    assert {"ok"} <= statuses["square"] & statuses["foolbox-boundary"]


def test_nan_on_some_images_fails_the_sets_that_hold_them(plugin: Plugin, evaluate: Callable) -> None:
    path = plugin("""
    class Dim(Net):
        def forward(self, images):
            dark = images.amax(dim=(1, 2, 3), keepdim=False)[:, None] < 0.7
            return super().forward(images).masked_fill(dark, float("nan"))

    class Mine(tlbench.Method):
        def fit(self, context):
            return Predictor(Dim(context.classes), differentiable=False)
    """)
    result, frame = evaluate(path)
    assert set(clean(frame[frame.target == "right"]).status) <= {"ok", "not_applicable"}
    dark = clean(frame[frame.target == "dark"])
    assert set(dark.status) == {"failed"}
    assert dark.reason.str.fullmatch(r"the predictor returned NaN for \d+ of \d+ images").all()
    assert any("right to dark (ood-test): clean: the predictor returned NaN" in line for line in result.failures)
    # Without clean predictions there is nothing to be consistent with.
    assert "clean predictions" in frame[(frame.target == "dark") & (frame.condition == "shift")].reason.iloc[0]


def test_what_does_not_apply_is_said_and_not_tried_again(plugin: Plugin, evaluate: Callable, tmp_path: Path) -> None:
    path = plugin("""
    class Scored(tlbench.Method):
        def fit(self, context):
            return Predictor(Net(context.classes), output="scores", differentiable=False)
    """)
    result, frame = evaluate(path)
    assert (result.complete, result.failures) == (True, ())
    by_metric = clean(frame[frame.role == "id-test"]).set_index("metric")
    assert by_metric.status["accuracy"] == "ok"
    assert by_metric.status["ece"] == by_metric.status["nll"] == "not_applicable"
    assert by_metric.reason["ece"] == "needs probabilities"
    attacked = frame[frame.condition == "apgd-dlr"]
    assert attacked.status.tolist() == ["not_applicable"] * 2
    assert attacked.reason.tolist() == ["needs gradients, the predictor has none"] * 2


def test_an_unmet_requirement_is_found_before_any_compute(plugin: Plugin, evaluate: Callable, tmp_path: Path) -> None:
    path = plugin("""
    class Prompted(tlbench.Method):
        requires = frozenset({"transformer"})
        def fit(self, context):
            Path(__file__).with_name("touched").touch()
            return Net(context.classes)
    """)
    result, frame = evaluate(path)
    assert (result.complete, result.failures) == (True, ())
    assert set(frame.status) == {"not_applicable"}
    assert set(frame.reason) == {"needs a backbone with transformer, small-cnn has none"}
    assert set(frame.condition) == {"clean", "shift", "contrast", "apgd-dlr"}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.parquet")}
    evaluate(path)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.parquet")} == stamps
    assert not (tmp_path / "touched").exists()


def test_data_that_no_suite_gives_yet_makes_a_method_not_applicable(plugin: Plugin, evaluate: Callable) -> None:
    path = plugin("""
    class Textual(tlbench.Method):
        reads = frozenset({"id_train", "class_text"})
        def fit(self, context):
            return Net(context.classes)
    """)
    _, frame = evaluate(path)
    assert set(frame.reason) == {"reads 'class_text', which the suite does not give"}
    assert set(frame.protocol) == {"text"}


def test_several_variants_are_measured_one_alive_at_a_time_and_one_is_ranked(
    plugin: Plugin, evaluate: Callable, tmp_path: Path
) -> None:
    path = plugin("""
    ALIVE = []

    class Counted(Net):
        def __init__(self, classes):
            super().__init__(classes)
            import weakref
            ALIVE.append(weakref.ref(self))
            living = sum(ref() is not None for ref in ALIVE)
            with Path(__file__).with_name("alive").open("a") as file:
                file.write(f"{living} ")

    class Two(tlbench.Method):
        def fit(self, context):
            state = {name: tensor.clone() for name, tensor in Net(context.classes).state_dict().items()}
            return self.build(context, state, {"scales": [1.0, 2.0]})
        def build(self, context, state, recipe):
            def variant(scale):
                def made():
                    net = Counted(context.classes)
                    net.load_state_dict({**state, "head.weight": state["head.weight"] * scale})
                    return Predictor(net)
                return made
            one, two = recipe["scales"]
            return Fitted({"plain": variant(one), "sharp": variant(two)}, "sharp", state, recipe)
    """)
    result, frame = evaluate(path)
    assert (result.complete, result.failures) == (True, ())
    assert set(zip(frame.variant, frame.headline, strict=True)) == {("plain", False), ("sharp", True)}
    sharp, plain = (clean(frame[(frame.variant == name) & (frame.role == "id-test")]) for name in ("sharp", "plain"))
    assert sharp.metric.tolist() == plain.metric.tolist()
    assert sharp.set_index("metric").value["nll"] != plain.set_index("metric").value["nll"]
    # Two at a time only where the rebuilt one is compared with the fitted one.
    assert set((tmp_path / "alive").read_text().split()) <= {"1", "2"}
    again, same = evaluate(path)
    assert again.complete
    pd.testing.assert_frame_equal(frame, same)


def test_a_network_of_ones_own_without_build_is_fitted_again_when_needed_and_says_so(
    plugin: Plugin, evaluate: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plugin("""
    class Own(tlbench.Method):
        def fit(self, context):
            with Path(__file__).with_name("fits").open("a") as file:
                file.write(".")
            return Net(context.classes)
    """)
    _, before = evaluate(path, quiet=False)
    assert "this fit cannot be rebuilt and is repeated when needed again (RuntimeError:" in capsys.readouterr().err
    evaluate(path)
    assert (tmp_path / "fits").read_text() == "."
    lost = next((tmp_path / "runs").rglob("measurements/*"))
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    _, after = evaluate(path, quiet=False)
    assert (tmp_path / "fits").read_text() == ".."
    assert "it is fitted again" in capsys.readouterr().err
    pd.testing.assert_frame_equal(before, after)


def test_a_plugin_is_known_by_its_text_and_not_by_its_folder(
    plugin: Plugin, evaluate: Callable, tmp_path: Path
) -> None:
    path = plugin("""
    class Mine(tlbench.Method):
        def fit(self, context):
            return Net(context.classes)
    """)
    elsewhere = tmp_path / "elsewhere" / "mine.py"
    elsewhere.parent.mkdir()
    elsewhere.write_text(path.read_text())
    _, before = evaluate(path)
    _, after = evaluate(elsewhere)
    pd.testing.assert_frame_equal(before, after)
    elsewhere.write_text(path.read_text() + "# another\n")
    _, changed = evaluate(elsewhere)
    assert changed.fit_id.nunique() == 2


def test_nan_on_id_val_costs_the_temperature_and_not_the_other_sets(plugin: Plugin, evaluate: Callable) -> None:
    path = plugin("""
    class Mine(tlbench.Method):
        def fit(self, context):
            class Blind(Net):
                def forward(self, images):
                    same = (images == last).flatten(1).all(dim=1, keepdim=True)
                    return super().forward(images).masked_fill(same, float("nan"))
            last = list(context.data("id_val").batches(1))[-1].images
            return Predictor(Blind(context.classes), differentiable=False)
    """)
    result, frame = evaluate(path)
    assert [line.partition(": ")[2] for line in result.failures] == [
        "clean: the predictor returned NaN for 1 of 18 images"
    ]
    tested = clean(frame[frame.role == "id-test"]).set_index("metric")
    assert tested.status["accuracy"] == tested.status["ece"] == "ok"
    assert tested.status["ece_scaled"] == "not_applicable"


def test_a_damaged_fit_is_made_again_and_stays_mended(evaluate: Callable, tmp_path: Path) -> None:
    _, before = evaluate("finetune")
    state = next((tmp_path / "runs").rglob("state.safetensors"))
    whole = state.read_bytes()
    state.write_bytes(whole[: len(whole) // 2])
    lost = next((tmp_path / "runs").rglob("measurements/*"))
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    result, after = evaluate("finetune")
    assert (result.complete, result.failures) == (True, ())
    pd.testing.assert_frame_equal(before, after)
    assert state.read_bytes() == whole
