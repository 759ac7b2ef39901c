"""The temperature of least NLL: where it lies, and that no image changes it that has no say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from tlbench.models import statistics
from tlbench.models.statistics import reduce_outputs
from tlbench.models.temperature import fit_temperature


def calibrated(n: int = 4000, classes: int = 4) -> tuple[Tensor, Tensor]:
    """Return logits and labels drawn from their own softmax, whose best temperature is near 1."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("factor", [0.05, 0.4, 3.0, 20.0])
def test_recovers_the_temperature_by_which_logits_were_multiplied(factor: float) -> None:
    logits, labels = calibrated()
    base = fit_temperature(logits, labels)
    assert 0.9 < base < 1.1
    assert fit_temperature(logits * factor, labels) == pytest.approx(base * factor, rel=1e-6)


@given(st.integers(0, 2**31), st.integers(2, 6), st.integers(1, 30), st.floats(0.01, 30))
def test_the_fitted_temperature_never_raises_the_nll_and_has_no_slope(
    seed: int, classes: int, n: int, spread: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=generator)
    fitted = fit_temperature(logits, labels)
    assert 0.01 <= fitted <= 100.0
    nll = {t: float(F.cross_entropy(logits / t, labels)) for t in (1.0, fitted, 0.99 * fitted, 1.01 * fitted)}
    assert nll[fitted] <= nll[1.0] * (1 + 1e-12)
    if 0.0102 < fitted < 98:
        assert nll[fitted] <= min(nll.values()) * (1 + 1e-12)


def test_scaling_changes_no_prediction() -> None:
    logits, labels = calibrated(60)
    scaled = logits / fit_temperature(logits, labels)
    np.testing.assert_array_equal(
        reduce_outputs(scaled, labels, output="logits")["rank"], reduce_outputs(logits, labels, output="logits")["rank"]
    )


def test_the_ends_of_the_range_are_returned_where_the_likelihood_has_no_optimum() -> None:
    right = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(right, torch.tensor([0, 1])) == 0.01
    assert fit_temperature(right, torch.tensor([1, 0])) == 100.0


def test_where_every_temperature_is_as_good_it_is_one() -> None:
    assert fit_temperature(torch.zeros(3, 4), torch.tensor([0, 1, 2])) == 1.0
    assert fit_temperature(torch.zeros(3, 1), torch.tensor([0, 0, 0])) == 1.0


def test_images_of_probability_zero_have_no_say_in_the_temperature() -> None:
    logits, labels = calibrated(n=300)
    impossible = torch.tensor([[-math.inf, 0.0, 0.0, 0.0]], dtype=torch.float64)
    with_it = fit_temperature(torch.cat([logits, impossible]), torch.cat([labels, torch.tensor([0])]), "log_probs")
    assert with_it == pytest.approx(fit_temperature(logits, labels, "log_probs"), rel=1e-9)


def test_scores_have_no_temperature() -> None:
    with pytest.raises(ValueError, match="scores"):
        fit_temperature(torch.zeros(1, 2), torch.tensor([0]), "scores")


def test_the_cut_that_keeps_images_in_cache_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = calibrated(500)
    logits[:7, 0] = -torch.inf
    whole = fit_temperature(3 * logits, labels)
    monkeypatch.setattr(statistics, "_IN_CACHE", 50)
    assert fit_temperature(3 * logits, labels) == whole
