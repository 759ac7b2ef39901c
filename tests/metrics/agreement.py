"""The agreement table: each measure against an outside implementation of it.

    python tests/metrics/agreement.py            prints the table
    python tests/metrics/agreement.py --write    and writes it to docs/agreement.md

A row is one measure against one implementation. To add one, append a ``Row`` whose function returns the largest
absolute difference that it found. Outside libraries are imported inside these functions: some take seconds to load.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import ModuleType

import numpy as np

from tlbench.metrics import (
    accuracy,
    adaptive_calibration_error,
    balanced_accuracy,
    brier_score,
    class_bins,
    class_wise_calibration_error,
    expected_calibration_error,
    expected_ece_if_calibrated,
    inferred_groups,
    macro_f1,
    negative_log_likelihood,
    reliability_diagram,
    top_k_accuracy,
    total_variation,
)

TABLE = Path(__file__).resolve().parents[2] / "docs" / "agreement.md"
INTRODUCTION = """# Agreement with outside implementations

Each measure is computed on the same inputs by tlbench and by somebody else's code. "Difference" is the largest absolute
difference found; the tests fail where it exceeds the tolerance. Libraries that compute in float32 get a wider one.
Corruptions without randomness are compared at all five severities on photographs of 224 pixels, and no value may be off
by more than one grey level; those with randomness are compared given the same draws, or by their law, in the tests.
This page is written by `python tests/metrics/agreement.py --write`.
"""


@dataclass(frozen=True)
class Row:
    """One measure against one outside implementation.

    Attributes
    ----------
    measure : str
    outside : str
        The implementation, as the table shows it.
    package : str
        The distribution whose version the table states.
    tolerance : float
        Largest absolute difference allowed.
    difference : function without arguments
        Returns the largest absolute difference found.
    """

    measure: str
    outside: str
    package: str
    tolerance: float
    difference: Callable[[], float]


@dataclass(frozen=True)
class Outputs:
    """Outputs of an imaginary model: logits and probabilities, shape (n, classes), and labels, shape (n,)."""

    logits: np.ndarray
    probabilities: np.ndarray
    label: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        return self.logits.argmax(axis=1)

    @property
    def confidence(self) -> np.ndarray:
        return self.probabilities.max(axis=1)

    @property
    def correct(self) -> np.ndarray:
        return self.predicted == self.label

    @property
    def rank(self) -> np.ndarray:
        order = np.argsort(-self.logits, axis=1, kind="stable")
        return (order == self.label[:, None]).argmax(axis=1)

    @property
    def true_probability(self) -> np.ndarray:
        return self.probabilities[np.arange(len(self.label)), self.label]

    @property
    def one_hot(self) -> np.ndarray:
        return np.eye(self.logits.shape[1])[self.label]


def cases() -> Iterator[Outputs]:
    """Yield models from sure and right to unsure and wrong, on few classes and many."""
    for seed, (n, classes, skill) in enumerate([(3000, 7, 2.0), (600, 65, 3.0), (1500, 3, 0.2), (150, 12, 1.0)]):
        draw = np.random.default_rng(seed)
        label = draw.integers(classes, size=n)
        logits = 1.5 * draw.normal(size=(n, classes))
        logits[np.arange(n), label] += skill
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        yield Outputs(logits, weights / weights.sum(axis=1, keepdims=True), label)


def _over_cases(ours: Callable[[Outputs], float], theirs: Callable[[Outputs], float]) -> float:
    return max(abs(ours(case) - float(theirs(case))) for case in cases())


def accuracy_sklearn() -> float:
    from sklearn.metrics import accuracy_score

    return _over_cases(lambda c: accuracy(c.correct), lambda c: accuracy_score(c.label, c.predicted))


def top_k_sklearn() -> float:
    from sklearn.metrics import top_k_accuracy_score

    return max(
        abs(
            top_k_accuracy(case.rank, k=k, classes=case.logits.shape[1])
            - top_k_accuracy_score(case.label, case.logits, k=k, labels=np.arange(case.logits.shape[1]))
        )
        for case in cases()
        for k in (5, 10)
        if k < case.logits.shape[1]
    )


def balanced_accuracy_sklearn() -> float:
    from sklearn.metrics import balanced_accuracy_score

    return _over_cases(
        lambda c: balanced_accuracy(c.label, c.predicted), lambda c: balanced_accuracy_score(c.label, c.predicted)
    )


def macro_f1_sklearn() -> float:
    from sklearn.metrics import f1_score

    return _over_cases(
        lambda c: macro_f1(c.label, c.predicted),
        lambda c: f1_score(c.label, c.predicted, average="macro", zero_division=0),
    )


def nll_sklearn() -> float:
    from sklearn.metrics import log_loss

    return _over_cases(
        lambda c: negative_log_likelihood(np.log(c.true_probability)),
        lambda c: log_loss(c.label, c.probabilities, labels=np.arange(c.logits.shape[1])),
    )


def brier_sklearn() -> float:
    from sklearn.metrics import brier_score_loss

    return _over_cases(
        lambda c: brier_score(((c.probabilities - c.one_hot) ** 2).sum(axis=1)),
        lambda c: brier_score_loss(
            c.label, c.probabilities, labels=np.arange(c.logits.shape[1]), scale_by_half=False
        ),
    )  # fmt: skip


def ece_netcal() -> float:
    from netcal.metrics import ECE

    return max(
        abs(
            expected_calibration_error(case.confidence, case.correct, bins=bins)
            - ECE(bins).measure(case.probabilities, case.label)
        )
        for case in cases()
        for bins in (10, 15)
    )


def ece_torchmetrics() -> float:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    return max(
        abs(
            expected_calibration_error(case.confidence, case.correct, bins=bins)
            - float(
                multiclass_calibration_error(
                    torch.from_numpy(case.probabilities),
                    torch.from_numpy(case.label),
                    num_classes=case.logits.shape[1],
                    n_bins=bins,
                )
            )
        )
        for case in cases()
        for bins in (10, 15)
    )


def reliability_sklearn() -> float:
    from sklearn.calibration import calibration_curve

    differences = []
    for case in cases():
        diagram = reliability_diagram(case.confidence, case.correct, bins=10)
        accuracies, confidences = calibration_curve(case.correct, case.confidence, n_bins=10)
        some = diagram.count > 0
        differences.append(np.abs(diagram.accuracy[some] - accuracies).max())
        differences.append(np.abs(diagram.confidence[some] - confidences).max())
    return float(max(differences))


def adaptive_netcal() -> float:
    from netcal.metrics import ECE

    # Every case's n is a multiple of 15 and no confidence occurs twice: where quantile bins have one meaning.
    return _over_cases(
        lambda c: adaptive_calibration_error(c.confidence, c.correct, bins=15),
        lambda c: ECE(15, equal_intervals=False).measure(c.confidence, c.correct.astype(int)),
    )


def class_wise_netcal() -> float:
    from netcal.metrics import ECE

    def theirs(case: Outputs) -> float:
        return float(
            np.mean(
                [ECE(15).measure(case.probabilities[:, k], case.one_hot[:, k]) for k in range(case.one_hot.shape[1])]
            )
        )

    return _over_cases(lambda c: class_wise_calibration_error(class_bins(c.probabilities, c.label)), theirs)


def ece_if_calibrated_scipy() -> float:
    from scipy.stats import poisson_binom

    def theirs(case: Outputs) -> float:
        deviation = 0.0
        bin_of = np.ceil(case.confidence * 15)  # no confidence lies on an edge
        for b in np.unique(bin_of):
            inside = case.confidence[bin_of == b]
            hits = np.arange(len(inside) + 1)
            deviation += float((poisson_binom(inside).pmf(hits) * np.abs(hits - inside.sum())).sum())
        return deviation / len(case.confidence)

    return max(
        abs(expected_ece_if_calibrated(case.confidence) - theirs(case)) for case in cases() if len(case.label) <= 1500
    )


def accuracy_torchmetrics() -> float:
    import torch
    from torchmetrics.functional.classification import multiclass_accuracy

    def theirs(case: Outputs, k: int) -> float:
        return float(
            multiclass_accuracy(
                torch.from_numpy(case.logits), torch.from_numpy(case.label), case.logits.shape[1], "micro", top_k=k
            )
        )

    return max(
        abs(top_k_accuracy(case.rank, k=k, classes=case.logits.shape[1]) - theirs(case, k))
        for case in cases()
        for k in (1, 5)
        if k < case.logits.shape[1]
    )


def total_variation_scipy() -> float:
    from scipy.spatial.distance import cityblock

    # The L1 distance of two distributions is twice their total variation.
    return max(
        abs(total_variation(p, q) - cityblock(p, q) / 2)
        for case in cases()
        for p, q in zip(case.probabilities[:50], case.probabilities[50:100], strict=True)
    )


def scale_derivative_autograd() -> float:
    import torch

    from_loss = []
    for case in cases():
        scale = torch.ones(len(case.label), 1, dtype=torch.float64, requires_grad=True)
        loss = torch.nn.functional.cross_entropy(
            scale * torch.from_numpy(case.logits), torch.from_numpy(case.label), reduction="sum"
        )
        (gradient,) = torch.autograd.grad(loss, scale)
        of_true = case.logits[np.arange(len(case.label)), case.label][:, None]
        ours = (case.probabilities * (case.logits - of_true)).sum(axis=1)
        theirs = gradient[:, 0].numpy()
        # The groups themselves must be equal, whatever the derivatives' rounding.
        from_loss.append(np.abs(ours - theirs).max() + np.sum(inferred_groups(ours) != (theirs > 0)))
    return float(max(from_loss))


@cache
def _beside(place: str) -> ModuleType:
    """Return a module of the tests of conditions, which are no package, by its place below their folder."""
    path = Path(__file__).resolve().parents[1] / "conditions" / place
    spec = importlib.util.spec_from_file_location(f"tlbench_agreement_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


EPSILONS = {"linf": (0.045, 0.06, 0.08), "l2": (0.7, 1.0, 1.3)}
SHOWN = {"linf": "Linf", "l2": "L2"}
ATTACKED = 96


def robust_accuracy_torchattacks(loss: str, norm: str) -> float:
    """Largest difference in robust accuracy over three networks and three epsilons, 96 images each."""
    import pytest

    from tlbench.conditions.attacks.apgd import APGD

    shared, tests = _beside("conftest.py"), _beside("attacks/test_apgd.py")
    theirs = tests.robust_by_targeted_torchattacks if loss == "t" else tests.robust_by_torchattacks
    digits = shared.small_digits()
    some = shared._part_of(digits, list(range(ATTACKED)))
    worst = 0.0
    for network in shared.small_networks(digits).values():
        attack = APGD(f"apgd-{loss}", norm, EPSILONS[norm], iterations=25, mode="exact", targets=3)
        survived = shared._observed(attack, shared.PlainPredictor(network), shared._cut(some, 40))["survived"].sum(1)
        for ours, setting in zip(survived.tolist(), attack.settings, strict=True):
            with pytest.MonkeyPatch.context() as patch:
                worst = max(worst, abs(ours - theirs(patch, network, some, attack, setting)) / ATTACKED)
    return worst


def distance_torchattacks(norm: str) -> float:
    """Largest difference in the distance that FAB-T finds, over three networks."""
    import torch

    from tlbench.conditions.attacks.fab import FAB

    shared, tests = _beside("conftest.py"), _beside("attacks/test_fab.py")
    digits = shared.small_digits()
    some = shared._part_of(digits, list(range(ATTACKED)))
    worst = 0.0
    for network in shared.small_networks(digits).values():
        x = some.images.float() / 255
        right = network(x).argmax(1) == some.labels
        x, labels = x[right], some.labels[right]
        theirs, run = tests.published("torchattacks", network, norm, 30)
        nearest = torch.full((len(x),), torch.inf)
        for place in (2, 3, 4):
            theirs.target_class = place
            found = run(x, labels)
            move = (found - x).flatten(1)
            size = move.abs().amax(1) if norm == "linf" else move.norm(dim=1)
            nearest = nearest.minimum(size.where(network(found).argmax(1) != labels, torch.inf))
        attack = FAB("fab-t", norm, EPSILONS[norm], iterations=30, targets=3)
        worst = max(worst, float((attack.distance(shared.PlainPredictor(network), x, labels) - nearest).abs().max()))
    return worst


def differing_share(name: str) -> float:
    """Share of values, at 224 px and all severities, that are off by a grey level; infinite if any is off by more."""
    import imagecorruptions

    from tlbench.conditions.corruptions.corruption import CORRUPTIONS
    from tlbench.conditions.corruptions.tables import SEVERITIES, TABLES

    images = pieces_of_photographs()
    worst = 0.0
    for severity in SEVERITIES:
        ours = CORRUPTIONS[name](images, TABLES[224][name][severity - 1], [])
        theirs = np.stack([imagecorruptions.corrupt(image, severity, name) for image in images])
        apart = np.abs(ours.astype(int) - theirs.astype(int))
        worst = max(worst, float((apart > 0).mean()) if apart.max() <= 1 else np.inf)
    return worst


@cache
def pieces_of_photographs() -> np.ndarray:
    """Two pieces of photographs, uint8 (2, 224, 224, 3)."""
    from sklearn.datasets import load_sample_image

    return np.stack([load_sample_image(name)[150:374, 200:424] for name in ("china.jpg", "flower.jpg")])


def _apgd(loss: str, norm: str) -> Row:
    outside = "torchattacks APGDT, same starts" if loss == "t" else "torchattacks APGD, same start"
    measure = f"robust accuracy, APGD-{loss.upper()}, {SHOWN[norm]}"
    # One image of the 96.
    return Row(measure, outside, "torchattacks", 1 / 96, partial(robust_accuracy_torchattacks, loss, norm))


def _fab(norm: str) -> Row:
    measure = f"distance of the nearest error, FAB-T, {SHOWN[norm]}"
    return Row(measure, "torchattacks FAB", "torchattacks", 1e-4, partial(distance_torchattacks, norm))


def _corruption(name: str) -> Row:
    measure = f"{name}, share of values off by one grey level"
    return Row(measure, "imagecorruptions corrupt", "imagecorruptions-imaug", 5e-3, partial(differing_share, name))


WITHOUT_RANDOMNESS = (
    "gaussian_blur", "defocus_blur", "zoom_blur", "contrast", "brightness", "saturate", "jpeg_compression", "pixelate",
)  # fmt: skip

ROWS: list[Row] = [
    Row("accuracy", "scikit-learn accuracy_score", "scikit-learn", 1e-12, accuracy_sklearn),
    Row("top-5 and top-10 accuracy", "scikit-learn top_k_accuracy_score", "scikit-learn", 1e-12, top_k_sklearn),
    Row("top-1 and top-5 accuracy", "torchmetrics multiclass_accuracy", "torchmetrics", 1e-5, accuracy_torchmetrics),
    Row("balanced accuracy", "scikit-learn balanced_accuracy_score", "scikit-learn", 1e-12, balanced_accuracy_sklearn),
    Row("macro F1", "scikit-learn f1_score", "scikit-learn", 1e-12, macro_f1_sklearn),
    Row("NLL", "scikit-learn log_loss", "scikit-learn", 1e-12, nll_sklearn),
    Row("Brier score", "scikit-learn brier_score_loss", "scikit-learn", 1e-12, brier_sklearn),
    Row("ECE, 10 and 15 bins", "netcal ECE", "netcal", 1e-12, ece_netcal),
    Row("ECE, 10 and 15 bins", "torchmetrics multiclass_calibration_error", "torchmetrics", 1e-5, ece_torchmetrics),
    Row("reliability diagram", "scikit-learn calibration_curve", "scikit-learn", 1e-12, reliability_sklearn),
    Row("adaptive ECE", "netcal ECE over quantile bins", "netcal", 1e-12, adaptive_netcal),
    Row("class-wise ECE", "netcal ECE, class by class", "netcal", 1e-12, class_wise_netcal),
    Row("ECE if calibrated", "SciPy poisson_binom", "scipy", 1e-12, ece_if_calibrated_scipy),
    Row("total variation", "SciPy cityblock, halved", "scipy", 1e-12, total_variation_scipy),
    Row("inferred groups", "PyTorch autograd of the cross-entropy", "torch", 1e-12, scale_derivative_autograd),
    *(_apgd(loss, norm) for loss in ("ce", "dlr", "t") for norm in ("linf", "l2")),
    *(_fab(norm) for norm in ("linf", "l2")),
    *(_corruption(name) for name in WITHOUT_RANDOMNESS),
]


def head_of(row: Row) -> str:
    """The part of a row's line that no machine changes: what is compared with what."""
    return f"| {row.measure} | {row.outside} |"


def table() -> str:
    """Measure every row and return the page."""
    lines = [INTRODUCTION, "| measure | outside implementation | largest difference found | tolerance |"]
    lines.append("| --- | --- | --- | --- |")
    lines += [f"{head_of(row)} {row.difference():.1e} | {row.tolerance:.0e} |" for row in ROWS]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in sorted({row.package for row in ROWS})]
    return "\n".join([*lines, "", f"Measured with {', '.join(versions)}.", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the agreement with outside implementations.")
    parser.add_argument("--write", action="store_true", help="write docs/agreement.md")
    page = table()
    print(page)
    if parser.parse_args().write:
        TABLE.write_text(page, encoding="utf-8")
