"""What a report is made of: file names for strangers' names, and which measures have a board."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tlbench.errors import StoreError
from tlbench.report.content import Content, board_metrics, model_path, page_name
from tlbench.suites.load import load_suite


@given(st.text(min_size=1, max_size=300))
@example("../../x")
@example("con")
@example("x" * 300)
@example(".hidden")
@example("\u202eexe.gnp")
def test_a_file_name_is_plain_whatever_the_name(name: str) -> None:
    told = page_name(name)
    assert set(told) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert 1 <= len(told) <= 61
    assert told not in {"con", "nul", "index"}


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
@example("Model", "model")
@example("a.b", "a-b")
@example("x(y)", page_name("x(y)"))
def test_two_names_have_two_file_names_even_where_capitals_are_ignored(first: str, second: str) -> None:
    assert (first == second) == (page_name(first).casefold() == page_name(second).casefold())


def test_a_plain_name_is_its_own_file_name() -> None:
    assert model_path("linear-probe", "published") == "models/linear-probe.html"
    assert model_path("linear-probe", "local") == "models/linear-probe.own.html"


def test_boards_are_of_proper_measures_and_each_once() -> None:
    metrics = board_metrics(load_suite("digits"))
    assert metrics[0] == "accuracy"
    assert {"nll", "brier", "mean_robust_accuracy", "mean_corruption_accuracy"} <= set(metrics)
    assert not {"ece", "accuracy_gap", "robust_accuracy", "mean_consistency"} & set(metrics)


def test_the_measure_asked_for_opens_even_if_it_makes_no_ranks() -> None:
    assert board_metrics(load_suite("digits"), "ece")[:2] == ("ece", "accuracy")


def test_predictions_of_ones_own_model_are_read_when_asked(content: Content) -> None:
    assert ("twin", "local") in content.models
    assert len(content.predictions("twin", "local", "clean")) == 0  # this run kept none


def test_a_card_that_is_no_toml_is_an_error_with_its_place(content: Content, tmp_path: Path) -> None:
    from dataclasses import replace

    folder = tmp_path / content.suite.name / "broken"
    folder.mkdir(parents=True)
    (folder / "records.parquet").touch()
    (folder / "card.toml").write_text("name = ")
    published = replace(content, results=tmp_path, _folders={})
    with pytest.raises(StoreError, match=r"card\.toml: cannot be read"):
        published.card("broken", "published")
    (folder / "card.toml").write_text("x" * 300_000)
    with pytest.raises(StoreError, match=r"expected at most 200,000 bytes"):
        published.card("broken", "published")
