"""What a row says of itself follows from its method's name, its settings and the data."""

from __future__ import annotations

from typing import Any

import pytest

from tlbench.engine.identity import identity_problems
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


def test_a_plug_in_is_not_run_to_find_out_and_its_word_is_marked() -> None:
    fits = [{**row, "plugin_source": "raise SystemExit"} for row in PUBLISHED["ncm"].table("fits").to_pylist()]
    wrong, warned = identity_problems(fits, SUITE, {})
    assert (wrong, len(warned)) == ([], 1)
    assert "its author's word" in warned[0]
    fits = [{**row, "data_read": '["id_train", "target_unlabeled_train"]'} for row in fits]
    assert identity_problems(fits, SUITE, {})[0] == ["protocol: says 'source-only', and its fits have read the target"]
