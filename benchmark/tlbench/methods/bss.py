"""Batch spectral shrinkage: what a batch's features hold least of is shrunk away."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from tlbench.errors import NotApplicableError
from tlbench.methods.base import Context, Hooks, Method, Step, added_later
from tlbench.methods.cost import Cost, recipe_cost
from tlbench.methods.finetune import Finetune, check_given, given
from tlbench.methods.training import merged
from tlbench.suites.spec import Recipe


@final
class Bss(Method):
    """Fine-tuning that shrinks the smallest singular values of every batch's features (Chen et al., NeurIPS 2019).

    Directions of small singular values are those which, by the paper, carry over worst and do harm (negative transfer).
    With F the pooled features of a batch, one row an image, neither centred nor normalised, and s_-i its i-th smallest
    singular value, the loss is::

        cross-entropy + eta * (s_-1^2 + ... + s_-k^2)

    Defaults are the paper's, eta = 0.001 and k = 1, found with batches of 48: the value grows with the features' width
    and shrinks as batches grow, so that another batch size may ask for another eta. F has min(batch, width) singular
    values, and k stops there.

    Everything else is the suite's recipe, where the paper trains by SGD with a slower backbone and tests on ten crops.
    Its code leaves out an epoch's last, smaller batch, whose smallest singular value is another quantity (that of one
    image is the norm of its features). Here the batch is trained on without the penalty: images, order and number of
    steps stay those of ``Finetune``, which eta = 0 equals bit for bit. All weights train: features of a frozen
    backbone cannot shrink. A setting left at None is the recipe's.
    """

    version: ClassVar[int] = 1

    eta: float = 1e-3  # weight of the penalty
    k: int = 1  # how many of the smallest singular values
    lr: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    weight_decay: float | None = None
    augment: str | None = None
    crop: bool | None = None
    flip: bool | None = None
    batchnorm: Literal["train", "eval"] | None = None
    precision: Literal["float32", "bfloat16"] | None = added_later(default=None)  # while training

    def __post_init__(self) -> None:
        check_given(self)
        if not 0 <= self.eta < float("inf"):
            raise ValueError(f"expected a finite eta of at least 0, got {self.eta:g}")
        if self.k < 1:
            raise ValueError(f"expected k >= 1, got {self.k}")

    def fit(self, context: Context) -> nn.Module:
        changes = _changes(self)
        full = min(merged(context.recipe, changes).batch_size, len(context.data("id_train")))
        if self.eta and full < 2:
            raise NotApplicableError(
                f"bss needs batches of at least 2 images, they have {full}: the only singular value of one image's "
                "features is their norm"
            )
        net = context.backbone.fresh(context.classes)
        return context.train(net, _Shrinking(self.eta, self.k, full), **changes)

    def cost(self, recipe: Recipe) -> Cost:
        return recipe_cost(merged(recipe, _changes(self)))

    def null_config(self) -> tuple[Method, Method]:
        return Bss(eta=0.0, k=self.k, **given(self)), Finetune(**_changes(self))


def _changes(method: Method) -> dict[str, Any]:
    return {"regime": "full", **given(method)}


class _Shrinking(Hooks):
    def __init__(self, eta: float, k: int, full: int) -> None:
        self.eta, self.k, self.full = eta, k, full

    def loss(self, step: Step) -> Tensor | None:
        features = step.features
        if not self.eta or features is None or len(features) < self.full:
            return None
        # No spectrum of NaN: the loss that follows from such features tells it better than a solver.
        if not bool(torch.isfinite(features.detach()).all()):
            return None
        return self.eta * smallest_spectrum(features, self.k)


def smallest_spectrum(features: Tensor, k: int = 1) -> Tensor:
    """Return the sum of the squares of a matrix's k smallest singular values.

    Parameters
    ----------
    features : float tensor, shape (n, width)
    k : int
        Counted up to min(n, width), where the sum is the squared Frobenius norm.

    Returns
    -------
    float32 tensor, no dimensions
        Differentiable: the gradient is 2 * sum of s_-i u_i v_i^T, also where singular values are equal or zero.

    Raises
    ------
    ValueError
        If k is not positive, or the matrix is empty.
    """
    if k < 1 or features.ndim != 2 or not features.numel():
        raise ValueError(f"expected a matrix and k of at least 1, got shape {tuple(features.shape)} and {k}")
    # Eigenvalues of the smaller Gram matrix. Squaring costs half the digits, so in float64, which autocast lets alone.
    values = features.double()
    gram = values @ values.T if len(values) <= values.shape[1] else values.T @ values
    ascending: Tensor = torch.linalg.eigvalsh(gram)
    # Rounding may leave what is zero a little below it.
    return ascending[:k].clamp(min=0).sum().float()
