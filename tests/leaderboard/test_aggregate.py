"""Scores against means and standard errors worked out by hand."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tlbench.errors import UnknownNameError, UsageError
from tlbench.leaderboard.aggregate import Score, combine_standard_errors, score_rows
from tlbench.leaderboard.costs import costs
from tlbench.leaderboard.forms import form
from tlbench.leaderboard.prepared import prepare
from tlbench.leaderboard.tables import load_fits, load_results


def scored(run: Any, metric: str, role: Any = None) -> dict[str, Score]:
    """Every row's score, by the row's name."""
    records = load_results(run.suite, run_dir=run.folder, published=False)
    seeds = run.suite.protocol.seeds
    return {
        row[2]: score
        for row, score in score_rows(prepare(records, seeds), form(run.suite, metric, role), seeds).items()
    }


def test_a_score_is_the_mean_over_seeds_then_pairs_then_tasks(run: Any, synthetic: ModuleType) -> None:
    run.add("m")
    of = synthetic.score_of_cell

    def cell(task: str, source: str, target: str, seed: int) -> float:
        return of(
            synthetic.Cell(task, source, target, "ood-test", seed, "clean", "clean", None, None, None, "accuracy")
        )

    first = np.mean([np.mean([cell("t", s, t, seed) for seed in (0, 1)]) for s in "abc" for t in "abc" if s != t])
    second = np.mean([cell("u", "x", "y", seed) for seed in (0, 1)])
    assert scored(run, "accuracy")["m"].value == pytest.approx((first + second) / 2, abs=1e-12)


def test_the_spread_over_seeds_is_that_of_the_scores_of_single_seeds(run: Any) -> None:
    run.add("m", value=lambda cell: 0.4 if cell.seed == 0 else 0.5)
    score = scored(run, "accuracy")["m"]
    assert score.value == pytest.approx(0.45)
    assert score.seeds_sd == pytest.approx(0.1 / math.sqrt(2))


def test_a_measure_of_id_test_alone_is_averaged_over_sources(run: Any) -> None:
    run.add("m", value=lambda cell: {"a": 0.1, "b": 0.2, "c": 0.6, "x": 0.9}.get(cell.source, 0))
    assert form(run.suite, "mean_corruption_accuracy").role == "id-test"
    assert scored(run, "mean_corruption_accuracy")["m"].value == pytest.approx((0.3 + 0.9) / 2)


def test_corruption_accuracy_is_the_mean_over_types_of_the_mean_over_severities(run: Any) -> None:
    table = {("fog", 1.0): 0.8, ("fog", 5.0): 0.4, ("contrast", 3.0): 0.2}
    run.add("m", value=lambda cell: table.get((cell.condition, cell.severity), 0.0))
    assert scored(run, "mean_corruption_accuracy")["m"].value == pytest.approx((0.6 + 0.2) / 2)


def test_consistency_is_the_mean_over_the_steps_on_ood_test(run: Any) -> None:
    run.add("m", value=lambda cell: {4.0: 0.9, 8.0: 0.5}.get(cell.severity, 0.0) if cell.role == "ood-test" else 0.0)
    assert scored(run, "mean_consistency")["m"].value == pytest.approx(0.7)


def test_mean_robust_accuracy_is_the_record_of_that_name(run: Any) -> None:
    run.add("m", value=lambda cell: 0.25 if cell.metric == "mean_robust_accuracy" else 0.9)
    assert scored(run, "mean_robust_accuracy")["m"].value == pytest.approx(0.25)
    assert scored(run, "robust_share")["m"].value == pytest.approx(0.9)


def test_a_gap_is_the_source_s_id_test_minus_the_pair_s_ood_test(run: Any) -> None:
    inside = {"a": 0.9, "b": 0.8, "c": 0.7, "x": 0.5}
    outside = {"a": 0.2, "b": 0.3, "c": 0.1, "y": 0.4}

    def value(cell: Any) -> float:
        return inside.get(cell.source, 0) if cell.role != "ood-test" else outside[cell.target]

    run.add("m", value=value)
    by_hand = np.mean([inside[s] - outside[t] for s in "abc" for t in "abc" if s != t])
    assert scored(run, "accuracy_gap")["m"].value == pytest.approx((by_hand + 0.1) / 2)


def test_standard_errors_add_within_a_target_and_their_squares_between_targets(run: Any) -> None:
    errors = {"a": 0.03, "b": 0.01, "c": 0.02, "y": 0.05}
    run.add("m", value=0.5, error=lambda cell: errors.get(cell.target, 0.0))
    # Task t: six pairs, two on each target, weight 1/12 each; task u: one pair, weight 1/2. Seeds share their images.
    by_hand = math.sqrt((2 / 12 * 0.03) ** 2 + (2 / 12 * 0.01) ** 2 + (2 / 12 * 0.02) ** 2 + (0.05 / 2) ** 2)
    assert scored(run, "accuracy")["m"].standard_error == pytest.approx(by_hand, abs=1e-15)


def test_the_error_of_a_gap_counts_a_domain_s_own_images_once_for_both_roles(run: Any) -> None:
    run.add("m", value=0.5, error=lambda cell: 0.02 if cell.target == "a" else 0.0)
    # Domain a: as the ID-test of two pairs and the OOD-test of two, weight 1/12 each.
    assert scored(run, "accuracy_gap")["m"].standard_error == pytest.approx(4 / 12 * 0.02)


def test_a_cell_without_a_standard_error_leaves_the_score_without_one(run: Any) -> None:
    run.add("m", error=lambda cell: None if cell.target == "b" else 0.01)
    score = scored(run, "accuracy")["m"]
    assert score.value is not None
    assert score.standard_error is None


def test_a_combined_error_lies_between_independence_and_a_plain_sum() -> None:
    weights, errors = np.full(4, 0.25), np.array([0.1, 0.2, 0.3, 0.4])
    combined = combine_standard_errors(weights, errors, np.array([0, 0, 1, 1]))
    assert combined is not None
    assert np.sqrt(((weights * errors) ** 2).sum()) < combined < (weights * errors).sum()


def test_a_deterministic_method_s_one_seed_stands_for_all(run: Any) -> None:
    run.add("m", deterministic=True, value=0.5)
    score = scored(run, "accuracy")["m"]
    assert (score.value, score.seeds_sd, score.found, score.expected) == (0.5, None, 7, 7)


def test_a_seed_that_the_suite_does_not_name_has_no_say(run: Any) -> None:
    run.add("m", value=lambda cell: 0.5 if cell.seed < 2 else 0.9, seeds=(0, 1, 7))
    assert scored(run, "accuracy")["m"].value == pytest.approx(0.5)


def test_a_missing_cell_leaves_bounds_and_no_value(run: Any) -> None:
    run.add("m", value=0.6, without=lambda cell: (cell.source, cell.target, cell.seed) == ("a", "b", 1))
    score = scored(run, "accuracy")["m"]
    assert (score.value, score.found, score.expected, score.reason) == (
        None,
        13,
        14,
        "13 of 14 cells; first a to b, seed 1",
    )
    # The cell weighs 1/12, one of its two seeds half of that.
    assert score.low == pytest.approx(0.6 * (1 - 1 / 24))
    assert score.high == pytest.approx(0.6 + 0.4 / 24)


def test_an_unbounded_measure_has_no_bounds(run: Any) -> None:
    run.add("m", without=lambda cell: cell.target == "b")
    score = scored(run, "nll")["m"]
    assert (score.value, score.low, score.high) == (None, None, None)


def test_a_failed_cell_is_told_with_its_reason(run: Any) -> None:
    run.add("m", status=lambda cell: ("failed", "it diverged") if cell.source == "a" else None)
    assert scored(run, "accuracy")["m"].reason == "10 of 14 cells; a to b failed: it diverged"


def test_what_never_applies_is_told_so(run: Any) -> None:
    run.add("m", status=lambda cell: ("not_applicable", "needs gradients") if cell.kind == "attack" else None)
    assert scored(run, "mean_robust_accuracy")["m"].reason == "not applicable: needs gradients"
    assert scored(run, "accuracy")["m"].value is not None


def test_numbers_that_are_there_twice_are_not_averaged(run: Any) -> None:
    run.add("m", value=0.2)
    run.add("m", value=0.8, settings="{ }")
    score = scored(run, "accuracy")["m"]
    assert score.value is None
    assert "there twice" in score.reason


def test_a_method_that_reads_the_target_has_one_id_value_a_pair(run: Any) -> None:
    run.add("m", per_target=True, value=0.5, protocol="unlabelled-target")
    score = scored(run, "accuracy", "id-test")["m"]
    assert (score.value, score.found, score.expected) == (0.5, 8, 8)
    assert scored(run, "accuracy_gap")["m"].value == pytest.approx(0.0)


def test_the_order_of_records_does_not_matter(run: Any) -> None:
    run.add("m")
    run.add("n", value=0.5)
    records = load_results(run.suite, run_dir=run.folder, published=False)
    seeds = run.suite.protocol.seeds
    shuffled = records.sample(frac=1, random_state=3).reset_index(drop=True)
    for metric in ("accuracy", "accuracy_gap", "mean_corruption_accuracy"):
        wanted = form(run.suite, metric)
        first, second = (score_rows(prepare(table, seeds), wanted, seeds) for table in (records, shuffled))
        assert {row: (s.value, s.standard_error) for row, s in first.items()} == {
            row: (pytest.approx(s.value, abs=1e-15), pytest.approx(s.standard_error)) for row, s in second.items()
        }


def test_a_score_does_not_depend_on_who_else_takes_part(run: Any) -> None:
    run.add("m")
    alone = scored(run, "accuracy")["m"]
    run.add("n", value=0.9)
    run.add("o", without=lambda cell: cell.source == "a")
    assert scored(run, "accuracy")["m"] == alone


def test_a_variant_that_is_not_ranked_is_a_row_of_its_own(run: Any) -> None:
    run.add("m", value=0.5)
    run.add("m", value=0.7, variant="soup", headline=False)
    assert {name: score.value for name, score in scored(run, "accuracy").items()} == {
        "m": pytest.approx(0.5),
        "m/soup": pytest.approx(0.7),
    }


def test_costs_are_means_over_seeds_fits_and_tasks(run: Any) -> None:
    run.add("m", seconds=3.0)
    fits = load_fits(run.suite, run_dir=run.folder, published=False)
    fits.loc[fits["source"] == "x", "seconds"] = 9.0
    table = costs(fits, run.suite.protocol.seeds)
    assert table["fit_seconds"].tolist() == [6.0]


def test_no_records_give_no_scores(run: Any) -> None:
    records = load_results(run.suite, run_dir=run.folder, published=False)
    assert score_rows(prepare(records, (0,)), form(run.suite, "accuracy"), (0,)) == {}
    assert isinstance(costs(load_fits(run.suite, run_dir=run.folder, published=False), (0,)), pd.DataFrame)


def test_what_no_suite_measures_is_said(run: Any, synthetic: ModuleType) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'accuracy'"):
        form(run.suite, "acuracy")
    with pytest.raises(UsageError, match="is a cost"):
        form(run.suite, "fit_seconds")
    clean = synthetic.make_suite(conditions=[{"kind": "clean", "roles": ["id-test"]}])
    with pytest.raises(UsageError, match="does not measure 'mean_robust_accuracy'"):
        form(clean, "mean_robust_accuracy")
    with pytest.raises(UsageError, match="needs clean images of id-test and of ood-test"):
        form(clean, "accuracy_gap")


def test_weights_sum_to_one_and_those_of_a_gap_to_zero(run: Any) -> None:
    for metric in ("accuracy", "nll", "mean_corruption_accuracy", "mean_consistency", "robust_share"):
        assert form(run.suite, metric).terms["weight"].sum() == pytest.approx(1)
    assert form(run.suite, "ece_gap").terms["weight"].sum() == pytest.approx(0)
