"""Features on disk, shared by the fits of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tlbench.engine.features import FeatureCache, Piece
from tlbench.errors import StoreError


def pieces_of(values: torch.Tensor, order: list[list[int]]) -> Iterator[Piece]:
    for rows in order:
        yield torch.tensor(rows), values[rows]


def test_pieces_in_any_order_come_back_in_their_places(tmp_path: Path) -> None:
    values = torch.randn(5, 7)
    read = FeatureCache(tmp_path).values(("w", "s", ""), 5, lambda: pieces_of(values, [[4, 0], [2], [1, 3]]))
    assert torch.equal(read, values)
    assert not list(tmp_path.iterdir()), "the file has no name"


def test_what_was_written_is_not_computed_again(tmp_path: Path) -> None:
    cache, computed = FeatureCache(tmp_path), []

    def pieces() -> Iterator[Piece]:
        computed.append(1)
        yield torch.arange(3), torch.ones(3, 2)

    for _ in range(3):
        cache.values(("w", "s", ""), 3, pieces)
    cache.values(("w", "s", "two views"), 3, pieces)
    assert len(computed) == 2


def test_what_one_reader_changes_the_next_does_not_see(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    first = cache.values(("w", "s", ""), 3, lambda: [(torch.arange(3), torch.ones(3, 2))])
    first.mul_(5)
    second = cache.values(("w", "s", ""), 3, lambda: [])
    assert torch.equal(second, torch.ones(3, 2))
    assert torch.equal(first, torch.full((3, 2), 5.0))


def test_the_oldest_are_forgotten_and_what_was_handed_out_stays(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, most_bytes=3 * 40)
    tensors = {
        name: cache.values(("w", name, ""), 10, lambda i=i: [(torch.arange(10), torch.full((10, 1), float(i)))])  # type: ignore[misc]
        for i, name in enumerate("abcd")
    }
    assert [name for name in "abcd" if ("w", name, "") in cache] == ["b", "c", "d"]
    assert torch.equal(tensors["a"], torch.zeros(10, 1))


def test_the_newest_is_kept_whatever_its_size(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path, most_bytes=1)
    cache.values(("w", "large", ""), 9, lambda: [(torch.arange(9), torch.ones(9, 9))])
    assert ("w", "large", "") in cache


def test_no_image_has_no_features_and_too_few_pieces_are_refused(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    assert cache.values(("w", "empty", ""), 0, lambda: []).shape == (0, 0)
    with pytest.raises(ValueError, match="features of 4 images, got 3"):
        cache.values(("w", "s", ""), 4, lambda: [(torch.arange(3), torch.ones(3, 2))])
    assert ("w", "s", "") not in cache


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="expected a folder, found a file"):
        FeatureCache(tmp_path / "file" / "below").values(
            ("w", "s", ""), 1, lambda: [(torch.arange(1), torch.ones(1, 1))]
        )
