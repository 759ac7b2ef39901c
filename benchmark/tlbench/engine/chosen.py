"""Which model a command works on, and under which name its numbers stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from tlbench.errors import UsageError, listed, nearest
from tlbench.methods.base import Method
from tlbench.methods.resolve import Model, check_row_name, describe_model, model_of, resolve_model
from tlbench.methods.trained import trained_model
from tlbench.records.record import Precision, row_in_precision

if TYPE_CHECKING:
    from torch import nn

    from tlbench.methods.base import Predictor


def chosen_model(
    model: str | Method | Model | None,
    predictors: Mapping[str, nn.Module | Predictor | str | Path] | None,
    settings: Sequence[str],
    backbone: str | None,
    name: str | None,
    default_backbone: str,
) -> Model:
    """Return the model that is asked for: one that is named or given, or networks that are already trained."""
    if (model is None) == (predictors is None):
        raise UsageError("expected a model, or predictors that are already trained: one of the two")
    if predictors is not None:
        return trained_model(predictors, backbone=backbone, name=name)
    if settings and not isinstance(model, str):
        raise UsageError("settings: expected none beside a method that is made already; give them to its class")
    if isinstance(model, Model):
        return replace(model, backbone=backbone or model.backbone, name=name or model.name)
    if isinstance(model, Method):
        return model_of(model, backbone=backbone, name=name)
    assert model is not None
    return resolve_model(model, settings=settings, backbone=backbone, name=name, default_backbone=default_backbone)


def read_precision(text: str) -> Precision:
    """Return the precision of that name.

    Raises
    ------
    UsageError
        If there is none.
    """
    for known in get_args(Precision):
        if text == known:
            return known  # type: ignore[no-any-return]
    raise UsageError(f"--precision {text}: expected {listed(get_args(Precision))}{nearest(text, get_args(Precision))}")


def in_precision(model: Model, precision: Precision) -> Model:
    """Return a model under the name that its numbers of a precision have.

    Those of float32 keep the plain name. All others are another row with records, fits and a card of their own, so
    that the two share trained networks and nothing else.
    """
    if precision == "float32":
        return model
    name = row_in_precision(model.name, precision)
    check_row_name(name)
    return replace(model, name=name)


def card_of(model: Model) -> dict[str, Any]:
    """Return what a run folder says of a model."""
    return {**(dict(model.card) if model.card else {}), "model": model.name, "describes": describe_model(model)}
