"""Settings and places in which a method cannot work: one line before any training, whatever the method."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tlbench
from tlbench import registry
from tlbench.cli import main
from tlbench.engine.fitting import unmet_need
from tlbench.errors import TlbenchError, UnknownNameError, UsageError
from tlbench.methods.base import Method
from tlbench.methods.finetune import Finetune, given
from tlbench.methods.from_scratch import FASTER
from tlbench.methods.resolve import example_of, resolve_model
from tlbench.methods.settings import declared, in_words, type_of
from tlbench.models.zoo import load_backbone
from tlbench.suites.spec import Recipe

NAMES = registry.names("methods")
SUITE = """
name = "dots"
[protocol]
image_size = 16
seeds = [0]
backbone = "small-cnn"
[protocol.split]
train = 0.5
val = 0.25
test = 0.25
[protocol.recipe]
epochs = 1
batch_size = 4
crop = false
flip = false
[tasks.dots]
reader = "folder"
path = "dots"
domains = ["dim", "bright"]
pairs = [{ source = "dim", target = "bright" }]
[[conditions]]
kind = "clean"
"""


# A setting of training that is None is the suite's. Where a method has another default, its paper says so.
OWN_DEFAULTS = {
    ("bitfit", "batchnorm"): "eval",
    ("from-scratch", "lr"): FASTER,
    ("lora", "weight_decay"): 0.0,
    ("lp-ft", "batchnorm"): "eval",
    ("lst", "lr"): 3e-3,
    ("lst", "optimizer"): "adam",
}


def parts(kind: Any) -> set[Any]:
    """Return the plain types that a declared type is made of."""
    if get_origin(kind) is Literal:
        return {Literal}
    inner = get_args(kind)
    return {kind} if not inner else set().union(*(parts(one) for one in inner))


def numeric(name: str) -> Iterator[str]:
    """Yield the settings of a registered method that are numbers, or lists of numbers."""
    kind = registry.load("methods", name)
    assert isinstance(kind, type)
    assert issubclass(kind, Method)
    for setting in declared(kind):
        if {int, float} & parts(type_of(kind, setting)):
            yield setting


NUMBERS = [(name, setting) for name in NAMES for setting in numeric(name)]
SETTINGS = [(name, setting) for name in NAMES for setting in declared(registry.load("methods", name))]  # type: ignore[arg-type]


def refused(name: str, setting: str, text: str) -> str:
    """Return the one line that refuses a setting on the command line: it names the method and the setting."""
    # The method that a wrapper without a default is put around is a setting, too.
    model = name if setting == "base" else example_of(name)
    with pytest.raises((UsageError, UnknownNameError)) as caught:
        resolve_model(model, settings=[f"{setting}={text}"])
    told = str(caught.value)
    assert "\n" not in told
    assert name in told
    assert setting in told.removeprefix(name)
    return told


def test_there_are_settings_to_be_tried() -> None:
    assert ("adabn", "prior") in NUMBERS
    assert ("linear-probe", "penalties") in NUMBERS
    assert len(NUMBERS) > 25


TRAINING = [(name, setting) for name, setting in SETTINGS if setting in Recipe.model_fields and name != "grid-search"]


@pytest.mark.parametrize(("name", "setting"), TRAINING)
def test_a_setting_of_training_is_the_same_in_every_method(name: str, setting: str) -> None:
    """Every file spells its settings out, in the order that its rows are named by; here they are held together."""
    kind = registry.load("methods", name)
    assert isinstance(kind, type)
    told, theirs = (in_words(type_of(one, setting)).removesuffix(" or none") for one in (kind, Finetune))
    assert told == theirs
    default = declared(kind)[setting].default
    assert default == OWN_DEFAULTS.get((name, setting))
    # What a method sets is what it trains by.
    assert setting not in given(resolve_model(example_of(name)).method) or default is not None


def test_methods_that_train_all_have_the_same_settings_of_training() -> None:
    own = {name: {setting for method, setting in TRAINING if method == name} for name, _ in TRAINING}
    every = {setting for setting in declared(Finetune) if setting in Recipe.model_fields} - {"regime"}
    lacking = {name: sorted(every - settings) for name, settings in own.items() if every - settings}
    assert lacking == {
        "from-scratch": ["batchnorm"],  # all weights start anew: its statistics cannot stand still
        "head-only": ["batchnorm"],  # in eval mode, always
        "l2-sp": ["weight_decay"],  # its penalty is one
        "lora": ["batchnorm"],  # frozen
        "lst": ["batchnorm"],  # frozen
        "shuffled-labels": ["batchnorm", "optimizer", "precision", "weight_decay"],  # a control
    }


@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_no_number_is_negative_infinite_or_a_word(name: str, setting: str) -> None:
    assert "-1" in refused(name, setting, "-1")
    assert "finite number" in refused(name, setting, "nan") or "expected" in refused(name, setting, "nan")
    for text in ("1e999", "word"):
        assert f"got '{text}'" in refused(name, setting, text)


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_what_no_setting_can_be_is_told_with_the_setting_and_what_came(name: str, setting: str) -> None:
    told = refused(name, setting, "no-such-thing")
    assert "no-such-thing" in told
    assert any(words in told for words in ("expected", "there is no"))


@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_zero_is_refused_in_one_line_or_means_something(name: str, setting: str) -> None:
    try:
        method = resolve_model(example_of(name), settings=[f"{setting}=0"]).method
    except TlbenchError as error:
        told = str(error)
    else:
        told = ""
        assert getattr(method, setting) in (0, (0,))
    assert "\n" not in told
    assert not told or "0" in told


@pytest.mark.parametrize(("name", "setting"), NUMBERS)
def test_python_refuses_what_the_command_line_does(name: str, setting: str) -> None:
    """A plug-in that wraps another passes values that no command line has read."""
    method = resolve_model(example_of(name)).method
    listed = get_origin(type_of(type(method), setting)) is tuple or tuple in map(
        get_origin, get_args(type_of(type(method), setting))
    )
    values = vars(method)
    endless = [math.inf, math.nan] if float in parts(type_of(type(method), setting)) else []
    for wrong in (-1, *endless):
        with pytest.raises(ValueError, match=rf"\b{setting}\b.* got .*{wrong}"):
            type(method)(
                **{**{key: values[key] for key in declared(type(method))}, setting: (wrong,) if listed else wrong}
            )


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_is_told(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown setting 'stepsize'"):
        resolve_model(example_of(name), settings=["stepsize=1"])


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, where the commands are typed: ``dots.toml`` and its images."""
    rng = np.random.default_rng(0)
    for domain, brightness in (("dim", 90), ("bright", 200)):
        for place, name in enumerate(("high", "low")):
            (tmp_path / "dots" / domain / name).mkdir(parents=True)
            for number in range(8):
                image = rng.integers(0, 40, (16, 16, 3)).astype(np.uint8)
                image[8 * place : 8 * place + 8] += np.uint8(brightness)
                Image.fromarray(image).save(tmp_path / "dots" / domain / name / f"{number}.png")
    (tmp_path / "dots.toml").write_text(SUITE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mistake(user: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that evaluates a model and returns the one line that it is told; nothing is written."""

    def run(model: str, *words: str) -> str:
        capfd.readouterr()
        code = main(["evaluate", "--suite", "dots.toml", "--model", model, *words])
        out, err = capfd.readouterr()
        assert (code, out) == (2, ""), err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert not (user / "tlbench-runs").exists()
        return err

    return run


@pytest.fixture
def unfit(user: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that evaluates a model which does not apply, without any training, and returns the reason."""

    def run(model: str, *words: str) -> str:
        for module in ("training", "finetune"):  # where it is defined, and where it is used by name
            for name in ("train", "train_on"):
                monkeypatch.setattr(f"tlbench.methods.{module}.{name}", never, raising=False)
        monkeypatch.setattr("tlbench.engine.context.train", never)
        assert main(["evaluate", "--suite", "dots.toml", "--model", model, *words]) == 0
        assert "Traceback" not in capfd.readouterr().err
        frame = tlbench.load_results("dots.toml", published=False)
        assert set(frame.status) == {"not_applicable"}
        assert frame.value.isna().all()
        (reason,) = set(frame.reason)
        return str(reason)

    return run


def never(*args: object, **kwargs: object) -> None:
    raise AssertionError("trained although it does not apply")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("adabn(prior=-3)", "adabn: expected prior >= 0, images that the source's statistics are worth, got -3"),
        ("adabn(forms=runing)", "setting 'forms': expected a list of 'running', 'batch', 'target', got 'runing'"),
        ("adabn(forms=(batch,batch))", "each once, the first being ranked; got 'batch', 'batch'"),
        ("from-scratch(architecture=smal-cnn)", "there is no architecture 'smal-cnn'; did you mean 'small-cnn'?"),
        ("random-features(steps=0)", "random-features: expected steps >= 1, got 0"),
        ("temperature(lst(reduction=0))", "lst"),
        ("model-soup(members=(finetune,from-scratch))", "from-scratch does not start from the pretrained weights"),
        ("deep-ensemble(knn)", "knn does not depend on the seed: its"),
        ("deep-ensemble(loki)", "an ensemble averages probabilities, loki returns scores"),
        ("grid-search(adabn,lr=(0.1,0.2))", "adabn"),
        ("temperature(adabn", "temperature(adabn: expected parentheses that match"),
    ],
)
def test_what_no_method_can_be(mistake: Callable[..., str], model: str, said: str) -> None:
    assert said in mistake(model)


