"""What a row says of itself follows from its method's name, its settings and the data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tlbench.api.publishing import verify_submitted
from tlbench.engine.identity import identity_problems, unchecked_identity
from tlbench.leaderboard.images import lock_path
from tlbench.records.lock import read_lock
from tlbench.records.published import published_models
from tlbench.suites.load import load_suite

SUITE = load_suite("digits")
PUBLISHED = {model.model: model for model in published_models("digits")}
pytestmark = pytest.mark.skipif(not PUBLISHED, reason="no published results in this checkout")


def problems(model: str, **changes: Any) -> list[str]:
    fits = [{**row, **changes} for row in PUBLISHED[model].table("fits").to_pylist()]
    return identity_problems(fits, SUITE, read_lock(lock_path(SUITE)))[0]


@pytest.mark.parametrize("model", ["adabn(finetune)", "temperature(from-scratch)", "majority"])
def test_what_was_published_is_what_it_says(model: str) -> None:
    assert problems(model) == []


@pytest.mark.parametrize(
    ("model", "changes", "told"),
    [
        ("adabn(finetune)", {"protocol": "source-only"}, "protocol: expected 'test-time' of adabn, got 'source-only'"),
        ("adabn(finetune)", {"protocol": "source-only"}, "its fits have read the target"),
        ("adabn(finetune)", {"fit_target": None}, "fit_target: expected one fit a target of adabn"),
        ("rand-augment", {"deterministic": True}, "deterministic: expected False of rand-augment, got True"),
        ("majority", {"control": False}, "control: expected True of majority, got False"),
        ("ncm", {"backbone": "none", "weights_hash": "none"}, "backbone: expected a pretrained network under ncm"),
        ("from-scratch", {"backbone": "efficientnet-lite0"}, "backbone: expected 'none' of from-scratch"),
        ("ncm", {"weights_hash": "0" * 64}, "weights_hash: expected"),
        ("ncm", {"method": "knn"}, "its settings make no such method"),
        ("ncm", {"settings": '{"distance": "euclidean"}'}, "settings_hash: expected"),
        ("finetune", {"seed": 7}, "fit_id: expected"),
        ("finetune", {"fit_id": "f" * 32}, "fit_id: expected"),
        ("ncm", {"data_read": "[" * 100_000}, "data_read: expected a JSON list"),
        ("ncm", {"data_read": "3"}, "data_read: expected a JSON list"),
        ("ncm", {"settings": "[" * 100_000}, "its settings make no such method"),
        ("loki(linear-probe)", {"settings": '{"base": 3}'}, "its settings make no such method"),
    ],
)
def test_a_row_that_says_otherwise_is_found_out(model: str, changes: dict[str, Any], told: str) -> None:
    assert any(told in problem for problem in problems(model, **changes))


def test_a_test_time_row_has_batches_of_one_size() -> None:
    def told(model: str) -> list[str]:
        first, *others = PUBLISHED[model].table("fits").to_pylist()
        return identity_problems([{**first, "batch_size": 7}, *others], SUITE, read_lock(lock_path(SUITE)))[0]

    assert told("adabn(finetune)") == ["batch_size: expected one for all fits of a test-time method, got 7, 128"]
    assert told("finetune") == []


def test_a_plug_in_is_not_run_to_find_out_and_its_word_is_marked() -> None:
    fits = [{**row, "plugin_source": "raise SystemExit"} for row in PUBLISHED["ncm"].table("fits").to_pylist()]
    wrong, warned = identity_problems(fits, SUITE, {})
    assert (wrong, len(warned)) == ([], 1)
    assert "its author's word" in warned[0]
    fits = [{**row, "data_read": '["id_train", "target_unlabeled_train"]'} for row in fits]
    assert identity_problems(fits, SUITE, {})[0] == ["protocol: says 'source-only', and its fits have read the target"]


def unchecked(model: str, **changes: Any) -> list[str]:
    fits = [{**row, **changes} for row in PUBLISHED[model].table("fits").to_pylist()]
    return unchecked_identity(fits, SUITE, read_lock(lock_path(SUITE)))


def test_of_what_is_registered_nothing_is_left_unchecked() -> None:
    for model in ("adabn(finetune)", "majority", "ncm"):
        assert unchecked(model) == []


def test_what_cannot_be_held_against_anything_is_said() -> None:
    n = len(PUBLISHED["ncm"].table("fits"))
    assert unchecked("ncm", backbone="timm:resnet18", weights_hash="ab") == [
        "the weights of backbone 'timm:resnet18', which is not registered here",
        f"the ids of {n} fits, whose backbone 'timm:resnet18' is not registered here",
    ]
    assert unchecked("ncm", plugin_source="class X: ...", method="x") == [
        f"the ids of {n} fits, whose method 'x' is not registered here"
    ]
    assert unchecked("ncm", shots="10") == [f"the ids of {n} fits, which were given few images a class"]
    assert unchecked("ncm", source="a+b") == [f"the ids of {n} fits, whose splits are not in the suite's lock"]


def test_the_check_of_a_submission_tells_what_was_not_checked(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(PUBLISHED["ncm"].folder, tmp_path / "ncm"))
    check = verify_submitted(folder, model="ncm", suite=SUITE, results=tmp_path / "none").check("weights and fit ids")
    assert check.status == "ok"
    for name in ("records", "fits"):
        table = pq.read_table(folder / f"{name}.parquet")
        place = table.column_names.index("backbone")
        other = pa.array(["timm:resnet18"] * len(table))
        pq.write_table(table.set_column(place, table.schema.field(place), other), folder / f"{name}.parquet")
    check = verify_submitted(folder, model="ncm", suite=SUITE, results=tmp_path / "none").check("weights and fit ids")
    assert check.status == "not checked"
    assert check.summary.startswith("the weights of backbone 'timm:resnet18', which is not registered here; the ids of")
