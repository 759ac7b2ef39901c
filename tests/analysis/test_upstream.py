"""A14: upstream accuracy against OOD accuracy downstream."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from tlbench.analysis.upstream import read_upstream, upstream
from tlbench.errors import UsageError


def _published(count: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    accuracy = 0.5 + 0.02 * np.arange(count)
    return pd.DataFrame(
        {
            "backbone": [f"backbone{b}" for b in range(count)],
            "accuracy": accuracy,
            "imagenet_a": rng.uniform(0.1, 0.3, count),
        }
    )


def test_what_tells_of_transfer_is_told_from_what_does_not(simulated: ModuleType) -> None:
    runs = simulated.simulate(simulated.World(backbones=20, methods=2, backbone_step=0.08))
    answer = upstream(runs, _published(20), draws=500)
    by = answer.tables["measures"].set_index("measure")
    assert by.loc["accuracy", "spearman_low"] > 0.2
    assert by.loc["imagenet_a", "partial_low"] < 0 < by.loc["imagenet_a", "partial_high"]
    table = answer.tables["backbones"]
    assert by.loc["accuracy", "spearman"] == pytest.approx(spearmanr(table["accuracy"], table["downstream"]).statistic)


def test_without_a_file_it_says_so(simulated: ModuleType) -> None:
    assert "--upstream" in upstream(simulated.simulate()).too_small


def test_four_backbones_are_too_few_and_the_missing_ones_are_named(simulated: ModuleType) -> None:
    answer = upstream(simulated.simulate(), _published(4), draws=5)
    assert "4 backbones" in answer.too_small
    assert "backbone4, backbone5" in answer.too_small
    assert not answer.tables


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("backbone,acuracy\na,0.7\n", "did you mean 'acuracy'"),
        ("backbone,accuracy\na,76.1\n", "line 2, column 'accuracy'"),
        ("backbone,accuracy\na,0.7\na,0.8\n", "'a' is there twice"),
        ("backbone,accuracy\na,high\n", "got 'high'"),
        ("", "expected a CSV file"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "upstream.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=told):
        read_upstream(path)
    with pytest.raises(UsageError, match="found none"):
        read_upstream(tmp_path / "nowhere.csv")


def test_a_file_is_read(tmp_path: Path) -> None:
    _published(3).to_csv(tmp_path / "upstream.csv", index=False)
    pd.testing.assert_frame_equal(read_upstream(tmp_path / "upstream.csv"), _published(3), check_exact=False)
