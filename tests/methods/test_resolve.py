"""What --model takes becomes a model, or one line that says how to write it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.errors import PluginError, TlbenchError, UnknownNameError, UsageError
from tlbench.methods.adabn import Adabn
from tlbench.methods.base import Method
from tlbench.methods.deep_ensemble import DeepEnsemble
from tlbench.methods.finetune import Finetune
from tlbench.methods.loki import Loki
from tlbench.methods.resolve import ROW_NAME, describe_model, model_of, resolve_model
from tlbench.methods.temperature import Temperature

PLUGIN = '''
import tlbench

class MyMethod(tlbench.Method):
    """Trains all weights.

    And more.
    """

    lr: float = 0.01
    steps: int = 5
    penalties: tuple[float, ...] = (1.0, 0.1)
    crop: bool = False
    mode: str = "plain"
    limit: int | None = None
    untyped = 3

    def fit(self, context):
        return context.train(context.backbone.fresh(context.classes), lr=self.lr)
'''
WRAPPER = """
from __future__ import annotations
from typing import Literal
from tlbench import Method

class Wrapper(Method):
    base: Method
    bins: int = 15
    side: Literal["left", "right"] = "right"
"""
CARD = """name = "our-model"
method = "mine.py"
backbone = "small-cnn"
authors = ["A. Author"]
paper = "https://example.org/paper"
licence = "MIT"

[settings]
lr = 0.5
penalties = [1, 2]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a plug-in, a wrapper and a card."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "wrap.py").write_text(WRAPPER)
    (tmp_path / "card.toml").write_text(CARD)
    return tmp_path


def settings_of(text: str, *settings: str) -> dict[str, object]:
    return resolve_model(text, settings=settings).method.settings()


def test_a_registered_name_is_built_in_and_has_no_source() -> None:
    model = resolve_model("linear-probe")
    assert (model.name, model.source, model.backbone, model.card) == ("linear-probe", "", None, None)


def test_a_file_is_named_by_its_stem_and_keeps_its_source() -> None:
    model = resolve_model("mine.py")
    assert (model.name, model.source) == ("mine", PLUGIN)
    assert resolve_model("mine.py:MyMethod").name == "mine"


def test_settings_are_typed_by_the_fields() -> None:
    found = settings_of("mine.py", "lr=1e-3", "steps=7", "penalties=0.5,2", "crop=true", "mode='a b'", "limit=3")
    assert found == {"lr": 0.001, "steps": 7, "penalties": [0.5, 2.0], "crop": True, "mode": "a b", "limit": 3}
    assert settings_of("mine.py(limit=none,penalties=(0.5,))")["penalties"] == [0.5]


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("lrr=1", "unknown setting 'lrr'; did you mean 'lr'? Known are 'lr', 'steps', 'penalties', "),
        ("lr=high", "setting 'lr': expected a number, got 'high'"),
        ("lr=nan", "setting 'lr': expected a number, got 'nan'"),
        ("steps=1.5", "setting 'steps': expected a whole number, got '1.5'"),
        ("crop=maybe", "setting 'crop': expected true or false, got 'maybe'"),
        ("penalties=1,x", "setting 'penalties': expected a list of numbers, got '1,x'"),
        ("limit=x", "setting 'limit': expected a whole number or none, got 'x'"),
        ("untyped=1", "'untyped' has no type, so it is no setting; write untyped: int = ..."),
        ("fit=1", "'fit' is part of the interface, not a setting"),
        ("lr", "--set: expected key=value, got 'lr'"),
        ("mode.x=1", "setting 'mode' is not a method, so it has no 'x'"),
    ],
)
def test_a_wrong_setting_is_told_with_what_was_expected(setting: str, expected: str) -> None:
    with pytest.raises(UsageError, match=re.escape(expected)):
        resolve_model("mine.py", settings=[setting])


