"""Methods that change another method's outputs and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from tlbench.errors import NotApplicableError
from tlbench.methods.base import Context, Fitted, Method, Need, Output, Predictor, Tag
from tlbench.methods.cost import Cost, cost_of
from tlbench.methods.fitted import as_fitted, state_of
from tlbench.suites.spec import Recipe

MAP, BASE = "map/", "base/"


class PostHoc(Method):
    """A map on the outputs of another method, fitted on its ID-val outputs.

    A subclass gives ``base`` a default of its choice, writes ``calibrate`` and, where a stored fit shall be measured
    again without fitting, ``blank``. It sees outputs and labels, never training images. The map is a torch module, so
    that attacks still see gradients. It reads and requires what its base does, and is deterministic, untrained or a
    control where its base is. A map that is not fitted on ID-val's outputs comes from ``outputs_map`` instead, and
    ``own_reads`` and ``own_requires`` say what that needs.

    Raises
    ------
    ValueError
        If the base is no method, or another such one whose outputs this one cannot use.
    """

    one_network: ClassVar[bool] = False

    gives: ClassVar[Output] = "logits"
    """What ``calibrate``'s module returns."""
    takes: ClassVar[frozenset[Output]] = frozenset({"logits", "log_probs"})
    """Outputs of a base that ``calibrate`` can use."""

    deterministic: ClassVar[bool] = True
    """Whether ``calibrate`` draws no random numbers; the whole is deterministic where the base is, too."""

    base: Method

    def __post_init__(self) -> None:
        if not isinstance(self.base, Method):
            raise ValueError(f"expected a method as the base of {type(self).__name__}, got {self.base!r}")
        if isinstance(self.base, PostHoc) and self.base.gives not in self.takes:
            raise ValueError(
                f"{type(self).__name__} maps {' or '.join(sorted(self.takes))}, "
                f"{type(self.base).__name__} returns {self.base.gives}: wrap what it wraps"
            )
        inherited = {
            "reads": self.base.reads | self.own_reads(),
            "requires": self.base.requires | self.own_requires(),
            "deterministic": self.base.deterministic and type(self).deterministic,
            "control": self.base.control,
            "pretrained": self.base.pretrained,
        }
        for name, value in inherited.items():
            object.__setattr__(self, name, value)

    def own_reads(self) -> frozenset[Tag]:
        """Return the data that the map is made from, besides what the base reads."""
        return frozenset({"id_val"})

    def own_requires(self) -> frozenset[Need]:
        """Return what must exist for the map, besides what the base requires."""
        return frozenset({"id_val"})

    def calibrate(self, outputs: Tensor, labels: Tensor, context: Context) -> nn.Module:
        """Return a module that maps outputs to outputs, both of shape (n, classes).

        Parameters
        ----------
        outputs : float tensor, shape (n, classes)
            The base's outputs on ID-val.
        labels : int64 tensor, shape (n,)
        context : Context
        """
        raise NotImplementedError(f"{type(self).__name__} does not define calibrate(self, outputs, labels, context)")

    def outputs_map(self, predictor: Predictor, context: Context) -> nn.Module:
        """Return the map behind one of the base's predictors: by default what ``calibrate`` makes on ID-val."""
        return self.calibrate(context.outputs(predictor, "id_val"), context.data("id_val").labels, context)

    def blank(self, classes: int) -> nn.Module:
        """Return a map of the form that ``calibrate`` returns, whose state will be loaded."""
        raise NotImplementedError(f"{type(self).__name__} does not define blank(self, classes): it is fitted again")

    def fit(self, context: Context) -> Fitted:
        base = as_fitted(context.fitted(self.base), type(self.base).__name__)
        maps = {name: self.outputs_map(self._usable(base.predictor(name)), context).eval() for name in base.variants}
        state = {_base_key(key): tensor for key, tensor in state_of(base).items()}
        for name, fitted_map in maps.items():
            state |= {f"{MAP}{name}/{key}": tensor for key, tensor in fitted_map.state_dict().items()}
        return self._composed(base, maps, context, state, base.recipe)

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        below = {key.removeprefix(BASE): tensor for key, tensor in state.items() if not key.startswith(MAP)}
        base = self.base.build(context, below, recipe["base"])
        maps = {}
        for name in base.variants:
            maps[name] = self.blank(context.classes).eval()
            start = f"{MAP}{name}/"
            own = {key.removeprefix(start): tensor for key, tensor in state.items() if key.startswith(start)}
            maps[name].load_state_dict(own)
        return self._composed(base, maps, context, state, recipe["base"])

    def cost(self, recipe: Recipe) -> Cost:
        base = cost_of(self.base, recipe)
        return base.already_made(validated=base.predicts + base.also_predicts)

    def asks_for(self, recipe: Recipe, seed: int) -> Iterable[tuple[Method, int]]:
        return [(self.base, seed)]

    def _composed(
        self,
        base: Fitted,
        maps: Mapping[str, nn.Module],
        context: Context,
        state: Mapping[str, Tensor],
        recipe: Mapping[str, Any],
    ) -> Fitted:
        def variant(name: str) -> Callable[[], Predictor]:
            return lambda: self._wrapped(base.predictor(name), maps[name].to(context.device))

        return Fitted({name: variant(name) for name in maps}, base.headline, state, {"base": dict(recipe)})

    def _wrapped(self, predictor: Predictor, outputs_map: nn.Module) -> Predictor:
        return replace(predictor, module=Mapped(predictor.module, outputs_map), output=self.gives)

    def _usable(self, predictor: Predictor) -> Predictor:
        if predictor.output not in self.takes:
            raise NotApplicableError(
                f"{type(self).__name__} maps {' or '.join(sorted(self.takes))}, "
                f"{type(self.base).__name__} returns {predictor.output}"
            )
        return predictor


def _base_key(key: str) -> str:
    """Return the name under which a tensor of the base is kept: its own, unless a wrapped map has taken that."""
    # Under its own name a tensor that equals theta0 is recognised by the store, which leaves it out.
    return f"{BASE}{key}" if key.startswith((MAP, BASE)) else key


class Mapped(nn.Module):
    """A predictor's module with a map behind it."""

    def __init__(self, base: nn.Module, outputs_map: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.outputs_map = outputs_map
        self.train(base.training)

    def forward(self, images: Tensor) -> Tensor:
        mapped: Tensor = self.outputs_map(self.base(images))
        return mapped
