"""One method on the synthetic task: what it is held to, promise by promise."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tlbench.engine.context import FitContext
from tlbench.errors import DataAccessError, NotApplicableError, listed
from tlbench.methods.base import Fitted, Method, Predictor
from tlbench.methods.fitted import as_fitted, state_of, test_time_mistake
from tlbench.models.backbone import Backbone
from tlbench.models.probes import probe_batch_independence, probe_gradient, probe_reset
from tlbench.suites.spec import Recipe
from tlbench.testing.synthetic import synthetic_context
from tlbench.testing.watching import difference, fingerprint, global_state, other_global_randomness, place_of

SEEDS = (0, 1)
_OTHER_BACKBONE = "where another backbone would do, name it: check_method(..., backbone=), models check --backbone"


class Broken(Exception):
    """A promise that was not kept."""


@dataclass
class Trial:
    """One method on the synthetic task, and what its first fit showed."""

    method: Method
    backbone: Backbone
    recipe: Recipe
    images: Tensor = field(init=False)
    context: FitContext = field(init=False)
    fitted: Fitted = field(init=False)
    found: dict[str, Tensor] = field(init=False)
    before: dict[str, Any] = field(init=False)
    moved: list[str] = field(init=False)

    def settings(self) -> str:
        cls = type(self.method)
        bare = [name for name, value in vars(cls).items() if _looks_like_a_setting(cls, name, value)]
        if bare:
            kind = type(vars(cls)[bare[0]]).__name__
            raise Broken(
                f"{listed(bare)} has no type, so it is no setting: it would be missing from every record and could not "
                f"be set from outside; write '{bare[0]}: {kind} = ...'"
            )
        try:
            json.dumps(self.method.settings(), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise Broken(
                f"settings() is not JSON ({error}): settings are numbers, strings, booleans, None, tuples of these, or "
                "other methods; build what is larger in fit"
            ) from None
        count = len(self.method.settings())
        return f"{count} setting{'' if count == 1 else 's'}"

    def requires(self) -> str:
        for need in sorted(self.method.requires):
            if need in ("id_val",):
                continue
            if need == "hierarchy" and "class_hierarchy" in self.method.reads:
                continue  # the synthetic classes have one
            if need in ("hierarchy", "many_sources"):
                raise Broken(f"requires '{need}', which the synthetic task does not have; it cannot be checked here")
            if not self.backbone.has(need) and need != "pretrained":
                raise Broken(f"requires '{need}', {self.backbone.name} has none; {_OTHER_BACKBONE}")
        return "everything that it requires is there"

    def first_fit(self) -> str:
        self.before = {
            "settings": json.dumps(self.method.settings()),
            "attributes": sorted(vars(self.method)),
            "theta0": fingerprint(self.backbone),
        }
        watched = global_state()
        try:
            self.context, self.fitted = self._fit(SEEDS[0])
        except Broken:
            raise
        except DataAccessError as error:
            raise Broken(f"read what it may not: {error}") from None
        except NotApplicableError as error:
            raise Broken(f"says that it does not apply to this task or backbone ({error}); {_OTHER_BACKBONE}") from None
        except Exception as error:  # whatever a plug-in raises is what its author wants to read
            raise Broken(f"fit raised {type(error).__name__}: {error}{place_of(error)}") from error
        self.moved = [name for name, value in global_state().items() if value != watched[name]]
        self.images = self.context.example(8)
        self.found = self._predictions(self.fitted)
        return f"variants: {', '.join(self.fitted.variants)}"

    def outputs(self) -> str:
        for name, outputs in self.found.items():
            _check_outputs(name, self.fitted.predictor(name), outputs, len(self.images), self.context.classes)
        return "shape and meaning as declared"

    def declared_access(self) -> str:
        read = set(self.context.reads)
        if any(self.fitted.predictor(name).sees_test_images for name in self.fitted.variants):
            read.add("target_unlabeled_test")  # not in the fit: while it predicts
        unread = sorted((self.method.reads - {"id_train", "id_val"}) - read)
        if unread:
            raise Broken(
                f"declares {listed(unread)} and never reads it: its rows would be compared in the wrong protocol; "
                "leave it out of reads"
            )
        return f"read {', '.join(sorted(self.context.reads)) or 'nothing'}, all of it declared"

    def theta0(self) -> str:
        if fingerprint(self.backbone) != self.before["theta0"]:
            raise Broken(
                "the pretrained weights changed during fit: every later fit would start from them; train a copy, "
                "context.backbone.fresh(context.classes)"
            )
        return "the pretrained weights are as they were"

    def unchanged(self) -> str:
        after = json.dumps(self.method.settings())
        added = sorted(set(vars(self.method)) - set(self.before["attributes"]))
        if after != self.before["settings"] or added:
            what = f"added {listed(added)}" if added else f"turned {self.before['settings']} into {after}"
            raise Broken(f"fit {what} on the method itself, which is shared by fits; state goes into what fit returns")
        return "the method is as it was"

    def global_state(self) -> str:
        if self.moved:
            raise Broken(
                f"fit changed {listed(self.moved)}, which belongs to the whole process and moves other methods' "
                "numbers; draw from context.rng('name'), pass generator=, or put it back"
            )
        return "global generators, threads and modes are as they were"

    def same_seed(self) -> str:
        with other_global_randomness():
            again = self._predictions(self._fit(SEEDS[0])[1])
        apart = difference(self.found, again)
        if apart is None or apart > 0:
            raise Broken(
                f"two fits under one seed differ{'' if apart is None else f' by {apart:.2g}'}: something is drawn from "
                "a global generator, or depends on time or the order of a set; take every random number from "
                "context.rng('name')"
            )
        return "two fits under one seed are equal bit for bit"

    def other_seed(self) -> str:
        apart = difference(self.found, self._predictions(self._fit(SEEDS[1])[1]))
        if self.method.deterministic and (apart is None or apart > 0):
            raise Broken(
                f"declares deterministic = True, yet another seed gives other outputs "
                f"{'' if apart is None else f'(by {apart:.2g})'}: one fit would stand for all seeds; leave it out"
            )
        if not self.method.deterministic and apart == 0:
            raise Broken(
                "another seed gives equal outputs: the spread over seeds would be shown as zero; declare "
                "deterministic = True if nothing is drawn, or draw from context.rng('name')"
            )
        return "does not depend on the seed" if self.method.deterministic else "depends on the seed"

    def differentiable(self) -> str:
        claimed = []
        for name in self.fitted.variants:
            predictor = self.fitted.predictor(name)
            if not predictor.differentiable or predictor.sees_test_images:
                continue
            claimed.append(name)
            result = probe_gradient(predictor.module.eval(), self.images)
            if not result.passed:
                raise Broken(f"variant '{name}' claims a gradient: {result.detail}")
        return f"the gradient of {listed(claimed)} agrees with finite differences" if claimed else "claims no gradient"

    def batch_independence(self) -> str:
        for name in self.fitted.variants:
            predictor = self.fitted.predictor(name)
            if predictor.sees_test_images:
                continue
            result = probe_batch_independence(predictor.module.eval(), self.images)
            if not result.passed:
                raise Broken(
                    f"variant '{name}': {result.detail}; return the network in eval mode, or declare "
                    "Predictor(module, batch_dependent=True) and the tag target_unlabeled_test"
                )
        return "an image's outputs do not depend on its company, or are declared to"

    def test_time(self) -> str:
        seeing = [name for name in self.fitted.variants if self.fitted.predictor(name).sees_test_images]
        for name in seeing:
            predictor = self.fitted.predictor(name)
            mistake = test_time_mistake(predictor, self.method)
            if not mistake and predictor.reset is not None:
                put_back = probe_reset(predictor.module, predictor.reset, self.images)
                mistake = "" if put_back.passed else put_back.detail
            if mistake:
                raise Broken(f"variant '{name}': {mistake}")
        return f"{listed(seeing)} may see test images, and can be put back" if seeing else "sees one image at a time"

    def round_trip(self) -> str:
        try:
            state = {name: tensor.clone() for name, tensor in state_of(self.fitted).items()}
            recipe = json.loads(json.dumps(dict(self.fitted.recipe), allow_nan=False))
            rebuilt = self.method.build(self._context(SEEDS[0]), state, recipe)
            again = self._predictions(rebuilt)
        except NotImplementedError as error:
            return f"build says that it cannot ({error}): the fit is repeated where a predictor is needed"
        except Exception as error:  # whatever build raises, the advice is the same
            first = (str(error).splitlines() or [""])[0].rstrip(":")
            raise Broken(
                f"build(context, state, recipe) raised {type(error).__name__}: {first}; "
                "the default build makes context.backbone.fresh(context.classes) and loads the state: a method that "
                "returns anything else writes its own"
            ) from None
        apart = difference(self.found, again)
        if apart is None or apart > 1e-5:
            raise Broken(
                "the predictor that build makes from the stored state predicts otherwise than the fitted one: what fit "
                "computed is not all in the state; register it as a buffer, or add it to Fitted(state=, recipe=)"
            )
        return "state and recipe are all that build needs"

    def null_setting(self) -> str:
        null = self.method.null_config()
        if null is None:
            return "names no null setting"
        reduced, simpler = null
        first = self._predictions(self._fit(SEEDS[0], reduced)[1])
        second = self._predictions(self._fit(SEEDS[0], simpler)[1])
        apart = difference(first, second)
        if apart is None or apart > 0:
            raise Broken(
                f"{reduced} does not equal {simpler} bit for bit, as null_config says it does: the method does more "
                "than its settings say, or draws in another order"
            )
        return f"{type(reduced).__name__} with nothing on equals {type(simpler).__name__}"

    def two_classes(self) -> str:
        context, fitted = self._fit(SEEDS[0], classes=2)
        images = context.example(8)
        for name in fitted.variants:
            predictor = fitted.predictor(name)
            _check_outputs(name, predictor, _predicted(predictor, images), len(images), 2)
        return "works for two classes and for three"

    def _context(self, seed: int, method: Method | None = None, classes: int = 3) -> FitContext:
        return synthetic_context(
            method or self.method, backbone=self.backbone, recipe=self.recipe, seed=seed, classes=classes
        )

    def _fit(self, seed: int, method: Method | None = None, classes: int = 3) -> tuple[FitContext, Fitted]:
        chosen = method or self.method
        context = self._context(seed, chosen, classes)
        fitted = as_fitted(chosen.fit(context), type(chosen).__name__)
        for name in fitted.variants:
            predictor = fitted.predictor(name)
            if not predictor.sees_test_images:
                predictor.module.eval()
        return context, fitted

    def _predictions(self, fitted: Fitted) -> dict[str, Tensor]:
        return {name: _predicted(fitted.predictor(name), self.images) for name in fitted.variants}


def _predicted(predictor: Predictor, images: Tensor) -> Tensor:
    if predictor.reset is not None:
        predictor.reset()
    if not predictor.sees_test_images:
        predictor.module.eval()
    with torch.no_grad():
        outputs: Tensor = predictor.module(images)
    return outputs


def _check_outputs(name: str, predictor: Predictor, outputs: object, n: int, classes: int) -> None:
    if not isinstance(outputs, Tensor) or outputs.shape != (n, classes):
        came = f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
        raise Broken(f"variant '{name}' must return a tensor of shape ({n}, {classes}) for {n} images, came {came}")
    if not outputs.is_floating_point() or bool(torch.isnan(outputs).any()) or bool((outputs == torch.inf).any()):
        raise Broken(f"variant '{name}' returns outputs that are not finite numbers ({outputs.dtype})")
    total = outputs.double().logsumexp(dim=1)
    if predictor.output == "log_probs" and not torch.allclose(total, torch.zeros_like(total), atol=1e-4):
        raise Broken(
            f"variant '{name}' declares log_probs, whose exponentials sum to one; here they sum to "
            f"{float(total[0].exp()):.4g}: end with log_softmax, or declare output='logits'"
        )
    sums = outputs.double().sum(dim=1)
    if predictor.output == "logits" and bool((outputs >= 0).all()) and torch.allclose(sums, torch.ones_like(sums)):
        raise Broken(
            f"variant '{name}' declares logits and returns probabilities: NLL and calibration would apply softmax "
            "twice; return the logits, or take the logarithm and declare output='log_probs'"
        )


def _looks_like_a_setting(cls: type, name: str, value: object) -> bool:
    """Whether a class attribute is a plain value that its author did not annotate."""
    typed = any(name in vars(owner).get("__annotations__", {}) for owner in cls.__mro__)
    return not typed and not name.startswith("_") and isinstance(value, bool | int | float | str | tuple | list | dict)
