"""One fit: made once, stored as state and a small recipe, rebuilt without training ever after."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from tlbench.engine.context import FitContext
from tlbench.engine.provenance import device_name, git_state, packages, peak_memory_bytes, tlbench_version
from tlbench.errors import FitError, TlbenchError, listed
from tlbench.methods.base import Fitted, Method, Predictor, Tag, method_name
from tlbench.methods.fitted import as_fitted, state_of

if TYPE_CHECKING:
    from tlbench.models.backbone import Backbone
    from tlbench.records.store import Store

_GIVEN: frozenset[Tag] = frozenset({"id_train", "id_val", "target_unlabeled_train", "target_unlabeled_test"})
_CHECKED_IMAGES = 8
_REBUILT_TOLERANCE = 1e-4


@dataclass
class StoredFit:
    """A fit that exists: its predictors, and what is known of it.

    Attributes
    ----------
    fitted : Fitted
    facts : dict
        Cost and provenance, the columns of the fits table that do not come from the fit's key; and, for who asks for
        this fit, the passes backward and the ``parts`` that it asked for itself.
    trained : bool
        Whether it was trained just now rather than rebuilt.
    """

    fitted: Fitted
    facts: dict[str, Any] = field(default_factory=dict)
    trained: bool = False


def unmet_need(method: Method, backbone: Backbone, *, sources: int, validation: int, info: Mapping[str, Any]) -> str:
    """Return why a method does not apply here, or an empty string."""
    lacking = method.reads - _GIVEN - ({"class_hierarchy"} if "hierarchy" in info else set())
    if "class_hierarchy" in lacking:
        return "needs a class hierarchy, the suite has none for this task"
    if lacking:
        return f"reads {listed(sorted(lacking))}, which the suite does not give"
    for need in sorted(method.requires):
        if need == "id_val" and validation == 0:
            return "needs validation images, the suite has none here"
        if need == "many_sources" and sources < 2:
            return "needs several source domains, this fit has one"
        if need == "hierarchy" and "hierarchy" not in info:
            return "needs a class hierarchy, the suite has none for this task"
        if need in ("batchnorm", "transformer", "taps", "source_head", "pretrained") and not backbone.has(need):
            return f"needs a backbone with {need.replace('_', ' ')}, {backbone.name} has none"
    return ""


def obtain(fit_id: str, method: Method, context: FitContext, store: Store, say: Callable[[str], None]) -> StoredFit:
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
    StoreError
        If the fit cannot be written.
    """
    if store.adopt_fit(fit_id):
        try:
            return rebuild(fit_id, method, context, store)
        except (Exception, SystemExit) as error:
            # A build that fails, or a damaged file: the fit can always be made again, and says so.
            say(f"{context.source}: the stored fit cannot be rebuilt ({told(error, method)}); it is fitted again")
    return _train(fit_id, method, context, store, say)


def rebuild(fit_id: str, method: Method, context: FitContext, store: Store) -> StoredFit:
    """Recreate a stored fit's predictors without training."""
    folder = store.fit_folder(fit_id)
    kept = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
    if not kept["rebuilds"]:
        raise FitError(kept["why_not"])
    state = load_file(folder / "state.safetensors")
    if kept["as_fresh"]:
        fresh = context.backbone.fresh(context.classes).state_dict()
        state |= {name: fresh[_plain(name)] for name in kept["as_fresh"]}
    return StoredFit(method.build(context, state, kept["recipe"]), kept["facts"])


def told(error: BaseException, method: Method) -> str:
    """Return an exception as one line: what it says, and where in the plug-in it was raised."""
    text = " ".join(str(error).split())
    if isinstance(error, FitError | TlbenchError):
        return text
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__) + _place(error, method)


def _place(error: BaseException, method: Method) -> str:
    """Return the innermost line of the plug-in's own file that an exception went through, else of any file."""
    lines = []
    trace = error.__traceback__
    while trace is not None:
        lines.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    home = getattr(sys.modules.get(type(method).__module__), "__file__", None)
    own = [line for line in lines if line[0] == home] or lines
    return f" ({Path(own[-1][0]).name}, line {own[-1][1]})" if own else ""


