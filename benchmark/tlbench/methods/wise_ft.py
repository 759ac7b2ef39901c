"""Weights between a linear probe and the network that was fine-tuned from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, final

from torch import Tensor

from tlbench.methods.averaging import State, check_averageable, inherit, loaded, named, network_state, part
from tlbench.methods.base import Context, Fitted, Method, Need, Predictor, method_name
from tlbench.methods.cost import Cost, cost_of
from tlbench.methods.finetune import HeadOnly
from tlbench.methods.linear_probe import LinearProbe
from tlbench.methods.lp_ft import LpFt
from tlbench.suites.spec import Recipe

CURVE = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@final
class WiseFt(Method):
    """Weights on the line from a linear probe to its fine-tuned self (Wortsman et al., CVPR 2022).

    theta(a) = (1 - a) theta_0 + a theta_ft, over every tensor of the network: backbone, head and the statistics of
    BatchNorm; a count of batches is theta_ft's. ``main``, which is ranked, has a = ``share``, the paper's 0.5 where
    nothing is known of the target; the other points of ``curve`` are variants of their own, such as ``0.3``. Nothing is
    selected.

    The paper starts from CLIP, whose zero-shot head stands at a = 0. A pretrained network without one has a linear
    probe's there, and fine-tuning must start from that probe, or the line leads from one head to an unrelated one:
    ``base`` is `LpFt`, with the settings of its probe, or a method that starts likewise. Between networks that start
    alike the accuracy on the target often has its peak inside the line, while that on the source hardly falls.
    """

    one_network: ClassVar[bool] = False

    requires: ClassVar[frozenset[Need]] = frozenset({"id_val"})

    base: Method = LpFt()
    share: float = 0.5  # of the fine-tuned weights
    curve: tuple[float, ...] = CURVE

    def __post_init__(self) -> None:
        for name, shares in (("share", (self.share,)), ("curve", self.curve)):
            wrong = [share for share in shares if not 0 <= share <= 1]
            if wrong:
                raise ValueError(f"{name}: expected shares in [0, 1], got {wrong[0]:g}")
        if len(set(map(_shown, self.curve))) != len(self.curve):
            raise ValueError(f"curve: a share is given twice in {', '.join(map(_shown, self.curve))}")
        check_averageable(self.base)
        # Between two heads on one backbone the line is that between their logits, however they came about.
        linear = isinstance(self.base, HeadOnly)
        if not linear and not any(isinstance(asked, LinearProbe) for asked, _ in self.base.asks_for(Recipe(), 0)):
            raise ValueError(
                f"expected a base whose head starts from a linear probe, as lp-ft's does and its asks_for says, got "
                f"{method_name(type(self.base))}: between unrelated heads there is no line to follow"
            )
        inherit(self, [self.base], needs=type(self).requires)

    def fit(self, context: Context) -> Fitted:
        ends = {"start": self.probe(), "tuned": self.base}
        state: State = {}
        for name, method in ends.items():
            state |= named(name, network_state(context.fitted(method), method, context))
        return self.build(context, state, {})

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        start, tuned = part("start", state), part("tuned", state)

        def variant(share: float) -> Callable[[], Predictor]:
            return lambda: Predictor(loaded(context, between(start, tuned, share)))

        shares = {"main": self.share, **{_shown(share): share for share in self._unranked()}}
        return Fitted({name: variant(share) for name, share in shares.items()}, state=state)

    def cost(self, recipe: Recipe) -> Cost:
        # The body of the first end is theta0, which is not stored.
        tuned = cost_of(self.base, recipe)
        others = len(self._unranked())
        return tuned.already_made(also_predicts=others * tuned.predicts, variants=1 + others)

    def asks_for(self, recipe: Recipe, seed: int) -> Iterable[tuple[Method, int]]:
        return [(end, seed) for end in (self.probe(), self.base)]

    def null_config(self) -> tuple[Method, Method]:
        return replace(self, share=1.0, curve=()), self.base

    def probe(self) -> LinearProbe:
        """Return the probe at a = 0, from which fine-tuning starts."""
        return self.base.probe() if isinstance(self.base, LpFt) else LinearProbe()

    def _unranked(self) -> tuple[float, ...]:
        return tuple(share for share in self.curve if _shown(share) != _shown(self.share))


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> State:
    """Return (1 - share) start + share end, computed in float64, so that both ends are exact.

    What is no float, such as a count of batches, is the end's.
    """
    return {
        name: ((1 - share) * start[name].double() + share * tensor.double()).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in end.items()
    }


def _shown(share: float) -> str:
    return f"{share:g}"
