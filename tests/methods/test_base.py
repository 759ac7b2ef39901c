"""What identifies a method stays what it was: results that are published keep their ids."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tlbench.engine.plan import fit_id_of, method_identity
from tlbench.methods.base import Method, added_later
from tlbench.methods.resolve import resolve_model
from tlbench.records.published import published_models
from tlbench.seeds import digest
from tlbench.suites.load import load_suite

PUBLISHED = published_models("digits")
SUITE = load_suite("digits")


class Grown(Method):
    lr: float = 0.1
    precision: str | None = added_later(default=None)


@pytest.mark.skipif(not PUBLISHED, reason="no published results in this checkout")
@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published.model)
def test_a_method_of_today_is_the_one_that_was_published(published: Any) -> None:
    method = resolve_model(published.model).method
    # ID-val's split is what the fit's id knows of the validation data.
    columns = ["fit_id", "role", "split_hash"]
    splits = published.table("records").select(columns).to_pandas().drop_duplicates()
    val = splits[splits.role == "id-val"].set_index("fit_id").split_hash
    for row in published.table("fits").to_pylist():
        assert json.dumps(method.settings(), sort_keys=True) == row["settings"]
        assert digest(method_identity(method, ""))[:16] == row["settings_hash"]
        if row["weights_hash"] == "none":
            continue  # the id then holds the hash of a backbone whose weights are not used
        fit_id = fit_id_of(
            SUITE,
            method,
            "",
            row["weights_hash"],
            train=row["source_hash"],
            val=val[row["fit_id"]],
            shots=row["shots"],
            seed=row["seed"],
            target=[],
        )
        assert fit_id == row["fit_id"]


def test_a_setting_added_later_stands_in_the_settings_only_where_it_is_set() -> None:
    assert Grown().settings() == {"lr": 0.1}
    assert Grown(precision="bfloat16").settings() == {"lr": 0.1, "precision": "bfloat16"}
    assert resolve_model("finetune(precision=bfloat16)").name == "finetune(precision=bfloat16)"