def test_a_setting_given_twice_is_an_error() -> None:
    for text, settings in [("mine.py(lr=1)", ["lr=2"]), ("mine.py", ["lr=1", "lr=2"]), ("mine.py(lr=1,lr=2)", [])]:
        with pytest.raises(UsageError, match="lr' is given"):
            resolve_model(text, settings=settings)


def test_a_wrapper_takes_a_method_and_settings() -> None:
    model = resolve_model("wrap.py(mine.py(lr=0.5,penalties=(1,2)),bins=3)", settings=["base.steps=9", "side=left"])
    assert model.name == "wrap(mine(lr=0.5,steps=9,penalties=(1.0,2.0)),bins=3,side=left)"
    assert PLUGIN in model.source
    assert WRAPPER in model.source


def test_a_wrapper_alone_says_what_to_write() -> None:
    with pytest.raises(UsageError, match=r"it wraps another method; write wrap\.py\(finetune\)"):
        resolve_model("wrap.py")


def test_a_choice_gives_the_nearest_word() -> None:
    with pytest.raises(UsageError, match="setting 'side': expected one of 'left', 'right', got 'lefft'"):
        resolve_model("wrap.py(mine.py)", settings=["side=lefft"])


def test_two_rows_never_share_a_name() -> None:
    texts = ["mine.py", "mine.py(lr=0.02)", "mine.py(lr=0.03)", "wrap.py(mine.py)", "wrap.py(mine.py(lr=0.02))"]
    texts += ["mine.py(mode='a b')", "mine.py(mode='a/b')", f"mine.py(mode={'x' * 200})"]
    names = [resolve_model(text).name for text in texts] + [resolve_model("mine.py", backbone="small-cnn").name]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(ROW_NAME, name) and len(name) <= 120 for name in names)


def test_equal_models_share_a_name_however_they_were_written() -> None:
    names = {resolve_model("mine.py", settings=["lr=1e-3"]).name, resolve_model("mine.py(lr=0.0010)").name}
    assert names == {"mine(lr=0.001)"}
    assert resolve_model("mine.py(lr=0.01)").name == "mine"
    assert resolve_model("mine.py", backbone="small-cnn", default_backbone="small-cnn").name == "mine"


@given(lr=st.floats(1e-12, 1e12), steps=st.integers(-(10**6), 10**6), crop=st.booleans())
def test_a_name_reads_back_as_the_same_settings(lr: float, steps: int, crop: bool) -> None:
    given_ = resolve_model("mine.py", settings=[f"lr={lr!r}", f"steps={steps}", f"crop={crop}"])
    again = resolve_model(given_.name.replace("mine", "mine.py", 1))
    assert again.method.settings() == given_.method.settings()


def test_a_plug_in_called_like_a_method_of_ours_is_another_row(folder: Path) -> None:
    (folder / "finetune.py").write_text(PLUGIN)
    assert resolve_model("finetune.py").name == "finetune.py"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 121, "new\nline", "finetune"])
def test_a_name_that_is_no_folder_or_is_taken_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        resolve_model("mine.py", name=name)


