"""Outputs to the columns of the predictions table: the only place where torch outputs become stored numbers."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.binning import ClassBins, Closed, class_bins
from tlbench.errors import FitError
from tlbench.records.precision import as_stored

Output = Literal["logits", "log_probs", "scores"]
Columns = dict[str, NDArray[Any]]
LOWEST, HIGHEST = 0.01, 100.0
"""Ends of the search for a temperature: where every image is right, the likelihood grows as long as it falls."""


class NonFiniteOutputs(FitError):
    """Outputs from which no prediction follows: NaN, plus infinity, or minus infinity for every class."""


def reduce_outputs(
    outputs: Tensor, labels: Tensor, *, output: Output, temperature: float | None = None, full: bool = False
) -> Columns:
    """Return the sufficient statistics of some images, computed in float64, stored in 16 significant bits.

    Parameters
    ----------
    outputs : float tensor, shape (n, classes)
        Minus infinity is a probability of zero.
    labels : int64 tensor, shape (n,)
    output : {"logits", "log_probs", "scores"}
        What the outputs are. Log-probabilities pass log-softmax as logits do: it leaves normalised ones as they are,
        and normalises those that are not.
    temperature : float or None
        Fitted on ID-val; adds the columns ``*_scaled`` where ``full`` is set.
    full : bool
        Also Brier score and scale derivative, as for clean sets.

    Returns
    -------
    dict of str to array, shape (n,)
        Columns of the predictions table: ``predicted`` and ``rank``, and unless the outputs are scores
        ``confidence`` and ``log_likelihood``; with ``full`` also ``brier``, ``scale_derivative``, and with a
        temperature ``confidence_scaled``, ``log_likelihood_scaled``, ``brier_scaled``.

    Raises
    ------
    NonFiniteOutputs
        If outputs allow no prediction.
    ValueError
        If shapes do not fit or a label is no class.
    """
    values, true = _checked(outputs, labels)
    predicted, rank = _order(values, true)
    columns: Columns = {"predicted": _stored(predicted), "rank": _stored(rank)}
    if output == "scores":
        return columns
    log_probs = values.log_softmax(1)
    columns |= _probability_columns(log_probs, true, predicted, brier=full)
    if full:
        columns["scale_derivative"] = _stored(_scale_derivative(values, log_probs, true))
        if temperature is not None:
            scaled = _probability_columns((values / temperature).log_softmax(1), true, predicted, brier=True)
            columns |= {f"{name}_scaled": column for name, column in scaled.items()}
    return columns


class Reduced(NamedTuple):
    """Statistics of a whole set.

    Attributes
    ----------
    columns : dict of str to array, shape (n,)
        Columns of the predictions table, ``id`` and ``label`` among them, in ascending order of ``id``.
    class_bins, class_bins_scaled : ClassBins or None
        Counts by class and bin, as they are and after temperature scaling; None where they were not asked for or
        cannot exist.
    """

    columns: Columns
    class_bins: ClassBins | None
    class_bins_scaled: ClassBins | None


class Statistics:
    """Collects the statistics of a set, batch by batch, in any order of images.

    Parameters
    ----------
    output : {"logits", "log_probs", "scores"}
    temperature : float or None
    full : bool
        As for ``reduce_outputs``; counts by class and bin are kept for full sets of outputs with probabilities.
    bins : int
        Number of equal-width bins of these counts.
    closed : {"left", "right"}
        The side on which a bin contains its edge.
    """

    def __init__(
        self,
        *,
        output: Output,
        temperature: float | None = None,
        full: bool = False,
        bins: int = 15,
        closed: Closed = "right",
    ) -> None:
        self._output: Output = output
        self._temperature = temperature
        self._full = full
        self._bins = bins
        self._closed: Closed = closed
        self._batches: list[Columns] = []
        self._counts: ClassBins | None = None
        self._counts_scaled: ClassBins | None = None

    def add(self, ids: Tensor, labels: Tensor, outputs: Tensor) -> None:
        """Add a batch: places in the manifest and labels, shape (n,), and outputs, shape (n, classes).

        Raises
        ------
        NonFiniteOutputs, ValueError
            As ``reduce_outputs``; the batch is then not added.
        """
        if ids.shape != labels.shape:
            raise ValueError(f"expected one id per label, got {tuple(ids.shape)} for {tuple(labels.shape)}")
        columns = reduce_outputs(outputs, labels, output=self._output, temperature=self._temperature, full=self._full)
        self._batches.append({"id": _stored(ids.cpu()), "label": _stored(labels.cpu()), **columns})
        if not self._full or self._output == "scores":
            return
        self._counts = self._counted(self._counts, outputs, labels, 1.0)
        if self._temperature is not None:
            self._counts_scaled = self._counted(self._counts_scaled, outputs, labels, self._temperature)

    def _counted(self, so_far: ClassBins | None, outputs: Tensor, labels: Tensor, temperature: float) -> ClassBins:
        probabilities = (outputs.detach().double() / temperature).softmax(1).cpu().numpy()
        counts = class_bins(probabilities, labels.cpu().numpy(), bins=self._bins, closed=self._closed)
        return counts if so_far is None else so_far + counts

    def finish(self) -> Reduced:
        """Return the statistics of all images added.

        Raises
        ------
        ValueError
            If nothing was added, or an image was added twice.
        """
        if not self._batches:
            raise ValueError("expected at least one batch, got none")
        joined = {name: np.concatenate([batch[name] for batch in self._batches]) for name in self._batches[0]}
        order = np.argsort(joined["id"], kind="stable")
        columns = {name: column[order] for name, column in joined.items()}
        twice = columns["id"][1:][np.diff(columns["id"]) == 0]
        if len(twice):
            raise ValueError(f"expected every image once, got id {twice[0]} again")
        return Reduced(columns, self._counts, self._counts_scaled)


def fit_temperature(outputs: Tensor, labels: Tensor, output: Output = "logits") -> float:
    """Return the temperature T that minimises the NLL of softmax(outputs / T).

    The NLL is convex in 1/T; the root of its derivative is found in float64 by Newton's method within a bracket.

    Parameters
    ----------
    outputs : float tensor, shape (n, classes)
        Logits or log-probabilities on ID-val.
    labels : int64 tensor, shape (n,)
        Images whose true class has probability zero, at every temperature, have no say.
    output : {"logits", "log_probs"}

    Returns
    -------
    float
        In [0.01, 100]; an end where the minimum lies beyond it, 1 where every temperature is as good.

    Raises
    ------
    NonFiniteOutputs
        If outputs allow no prediction.
    ValueError
        If there are no images, shapes do not fit, a label is no class, or the outputs are scores.

    References
    ----------
    Guo et al. (2017), "On Calibration of Modern Neural Networks", section 4.2.
    """
    if output == "scores":
        raise ValueError("scores have no probabilities, hence no temperature")
    values, true = _checked(outputs, labels)
    if len(values) == 0:
        raise ValueError("expected at least one image, got none")
    centred = values - values.amax(1, keepdim=True)
    possible = torch.isfinite(centred.gather(1, true[:, None])[:, 0])
    centred, true = centred[possible], true[possible]
    if len(centred) == 0 or _slope(centred, true, 1.0)[0] == 0.0:
        return 1.0
    low, high = 1 / HIGHEST, 1 / LOWEST
    if _slope(centred, true, low)[0] >= 0:
        return HIGHEST
    if _slope(centred, true, high)[0] <= 0:
        return LOWEST
    inverse = _root(centred, true, low, high)
    # The root is exact up to rounding; an optimum at 1 must not come out above it.
    return 1.0 if _nll(centred, true, inverse) > _nll(centred, true, 1.0) else 1 / inverse


def _checked(outputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if outputs.ndim != 2 or outputs.shape[1] < 1 or labels.shape != outputs.shape[:1]:
        raise ValueError(
            f"expected (n, classes) outputs and (n,) labels, got {tuple(outputs.shape)} and {tuple(labels.shape)}"
        )
    values = outputs.detach().double()
    true = labels.to(values.device)
    classes = values.shape[1]
    if len(true) and (int(true.min()) < 0 or int(true.max()) >= classes):
        raise ValueError(f"expected labels from 0 to {classes - 1}, got {int(true.min())} to {int(true.max())}")
    largest = values.amax(1)  # NaN wins over every number
    bad = ~torch.isfinite(largest)
    if bad.any():
        raise NonFiniteOutputs(
            f"{int(bad.sum())} of {len(bad)} images have outputs that are not finite; "
            "the fit has probably diverged: try a smaller learning rate"
        )
    return values, true


def _order(values: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Return the predicted class and the rank of the true one, equal outputs ordered by class."""
    of_class = torch.arange(values.shape[1], device=values.device)
    largest = values.amax(1, keepdim=True)
    # Not argmax: which of several equal outputs it returns is promised on no device but the CPU.
    predicted = torch.where(values == largest, of_class, len(of_class)).amin(1)
    own = values.gather(1, true[:, None])
    before = (values > own) | ((values == own) & (of_class < true[:, None]))
    return predicted, before.sum(1)


