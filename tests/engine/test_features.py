from __future__ import annotations

import torch

from tlbench.engine.features import RecentFeatures


def test_the_oldest_are_forgotten_once_there_are_too_many_bytes() -> None:
    kept = RecentFeatures(most_bytes=3 * 40)
    for name in "abcd":
        kept["weights", name] = torch.zeros(10)
    assert [name for _, name in kept] == ["b", "c", "d"]
    kept["weights", "b"] = torch.ones(10)
    kept["weights", "e"] = torch.zeros(10)
    assert [name for _, name in kept] == ["d", "b", "e"]


def test_the_newest_is_kept_whatever_its_size() -> None:
    kept = RecentFeatures(most_bytes=1)
    kept["weights", "large"] = torch.zeros(1000)
    assert len(kept["weights", "large"]) == 1000
