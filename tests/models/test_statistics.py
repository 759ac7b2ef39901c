"""Outputs to stored columns, against their definitions written the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tlbench.binning import class_bins
from tlbench.metrics import accuracy, brier_score, expected_calibration_error, negative_log_likelihood
from tlbench.models import statistics as statistics_module
from tlbench.models.statistics import NonFiniteOutputs, Statistics, reduce_outputs, reduce_probabilities
from tlbench.records.precision import as_stored

# Stored numbers have 16 significant bits; a confidence that follows from a stored log-likelihood has nearly as many.
STORED = 4e-5


def some_outputs(n: int = 60, classes: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator)
    return logits, torch.randint(classes, (n,), generator=generator)


def full_columns(outputs: Tensor, labels: Tensor, temperature: float | None = None) -> dict[str, np.ndarray]:
    return reduce_outputs(outputs, labels, output="logits", temperature=temperature, full=True)


@st.composite
def outputs_with_ties(draw: st.DrawFn) -> tuple[list[list[float]], list[int]]:
    classes = draw(st.integers(1, 6))
    value = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])
    row = st.lists(value, min_size=classes, max_size=classes).filter(lambda r: max(r) > -math.inf)
    rows = draw(st.lists(row, min_size=1, max_size=6))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=len(rows), max_size=len(rows)))
    return rows, labels


@given(outputs_with_ties(), st.sampled_from(["logits", "log_probs", "scores"]))
def test_rank_and_predicted_are_places_in_one_stable_order(
    case: tuple[list[list[float]], list[int]], kind: str
) -> None:
    rows, labels = case
    columns = reduce_outputs(torch.tensor(rows), torch.tensor(labels), output=kind)  # type: ignore[arg-type]
    for i, (row, label) in enumerate(zip(rows, labels, strict=True)):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        assert columns["predicted"][i] == order[0]
        assert columns["rank"][i] == order.index(label)
    np.testing.assert_array_equal(columns["rank"] == 0, columns["predicted"] == np.array(labels))


def test_predicted_is_argmax_on_this_device() -> None:
    outputs = torch.randint(3, (200, 6), generator=torch.Generator().manual_seed(0)).float()
    columns = reduce_outputs(outputs, torch.zeros(200, dtype=torch.int64), output="scores")
    np.testing.assert_array_equal(columns["predicted"], outputs.argmax(1).numpy())


@pytest.mark.parametrize("temperature", [0.5, 2.5])
def test_agrees_with_the_definitions_written_one_image_at_a_time(temperature: float) -> None:
    outputs, labels = some_outputs()
    columns = full_columns(outputs, labels, temperature)
    for i, (row, label) in enumerate(zip(outputs.double().tolist(), labels.tolist(), strict=True)):
        for suffix, t in (("", 1.0), ("_scaled", temperature)):
            exponentials = [math.exp(z / t) for z in row]
            p = [e / sum(exponentials) for e in exponentials]
            assert columns[f"confidence{suffix}"][i] == pytest.approx(max(p), rel=STORED)
            assert columns[f"log_likelihood{suffix}"][i] == pytest.approx(math.log(p[label]), rel=STORED)
            brier = sum((pk - (k == label)) ** 2 for k, pk in enumerate(p))
            assert columns[f"brier{suffix}"][i] == pytest.approx(brier, rel=STORED)


def test_the_scale_derivative_is_that_of_autograd() -> None:
    outputs, labels = some_outputs()
    for i in range(10):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        loss = F.cross_entropy(scale * outputs[i : i + 1].double(), labels[i : i + 1])
        (expected,) = torch.autograd.grad(loss, scale)
        assert full_columns(outputs, labels)["scale_derivative"][i] == pytest.approx(float(expected), rel=STORED)


def test_normalised_log_probabilities_stay_and_others_are_normalised() -> None:
    outputs, labels = some_outputs()
    log_probs = outputs.double().log_softmax(1)
    of_logits = full_columns(outputs, labels)
    for shifted in (log_probs, log_probs + 1.7):
        of_log_probs = reduce_outputs(shifted, labels, output="log_probs", full=True)
        for name, column in of_logits.items():
            np.testing.assert_allclose(of_log_probs[name], column, rtol=STORED, atol=1e-7, err_msg=name)


def test_scores_have_an_order_and_no_probabilities() -> None:
    outputs, labels = some_outputs()
    columns = reduce_outputs(outputs, labels, output="scores", temperature=2.0, full=True)
    assert set(columns) == {"predicted", "rank"}


def test_brier_score_and_temperature_are_left_out_where_not_asked_for() -> None:
    outputs, labels = some_outputs()
    brief = reduce_outputs(outputs, labels, output="logits", temperature=2.0)
    assert set(brief) == {"predicted", "rank", "confidence", "log_likelihood"}
    assert not any(name.endswith("_scaled") for name in full_columns(outputs, labels))


def test_columns_are_stored_as_int32_and_float32() -> None:
    columns = full_columns(*some_outputs(), 2.0)
    assert {name for name, column in columns.items() if column.dtype == np.int32} == {"predicted", "rank"}
    assert all(column.dtype in (np.int32, np.float32) for column in columns.values())


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_outputs_that_allow_no_prediction_are_counted_and_refused(bad: float) -> None:
    outputs, labels = some_outputs(n=7)
    outputs[2, 1] = bad
    outputs[5, 0] = bad
    with pytest.raises(NonFiniteOutputs, match="2 of 7 images"):
        reduce_outputs(outputs, labels, output="logits")


def test_a_row_of_minus_infinity_is_refused() -> None:
    with pytest.raises(NonFiniteOutputs, match="1 of 1 images"):
        reduce_outputs(torch.full((1, 3), -math.inf), torch.tensor([0]), output="log_probs")


def test_a_true_class_of_probability_zero_has_an_infinite_loss_and_a_finite_brier_score() -> None:
    columns = full_columns(torch.tensor([[-math.inf, 0.0, 0.0]]), torch.tensor([0]), 2.0)
    assert columns["log_likelihood"][0] == columns["log_likelihood_scaled"][0] == -np.inf
    assert columns["scale_derivative"][0] == np.inf
    assert columns["brier"][0] == pytest.approx(1.5, rel=STORED)
    assert columns["rank"][0] == 2


def test_a_false_class_of_probability_zero_counts_nothing() -> None:
    with_zero = full_columns(torch.tensor([[1.0, -math.inf, 3.0]]), torch.tensor([0]))
    without = full_columns(torch.tensor([[1.0, 3.0]]), torch.tensor([0]))
    for name in ("confidence", "log_likelihood", "brier", "scale_derivative"):
        assert with_zero[name][0] == pytest.approx(without[name][0], rel=STORED)


def test_huge_logits_lose_no_accuracy() -> None:
    columns = full_columns(torch.tensor([[1e30, 1e30, -1e30]]), torch.tensor([1]))
    assert columns["confidence"][0] == 0.5
    assert columns["log_likelihood"][0] == pytest.approx(-math.log(2), rel=STORED)
    assert columns["scale_derivative"][0] == 0.0


def test_one_class_is_always_right_and_certain() -> None:
    columns = full_columns(torch.tensor([[4.0]]), torch.tensor([0]), 3.0)
    assert columns["rank"][0] == 0
    assert columns["confidence"][0] == 1.0
    assert columns["log_likelihood"][0] == columns["brier"][0] == columns["scale_derivative"][0] == 0.0


def test_half_precision_outputs_are_reduced_in_float64() -> None:
    outputs, labels = some_outputs()
    half = outputs.bfloat16()
    for name, column in full_columns(half.double(), labels).items():
        np.testing.assert_array_equal(full_columns(half, labels)[name], column)


@pytest.mark.parametrize("label", [-1, 5])
def test_a_label_that_is_no_class_is_refused(label: int) -> None:
    with pytest.raises(ValueError, match="labels from 0 to 4"):
        reduce_outputs(torch.zeros(1, 5), torch.tensor([label]), output="logits")


def collected(order: list[int], size: int) -> Statistics:
    outputs, labels = some_outputs()
    statistics = Statistics(output="logits", temperature=1.5, full=True, bins=10, closed="left")
    for start in range(0, len(order), size):
        chosen = torch.tensor(order[start : start + size])
        statistics.add(chosen, labels[chosen], outputs[chosen])
    return statistics


def test_a_set_does_not_depend_on_its_batches_or_their_order() -> None:
    whole = collected(list(range(60)), 60).finish()
    parts = collected(list(np.random.default_rng(0).permutation(60)), 7).finish()
    assert parts.columns["id"].tolist() == list(range(60))
    for name, column in whole.columns.items():
        np.testing.assert_allclose(parts.columns[name], column, rtol=STORED, err_msg=name)
    assert whole.class_bins is not None
    assert parts.class_bins is not None
    np.testing.assert_array_equal(parts.class_bins.count, whole.class_bins.count)


def test_counts_by_class_are_those_of_the_softmax_before_and_after_scaling() -> None:
    outputs, labels = some_outputs()
    reduced = collected(list(range(60)), 16).finish()
    for counts, temperature in ((reduced.class_bins, 1.0), (reduced.class_bins_scaled, 1.5)):
        assert counts is not None
        probabilities = (outputs.double() / temperature).softmax(1).numpy()
        expected = class_bins(probabilities, labels.numpy(), bins=10, closed="left")
        np.testing.assert_array_equal(counts.count, expected.count)
        np.testing.assert_array_equal(counts.positive, expected.positive)
        np.testing.assert_allclose(counts.probability, expected.probability, rtol=1e-12)
        assert counts.positive.sum() == 60


def test_scores_and_brief_sets_have_no_counts_by_class() -> None:
    outputs, labels = some_outputs()
    for statistics in (Statistics(output="scores", full=True), Statistics(output="logits")):
        statistics.add(torch.arange(60), labels, outputs)
        assert statistics.finish().class_bins is None


def test_an_image_added_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="id 3 again"):
        collected([1, 3, 2, 3], 2).finish()


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        Statistics(output="logits").finish()


def plain_columns(outputs: Tensor, labels: Tensor, temperature: float) -> dict[str, np.ndarray]:
    """Return the columns by whole-matrix formulas: what was published was computed so."""
    values, true = outputs.double(), labels[:, None]
    predicted = values.argmax(1, keepdim=True)
    columns = {}
    for suffix, scaled in (("", values), ("_scaled", values / temperature)):
        log_probs = scaled.log_softmax(1)
        likelihood = as_stored(log_probs.gather(1, true)[:, 0].numpy())
        follows = torch.from_numpy(likelihood).double().exp()
        confidence = torch.where(predicted == true, follows[:, None], log_probs.gather(1, predicted).exp())
        one_hot = torch.zeros_like(values).scatter_(1, true, 1.0)
        columns[f"log_likelihood{suffix}"] = likelihood
        columns[f"confidence{suffix}"] = as_stored(confidence[:, 0].numpy())
        columns[f"brier{suffix}"] = as_stored((log_probs.exp() - one_hot).square().sum(1).numpy())
    centred = values - values.amax(1, keepdim=True)
    probabilities = values.log_softmax(1).exp()
    expected = torch.where(probabilities > 0, probabilities * centred, 0.0).sum(1)
    columns["scale_derivative"] = as_stored((expected - centred.gather(1, true)[:, 0]).numpy())
    return columns


@pytest.mark.parametrize("classes", [2, 10, 345])
@pytest.mark.parametrize("scale", [0.1, 3.0, 60.0])
def test_stored_columns_and_counts_keep_every_bit_of_the_plain_formulas(classes: int, scale: float) -> None:
    n, temperature = 2**16 // classes + 50, 1.7  # more than one part
    n = min(n, 1500)
    generator = torch.Generator().manual_seed(classes)
    outputs = scale * torch.randn(n, classes, generator=generator)
    labels = torch.randint(classes, (n,), generator=generator)
    outputs[torch.arange(n), labels] += scale * torch.rand(n, generator=generator)
    impossible = torch.rand(n, classes, generator=generator) < 0.05
    impossible[torch.arange(n), outputs.argmax(1)] = False
    outputs[impossible] = -torch.inf
    statistics = Statistics(output="logits", temperature=temperature, full=True)
    statistics.add(torch.arange(n), labels, outputs)
    reduced = statistics.finish()
    for name, column in plain_columns(outputs, labels, temperature).items():
        assert reduced.columns[name].tobytes() == column.tobytes(), name
    for counts, t in ((reduced.class_bins, 1.0), (reduced.class_bins_scaled, temperature)):
        expected = class_bins((outputs.double() / t).softmax(1).numpy(), labels.numpy())
        assert counts is not None
        for field in ("count", "probability", "positive"):
            assert getattr(counts, field).tobytes() == getattr(expected, field).tobytes(), field


def test_columns_do_not_depend_on_how_the_images_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs, labels = some_outputs(classes=7)
    whole = full_columns(outputs, labels, 1.5)
    monkeypatch.setattr(statistics_module, "_IN_CACHE", 30)
    for name, column in full_columns(outputs, labels, 1.5).items():
        assert column.tobytes() == whole[name].tobytes(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_measures_of_probabilities_are_their_definitions_written_out(dtype: torch.dtype) -> None:
    outputs, labels = some_outputs(n=500)
    probabilities = outputs.to(dtype).softmax(1)
    columns = reduce_probabilities(probabilities, labels)
    p, y = probabilities.double().numpy(), labels.numpy()
    one_hot = np.eye(5)[y]
    assert accuracy(columns["correct"]) == np.mean(p.argmax(1) == y)
    assert negative_log_likelihood(columns["log_likelihood"]) == pytest.approx(-np.log(p[np.arange(500), y]).mean())
    assert brier_score(columns["brier"]) == pytest.approx(((p - one_hot) ** 2).sum(1).mean(), rel=1e-12)
    ece = expected_calibration_error(columns["confidence"], columns["correct"])
    expected = expected_calibration_error(probabilities.numpy().max(1), p.argmax(1) == y)
    assert ece == pytest.approx(expected, abs=1e-15)
    assert set(reduce_probabilities(probabilities, labels, brier=False)) == {"correct", "confidence", "log_likelihood"}


def test_ece_of_probabilities_is_netcals() -> None:
    from netcal.metrics import ECE

    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(3000, 20, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    probabilities = (1.6 * logits).softmax(1)
    columns = reduce_probabilities(probabilities, labels, brier=False)
    ours = expected_calibration_error(columns["confidence"], columns["correct"], bins=15)
    assert ours == pytest.approx(ECE(15).measure(probabilities.numpy(), labels.numpy()), abs=1e-12)


def test_probabilities_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="confidence of 3"):
        reduce_probabilities(torch.tensor([[3.0, 0.0]]), torch.tensor([0]))
    with pytest.raises(NonFiniteOutputs, match="1 of 1"):
        reduce_probabilities(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))


@pytest.mark.gpu
def test_a_gpu_gives_the_columns_and_counts_of_the_cpu() -> None:
    outputs, labels = some_outputs(n=3000, classes=345)
    found = []
    for device in ("cpu", "cuda"):
        statistics = Statistics(output="logits", temperature=1.3, full=True)
        statistics.add(torch.arange(3000), labels, outputs.to(device))
        found.append(statistics.finish())
    for name, column in found[0].columns.items():
        np.testing.assert_allclose(found[1].columns[name], column, rtol=STORED, atol=1e-12, err_msg=name)
    for field in ("count", "probability", "positive"):
        np.testing.assert_allclose(getattr(found[1].class_bins, field), getattr(found[0].class_bins, field), rtol=1e-12)