def _probability_columns(log_probs: Tensor, true: Tensor, predicted: Tensor, *, brier: bool) -> Columns:
    likelihood = _stored(log_probs.gather(1, true[:, None])[:, 0])
    confidence = log_probs.gather(1, predicted[:, None])[:, 0].exp()
    # Of a right prediction the confidence is the likelihood: taken from the stored one, it need not be published twice.
    follows = torch.from_numpy(likelihood).double().exp().to(confidence.device)
    columns = {
        "confidence": _stored(torch.where(predicted == true, follows, confidence)),
        "log_likelihood": likelihood,
    }
    if brier:
        error = log_probs.exp()
        error.scatter_add_(1, true[:, None], torch.full_like(error[:, :1], -1.0))
        columns["brier"] = _stored(error.square().sum(1))
    return columns


def _scale_derivative(values: Tensor, log_probs: Tensor, true: Tensor) -> Tensor:
    """Return the derivative of cross-entropy(s * values) by s at 1: the expected output minus that of the true class.

    References
    ----------
    Arjovsky et al. (2019), "Invariant Risk Minimization"; Creager et al. (2021), "Environment Inference for Invariant
    Learning", who infer groups from it.
    """
    # A common shift of the outputs cancels; taking out the largest keeps the difference accurate.
    centred = values - values.amax(1, keepdim=True)
    probabilities = log_probs.exp()
    expected = torch.where(probabilities > 0, probabilities * centred, 0.0).sum(1)  # 0 * -inf counts nothing
    return expected - centred.gather(1, true[:, None])[:, 0]