def _train(fit_id: str, method: Method, context: FitContext, store: Store, say: Callable[[str], None]) -> StoredFit:
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    try:
        fitted = as_fitted(method.fit(context), method_name(type(method)))
    except (FitError, TlbenchError):
        raise
    except (Exception, SystemExit) as error:
        raise FitError(f"fit raised {told(error, method)}") from error
    facts = {
        "tlbench_version": tlbench_version(),
        "git_state": git_state(),
        "packages": packages(),
        "device": device_name(context.device),
        "threads": torch.get_num_threads(),
        "started": started,
        # The cost of a method does not depend on whether somebody fitted what is inside it before.
        "seconds": time.monotonic() - clock + context.owed_seconds,
        "peak_memory_bytes": peak_memory_bytes(context.device),
        "parameters_trained": context.budget.parameters_trained,
        "images_seen": context.budget.images_seen,
        "backward_passes": context.budget.backward_passes,
        "parts": {part: asdict(own) for part, own in context.parts.items()},
        "saved_bytes": context.budget.saved_bytes,
        "data_read": json.dumps(sorted(context.reads)),
        "candidates": json.dumps([*context.candidates, *fitted.candidates]),
    }
    try:
        # Copies: predicting moves the state of a network that adapts. The recipe as it will be read back.
        state = {name: tensor.clone() for name, tensor in state_of(fitted).items()}
        recipe = json.loads(json.dumps(dict(fitted.recipe)))
        why_not = _why_not_rebuilt(method, context, fitted, state, recipe)
    except (Exception, SystemExit) as error:
        # Whatever a plug-in's build raises, the fit itself is good: it is told and repeated when needed.
        state, recipe, why_not = {}, {}, told(error, method)
    if why_not:
        say(f"{context.source}: this fit cannot be rebuilt and is repeated when needed again ({why_not})")
        state, recipe = {}, {}
    _save(store, fit_id, context, state, recipe, facts, why_not)
    return StoredFit(fitted, facts, trained=True)


def _why_not_rebuilt(
    method: Method, context: FitContext, fitted: Fitted, state: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> str:
    """Return why a rebuilt fit would not predict what the fitted one does, or an empty string."""
    images = context.example(_CHECKED_IMAGES)
    again = method.build(context, {name: tensor.clone() for name, tensor in state.items()}, recipe)
    if set(again.variants) != set(fitted.variants):
        return f"build returns the variants {listed(sorted(again.variants))}, fit {listed(sorted(fitted.variants))}"
    rebuilt = _outputs(again.predictor(), images)
    made = _outputs(fitted.predictor(), images)
    if made.shape != rebuilt.shape or not torch.allclose(made, rebuilt, rtol=_REBUILT_TOLERANCE, atol=1e-5):
        return "the rebuilt predictor gives other outputs"
    return ""


def _outputs(predictor: Predictor, images: Tensor) -> Tensor:
    if predictor.reset is not None:
        predictor.reset()
    module = predictor.module.to(images.device)
    if not predictor.sees_test_images:
        module.eval()
    with torch.no_grad():
        outputs: Tensor = module(images)
    return outputs.float().nan_to_num()


def _save(
    store: Store,
    fit_id: str,
    context: FitContext,
    state: Mapping[str, Tensor],
    recipe: Mapping[str, Any],
    facts: Mapping[str, Any],
    why_not: str,
) -> None:
    # Tensors that equal a fresh copy's are left out: a linear probe is kilobytes, not its whole backbone.
    fresh = context.backbone.fresh(context.classes).state_dict() if state else {}
    as_fresh = {name for name, tensor in state.items() if _plain(name) in fresh and _same(tensor, fresh[_plain(name)])}
    rest = {name: tensor.contiguous() for name, tensor in state.items() if name not in as_fresh}
    kept = {
        "rebuilds": not why_not,
        "why_not": why_not,
        "recipe": dict(recipe),
        "as_fresh": sorted(as_fresh),
        "facts": dict(facts),
    }
    with store.writing_fit(fit_id) as folder:
        # By Python's own hands: the library's would hide in its text that the disk is full.
        (folder / "state.safetensors").write_bytes(save(rest))
        (folder / "fit.json").write_text(json.dumps(kept), encoding="utf-8")


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.detach().cpu(), b.cpu())


def _plain(name: str) -> str:
    """Return a tensor's name in the network, below the prefixes of methods that wrap others."""
    return name.rsplit("/", 1)[-1]
