"""What identifies a method stays what it was: results that are published keep their ids."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tlbench.engine.identity import identity_problems
from tlbench.leaderboard.images import lock_path
from tlbench.methods.base import Method, added_later
from tlbench.methods.resolve import resolve_model
from tlbench.records.lock import read_lock
from tlbench.records.published import published_models
from tlbench.registry import BUILT_IN
from tlbench.suites.load import load_suite

PUBLISHED = [
    found
    for found in published_models("digits")
    # Other people give their rows names of their own.
    if set(re.findall(r"[^(),]+", found.model)) <= set(BUILT_IN["methods"])
]
SUITE = load_suite("digits")


class Grown(Method):
    lr: float = 0.1
    precision: str | None = added_later(default=None)


@pytest.mark.skipif(not PUBLISHED, reason="no published results in this checkout")
@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.model)
def test_a_method_of_today_is_the_one_that_was_published(published: Any) -> None:
    fits = published.table("fits").to_pylist()
    method = resolve_model(published.model).method
    assert {row["settings"] for row in fits} == {json.dumps(method.settings(), sort_keys=True)}
    assert identity_problems(fits, SUITE, read_lock(lock_path(SUITE))) == ([], [])


def test_a_setting_added_later_stands_in_the_settings_only_where_it_is_set() -> None:
    assert Grown().settings() == {"lr": 0.1}
    assert Grown(precision="bfloat16").settings() == {"lr": 0.1, "precision": "bfloat16"}
    assert resolve_model("finetune(precision=bfloat16)").name == "finetune(precision=bfloat16)"
