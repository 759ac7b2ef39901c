"""Outputs to the columns of the predictions table: the only place where torch outputs become stored numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.binning import ClassBins, Closed
from tlbench.errors import FitError
from tlbench.models.class_counts import ClassCounts
from tlbench.records.precision import as_stored

Output = Literal["logits", "log_probs", "scores"]
Columns = dict[str, NDArray[Any]]
_IN_CACHE, _ON_DEVICE = 2**16, 2**24  # numbers handled at a time, on the CPU and on a GPU


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
    return _reduced(outputs, labels, output=output, temperature=temperature, full=full)


def reduce_probabilities(probabilities: Tensor, labels: Tensor, *, brier: bool = True) -> Columns:
    """Return what the measures of some images need, in one pass over their probabilities; nothing is rounded.

    For probabilities that come from elsewhere: ``metrics.accuracy`` and ``metrics.calibration`` take the columns.

    Parameters
    ----------
    probabilities : float tensor, shape (n, classes)
        Probability of every class, taken as they are.
    labels : int64 tensor, shape (n,)
    brier : bool
        Also the Brier score, the only column that needs every probability squared.

    Returns
    -------
    dict of str to array, shape (n,)
        ``correct``, bool; ``confidence``, in the type of the probabilities; ``log_likelihood`` and ``brier``, float64.

    Raises
    ------
    NonFiniteOutputs
        If the largest probability of an image is not finite.
    ValueError
        If shapes do not fit, a label is no class, or a confidence is above 1.

    Examples
    --------
    >>> columns = reduce_probabilities(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([1]))
    >>> {name: column.tolist() for name, column in columns.items()}
    {'correct': [False], 'confidence': [0.5], 'log_likelihood': [-1.3862943611198906], 'brier': [0.875]}
    """
    true = labels_beside(probabilities, labels)
    n = len(true)
    likelihood = probabilities.gather(1, true[:, None])[:, 0].double()
    predicted, error = torch.empty_like(true), likelihood.new_empty(n if brier else 0)
    # On a CPU nothing is kept of a search for the largest: it needs no parts, whose calls take as long as they do.
    whole = not brier and probabilities.device.type == "cpu"
    for part in (slice(0, n),) if whole else parts_of(probabilities):
        piece = probabilities[part].detach()
        predicted[part] = _first_largest(piece)
        if brier:
            apart = piece.to(torch.float64, copy=True)
            apart.scatter_add_(1, true[part, None], torch.full_like(apart[:, :1], -1.0))
            error[part] = torch.linalg.vecdot(apart, apart)
    confidence = probabilities.gather(1, predicted[:, None])[:, 0]
    check_finite(confidence)
    if n and float(confidence.max()) > 1 + 1e-6:
        raise ValueError(f"expected probabilities, got a confidence of {float(confidence.max()):g}")
    columns = {"correct": predicted == true, "confidence": confidence, "log_likelihood": likelihood.log()}
    if brier:
        columns["brier"] = error
    return {name: column.detach().cpu().numpy() for name, column in columns.items()}


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
        counts: list[ClassCounts] = []
        if self._full and self._output != "scores" and outputs.ndim == 2:
            tables = 1 if self._temperature is None else 2
            counts = [ClassCounts(outputs.shape[1], bins=self._bins, closed=self._closed) for _ in range(tables)]
        columns = _reduced(
            outputs, labels, output=self._output, temperature=self._temperature, full=self._full, counts=counts
        )
        self._batches.append({"id": _stored(ids.cpu()), "label": _stored(labels.cpu()), **columns})
        if counts:
            self._counts = _together(self._counts, counts[0].finish())
        if len(counts) > 1:
            self._counts_scaled = _together(self._counts_scaled, counts[1].finish())

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


def _together(so_far: ClassBins | None, counts: ClassBins) -> ClassBins:
    return counts if so_far is None else so_far + counts


def labels_beside(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the labels where the outputs are, after a check of shapes and classes."""
    if outputs.ndim != 2 or outputs.shape[1] < 1 or labels.shape != outputs.shape[:1]:
        raise ValueError(
            f"expected (n, classes) outputs and (n,) labels, got {tuple(outputs.shape)} and {tuple(labels.shape)}"
        )
    true = labels.to(outputs.device)
    classes = outputs.shape[1]
    if len(true) and (int(true.min()) < 0 or int(true.max()) >= classes):
        raise ValueError(f"expected labels from 0 to {classes - 1}, got {int(true.min())} to {int(true.max())}")
    return true


def check_finite(largest: Tensor) -> None:
    bad = ~torch.isfinite(largest)
    if bad.any():
        raise NonFiniteOutputs(
            f"{int(bad.sum())} of {len(bad)} images have outputs that are not finite; "
            "the fit has probably diverged: try a smaller learning rate"
        )


