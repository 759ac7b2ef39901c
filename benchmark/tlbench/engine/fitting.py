"""One fit: made once, stored as state and a small recipe, rebuilt without training ever after."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlbench.engine.context import FitContext
from tlbench.engine.provenance import device_name, git_state, packages, peak_memory_bytes, tlbench_version
from tlbench.errors import FitError, PluginError, TlbenchError
from tlbench.methods.base import Fitted, Method, Predictor, method_name
from tlbench.methods.fitted import as_fitted, state_of

if TYPE_CHECKING:
    from tlbench.models.backbone import Backbone
    from tlbench.records.store import Store

_CHECKED_IMAGES = 8
_REBUILT_TOLERANCE = 1e-4


@dataclass
class StoredFit:
    """A fit that exists: its predictors, and what is known of it.

    Attributes
    ----------
    fitted : Fitted
    facts : dict
        Cost and provenance, the columns of the fits table that do not come from the fit's key.
    trained : bool
        Whether it was trained just now rather than rebuilt.
    """

    fitted: Fitted
    facts: dict[str, Any] = field(default_factory=dict)
    trained: bool = False


def unmet_need(method: Method, backbone: Backbone, *, sources: int, validation: int, info: Mapping[str, Any]) -> str:
    """Return why a method does not apply here, or an empty string."""
    for need in sorted(method.requires):
        if need == "id_val" and validation == 0:
            return "needs validation images, the suite has none here"
        if need == "many_sources" and sources < 2:
            return "needs several source domains, this fit has one"
        if need == "hierarchy" and "hierarchy" not in info:
            return "needs a class hierarchy, the suite has none"
        if need in ("batchnorm", "transformer", "taps", "source_head", "pretrained") and not backbone.has(need):
            return f"needs a backbone with {need.replace('_', ' ')}, {backbone.name} has none"
    return ""


def obtain(
    fit_id: str, method: Method, context: FitContext, store: Store, say: Callable[[str], None]
) -> StoredFit:
    """Return a fit: rebuilt from the store where that works, else trained and stored.

    Parameters
    ----------
    fit_id : str
    method : Method
    context : FitContext
    store : Store
    say : callable
        Told, in one line, when a stored fit has to be trained again.

    Raises
    ------
    FitError, TlbenchError
        If ``fit`` raises, or returns what is not a predictor.
    NotApplicableError
        If the method says that it cannot exist here.
    """
    if store.has_fit(fit_id):
        try:
            return rebuild(fit_id, method, context, store)
        except (NotImplementedError, KeyError, TypeError, ValueError, RuntimeError, OSError, SafetensorError) as error:
            say(f"{context.source}: the stored fit cannot be rebuilt ({one_line(error)}); it is fitted again")
    return _train(fit_id, method, context, store, say)


def rebuild(fit_id: str, method: Method, context: FitContext, store: Store) -> StoredFit:
    """Recreate a stored fit's predictors without training."""
    folder = store.fit_folder(fit_id)
    kept = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    if not kept["rebuilds"]:
        raise ValueError(kept["why_not"])
    state = load_file(folder / "state.safetensors")
    if kept["as_fresh"]:
        fresh = context.backbone.fresh(context.classes).state_dict()
        state |= {name: fresh[_plain(name)] for name in kept["as_fresh"]}
    return StoredFit(method.build(context, state, kept["recipe"]), kept["facts"])


def one_line(error: BaseException) -> str:
    """Return an exception as one line: its type and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _train(fit_id: str, method: Method, context: FitContext, store: Store, say: Callable[[str], None]) -> StoredFit:
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    try:
        fitted = as_fitted(method.fit(context), method_name(type(method)))
    except (FitError, TlbenchError):
        raise
    except Exception as error:
        raise FitError(f"fit raised {one_line(error)}{_place(error)}") from error
    facts = {
        "tlbench_version": tlbench_version(),
        "git_state": git_state(),
        "packages": packages(),
        "device": device_name(context.device),
        "threads": torch.get_num_threads(),
        "started": started,
        "seconds": time.monotonic() - clock,
        "peak_memory_bytes": peak_memory_bytes(context.device),
        "parameters_trained": context.budget.parameters_trained,
        "images_seen": context.budget.images_seen,
        "saved_bytes": context.budget.saved_bytes,
        "data_read": json.dumps(sorted(context.reads)),
    }
    state = _kept_state(fitted)
    why_not = _why_not_rebuilt(method, context, fitted, state)
    if why_not:
        say(f"{context.source}: this fit cannot be rebuilt from its state and is repeated when needed again ({why_not})")
    _save(store, fit_id, context, fitted, {} if state is None else state, facts, why_not)
    return StoredFit(fitted, facts, trained=True)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace else ""


def _kept_state(fitted: Fitted) -> dict[str, Tensor] | None:
    try:
        return state_of(fitted)
    except PluginError:
        return None


def _why_not_rebuilt(method: Method, context: FitContext, fitted: Fitted, state: dict[str, Tensor] | None) -> str:
    """Return why a rebuilt fit would not predict what the fitted one does, or an empty string."""
    if state is None:
        return "several variants and no Fitted.state"
    images = context.example(_CHECKED_IMAGES)
    try:
        again = method.build(context, {name: tensor.clone() for name, tensor in state.items()}, dict(fitted.recipe))
        if set(again.variants) != set(fitted.variants):
            return f"build returns the variants {sorted(again.variants)}, fit {sorted(fitted.variants)}"
        first, second = _outputs(fitted.predictor(), images), _outputs(again.predictor(), images)
    except Exception as error:
        # Whatever a plug-in's build raises, the fit itself is good: it is told and repeated when needed.
        return f"build raised {one_line(error)}"
    if first.shape != second.shape or not torch.allclose(first, second, rtol=_REBUILT_TOLERANCE, atol=1e-5):
        return "the rebuilt predictor gives other outputs"
    return ""


def _outputs(predictor: Predictor, images: Tensor) -> Tensor:
    if predictor.reset is not None:
        predictor.reset()
    with torch.no_grad():
        outputs: Tensor = predictor.module(images)
    return outputs.float().nan_to_num()


def _save(
    store: Store,
    fit_id: str,
    context: FitContext,
    fitted: Fitted,
    state: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    why_not: str,
) -> None:
    # Tensors that equal a fresh copy's are left out: a linear probe is kilobytes, not its whole backbone.
    fresh = context.backbone.fresh(context.classes).state_dict() if not why_not else {}
    as_fresh = [name for name, tensor in state.items() if _plain(name) in fresh and _same(tensor, fresh[_plain(name)])]
    rest = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items() if name not in as_fresh}
    kept = {
        "rebuilds": not why_not,
        "why_not": why_not,
        "recipe": dict(fitted.recipe),
        "as_fresh": as_fresh,
        "facts": dict(facts),
    }
    with store.writing_fit(fit_id) as folder:
        save_file({} if why_not else rest, folder / "state.safetensors")
        (folder / "fit.json").write_text(json.dumps(kept), encoding="utf-8")


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.detach().cpu(), b.cpu())


def _plain(name: str) -> str:
    """Return a tensor's name in the network, below the prefixes of methods that wrap others."""
    return name.rsplit("/", 1)[-1]
