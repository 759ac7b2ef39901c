"""Linear heads on fixed features: multinomial logistic regression, solved to its optimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tlbench.errors import FitError


@dataclass(frozen=True, eq=False)
class Scaling:
    """Mean and standard deviation of training features, by which penalties mean the same for every feature.

    Attributes
    ----------
    mean, std : float64 tensor, shape (width,)
        The deviation of a constant feature is set to 1.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Scaling:
        """Return the scaling that standardises ``features``, shape (n, width)."""
        values = features.double()
        std, mean = torch.std_mean(values, dim=0, correction=0)
        # Rounding gives a constant feature a tiny deviation, which would blow it up elsewhere.
        constant = std <= 1e-7 * mean.abs().clamp(min=1e-30)
        return cls(mean, torch.where(constant, 1.0, std))

    def apply(self, features: Tensor) -> Tensor:
        """Return standardised features, in the type of ``features``."""
        return ((features.double() - self.mean) / self.std).to(features.dtype)

    def fold(self, head: nn.Linear) -> nn.Linear:
        """Return the head on plain features that equals ``head`` on standardised ones."""
        weight = head.weight.detach().double() / self.std
        bias = head.bias.detach().double() - weight @ self.mean
        return _linear(weight, bias, like=head.weight)


def fit_linear_head(
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    l2: float,
    steps: int,
    init: nn.Linear | None = None,
) -> nn.Linear:
    """Fit a linear classifier by multinomial logistic regression.

    Minimises mean cross-entropy + ``l2`` * squared norm of the weights, in float64, by L-BFGS with a strong-Wolfe
    line search. The bias is not penalised. The problem is convex: for ``l2`` > 0 the result does not depend on
    ``init`` beyond the solver's tolerance. In scikit-learn's terms, C = 1 / (2 * n * l2).

    Parameters
    ----------
    features : float tensor, shape (n, width)
    labels : int64 tensor, shape (n,)
    classes : int
        Outputs of the head; a class without examples is allowed.
    l2 : float
        Penalty, at least 0.
    steps : int
        Most iterations.
    init : nn.Linear or None
        Where to start, such as the solution for a neighbouring penalty; None for zero.

    Returns
    -------
    nn.Linear
        In the type and on the device of ``features``. Its weights and biases sum to zero over the classes, which
        fixes the one direction that softmax does not see.

    Raises
    ------
    FitError
        If a feature is not finite.
    ValueError
        If there are no examples, a label is no class, or ``l2`` is negative.
    """
    _check(features, labels, classes, l2)
    inputs = features.double()
    n, width = inputs.shape
    weight = torch.zeros(classes, width, dtype=torch.float64, device=inputs.device)
    bias = torch.zeros(classes, dtype=torch.float64, device=inputs.device)
    if init is not None:
        weight.copy_(init.weight.detach())
        bias.copy_(init.bias.detach())
    rows = torch.arange(n, device=inputs.device)
    labels = labels.to(inputs.device)
    optimiser = torch.optim.LBFGS(
        [weight.requires_grad_(), bias.requires_grad_()],
        max_iter=steps,
        tolerance_grad=1e-8,
        tolerance_change=1e-13,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    @torch.no_grad()
    def loss_and_gradient() -> Tensor:
        log_probs = torch.addmm(bias, inputs, weight.T).log_softmax(1)
        loss = l2 * weight.square().sum() - log_probs[rows, labels].mean()
        residual = log_probs.exp_()
        residual[rows, labels] -= 1.0
        residual /= n
        weight.grad = residual.T @ inputs + 2.0 * l2 * weight
        bias.grad = residual.sum(0)
        return loss

    optimiser.step(loss_and_gradient)
    weight, bias = weight.detach(), bias.detach()
    return _linear(weight - weight.mean(0), bias - bias.mean(), like=features)


def fit_linear_heads(
    features: Tensor, labels: Tensor, classes: int, *, penalties: Sequence[float], steps: int
) -> list[nn.Linear]:
    """Fit one head for every penalty, in their order; errors as for ``fit_linear_head``.

    The strongest penalty is solved first and every other starts at its stronger neighbour, which saves iterations
    and, the problem being convex, changes nothing else.
    """
    heads: dict[float, nn.Linear] = {}
    start = None
    for l2 in sorted(set(penalties), reverse=True):
        start = heads[l2] = fit_linear_head(features, labels, classes, l2=l2, steps=steps, init=start)
    return [heads[l2] for l2 in penalties]


def _check(features: Tensor, labels: Tensor, classes: int, l2: float) -> None:
    if features.ndim != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
        raise ValueError(f"expected (n, width) features and (n,) labels, got {features.shape} and {labels.shape}")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"expected labels from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    if not l2 >= 0:
        raise ValueError(f"expected a penalty of at least 0, got {l2}")
    finite = torch.isfinite(features).all(1)
    if not finite.all():
        raise FitError(f"{int((~finite).sum())} of {len(finite)} images have features that are not finite")


def _linear(weight: Tensor, bias: Tensor, *, like: Tensor) -> nn.Linear:
    classes, width = weight.shape
    # On the meta device nothing is initialised: nobody's random numbers move.
    head = nn.Linear(width, classes, device="meta", dtype=like.dtype).to_empty(device=like.device)
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)
    return head