@pytest.mark.parametrize("setting", ["lr=-1", "epochs=1.5", "augment=agmix", "optimizer=adm", "precision=float16"])
def test_a_recipe_that_no_wrapped_method_can_have(mistake: Callable[..., str], setting: str) -> None:
    assert (
        "expected" in (told := mistake("adabn", "--set", f"base.{setting}")) or "there is no" in told or "got" in told
    )


@pytest.mark.parametrize("model", ["temperature(finetune)", "loki", "adabn", "model-soup"])
def test_validation_images_that_a_suite_lacks(user: Path, mistake: Callable[..., str], model: str) -> None:
    # Of eight images a class the published rule leaves none for validation.
    without = SUITE.replace("train = 0.5\nval = 0.25\ntest = 0.25", 'rule = "assaying"')
    assert without != SUITE
    (user / "dots.toml").write_text(without)
    assert "dots/dim: has no val image; change the split, or the pairs that need it" in mistake(model)


@pytest.mark.parametrize("name", ["temperature", "loki", "ncm", "linear-probe", "lp-ft", "wise-ft", "model-soup"])
def test_what_calibrates_or_selects_needs_validation_images(name: str) -> None:
    method, backbone = resolve_model(example_of(name)).method, load_backbone("small-cnn")
    needs = {"sources": 2, "info": {}}
    assert unmet_need(method, backbone, validation=4, **needs) == ""
    assert unmet_need(method, backbone, validation=0, **needs) == "needs validation images, the suite has none here"


