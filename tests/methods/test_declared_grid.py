"""A suite's grid becomes rows, and one point of it a recipe; what the grid does not list is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from tlbench.errors import UsageError
from tlbench.methods.declared_grid import at_point, read_point, rows_of
from tlbench.methods.finetune import Finetune
from tlbench.methods.grid_search import GridSearch
from tlbench.methods.lp_ft import LpFt
from tlbench.methods.resolve import model_of
from tlbench.methods.temperature import Temperature
from tlbench.suites.load import load_suite
from tlbench.suites.spec import Suite

OOD172 = load_suite("ood172")
GRID: dict[str, Any] = {
    "lr": [1e-2, 1e-3],
    "epochs": [1, 2],
    "regime": ["full", "head-only"],
    "augment": ["identity", "augmix"],
    "shots": ["full", 5],
    "backbone": ["small-cnn", "timm:resnet18.a1_in1k"],
}


def suite(**grid: Any) -> Suite:
    tasks = {"t": {"reader": "folder", "domains": ["a", "b"]}}
    return Suite.model_validate(
        {"name": "toy", "tasks": tasks, "protocol": {"backbone": "small-cnn", "grid": {**GRID, **grid}}}
    )


def test_the_study_s_grid_has_nine_backbones_three_shots_two_regimes_and_five_augmentations() -> None:
    rows = rows_of(OOD172, "finetune")
    assert len(rows) == 9 * 3 * 2 * 5
    assert len({(row.model.name, row.shots) for row in rows}) == len(rows)
    candidates = {candidate for row in rows for candidate in row.model.method.candidates()}  # type: ignore[attr-defined]
    # 31,104 runs in the study, which had one of the two colour changes: 36 training sets, and each of these on nine
    # backbones and three amounts of data.
    assert 36 * 9 * 3 * len(candidates) * 4 // 5 == 31104


def test_learning_rate_and_epochs_are_searched_and_the_rest_makes_rows() -> None:
    rows = rows_of(suite(), "finetune")
    assert len(rows) == 16
    first, last = rows[0], rows[-1]
    assert first.model.method == GridSearch(Finetune(regime="full", augment="identity"), (1e-2, 1e-3), (1, 2))
    assert (first.backbone, first.shots) == ("small-cnn", "full")
    assert first.model.name == "grid(finetune(regime=full,augment=identity))"
    assert last.model.name == "grid(finetune(regime=head-only,augment=augmix))@resnet18.a1_in1k"
    assert (last.backbone, last.model.backbone, last.shots) == ("timm:resnet18.a1_in1k",) * 2 + ("5",)


def test_options_narrow_the_grid_down() -> None:
    rows = rows_of(suite(), "finetune", backbone="small-cnn", shots=("3", "5"), settings=("augment=augmix", "lr=0.5"))
    assert [row.shots for row in rows] == ["3", "3", "5", "5"]
    assert {row.backbone for row in rows} == {"small-cnn"}
    assert rows[0].model.method == GridSearch(Finetune(lr=0.5, augment="augmix", regime="full"), epochs=(1, 2))
    assert rows[0].model.name == "grid(finetune(regime=full,lr=0.5,augment=augmix))"


def test_a_point_narrows_it_down_too_and_says_so_in_the_names() -> None:
    rows = rows_of(suite(), "finetune", recipe="lr=1e-3,augment=augmix,shots=5,backbone=small-cnn")
    assert [row.model.name for row in rows] == [
        f"grid(finetune(regime={regime},augment=augmix,lr=0.001))" for regime in ("full", "head-only")
    ]
    assert rows[0].model.method == GridSearch(Finetune(augment="augmix", regime="full"), (1e-3,), (1, 2))


def test_a_name_stands_for_the_model_and_rows_stay_apart() -> None:
    names = [row.model.name for row in rows_of(suite(), "finetune", name="mine", shots=("full",))]
    assert names[0] == "mine(regime=full,augment=identity)"
    assert len(set(names)) == len(names) == 8
    (alone,) = rows_of(suite(), "finetune", name="mine", recipe="regime=full,augment=augmix,shots=5,backbone=small-cnn")
    assert alone.model.name == "mine"


def test_the_grid_is_for_the_method_inside_that_has_its_settings() -> None:
    row = rows_of(suite(), "temperature(finetune)")[0]
    searched = GridSearch(Finetune(regime="full", augment="identity"), (1e-2, 1e-3), (1, 2))
    assert row.model.method == Temperature(searched)
    assert row.model.name == "grid(temperature(finetune(regime=full,augment=identity)))"


def test_a_setting_that_the_method_lacks_is_not_crossed() -> None:
    rows = rows_of(suite(), "lp-ft", backbone="small-cnn", shots=("full",))
    assert [row.model.method.base.augment for row in rows] == ["identity", "augmix"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", [Finetune(batch_size=8), model_of(Finetune(batch_size=8))])
def test_a_method_made_in_python_has_the_same_rows(model: Any) -> None:
    assert [row.model.method for row in rows_of(suite(), model)] == [
        row.model.method for row in rows_of(suite(), "finetune(batch_size=8)")
    ]
    assert len({(row.model.name, row.shots) for row in rows_of(suite(), model)}) == 16


def test_where_the_grid_lists_no_backbone_the_suite_s_is_taken() -> None:
    rows = rows_of(suite(backbone=[], shots=[], lr=[], epochs=[]), "finetune")
    assert {(row.backbone, row.shots) for row in rows} == {("small-cnn", "full")}
    assert rows[0].model.method == Finetune(regime="full", augment="identity")


def test_names_too_long_for_a_folder_are_cut_and_stay_apart() -> None:
    long = "penalties=(" + ",".join(["0.123456789"] * 12) + ")"
    rows = rows_of(suite(), "lp-ft", settings=(long,))
    assert len({(row.model.name, row.shots) for row in rows}) == 8
    assert max(len(row.model.name) for row in rows) <= 120


def test_a_point_sets_the_method_and_may_ask_for_mixed_precision() -> None:
    model, shots = at_point(suite(), "finetune", "lr=0.001,epochs=2,augment=augmix,precision=bfloat16,shots=5")
    assert model.method == Finetune(lr=1e-3, epochs=2, augment="augmix", precision="bfloat16")
    assert model.name == "finetune(lr=0.001,epochs=2,augment=augmix,precision=bfloat16)"
    assert (model.backbone, shots) == (None, ("5",))
    wrapped, _ = at_point(suite(), Temperature(LpFt()), "lr=0.01,backbone=timm:resnet18", name="mine")
    assert wrapped.method == Temperature(LpFt(lr=1e-2))
    assert (wrapped.backbone, wrapped.name) == ("timm:resnet18.a1_in1k", "mine")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("lr=5e-3", "grid of suite 'toy' lists 0.01, 0.001.*--set takes any value"),
        ("augment=augmx", "did you mean 'augmix'"),
        ("batch_size=8", "has no 'batch_size'; it has 'lr', 'epochs'"),
        ("epoch=1", "did you mean 'epochs'"),
        ("precision=float16", "lists float32, bfloat16"),
        ("lr", "expected key=value,..., got 'lr'"),
        ("lr=0.01,lr=0.001", "'lr' is given twice"),
        ("shots=7", "lists full, 5"),
        ("", "expected key=value"),
    ],
)
def test_what_is_no_point_of_the_grid_is_refused(recipe: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_point(suite(), recipe)


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ("linear-probe", {"recipe": "lr=0.01"}, "linear-probe has none of the settings that a grid can list"),
        ("lp-ft", {"recipe": "regime=full"}, "lp-ft has no setting 'regime'; it has 'lr'"),
        ("finetune(lr=0.5)", {"recipe": "lr=0.01"}, "gives 'lr' itself; leave one of the two out"),
        ("finetune", {"recipe": "backbone=small-cnn", "backbone": "x"}, "backbone is given beside it, too"),
        ("finetune", {"recipe": "shots=5", "shots": ("5",)}, "shots is given beside it, too"),
    ],
)
def test_what_does_not_go_together_is_refused(model: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        at_point(suite(), model, **options)
    with pytest.raises(UsageError, match=said):
        rows_of(suite(), model, **options)


def test_a_suite_without_a_grid_says_so() -> None:
    with pytest.raises(UsageError, match=r"suite 'digits' declares none \(\[protocol.grid\]"):
        rows_of(load_suite("digits"), "finetune")