def test_an_import_path_names_a_class(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "importable_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(folder))
    model = resolve_model("importable_plugin:MyMethod")
    assert (model.name, model.source) == ("my-method", PLUGIN)
    assert resolve_model("tlbench.methods.knn:Knn").source == ""


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("linear-prob", UnknownNameError, "there is no method 'linear-prob'; did you mean 'linear-probe'?"),
        ("mine", UnknownNameError, "a file is given with its suffix: mine.py"),
        ("zzz", UnknownNameError, "a plug-in of yours is a file (mymodel.py), an import path"),
        (
            "mine.py:MyMethods",
            PluginError,
            "there is no class 'MyMethods' that extends tlbench.Method; did you mean 'MyMethod'?",
        ),
        ("absent.py", PluginError, "absent.py: no such file"),
        ("os:path", PluginError, "expected a class that extends tlbench.Method"),
        ("absent_module:A", PluginError, "ModuleNotFoundError: No module named 'absent_module'"),
        ("a/b", UsageError, "expected a file that ends in .py or .toml"),
        ("mine.py(0.1)", UsageError, "expected settings by name, such as lr=0.001, got '0.1'"),
        ("mine.py(lr=)", UsageError, "expected a value"),
        ("mine.py(", UsageError, "expected parentheses that match"),
        ("wrap.py(mine.py,mine.py)", UsageError, "it wraps one method, got two"),
        ("wrap.py(card.toml)", UsageError, "a card stands alone"),
        ("", UsageError, "got an empty name"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, kind: type[TlbenchError], expected: str) -> None:
    with pytest.raises(kind, match=re.escape(expected)) as caught:
        resolve_model(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import tlbench\nx = 1 / 0\n", "broken.py, line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "broken.py, line 1: SyntaxError: invalid syntax"),
        ("raise SystemExit(3)\n", "broken.py, line 1: SystemExit: 3"),
        ("x = 1\n", "broken.py: expected a class that extends tlbench.Method, got none"),
        (
            "from tlbench import Method\nclass A(Method): ...\nclass B(A): ...\n",
            "broken.py: expected one class that extends tlbench.Method, got 2; say broken.py:A, broken.py:B",
        ),
        (
            "from tlbench import Method\nclass A(Method):\n    x: list = []\n",
            "broken.py, line 2: ValueError: mutable default",
        ),
    ],
)
def test_a_broken_plug_in_is_told_with_its_line(folder: Path, source: str, expected: str) -> None:
    (folder / "broken.py").write_text(source)
    with pytest.raises(PluginError, match=re.escape(expected)) as caught:
        resolve_model("broken.py")
    assert "\n" not in str(caught.value)


def test_a_private_base_is_not_counted(folder: Path) -> None:
    (folder / "one.py").write_text("from tlbench import Method\nclass _Base(Method): ...\nclass One(_Base): ...\n")
    assert resolve_model("one.py").name == "one"


def test_the_source_of_a_plug_in_holds_the_modules_beside_it(folder: Path) -> None:
    (folder / "main_part.py").write_text("import neighbour_part\n" + PLUGIN)
    (folder / "neighbour_part.py").write_text("import deeper_part\n")
    (folder / "deeper_part.py").write_text("WIDTH = 8\n")
    (folder / "unrelated_part.py").write_text("OTHER = 1\n")
    source = resolve_model("main_part.py").source
    assert "WIDTH = 8" in source
    assert "OTHER = 1" not in source


def test_a_neighbour_of_another_plug_in_never_stands_in(folder: Path) -> None:
    for name in ("first", "second"):
        (folder / name).mkdir()
        (folder / name / "shared_net.py").write_text(f"NAME = '{name}'\n")
        (folder / name / "plugin.py").write_text("import shared_net\n" + PLUGIN)
    resolve_model("first/plugin.py")
    with pytest.raises(PluginError, match="its module 'shared_net' was already loaded from"):
        resolve_model("second/plugin.py")


def test_a_method_that_refuses_its_settings_is_a_mistake_of_the_user(folder: Path) -> None:
    (folder / "strict.py").write_text(
        "from tlbench import Method\nclass Strict(Method):\n    k: int = 1\n"
        "    def __post_init__(self):\n        if self.k < 1:\n            raise ValueError('k: at least 1')\n"
    )
    with pytest.raises(UsageError, match=r"strict\.py: k: at least 1"):
        resolve_model("strict.py", settings=["k=0"])


def test_a_card_gives_name_method_settings_and_backbone() -> None:
    model = resolve_model("card.toml")
    assert (model.name, model.backbone) == ("our-model", "small-cnn")
    assert model.method.settings()["lr"] == 0.5
    assert model.method.settings()["penalties"] == [1.0, 2.0]
    assert model.card is not None
    assert model.card["licence"] == "MIT"


