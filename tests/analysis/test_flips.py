"""The images that flip between two models: counted, tested and named as an outside implementation would."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tlbench.analysis.compared import Compared
from tlbench.analysis.flips import find_flips, mcnemar
from tlbench.analysis.paired import compare, side_by_side

CLASSES = {"t": ("cat", "dog", "fox")}
LABELS = [0, 1, 2, 0]


def predictions(
    right: Any, *, source: str = "a", target: str = "b", deterministic: bool = False, told: bool = True, **changes: Any
) -> pd.DataFrame:
    """Return predictions that are right where ``right``, shape (seeds, images), says so; else the next class."""
    rows = np.atleast_2d(np.asarray(right, dtype=bool))
    n = rows.shape[1]
    label = np.resize(LABELS, n)
    frames = []
    for seed, own in enumerate(rows):
        frame = pd.DataFrame(
            {
                "id": np.arange(n),
                "image": [f"{target}/{place}" for place in range(n)],
                "seed": seed,
                "rank": pd.array(np.where(own, 0, 1), dtype="Int32"),
                "label": label,
                "predicted": pd.array(np.where(own, label, (label + 1) % 3), dtype="Int32"),
            }
        )
        frames.append(frame)
    constant = {
        "task": "t",
        "source": source,
        "target": target,
        "role": "ood-test",
        "condition": "clean",
        "cluster": None,
        "variant": "main",
        "headline": True,
        "deterministic": deterministic,
        "split_hash": target,
        "settings_hash": "s",
        "backbone": "net",
        "weights_hash": "w",
        "shots": "full",
        "precision": "float32",
        "origin": "published",
    }
    table = pd.concat(frames, ignore_index=True).assign(**{**constant, **changes})
    return table if told else table.drop(columns=["label", "predicted"])


def only(frame: pd.DataFrame) -> dict[str, Any]:
    assert len(frame) == 1
    return {str(key): value for key, value in frame.iloc[0].to_dict().items()}


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int) -> None:
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_takes_counts() -> None:
    with pytest.raises(ValueError, match="expected counts, got -1 and 2"):
        mcnemar(-1, 2)


@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 30))
@settings(max_examples=12)
def test_counts_are_those_of_the_definition(number: int, seeds: int, n: int) -> None:
    draw = np.random.default_rng(number)
    a, b = draw.random((2, seeds, n)) < 0.6
    found = find_flips(predictions(a), predictions(b))
    pair = only(found.pairs)
    assert (pair["images"], pair["seeds"]) == (n, seeds)
    assert [pair[name] for name in ("both_right", "first_only", "second_only", "both_wrong")] == [
        int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()),
    ]  # fmt: skip
    lead = a.sum(axis=0) - b.sum(axis=0, dtype=int)
    assert (pair["first_images"], pair["second_images"]) == ((lead > 0).sum(), (lead < 0).sum())
    if (lead != 0).any():
        assert pair["p"] == pytest.approx(stats.binomtest(int((lead > 0).sum()), int((lead != 0).sum())).pvalue)
    assert len(found.rows) == (a != b).sum() == found.images["flips"].sum()
    assert (found.rows["right"] == "first").sum() == (a & ~b).sum()
    assert list(found.images["flips"]) == sorted((a != b).sum(axis=0)[(a != b).any(axis=0)], reverse=True)


@given(st.integers(0, 1000))
@settings(max_examples=4)
def test_exchanging_the_models_exchanges_the_columns(number: int) -> None:
    draw = np.random.default_rng(number)
    a, b = (predictions(draw.random((3, 9)) < 0.5) for _ in range(2))
    one, other = find_flips(a, b, classes=CLASSES), find_flips(b, a, classes=CLASSES)
    turned = {"first_only": "second_only", "first_images": "second_images", "first_predicted": "second_predicted"}
    turned |= {value: key for key, value in turned.items()}
    pd.testing.assert_frame_equal(one.pairs, other.pairs.rename(columns=turned)[one.pairs.columns])
    pd.testing.assert_frame_equal(one.images, other.images.rename(columns=turned)[one.images.columns])


def test_does_not_depend_on_the_order_of_rows() -> None:
    draw = np.random.default_rng(0)
    a, b = (predictions(draw.random((3, 30)) < 0.5) for _ in range(2))
    straight = find_flips(a, b)
    shuffled = find_flips(a.sample(frac=1, random_state=1), b.sample(frac=1, random_state=2))
    for name in ("pairs", "images", "rows"):
        pd.testing.assert_frame_equal(getattr(straight, name), getattr(shuffled, name))


def test_an_image_is_named_with_its_label_and_what_each_said_seed_by_seed() -> None:
    a = predictions([[1, 1, 0, 0], [1, 0, 0, 1]])
    b = predictions([[0, 1, 0, 0], [0, 1, 0, 0]])
    found = find_flips(a, b, classes=CLASSES)
    told = found.images[["image", "flips", "first_only", "second_only", "label", "first_predicted", "second_predicted"]]
    assert told.to_numpy().tolist() == [
        ["b/0", 2, 2, 0, "cat", "cat", "dog"],
        ["b/1", 1, 0, 1, "dog", "dog, fox", "dog"],
        ["b/3", 1, 1, 0, "cat", "dog, cat", "dog"],
    ]
    assert found.rows[["seed", "image", "right"]].to_numpy().tolist() == [
        [0, "b/0", "first"], [1, "b/0", "first"], [1, "b/1", "second"], [1, "b/3", "first"],
    ]  # fmt: skip
    assert list(find_flips(a, b).images["label"]) == ["0", "1", "0"]


def test_of_equal_flips_the_image_that_others_flip_on_comes_first() -> None:
    a = pd.concat([predictions([[1, 1, 0]]), predictions([[0, 1, 0]], source="c")])
    b = pd.concat([predictions([[0, 0, 0]]), predictions([[0, 0, 0]], source="c")])
    found = find_flips(a, b).images
    assert list(zip(found["source"], found["image"], strict=True)) == [("a", "b/1"), ("c", "b/1"), ("a", "b/0")]


def test_one_fit_of_a_deterministic_model_stands_for_every_seed() -> None:
    found = find_flips(predictions([[1, 0]], deterministic=True, seed=5), predictions([[0, 0], [0, 1], [1, 1]]))
    pair = only(found.pairs)
    assert (pair["seeds"], pair["first_only"], pair["second_only"]) == (3, 2, 2)
    assert (pair["first_images"], pair["second_images"], pair["p"]) == (1, 1, 1.0)
    assert set(found.images["first_predicted"]) == {"0", "2"}


def test_without_predictions_images_are_counted_and_nothing_is_said_of_classes() -> None:
    whole, bare = (predictions([[1, 0, 1, 0]], told=told) for told in (True, False))
    other = predictions([[0, 0, 1, 1]])
    counted = find_flips(bare, other)
    pd.testing.assert_frame_equal(counted.pairs, find_flips(whole, other).pairs)
    assert list(counted.images["label"]) == ["0", "0"]  # the other's predictions tell it
    assert counted.images["first_predicted"].isna().all()
    neither = find_flips(bare, other.drop(columns=["label", "predicted"]))
    assert neither.images[["label", "first_predicted", "second_predicted"]].isna().all(axis=None)
    assert neither.rows["right"].tolist() == ["first", "second"]


def test_equal_models_flip_nothing() -> None:
    table = predictions([[1, 0, 1]])
    found = find_flips(table, table.assign(settings_hash="other"))
    assert only(found.pairs)["p"] == 1.0
    assert len(found.images) == len(found.rows) == 0
    assert list(found.images.columns) == list(find_flips(table, predictions([[0, 0, 1]])).images.columns)


def test_flips_are_the_difference_that_is_compared() -> None:
    draw = np.random.default_rng(4)
    a, b = (predictions(draw.random((3, 40)) < chance) for chance in (0.7, 0.5))
    pair = only(find_flips(a, b).pairs)
    difference = (pair["first_only"] - pair["second_only"]) / (pair["images"] * pair["seeds"])
    assert compare(a, b, draws=10).mean.value == pytest.approx(difference, abs=1e-12)
    beside = side_by_side(a, b)
    assert (beside["first"] - beside["second"]).mean() == pytest.approx(difference, abs=1e-12)


def test_the_table_of_a_comparison_has_every_level_once() -> None:
    draw = np.random.default_rng(5)

    def both_tasks() -> pd.DataFrame:
        parts = [predictions(draw.random((2, 20)) < 0.6, target=target) for target in "bcd"]
        parts.append(predictions(draw.random((2, 12)) < 0.6, target="y", source="x", task="u"))
        parts.append(predictions(draw.random((2, 12)) < 0.6, target="z", source="x", task="u", cluster="k"))
        return pd.concat(parts, ignore_index=True)

    a, b = both_tasks(), both_tasks()
    differences = compare(a, b, draws=200)
    found = Compared("s", 1, "0", "A", "B", "accuracy", "ood-test", differences, find_flips(a, b), ())
    frame = found.frame
    assert frame["level"].tolist() == ["all", "judged", "task", "task", *["pair"] * 5]
    whole = frame.set_index("level").loc["all"]
    assert (whole["pairs"], whole["reason"]) == (5, "1 clusters, an interval needs at least 5")
    assert np.isnan(whole["low"])
    tasks = frame[frame["level"] == "task"].set_index("task")
    pairs = frame[frame["level"] == "pair"]
    for task in "tu":
        own = pairs[pairs["task"] == task]
        assert tasks.loc[task, "difference"] == pytest.approx(own["difference"].mean(), abs=1e-12)
        assert tasks.loc[task, "first_only"] == own["first_only"].sum()
    assert tasks.loc["u", "reason"] == "1 of 2 pairs have no interval"
    assert np.isnan(tasks.loc["u", "low"])
    assert tasks.loc["t", "low"] < tasks.loc["t", "difference"] < tasks.loc["t", "high"]
    assert whole["difference"] == pytest.approx(tasks["difference"].mean(), abs=1e-12)
    assert pairs["p"].notna().all()
    assert frame[frame["level"] != "pair"]["p"].isna().all()


def test_a_task_alone_has_the_interval_of_the_whole() -> None:
    draw = np.random.default_rng(6)
    a, b = (pd.concat([predictions(draw.random((3, 30)) < 0.6, target=t) for t in "bc"]) for _ in range(2))
    found = compare(a, b, draws=200)
    task = only(found.tasks)
    assert (task["low"], task["high"]) == pytest.approx((found.mean.low, found.mean.high))
    assert (task["pairs"], task["judged_pairs"], task["reason"]) == (2, 2, "")
