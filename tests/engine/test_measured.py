"""A predictor in chunks: memory that runs out costs time and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tlbench.engine.measured import MeasuredPredictor
from tlbench.errors import FitError
from tlbench.methods.base import Predictor
from tlbench.models.statistics import NonFiniteOutputs
from tlbench.models.zoo import load_backbone
from tlbench.setting import CLEAN

IMAGES = torch.randint(0, 256, (37, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Small(nn.Module):
    """A linear network that has memory for a few images only."""

    def __init__(self, room: int = 10**6, error: Callable[[], Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(768, 3)
        self.room, self.error, self.calls = room, error, []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append(len(images))
        if len(images) > self.room:
            raise self.error()
        return self.layer(images.flatten(1))


def measured(module: nn.Module, chunk: int = 32, **claims: Any) -> MeasuredPredictor:
    # Not differentiable: the network is measured itself, not a copy, and can count its calls.
    predictor = Predictor(module, **{"differentiable": False, **claims})
    return MeasuredPredictor(predictor, classes=3, device="cpu", chunk=chunk, example=IMAGES[:4])


def out_of_memory_on_the_cpu() -> Exception:
    return RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, out_of_memory_on_the_cpu])
def test_the_chunk_is_halved_and_the_same_images_are_repeated(error: Callable[[], Exception]) -> None:
    module = Small(room=9, error=error)
    predictor = measured(module)
    outputs = predictor.outputs(IMAGES)
    assert module.calls == [32, 16, 8, 8, 8, 8, 5]
    assert torch.allclose(outputs, measured(Small()).outputs(IMAGES), atol=1e-5)
    # What was learnt stays known.
    predictor.outputs(IMAGES[:10])
    assert module.calls[-2:] == [8, 2]


def test_gradients_are_repeated_in_smaller_chunks_too() -> None:
    def loss(outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, labels, reduction="none")

    images, labels = IMAGES.float() / 255, torch.arange(len(IMAGES)) % 3
    whole = measured(Small()).gradient(images, labels, loss)
    module = Small(room=9)
    parts = measured(module).gradient(images, labels, loss)
    assert module.calls[:3] == [32, 16, 8]
    for first, second in zip(whole, parts, strict=True):
        assert torch.allclose(first, second, atol=1e-6)
        assert not second.requires_grad


def test_memory_for_not_even_one_image_fails() -> None:
    with pytest.raises(FitError, match="out of memory while predicting a single image"):
        measured(Small(room=0)).outputs(IMAGES)


def test_another_error_is_not_taken_for_lack_of_memory() -> None:
    module = Small(room=9, error=lambda: RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        measured(module).outputs(IMAGES)
    assert module.calls == [32]


@pytest.mark.parametrize("claims", [{"batch_dependent": True}, {"adapts": True}])
def test_a_predictor_that_depends_on_its_batch_is_never_cut(claims: dict[str, bool]) -> None:
    module = Small(room=30)
    with pytest.raises(torch.OutOfMemoryError):
        measured(module, chunk=8, **claims).outputs(IMAGES)
    assert module.calls == [37]


@pytest.mark.parametrize("chunk", [1, 7, 36, 64])
def test_outputs_do_not_depend_on_the_chunk(chunk: int) -> None:
    network = load_backbone("small-cnn").fresh(3)
    whole = measured(network, 37, differentiable=True).outputs(IMAGES)
    assert torch.allclose(measured(network, chunk, differentiable=True).outputs(IMAGES), whole, atol=1e-5)


def test_floats_and_bytes_of_the_same_images_give_the_same() -> None:
    predictor = measured(Small())
    assert torch.equal(predictor.outputs(IMAGES), predictor.outputs(IMAGES.float() / 255))


def test_every_pass_is_counted_and_a_failed_one_is_not() -> None:
    told: list[int] = []
    predictor = Predictor(Small(room=9), differentiable=False)
    MeasuredPredictor(predictor, classes=3, device="cpu", chunk=32, example=IMAGES[:4], tell=told.append).outputs(
        IMAGES
    )
    assert sum(told) == len(IMAGES)


class Wrapped(nn.Module):
    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.change = Small(), change

    def forward(self, images: Tensor) -> Any:
        return self.change(self.net(images))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    assert measured(Wrapped(lambda outputs: outputs.to(dtype))).outputs(IMAGES).dtype == torch.float32


def test_double_precision_is_kept() -> None:
    assert measured(Wrapped(Tensor.double)).outputs(IMAGES).dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda outputs: outputs[:, :2], r"of shape \(32, 3\) for 32 images, it returned \(32, 2\)"),
        (lambda outputs: outputs[1:], r"it returned \(31, 3\)"),
        (lambda outputs: {"logits": outputs}, "it returned dict"),
        (lambda outputs: outputs.long(), "floating-point outputs, it returned torch.int64"),
    ],
)
def test_a_wrong_form_is_told(change: Callable[[Tensor], Any], said: str) -> None:
    with pytest.raises(FitError, match=said):
        measured(Wrapped(change)).outputs(IMAGES)


def test_nan_is_told_and_infinity_is_left_to_who_reads_it() -> None:
    def with_nan(outputs: Tensor) -> Tensor:
        return outputs.index_fill(0, torch.tensor([3, 5]), float("nan")) if len(outputs) == 32 else outputs

    with pytest.raises(NonFiniteOutputs, match="NaN for 2 of 37 images"):
        measured(Wrapped(with_nan)).outputs(IMAGES)
    assert measured(Wrapped(lambda o: o.index_fill(1, torch.tensor([0]), -torch.inf))).outputs(IMAGES).isneginf().any()


def test_a_network_that_cannot_be_copied_is_measured_as_it_is() -> None:
    class Stubborn(Small):
        def __deepcopy__(self, memory: object) -> Stubborn:
            raise TypeError("no copies")

    predictor = measured(Stubborn(), differentiable=True)
    assert predictor.note == "as fitted: it cannot be copied and folded (TypeError)"
    assert torch.allclose(predictor.outputs(IMAGES), measured(Small()).outputs(IMAGES), atol=1e-6)


def test_an_adapting_predictor_stays_in_its_mode_and_goes_back_before_every_setting() -> None:
    resets: list[int] = []
    module = Small().train()
    predictor = measured(module, adapts=True, reset=lambda: resets.append(1))
    assert module.training
    predictor.start(CLEAN)
    predictor.start(CLEAN)
    assert len(resets) == 2
    fixed = Small().train()
    measured(fixed)
    assert not fixed.training
