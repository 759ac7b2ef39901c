"""Which names a reader takes for one another, and which are two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbench.records.published import published_models
from tlbench.submissions.names import mistaken_for


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("LP-FT", "lp-ft"),
        ("lp_ft", "lp-ft"),
        ("lpft", "lp-ft"),
        ("linear probe", "linear-probe"),
        ("temperature-linear-probe", "temperature(linear-probe)"),
        ("\uff4c\uff50-ft", "lp-ft"),  # wide letters
        ("l\u0440-ft", "lp-ft"),  # a Cyrillic letter
        ("fin\u00e9tune", "finetune"),
        ("lp\u200b-ft", "lp-ft"),  # a space of no width
        ("1p-ft", "lp-ft"),
        ("Ip-ft", "lp-ft"),
        ("l0ra", "lora"),
        ("rnajority", "majority"),
        ("finetunes", "finetune"),
        ("fimetune", "finetune"),
        ("finetun", "finetune"),
        ("linear-probes", "linear-probe"),
    ],
)
def test_a_name_that_can_be_mistaken_is_found_from_either_side(name: str, other: str) -> None:
    assert [found for found, _ in mistaken_for(name, ["knn", other])] == [other]
    assert [found for found, _ in mistaken_for(other, ["knn", name])] == [name]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("lp-ft", "lp-ft"),
        ("knn", "ncm"),
        ("bss", "lst"),
        ("mine(lr=0.1)", "mine(lr=0.2)"),
        ("mine(lr=0.1)", "mine(lr=0.01)"),
        ("mine(lr=0.1)", "mine(lr=01)"),
        ("finetune@resnet18", "finetune@resnet50"),
        ("deit-small-v2", "deit-small-v3"),
        ("finetune", "fine"),
        ("temperature(linear-probe)", "linear-probe"),
        ("", "x"),
    ],
)
def test_settings_and_short_names_are_told_apart(name: str, other: str) -> None:
    assert mistaken_for(name, [other]) == []


def test_no_two_published_names_are_alike() -> None:
    names = [found.model for found in published_models("digits")]
    assert {name: mistaken_for(name, names) for name in names if mistaken_for(name, names)} == {}


@given(st.text(max_size=12), st.text(max_size=12))
def test_the_likeness_is_mutual_and_no_name_is_like_itself(one: str, other: str) -> None:
    assert mistaken_for(one, [one]) == []
    assert bool(mistaken_for(one, [other])) == bool(mistaken_for(other, [one]))