def test_a_card_lies_beside_its_method_wherever_it_is_read_from(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert resolve_model("../card.toml").name == "our-model"


def test_overriding_a_card_makes_another_row() -> None:
    model = resolve_model("card.toml", settings=["lr=1"], backbone="timm:resnet18")
    assert model.method.settings()["lr"] == 1.0
    assert model.name == "our-model(lr=1.0)@resnet18"
    assert resolve_model("adabn", backbone="timm:resnet18").name == "adabn(finetune)@resnet18"
    assert resolve_model("card.toml", settings=["lr=1"]).name == "our-model(lr=1.0)"
    assert resolve_model("card.toml", settings=["lr=1"], name="mine-too").name == "mine-too"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("paper", "papers", "unknown key 'papers'; did you mean 'paper'?"),
        ('"our-model"', '"a/b"', "name: expected a name of letters"),
        ('"our-model"', '"knn"', "'knn' is the name of a registered method"),
        ('method = "mine.py"', "", "key 'method' is missing"),
        ('"mine.py"', '"../mine.py"', "expected a file beside the card or below it"),
        ('"mine.py"', '"/mine.py"', "expected a file beside the card or below it"),
        ("lr = 0.5", 'lr = "0.5"', "setting 'lr': expected a number, got '0.5'"),
        ("lr = 0.5", "lrr = 0.5", "unknown setting 'lrr'; did you mean 'lr'?"),
        ("lr = 0.5", "steps = true", "setting 'steps': expected a whole number, got True"),
    ],
)
def test_a_wrong_card_is_one_line(folder: Path, old: str, new: str, expected: str) -> None:
    (folder / "wrong.toml").write_text(CARD.replace(old, new))
    with pytest.raises(TlbenchError, match=re.escape(expected)) as caught:
        resolve_model("wrong.toml")
    assert str(caught.value).count("\n") == 0


def test_reading_a_card_runs_nothing(folder: Path) -> None:
    from tlbench.methods.card import read_card

    (folder / "mine.py").write_text("open('ran', 'w').close()\n")
    assert read_card(folder / "card.toml").name == "our-model"
    assert not (folder / "ran").exists()


def test_a_model_is_described_by_its_settings_and_first_paragraph() -> None:
    facts = describe_model(resolve_model("mine.py", settings=["lr=1"]))
    assert facts["summary"] == "Trains all weights."
    assert facts["settings"][0] == {"name": "lr", "type": "a number", "default": "0.01", "value": "1.0"}
    assert facts["reads"] == ["id_train", "id_val"]
    assert facts["built_in"] is False


def test_a_method_made_in_python_is_a_model_with_its_source(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "made_in_python.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(folder))
    import importlib

    kind = importlib.import_module("made_in_python").MyMethod
    model = model_of(kind(lr=0.1), name=None)
    assert (model.name, model.source) == ("my-method(lr=0.1)", PLUGIN)


@pytest.mark.parametrize(
    ("method", "told"),
    [
        (DeepEnsemble(members=2.5), "DeepEnsemble: setting 'members': expected a whole number, got 2.5"),
        (Temperature(Finetune(lr="0.1")), "Finetune: setting 'lr': expected a number or none, got '0.1'"),
    ],
)
def test_settings_given_in_python_are_held_to_their_types(method: Method, told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        model_of(method)


def test_what_builds_on_a_method_takes_nothing_else() -> None:
    with pytest.raises(ValueError, match="expected a method as the base of Loki, got 'knn'"):
        Loki("knn")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Adabn: expected a method to build on, got <class"):
        Adabn(base=Finetune)  # type: ignore[arg-type]


@given(st.text(alphabet="amine.py:(),='\" \\/-1", max_size=20))
def test_no_text_is_more_than_a_mistake_of_the_user(text: str) -> None:
    try:
        resolve_model(text)
    except TlbenchError as problem:
        message = str(problem)
    else:
        message = ""
    assert "\n" not in message


def test_a_wrapper_names_what_it_wraps_even_where_that_is_its_default() -> None:
    assert resolve_model("temperature").name == "temperature(linear-probe)"
    assert resolve_model("temperature(linear-probe)").name == "temperature(linear-probe)"