def parts_of(outputs: Tensor) -> Iterator[slice]:
    """Yield consecutive slices of the images, small enough that what is computed of them stays in cache."""
    rows = max(1, (_IN_CACHE if outputs.device.type == "cpu" else _ON_DEVICE) // outputs.shape[1])
    return (slice(start, start + rows) for start in range(0, len(outputs), rows))


def _reduced(
    outputs: Tensor,
    labels: Tensor,
    *,
    output: Output,
    temperature: float | None,
    full: bool,
    counts: Sequence[ClassCounts] = (),
) -> Columns:
    """Return the columns of ``reduce_outputs``; add to the counts by class and bin, plain and scaled, on the way."""
    true = labels_beside(outputs, labels)
    outputs = outputs.detach()
    check_finite(outputs.amax(1))  # NaN wins over every number
    predicted, rank = torch.empty_like(true), torch.empty_like(true)
    plain, scaled = _Probabilities.empty(true), _Probabilities.empty(true)
    derivative = torch.empty(len(true), dtype=torch.float64, device=true.device)
    for part in parts_of(outputs):
        values, own = outputs[part].double(), true[part]
        predicted[part] = _first_largest(values)
        rank[part] = _rank(values, own, predicted[part])
        if output == "scores":
            continue
        log_probs = values.log_softmax(1)
        probabilities = log_probs.exp() if full else None
        if probabilities is not None:
            derivative[part] = _scale_derivative(values, probabilities, own)
        plain.fill(part, log_probs, probabilities, own, predicted[part])
        if counts:
            counts[0].add(values.softmax(1), own)
        if full and temperature is not None:
            values = values / temperature
            log_probs = values.log_softmax(1)
            scaled.fill(part, log_probs, log_probs.exp(), own, predicted[part])
            if len(counts) > 1:
                counts[1].add(values.softmax(1), own)
    columns: Columns = {"predicted": _stored(predicted), "rank": _stored(rank)}
    if output == "scores":
        return columns
    columns |= plain.columns(predicted == true, brier=full)
    if full:
        columns["scale_derivative"] = _stored(derivative)
    if full and temperature is not None:
        columns |= {f"{name}_scaled": column for name, column in scaled.columns(predicted == true, brier=True).items()}
    return columns


def _first_largest(values: Tensor) -> Tensor:
    """Return the class of the largest output, the first of equal ones."""
    if values.device.type == "cpu":
        return torch.from_numpy(values.numpy().argmax(1))  # half of torch's time, and it promises the first
    # Not argmax: which of several equal outputs it returns is promised on no device but the CPU.
    of_class = torch.arange(values.shape[1], device=values.device)
    return torch.where(values == values.amax(1, keepdim=True), of_class, len(of_class)).amin(1)


def _rank(values: Tensor, true: Tensor, predicted: Tensor) -> Tensor:
    """Return the rank of the true class, equal outputs ordered by class."""
    rank = torch.zeros_like(true)
    wrong = (predicted != true).nonzero()[:, 0]  # what is predicted has rank 0
    if not len(wrong):
        return rank
    values, true = values[wrong], true[wrong, None]
    own = values.gather(1, true)
    before = (values > own).sum(1)
    tied = ((values == own).sum(1) > 1).nonzero()[:, 0]
    if len(tied):
        of_class = torch.arange(values.shape[1], device=values.device)
        before[tied] += ((values[tied] == own[tied]) & (of_class < true[tied])).sum(1)
    rank[wrong] = before
    return rank


class _Probabilities(NamedTuple):
    """Log-probabilities of the true and of the predicted class, and the Brier score, filled in part by part."""

    of_true: Tensor
    of_predicted: Tensor
    brier: Tensor

    @classmethod
    def empty(cls, true: Tensor) -> _Probabilities:
        return cls(*(torch.empty(len(true), dtype=torch.float64, device=true.device) for _ in range(3)))

    def fill(
        self, part: slice, log_probs: Tensor, probabilities: Tensor | None, true: Tensor, predicted: Tensor
    ) -> None:
        """Take what is needed of a part; the probabilities, for the Brier score, are overwritten."""
        self.of_true[part] = log_probs.gather(1, true[:, None])[:, 0]
        self.of_predicted[part] = log_probs.gather(1, predicted[:, None])[:, 0]
        if probabilities is not None:
            probabilities.scatter_add_(1, true[:, None], torch.full_like(probabilities[:, :1], -1.0))
            self.brier[part] = probabilities.square_().sum(1)

    def columns(self, correct: Tensor, *, brier: bool) -> Columns:
        likelihood = _stored(self.of_true)
        confidence = self.of_predicted.exp()
        # Of a right prediction the confidence is the likelihood: taken from the stored one, it need not be published
        # twice.
        follows = torch.from_numpy(likelihood).double().exp().to(confidence.device)
        columns = {"confidence": _stored(torch.where(correct, follows, confidence)), "log_likelihood": likelihood}
        if brier:
            columns["brier"] = _stored(self.brier)
        return columns


def _scale_derivative(values: Tensor, probabilities: Tensor, true: Tensor) -> Tensor:
    """Return the derivative of cross-entropy(s * values) by s at 1: the expected output minus that of the true class.

    References
    ----------
    Arjovsky et al. (2019), "Invariant Risk Minimization"; Creager et al. (2021), "Environment Inference for Invariant
    Learning", who infer groups from it.
    """
    # A common shift of the outputs cancels; taking out the largest keeps the difference accurate.
    centred = values - values.amax(1, keepdim=True)
    own = centred.gather(1, true[:, None])[:, 0]
    expected = (probabilities * centred).sum(1)
    lost = torch.isnan(expected).nonzero()[:, 0]
    if len(lost):
        few = probabilities[lost]
        expected[lost] = torch.where(few > 0, few * centred[lost], 0.0).sum(1)  # 0 * -inf counts nothing
    return expected - own


def _stored(values: Tensor) -> NDArray[Any]:
    array = values.cpu().numpy()
    # Rounded before any metric sees them, so that every number follows from what is stored.
    return as_stored(array) if values.is_floating_point() else array.astype(np.int32)