def _stored(values: Tensor) -> NDArray[Any]:
    array = values.cpu().numpy()
    # Rounded before any metric sees them, so that every number follows from what is stored.
    return as_stored(array) if values.is_floating_point() else array.astype(np.int32)


def _root(centred: Tensor, true: Tensor, low: float, high: float) -> float:
    """Return the zero of the slope of the NLL between two inverse temperatures."""
    at = 1.0
    for _ in range(200):
        slope, curvature = _slope(centred, true, at)
        if slope > 0:
            high = at
        else:
            low = at
        newton = at - slope / curvature if curvature > 0 else math.inf
        # Newton may leave the bracket where the curve is flat; halving the bracket in logarithms always works.
        after = newton if low < newton < high else math.sqrt(low * high)
        if abs(after - at) <= 1e-12 * at or high - low <= 1e-12 * high:
            return after
        at = after
    return at


def _slope(centred: Tensor, true: Tensor, inverse: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean NLL by the inverse temperature."""
    probabilities = (centred * inverse).softmax(1)
    finite = torch.where(probabilities > 0, centred, 0.0)
    mean = (probabilities * finite).sum(1)
    variance = (probabilities * (finite - mean[:, None]).square()).sum(1)
    own = centred.gather(1, true[:, None])[:, 0]
    return float((mean - own).mean()), float(variance.mean())


def _nll(centred: Tensor, true: Tensor, inverse: float) -> float:
    return -float((centred * inverse).log_softmax(1).gather(1, true[:, None]).mean())
