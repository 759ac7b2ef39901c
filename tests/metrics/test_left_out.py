"""Without each block of images a metric has the bits that it has on the images that are kept."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tlbench.metrics import (
    adaptive_calibration_error,
    balanced_accuracy,
    demographic_disparity,
    expected_calibration_error,
    jackknife_standard_error,
    macro_f1,
    worst_group_accuracy,
)
from tlbench.metrics.left_out import (
    adaptive_calibration_error_left_out,
    balanced_accuracy_left_out,
    demographic_disparity_left_out,
    expected_calibration_error_left_out,
    macro_f1_left_out,
    worst_group_accuracy_left_out,
)
from tlbench.metrics.uncertainty import jackknife_blocks, standard_error_left_out
from tlbench.records.precision import as_stored

N = 400
draw = np.random.default_rng(0)
LABEL = draw.integers(0, 9, N)
PREDICTED = np.where(draw.random(N) < 0.6, LABEL, draw.integers(0, 12, N))  # some classes are never true
LABEL[:1], PREDICTED[:1] = 40, 41  # and these occur once: without their block they are no classes
CORRECT = LABEL == PREDICTED
GROUP = np.concatenate([[7], draw.integers(0, 3, N - 1)])
SPLIT = draw.random(N) < 0.1
EXACT = as_stored(draw.uniform(1 / 12, 1, N))
ROUGH = draw.uniform(0, 1, N)
TIED = draw.integers(0, 6, N) / 7
CLUSTER = draw.integers(0, 7, N)

Statistic = Callable[[np.ndarray], float]
CASES: dict[str, tuple[Statistic, Callable[[np.ndarray], np.ndarray]]] = {
    "balanced": (
        lambda k: balanced_accuracy(LABEL[k], PREDICTED[k]),
        lambda b: balanced_accuracy_left_out(LABEL, PREDICTED, b),
    ),
    "f1": (lambda k: macro_f1(LABEL[k], PREDICTED[k]), lambda b: macro_f1_left_out(LABEL, PREDICTED, b)),
    "worst group": (
        lambda k: worst_group_accuracy(CORRECT[k], GROUP[k]),
        lambda b: worst_group_accuracy_left_out(CORRECT, GROUP, b),
    ),
    "disparity": (
        lambda k: demographic_disparity(PREDICTED[k], SPLIT[k]),
        lambda b: demographic_disparity_left_out(PREDICTED, SPLIT, b),
    ),
    "disparity of one group": (
        lambda k: demographic_disparity(PREDICTED[k], np.zeros(len(k), bool)),
        lambda b: demographic_disparity_left_out(PREDICTED, np.zeros(N, bool), b),
    ),
}
for name, confidence in (("stored", EXACT), ("rough", ROUGH), ("tied", TIED)):
    CASES[f"ece, {name}"] = (
        lambda k, c=confidence: expected_calibration_error(c[k], CORRECT[k], bins=10, closed="left"),  # type: ignore[misc]
        lambda b, c=confidence: expected_calibration_error_left_out(c, CORRECT, b, bins=10, closed="left"),  # type: ignore[misc]
    )
    CASES[f"adaptive ece, {name}"] = (
        lambda k, c=confidence: adaptive_calibration_error(c[k], CORRECT[k], bins=15),  # type: ignore[misc]
        lambda b, c=confidence: adaptive_calibration_error_left_out(c, CORRECT, b, bins=15),  # type: ignore[misc]
    )


@pytest.mark.parametrize("cluster", [None, CLUSTER])
@pytest.mark.parametrize("name", CASES)
def test_every_block_left_out_gives_the_metric_of_the_others(name: str, cluster: np.ndarray | None) -> None:
    statistic, left_out = CASES[name]
    block = jackknife_blocks(N, cluster=cluster)
    one_by_one = [statistic(np.flatnonzero(block != left)) for left in range(block.max() + 1)]
    assert left_out(block).tolist() == one_by_one
    assert len(set(one_by_one)) > 1 or name in ("disparity of one group", "worst group")
    expected = jackknife_standard_error(statistic, N, cluster=cluster)
    assert standard_error_left_out(left_out(block)) == expected
