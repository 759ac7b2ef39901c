"""Records to runs: what is put beside what, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from tlbench.analysis.configuration import read_configuration
from tlbench.analysis.runs import tidy_runs
from tlbench.errors import UnknownNameError
from tlbench.leaderboard.tables import load_fits, load_results
from tlbench.suites.spec import Recipe


@pytest.fixture
def run(synthetic: ModuleType, tmp_path: Path) -> Any:
    return synthetic.Run(tmp_path / "runs", synthetic.make_suite())


def _records(run: Any) -> pd.DataFrame:
    return load_results(run.suite, run_dir=run.folder, published=False)


def test_a_run_has_its_measures_on_either_side(run: Any, synthetic: ModuleType) -> None:
    run.add("m")
    records = _records(run)
    runs = tidy_runs(records, run.suite).table
    assert len(runs) == 7 * 2
    own = runs[(runs["source"] == "a") & (runs["target"] == "b") & (runs["seed"] == 1)].iloc[0]

    def value(role: str, target: str, condition: str, metric: str) -> float:
        mine = records[(records["source"] == "a") & (records["seed"] == 1) & (records["target"] == target)]
        found = mine[(mine["role"] == role) & (mine["condition"] == condition) & (mine["metric"] == metric)]
        return float(found["value"].mean())

    assert own["id_accuracy"] == value("id-test", "a", "clean", "accuracy")
    assert own["ood_accuracy"] == value("ood-test", "b", "clean", "accuracy")
    assert own["id_ece"] == value("id-test", "a", "clean", "ece")
    assert own["ood_mean_consistency"] == pytest.approx(value("ood-test", "b", "shift", "consistency"))
    # Fog has two severities, contrast one: conditions weigh the same.
    corrupted = [value("id-test", "a", name, "accuracy") for name in ("fog", "contrast")]
    assert own["id_mean_corruption_accuracy"] == pytest.approx(np.mean(corrupted))
    assert own["id_mean_robust_accuracy"] == value("id-test", "a", "apgd-dlr", "mean_robust_accuracy")
    assert np.isnan(own["ood_mean_corruption_accuracy"])
    assert own["id_probit"] == pytest.approx(norm.ppf((own["id_accuracy"] * 6 + 0.5) / 7))
    assert own["chance"] == pytest.approx(1 / 3)


def test_a_mean_over_some_of_the_settings_is_none(run: Any) -> None:
    run.add("m", without=lambda cell: cell.condition == "fog" and cell.severity == 5)
    runs = tidy_runs(_records(run), run.suite).table
    assert runs["id_mean_corruption_accuracy"].isna().all()
    assert runs["id_accuracy"].notna().all()


def test_a_failed_measurement_leaves_a_gap_and_not_a_number(run: Any) -> None:
    run.add("m", status=lambda cell: ("failed", "why") if (cell.source, cell.role) == ("a", "id-test") else None)
    runs = tidy_runs(_records(run), run.suite).table
    assert runs.loc[runs["source"] == "a", "id_accuracy"].isna().all()
    assert runs.loc[runs["source"] != "a", "id_accuracy"].notna().all()


def test_controls_are_left_out_said_and_give_the_chance_level(run: Any) -> None:
    run.add("m")
    run.add("majority", method="majority", control=True, value=0.6)
    found = tidy_runs(_records(run), run.suite)
    assert set(found.table["model"]) == {"m"}
    assert found.notes == ("controls are left out: majority",)
    assert found.table["chance"].unique() == pytest.approx([0.6])
    assert set(tidy_runs(_records(run), run.suite, controls=True).table["model"]) == {"m", "majority"}


def test_other_protocols_and_precisions_are_left_out_and_said(run: Any) -> None:
    run.add("m")
    run.add("adapting", protocol="unlabelled-target", per_target=True)
    found = tidy_runs(_records(run), run.suite)
    assert set(found.table["model"]) == {"m"}
    assert found.notes == ("of another protocol than source-only, and left out: adapting",)
    other = tidy_runs(_records(run), run.suite, protocol="unlabelled-target").table
    assert set(other["model"]) == {"adapting"}
    assert len(other) == 7 * 2
    assert other["id_accuracy"].notna().all()


def test_what_is_published_and_local_is_one_run(run: Any) -> None:
    run.add("m")
    once = _records(run)
    twice = pd.concat([once.assign(origin="published"), once], ignore_index=True)
    runs = tidy_runs(twice, run.suite).table
    assert len(runs) == 7 * 2
    assert set(runs["origin"]) == {"published"}


def test_the_order_of_records_makes_no_difference(run: Any) -> None:
    run.add("m")
    run.add("n", method="knn")
    records = _records(run)
    pd.testing.assert_frame_equal(
        tidy_runs(records, run.suite).table, tidy_runs(records.sample(frac=1, random_state=0), run.suite).table
    )


def test_runs_of_one_method_and_backbone_are_one_cluster(run: Any) -> None:
    base = json.dumps({"base": {"method": "linear-probe", "settings": {"steps": 3}}})
    run.add("m")
    run.add("temperature(m)", method="temperature", settings=base)
    run.add("other", backbone="resnet")
    runs = tidy_runs(_records(run), run.suite).table
    cluster = runs.drop_duplicates("model").set_index("model")["cluster"]
    assert cluster["m"] == cluster["temperature(m)"] == "linear-probe on efficientnet-lite0"
    assert cluster["other"] == "linear-probe on resnet"


def test_no_records_are_no_runs(run: Any) -> None:
    run.add("m")
    assert len(tidy_runs(_records(run).iloc[:0], run.suite).table) == 0


def test_what_a_search_tried_is_a_row_each(run: Any) -> None:
    run.add("m")
    fits = load_fits(run.suite, run_dir=run.folder, published=False)
    tried = [
        {"settings": {"lr": lr}, "accuracy": 0.5 + lr, "nll": 1.0, "selected": lr == 0.2, "reason": ""}
        for lr in (0.1, 0.2)
    ]
    failed = [{"settings": {"lr": 9}, "accuracy": None, "nll": None, "selected": False, "reason": "no numbers"}]
    noted = [{"unchanged_share": 0.3}]
    fits["candidates"] = json.dumps([*tried, *failed, *noted])
    found = tidy_runs(_records(run), run.suite, fits).candidates
    assert len(found) == 2 * len(fits)
    assert found.groupby("lr")["val_accuracy"].first().tolist() == [0.6, 0.7]
    assert found.loc[found["selected"], "lr"].unique().tolist() == [0.2]


def test_a_member_at_the_recipe_s_own_rate_is_known_by_it(run: Any) -> None:
    """What a soup notes has None where a member takes the suite's setting."""
    run.add("m")
    fits = load_fits(run.suite, run_dir=run.folder, published=False)
    members = [
        {"settings": {"method": "finetune", "lr": lr, "epochs": None}, "accuracy": 0.5, "selected": True}
        for lr in (0.25, None)
    ]
    fits["candidates"] = json.dumps(members)
    found = tidy_runs(_records(run), run.suite, fits).candidates
    recipe = run.suite.protocol.recipe
    assert set(found["lr"]) == {0.25, recipe.lr}
    assert set(found["epochs"]) == {recipe.epochs}
    assert set(found["rest"]) == {'{"method": "finetune"}'}


