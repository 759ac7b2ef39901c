"""One number, and everything that must be known to compare it with another."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final, Literal

Status = Literal["ok", "failed", "not_applicable", "not_run"]
Precision = Literal["float32", "bfloat16"]
"""Of the forward passes that are measured; gradients are always float32."""
PROTOCOLS: Final = (
    "source-only", "few-shot-target", "unlabelled-target", "test-time", "extra-models", "extra-data", "text",
    "class-hierarchy", "outputs-file",
)  # fmt: skip
"""What a method may have been given; several of them are joined by ``+`` in this order."""


@dataclass(frozen=True)
class FitKey:
    """What a fit's records share.

    Attributes
    ----------
    suite, suite_version, suite_hash : str, int, str
        The suite; no board mixes hashes.
    task, source : str
        Several sources are joined by ``+``.
    fit_target : str or None
        The target, only where the method read it.
    shots : str
        ``"full"`` or the number of training images a class.
    seed : int
    model : str
        What ``--model`` named: a row of the board.
    method, settings, settings_hash : str
        The plug-in, its settings as canonical JSON, and their hash.
    backbone : str
        Name of the pretrained network, ``"none"`` where the method uses none.
    weights_hash : str
        Hash of the backbone's weights.
    protocol : str
        What the method was given: ``source-only``, ``unlabelled-target``, ``test-time``, ``extra-models``, ``text``.
    deterministic : bool
        Whether one fit stands for every seed.
    control : bool
        Whether the method is a sanity control: a reference line, never ranked.
    fit_id : str
    """

    suite: str
    suite_version: int
    suite_hash: str
    task: str
    source: str
    fit_target: str | None
    shots: str
    seed: int
    model: str
    method: str
    settings: str
    settings_hash: str
    backbone: str
    weights_hash: str
    protocol: str
    deterministic: bool
    control: bool
    fit_id: str


@dataclass(frozen=True)
class Record(FitKey):
    """One number in long form.

    Attributes
    ----------
    variant : str
        Which predictor of the fit.
    headline : bool
        Whether this variant is the one that is ranked under the model's plain name.
    target, role, split_hash : str
        The measured split; the target equals the source for ``id-val`` and ``id-test``.
    measurement_id : str
    condition, severity, norm, epsilon
        The setting; all four null but the condition for clean images.
    metric, metric_version : str, int
    value, standard_error : float or None
        None where the status is not ``ok``, and where a standard error does not exist.
    n : int
        Images that the number rests on.
    status : {"ok", "failed", "not_applicable", "not_run"}
    reason : str
        Why there is no value; empty for ``ok``.
    precision : str
        Of the measured forward passes; of outputs that were computed elsewhere, ``float32`` unless their file says
        otherwise.
    """

    variant: str
    headline: bool
    target: str
    role: str
    split_hash: str
    measurement_id: str
    condition: str
    severity: float | None
    norm: str | None
    epsilon: float | None
    metric: str
    metric_version: int
    value: float | None
    standard_error: float | None
    n: int
    status: Status
    reason: str
    precision: str = "float32"


def row_in_precision(model: str, precision: Precision) -> str:
    """Return the row of the board that a model's numbers of a precision belong to; float32 has the plain name.

    >>> row_in_precision("ncm", "float32"), row_in_precision("ncm", "bfloat16")
    ('ncm', 'ncm@bfloat16')
    """
    return model if precision == "float32" else f"{model}@{precision}"


COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(Record))
