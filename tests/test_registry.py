"""Names lead to plug-ins, ours and strangers' by one door."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tlbench import registry
from tlbench.errors import PluginError, UnknownNameError
from tlbench.methods.base import Method, method_name

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that installs a distribution: its module and entry points in a folder on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def make(distribution: str, entry_points: str, **modules: str) -> None:
        folder = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(entry_points)
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)

    return make


def test_a_checkout_knows_what_an_installed_package_registers() -> None:
    if not PROJECT.is_file():
        pytest.skip("pyproject.toml is not at hand")
    points = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]
    assert {f"tlbench.{group}": dict(table) for group, table in registry.BUILT_IN.items()} == points


@pytest.mark.parametrize("name", registry.BUILT_IN["methods"])
def test_every_method_of_ours_is_one_and_is_named_as_it_is_registered(name: str) -> None:
    kind = registry.load("methods", name)
    assert isinstance(kind, type)
    assert issubclass(kind, Method)
    assert method_name(kind) == name


@pytest.mark.parametrize("name", registry.BUILT_IN["backbones"])
def test_every_backbone_of_ours_can_be_called(name: str) -> None:
    assert callable(registry.load("backbones", name))


def test_summaries_are_read_without_running_a_strangers_module(install) -> None:  # type: ignore[no-untyped-def]
    points = "[tlbench.methods]\ntheirs = theirs:Theirs\nbroken = broken:Broken\nabsent = absent:Absent\n"
    text = 'raise SystemExit\nclass Theirs:\n    """What it is\n    in two lines.\n\n    More.\n    """\n'
    install("a-plugin", points, theirs=text, broken="class Broken(\n")
    found = registry.summaries("methods")
    assert (found["theirs"], found["broken"], found["absent"]) == ("What it is in two lines.", "", "")
    assert all(found[name] for name in registry.BUILT_IN["methods"])


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="there is no method 'linear-prob'; did you mean 'linear-probe'"):
        registry.load("methods", "linear-prob")
    with pytest.raises(
        UnknownNameError, match="there is no backbone 'zzz'; known are 'efficientnet-lite0', 'small-cnn'"
    ):
        registry.load("backbones", "zzz")


def test_another_package_registers_a_method(install) -> None:  # type: ignore[no-untyped-def]
    text = "from tlbench import Method\nclass Theirs(Method):\n    pass\n"
    install("their-methods", "[tlbench.methods]\ntheirs = their_module:Theirs\n", their_module=text)
    assert "theirs" in registry.names("methods")
    assert registry.load("methods", "theirs").__name__ == "Theirs"  # type: ignore[attr-defined]


def test_a_name_of_two_distributions_is_an_error_that_names_both(install) -> None:  # type: ignore[no-untyped-def]
    install("first-one", "[tlbench.methods]\nshared = nowhere:A\n")
    install("second-one", "[tlbench.methods]\nshared = nowhere:B\nknn = nowhere:C\n")
    with pytest.raises(PluginError, match="'shared' is registered by 2 distributions, 'first-one', 'second-one'"):
        registry.load("methods", "shared")
    with pytest.raises(PluginError, match="'knn' is registered by 2 distributions, 'second-one', 'tlbench'"):
        registry.load("methods", "knn")
    assert registry.load("methods", "ncm")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("absent_module:A", "ModuleNotFoundError"),
        ("broken_module:A", "ZeroDivisionError"),
        ("json:Absent", "AttributeError"),
    ],
)
def test_a_broken_entry_point_names_its_distribution(install, value: str, reason: str) -> None:  # type: ignore[no-untyped-def]
    install("their-broken", f"[tlbench.methods]\nbroken = {value}\n", broken_module="1 / 0\n")
    with pytest.raises(
        PluginError, match=f"of the distribution 'their-broken' cannot be loaded from {value}: {reason}"
    ):
        registry.load("methods", "broken")


def test_an_unknown_group_is_a_slip_of_the_caller() -> None:
    with pytest.raises(ValueError, match="'methods', 'backbones'"):
        registry.names("metrics")  # type: ignore[arg-type]
