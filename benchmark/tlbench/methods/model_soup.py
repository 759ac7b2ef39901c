"""One network of the mean weights of several that were fine-tuned in different ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, final

from torch import Tensor

from tlbench.errors import FitError
from tlbench.methods.averaging import State, check_averageable, inherit, loaded, named, network_state, part, soup
from tlbench.methods.base import Context, Fitted, Method, Need, Predictor, method_name
from tlbench.methods.cost import Cost, cost_of
from tlbench.methods.finetune import Finetune
from tlbench.suites.spec import Recipe

LR_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


@final
class ModelSoup(Method):
    """The mean weights of several fine-tuned networks, in one network (Wortsman et al., ICML 2022).

    All members start from the same pretrained weights and, as they have this fit's seed, from the same new head: means
    of networks whose heads were drawn differently predict nothing. Without ``members`` they are `Finetune` at
    ``lr_factors`` times the suite's learning rate, everything else alike, the data order included; the paper draws
    learning rates, weight decays, epochs and augmentations at random, in the dozens. With ``members``, they are these
    methods as they are set: ``model-soup(members=(finetune(lr=1e-4),finetune(augment=augmix)))``. A member must be a
    single network of the backbone's own form, and members should share how their head starts: not `LpFt` beside
    `Finetune`.

    Variants: ``greedy``, which is ranked, takes members in the order of their ID-val accuracy, the best first, equals
    as listed, and keeps one where the soup with it is strictly more accurate on ID-val than the soup without (the
    paper's text says "at least as", its code what we do); ``uniform``, the mean of all. BatchNorm's statistics are
    recomputed for every mean, in the greedy choice, too. One member is that member alone. One whose training fails,
    for its rate was too high, is left out, and the record says so.
    """

    one_network: ClassVar[bool] = False

    requires: ClassVar[frozenset[Need]] = frozenset({"id_val"})

    members: tuple[Method, ...] = ()
    lr_factors: tuple[float, ...] = LR_FACTORS  # of the recipe's learning rate, where no members are given

    def __post_init__(self) -> None:
        if self.members and self.lr_factors != LR_FACTORS:
            raise ValueError("expected members or lr_factors, got both; members have learning rates of their own")
        if not self.members and not self.lr_factors:
            raise ValueError("expected members or lr_factors, one or more, got none")
        if not all(0 < factor < math.inf for factor in self.lr_factors):
            raise ValueError(f"expected lr_factors above 0, got {', '.join(map(str, self.lr_factors))}")
        twice = next((one for one in self.members or self.lr_factors if self._times(one) > 1), None)
        if twice is not None:
            shown = f"members: {_named(twice)}" if isinstance(twice, Method) else f"lr_factors: {twice:g}"
            raise ValueError(f"{shown} is given twice: a soup of equal networks is one of them, counted double")
        for member in self.members:
            check_averageable(member)
        inherit(self, self.members or [Finetune()], needs=type(self).requires)

    def _times(self, ingredient: Method | float) -> int:
        return list(self.members or self.lr_factors).count(ingredient)

    def ingredients(self, recipe: Recipe) -> tuple[Method, ...]:
        """Return the members under a suite's recipe; the one at its learning rate is plain ``Finetune()``."""
        rates = [None if factor == 1 else factor * recipe.lr for factor in self.lr_factors]
        return self.members or tuple(Finetune(lr=rate) for rate in rates)

    def fit(self, context: Context) -> Fitted:
        members, failed = [], []
        states: list[State] = []
        for member in self.ingredients(context.recipe):
            # One after another: what cannot be averaged is told before the next one is trained.
            try:
                states.append(network_state(context.fitted(member), member, context))
                members.append(member)
            except FitError as problem:
                failed.append({"settings": _described(member), "problem": str(problem), "selected": False})
        if not states:
            raise FitError(f"no member of the soup can be used: {failed[0]['problem']}")
        if not failed and len(states) == 1:
            return self.build(context, named("main", states[0]), {})
        chosen = greedy_soup(
            states, cook=lambda own: soup(context, own), accuracy=lambda state: _id_val_accuracy(context, state)
        )
        tried = [
            {
                "settings": _described(member),
                "accuracy": accuracy,
                "selected": place in chosen.kept,
            }
            for place, (member, accuracy) in enumerate(zip(members, chosen.accuracies, strict=True))
        ]
        state = {**named("greedy", chosen.state), **named("uniform", soup(context, states))}
        return replace(self.build(context, state, {}), candidates=[*tried, *failed])

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        several = len(self.members or self.lr_factors) > 1

        def variant(name: str) -> Callable[[], Predictor]:
            return lambda: Predictor(loaded(context, part(name, state)))

        names = ("greedy", "uniform") if several else ("main",)
        return Fitted({name: variant(name) for name in names}, headline=names[0], state=state)

    def cost(self, recipe: Recipe) -> Cost:
        first, *others = self.ingredients(recipe)
        m, member = 1 + len(others), cost_of(first, recipe)
        if m == 1:
            return member.already_made()
        # At most: statistics of every soup that is tried, and of the uniform one; ID-val for every member and soup.
        return member.already_made(forward=m, validated=2 * m - 1, also_predicts=1, variants=2, networks=2)

    def asks_for(self, recipe: Recipe, seed: int) -> Iterable[tuple[Method, int]]:
        return [(member, seed) for member in self.ingredients(recipe)]

    def null_config(self) -> tuple[Method, Method]:
        return replace(self, members=(), lr_factors=(1.0,)), Finetune()


def _named(member: Method) -> str:
    """Return a member with the settings that differ from their defaults, as a command names it."""
    own = {field.name: (getattr(member, field.name), field.default) for field in fields(member)}  # type: ignore[arg-type]
    changed = ",".join(f"{name}={value}" for name, (value, default) in own.items() if value != default)
    return method_name(type(member)) + (f"({changed})" if changed else "")


def _described(member: Method) -> dict[str, Any]:
    return {"method": method_name(type(member)), **member.settings()}


@dataclass(frozen=True, eq=False)
class Greedy:
    """What a greedy choice came to.

    Attributes
    ----------
    state : dict of str to tensor
    kept : tuple of int
        Places of the members whose mean it is, in the order in which they were taken.
    accuracy : float
        Of the soup, on ID-val.
    accuracies : tuple of float
        Of every member, on ID-val.
    """

    state: State
    kept: tuple[int, ...]
    accuracy: float
    accuracies: tuple[float, ...]


def greedy_soup(
    states: Sequence[State], *, cook: Callable[[Sequence[State]], State], accuracy: Callable[[State], float]
) -> Greedy:
    """Return the soup that grows from the best member by whatever makes it strictly more accurate.

    Parameters
    ----------
    states : sequence of dict of str to tensor
    cook : callable
        Several states to their soup.
    accuracy : callable
        Of a state, on ID-val.
    """
    accuracies = tuple(map(accuracy, states))
    first, *others = sorted(range(len(states)), key=lambda place: -accuracies[place])
    best = Greedy(states[first], (first,), accuracies[first], accuracies)
    for place in others:
        kept = (*best.kept, place)
        state = cook([states[one] for one in kept])
        reached = accuracy(state)
        if reached > best.accuracy:
            best = Greedy(state, kept, reached, accuracies)
    return best


def _id_val_accuracy(context: Context, state: State) -> float:
    outputs = context.outputs(Predictor(loaded(context, state)), "id_val")
    return float((outputs.argmax(dim=1) == context.data("id_val").labels).double().mean())
