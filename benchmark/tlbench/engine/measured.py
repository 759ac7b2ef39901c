"""A predictor made ready to be measured: prepared once, cut into chunks, counted, kept within memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, final

import torch
from torch import Tensor, nn

from tlbench.errors import FitError
from tlbench.models.prepare import prepare
from tlbench.models.statistics import NonFiniteOutputs

if TYPE_CHECKING:
    from tlbench.conditions.base import Loss, Output
    from tlbench.methods.base import Predictor
    from tlbench.setting import Setting


_Piece = TypeVar("_Piece")


@final
class MeasuredPredictor:
    """What conditions see of a predictor; implements ``conditions.base.Measured``.

    Parameters
    ----------
    predictor : Predictor
    classes : int
        Columns that the outputs must have.
    device : str
    chunk : int
        Most images in one forward pass; halved where memory runs out, unless the predictor depends on
        its batch, which then fails.
    example : uint8 tensor, shape (n, 3, h, w)
        A few images on which the prepared network must agree with the one it was made from.

    tell : callable, optional
        Told how many images were passed forward, after every pass.

    Attributes
    ----------
    note : str
        What was prepared, for the fit's provenance.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        classes: int,
        device: str,
        chunk: int,
        example: Tensor,
        tell: Callable[[int], None] | None = None,
    ) -> None:
        self.predictor = predictor
        self.classes = classes
        self.device = torch.device(device)
        self.chunk = chunk
        self.note = "as fitted"
        self.module: nn.Module = predictor.module.to(self.device)
        self._tell = tell
        self._channels_last = False
        if self.batch_dependent:
            return
        self.module.eval()
        if predictor.differentiable:
            try:
                prepared = prepare(self.module, _as_float(example).to(self.device))
            except Exception as error:
                # A stranger's module that cannot be copied is measured as it is. One that cannot be called at all
                # will say so at its first image.
                self.note = f"as fitted: it cannot be copied and folded ({type(error).__name__})"
            else:
                self.module, self.note, self._channels_last = prepared.module, prepared.note, True

    @property
    def output(self) -> Output:
        return self.predictor.output

    @property
    def batch_dependent(self) -> bool:
        return self.predictor.batch_dependent or self.predictor.adapts

    @property
    def differentiable(self) -> bool:
        return self.predictor.differentiable

    def start(self, setting: Setting) -> None:
        """Put an adapting predictor back to its fitted state."""
        if self.predictor.reset is not None:
            self.predictor.reset()

    def outputs(self, images: Tensor) -> Tensor:
        """Return the outputs, shape (n, classes), on the images' device."""
        # Adapting predictors take gradient steps while they predict, which inference mode forbids.
        guard = torch.no_grad() if self.predictor.adapts else torch.inference_mode()
        with guard:
            pieces = self._chunked(len(images), lambda part: self._forward(_as_float(images[part])))
        return torch.cat(pieces).to(images.device)

    def gradient(self, images: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the outputs and the gradient of the summed loss by the images."""

        def one(part: slice) -> tuple[Tensor, Tensor]:
            leaf = images[part].to(self.device).detach().clone().requires_grad_()
            with torch.enable_grad():
                outputs = self._forward(leaf)
                (gradient,) = torch.autograd.grad(loss(outputs, labels[part].to(self.device)).sum(), leaf)
            return outputs.detach().to(images.device), gradient.to(images.device)

        pieces = self._chunked(len(images), one)
        return torch.cat([outputs for outputs, _ in pieces]), torch.cat([gradient for _, gradient in pieces])

    def _forward(self, images: Tensor) -> Tensor:
        moved = images.to(self.device)
        if self._channels_last:
            moved = moved.contiguous(memory_format=torch.channels_last)
        outputs = self.module(moved)
        if not isinstance(outputs, Tensor) or outputs.shape != (len(images), self.classes):
            shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise FitError(
                f"the predictor must return outputs of shape ({len(images)}, {self.classes}) for {len(images)} images, "
                f"it returned {shape}"
            )
        if not outputs.is_floating_point():
            raise FitError(f"the predictor must return floating-point outputs, it returned {outputs.dtype}")
        bad = int(torch.isnan(outputs).any(dim=1).sum())
        if bad:
            raise NonFiniteOutputs(f"the predictor returned NaN for {bad} of {len(images)} images")
        if self._tell is not None:
            self._tell(len(images))
        return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs

    def _chunked(self, n: int, one: Callable[[slice], _Piece]) -> list[_Piece]:
        """Apply ``one`` to consecutive slices; where memory runs out, halve the chunk and repeat the same images."""
        if self.batch_dependent:
            # Half of its batch would be another batch, and another result.
            return [one(slice(0, n))]
        pieces: list[_Piece] = []
        start = 0
        while start < n:
            part = slice(start, min(start + self.chunk, n))
            try:
                pieces.append(one(part))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if self.chunk == 1:
                    raise FitError("out of memory while predicting a single image") from None
                self.chunk = max(1, self.chunk // 2)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            start = part.stop
        return pieces


def _as_float(images: Tensor) -> Tensor:
    return images.float().div_(255) if images.dtype == torch.uint8 else images


def _out_of_memory(error: BaseException) -> bool:
    # On the CPU torch raises a plain RuntimeError whose text alone tells.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
