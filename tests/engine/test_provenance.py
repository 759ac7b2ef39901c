"""What is measured is float32 arithmetic, whatever a plug-in asked for in its training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tlbench.engine.provenance import exact_arithmetic


@pytest.fixture
def careless() -> Iterator[None]:
    """Settings as a plug-in may leave them."""
    torch.set_float32_matmul_precision("medium")
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.deterministic = False
    yield
    exact_arithmetic()


def test_nothing_less_than_float32_and_nothing_that_depends_on_the_clock(careless: None) -> None:
    exact_arithmetic()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.deterministic