@pytest.mark.parametrize(
    ("model", "lacking"),
    [("adabn", "batchnorm"), ("adabn(lst)", "batchnorm"), ("lst", "taps"), ("deep-ensemble(lst)", "taps")],
)
def test_what_a_backbone_lacks(user: Path, unfit: Callable[..., str], model: str, lacking: str) -> None:
    (user / "plain.py").write_text(
        "from torch import nn\n"
        "from tlbench.models.backbone import Backbone\n\n\n"
        "def make():\n"
        "    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return Backbone('plain', 8, body)\n"
    )
    point = registry.EntryPoint("plain", "plain:make", "tlbench.backbones")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(user))
        patch.setattr(registry, "_installed", lambda group: [("mine", point)] if group.endswith("backbones") else [])
        assert unfit(model, "--backbone", "plain") == f"needs a backbone with {lacking}, plain has none"


def test_a_soup_of_networks_that_are_not_alike(user: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What is known of a class is told before anything is fitted."""
    assert main(["evaluate", "--suite", "dots.toml", "--model", "model-soup(members=(finetune,ncm))"]) == 2
    told = capfd.readouterr().err
    assert "ncm is not a single network of the backbone's own form" in told
    assert "Traceback" not in told
    assert not (user / "tlbench-runs").exists()


def test_one_who_reads_the_target_sees_that_of_the_pair_alone(user: Path) -> None:
    """Filters choose pairs; each of them has a fit of its own, and no other target is looked at."""
    (user / "mine.py").write_text(
        "import tlbench\n\n\n"
        "class Mine(tlbench.Method):\n"
        "    reads = frozenset({'id_train', 'target_unlabeled_train', 'target_unlabeled_test'})\n\n"
        "    def fit(self, context):\n"
        "        names = [context.data(tag)._split_.manifest.scope for tag in sorted(self.reads)]\n"
        "        assert names == ['dots/dim', 'dots/' + context.target, 'dots/' + context.target], names\n"
        "        return context.backbone.fresh(context.classes)\n"
    )
    both = SUITE.replace(
        '[{ source = "dim", target = "bright" }]',
        '[{ source = "dim", target = "bright" }, { source = "dim", target = "grey" }]',
    ).replace('["dim", "bright"]', '["dim", "bright", "grey"]')
    (user / "dots.toml").write_text(both)
    (user / "dots" / "grey").symlink_to(user / "dots" / "bright")
    for words, targets in ((["--only", "target=grey"], {"grey"}), ([], {"bright", "grey"})):
        assert main(["evaluate", "--suite", "dots.toml", "--model", "mine.py", *words]) == 0
        frame: pd.DataFrame = tlbench.load_results("dots.toml", published=False)
        assert set(frame.fit_target) == targets
        assert set(frame[frame.role == "ood-test"].target) == targets
        assert set(frame.protocol) == {"unlabelled-target+test-time"}
        assert not math.isnan(frame[frame.metric == "accuracy"].value.sum())


def test_a_wrapper_without_a_default_is_shown_as_it_is_evaluated(
    mistake: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    """What `models show` is given to show, and what the mistake's message recommends, is one and the same model."""
    told = mistake("grid-search")
    assert "it wraps another method; write grid-search(finetune), or the method of your choice" in told
    assert main(["models", "show", "grid-search"]) == 0
    out, err = capfd.readouterr()
    assert out.startswith("grid-search(finetune): ")
    assert "no default for it; shown is grid-search(finetune), as --model takes it" in err
    # All of its settings mean something there.
    assert resolve_model("grid-search(finetune)", settings=["lr=(0.1,0.2)", "epochs=(1,2)"])
    assert main(["models", "show", "finetune"]) == 0
    assert "note" not in capfd.readouterr().err
