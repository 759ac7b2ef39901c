"""The mean prediction of several fits that differ in their seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, final

from torch import Tensor

from tlbench.errors import NotApplicableError
from tlbench.methods.averaging import ensembled, inherit, named, part
from tlbench.methods.base import Context, Fitted, Method, method_name
from tlbench.methods.cost import Cost, cost_of
from tlbench.methods.finetune import Finetune
from tlbench.methods.fitted import state_of
from tlbench.methods.posthoc import PostHoc
from tlbench.suites.spec import Recipe


@final
class DeepEnsemble(Method):
    """The mean of the probabilities of several fits of one method (Lakshminarayanan et al., NeurIPS 2017).

    Members differ in their seed, which is that of the new head, the order of the data and the augmentation: member i
    of seed s is the method's own fit of seed ``members * s + i``, which is taken from the store where a run of that
    seed has left it. All start from the same pretrained weights: a "local" ensemble, where one of several pretrained
    networks would be a "global" one. The paper trains five networks from scratch, and shows them adversarial examples,
    which we leave out, as its followers do.

    Outputs are log-probabilities, log (1/M sum softmax), computed by log-sum-exp. Every image costs as many forward
    passes as there are members. Of a method with several predictors it is the ranked one that is averaged; one member
    is the method itself. ``base`` is any method that depends on its seed and returns logits or log-probabilities:
    ``deep-ensemble(lp-ft)`` on the command line.
    """

    one_network: ClassVar[bool] = False

    base: Method = Finetune()
    members: int = 5

    def __post_init__(self) -> None:
        if self.members < 1:
            raise ValueError(f"expected members of at least 1, got {self.members}")
        shown = method_name(type(self.base))
        if isinstance(self.base, PostHoc) and self.base.gives == "scores":
            raise ValueError(f"an ensemble averages probabilities, {shown} returns scores; wrap the ensemble instead")
        if self.base.deterministic and self.members > 1:
            raise ValueError(f"{shown} does not depend on the seed: its {self.members} members would all be equal")
        inherit(self, [self.base])

    def fit(self, context: Context) -> Fitted:
        if self.members == 1:
            return context.fitted(self.base, repeat=context.seed)
        fits: list[Fitted] = []
        for seed in self._seeds(context.seed):
            fits.append(context.fitted(self.base, repeat=seed))
            if fits[-1].predictor().output == "scores":
                shown = method_name(type(self.base))
                raise NotApplicableError(f"an ensemble averages probabilities, {shown} returns scores")
        state = {key: tensor for i, own in enumerate(fits) for key, tensor in named(str(i), state_of(own)).items()}
        return self._composed(fits, state)

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        if self.members == 1:
            return self.base.build(context, state, recipe)
        below = enumerate(recipe["members"])
        return self._composed([self.base.build(context, part(str(i), state), own) for i, own in below], state)

    def cost(self, recipe: Recipe) -> Cost:
        one = cost_of(self.base, recipe)
        if self.members == 1:
            return one.already_made()
        predicts, networks = self.members * one.predicts, self.members * one.networks
        return one.already_made(predicts=predicts, also_predicts=0.0, variants=1, also_attacked=None, networks=networks)

    def asks_for(self, recipe: Recipe, seed: int) -> Iterable[tuple[Method, int]]:
        return [(self.base, own) for own in self._seeds(seed)]

    def null_config(self) -> tuple[Method, Method]:
        return replace(self, members=1), self.base

    def _seeds(self, seed: int) -> range:
        """Return the members' seeds."""
        return range(self.members * seed, self.members * (seed + 1))

    def _composed(self, fits: list[Fitted], state: Mapping[str, Tensor]) -> Fitted:
        recipe = {"members": [dict(own.recipe) for own in fits]}
        return Fitted({"main": lambda: ensembled([own.predictor() for own in fits])}, state=state, recipe=recipe)