def test_settings_at_none_are_the_recipe_s() -> None:
    found = read_configuration("finetune", '{"regime": null, "lr": 0.1, "augment": null, "epochs": null}', Recipe())
    assert (found.core, found.regime, found.augment, found.lr, found.epochs) == (
        "finetune",
        "full",
        "identity",
        0.1,
        10,
    )
    assert read_configuration("knn", '{"k": 20}', Recipe()).augment == ""


def test_a_head_alone_has_one_name() -> None:
    regime = read_configuration("finetune", '{"regime": "head-only", "augment": null}', Recipe())
    method = read_configuration("head-only", '{"augment": null}', Recipe())
    assert regime.trained == method.trained == "head-only"
    assert regime.core == method.core == "finetune"


def test_what_is_searched_has_no_value_of_its_own() -> None:
    inner = {"method": "finetune", "settings": {"lr": None, "epochs": None, "augment": "augmix"}}
    found = read_configuration("grid-search", json.dumps({"base": inner, "lr": [0.1, 0.2], "epochs": []}), Recipe())
    assert found.searched
    assert np.isnan(found.lr)
    assert found.epochs == 10
    assert found.augment == "augmix"
    plain = read_configuration("finetune", json.dumps(inner["settings"]), Recipe())
    assert found.factors != plain.factors


def test_a_protocol_that_there_is_not_is_refused_with_the_nearest(run: Any) -> None:
    run.add("m")
    run.add("own", protocol="my-own")
    records = _records(run)
    with pytest.raises(UnknownNameError, match="no protocol 'zzz'; the results are of 'my-own', 'source-only'"):
        tidy_runs(records, run.suite, protocol="zzz")
    with pytest.raises(UnknownNameError, match="no protocol 'sourceonly'; did you mean 'source-only'"):
        tidy_runs(records, run.suite, protocol="sourceonly")
    with pytest.raises(UnknownNameError, match="no protocol ''; they are 'source-only', 'few-shot-target', "):
        tidy_runs(records[:0], run.suite, protocol="")
    with pytest.raises(UnknownNameError, match="did you mean 'unlabelled-target"):
        tidy_runs(records, run.suite, protocol="test-time+unlabelled-target")
    # One that exists, and of which nothing has been measured, is no mistake.
    for name in ("text", "unlabelled-target+test-time"):
        assert len(tidy_runs(records, run.suite, protocol=name).table) == 0
    assert set(tidy_runs(records, run.suite, protocol="my-own").table["model"]) == {"own"}
