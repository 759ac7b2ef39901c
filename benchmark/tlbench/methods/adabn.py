"""BatchNorm with the statistics of the images that are predicted, instead of those of training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from tlbench.errors import NotApplicableError, listed
from tlbench.methods.averaging import inherit
from tlbench.methods.base import Context, Data, Fitted, Method, Need, Predictor, Tag, method_name
from tlbench.methods.cost import Cost, cost_of
from tlbench.methods.finetune import Finetune
from tlbench.methods.fitted import as_fitted, state_of
from tlbench.suites.spec import Recipe

Form = Literal["running", "batch", "target"]
FORMS: tuple[Form, ...] = ("running", "batch", "target")
SOURCE_ALONE = 1e300
"""A prior beside which any number of test images weighs nothing: the statistics stay the source's, bit for bit."""
_AT_ONCE = 256  # images of a pass over the target
_TARGET, _BASE = "target/", "base/"

_Norm = nn.modules.batchnorm._BatchNorm


@final
class Adabn(Method):
    """Another method's network whose BatchNorm takes its mean and variance from unlabelled test images.

    A shift of the images moves the statistics of every layer; the weights behind a layer were trained on those of the
    source. The published remedy needs no training: with n test images of mean m and variance v, a layer whose training
    statistics are m0 and v0 standardises by

        N / (N + n) m0 + n / (N + n) m    and    N / (N + n) v0 + n / (N + n) v,

    where ``prior`` is N, the number of images that the source's statistics are worth (Schneider et al., "Improving
    robustness against common corruptions by covariate shift adaptation", NeurIPS 2020). Their default N = 16 is ours;
    N = 0 forgets the source. v is the plain variance over images and positions, as BatchNorm uses it in training.
    What m, v and n are of makes three ``forms``. The first that is listed is ranked, under the variant ``main``; the
    others stand beside it under their own names.

    ``running``
        All images of the set so far, those of the batch at hand included; the set starts anew with ``reset()``. It is
        the ranked one by default, chosen before anything was measured, because every measured set, be it the clean
        target, the source's own test images or one severity of a corruption, then gets statistics of its own and of no
        other, and because they come to rest as a set goes on, so that the batch size matters little. The paper adapts
        to the whole of a corrupted test set, or to a batch of it; this is what is between the two and needs one pass.
    ``batch``
        The batch at hand alone: no memory, and worse the smaller the batch.
    ``target``
        The whole test part of the pair's target, in one pass at fitting time, and then frozen (Li et al., "Revisiting
        batch normalization for practical domain adaptation", ICLR workshop 2017). Every batch of that pass is
        standardised by its own statistics; means and variances are pooled exactly, by images. This predictor neither
        adapts nor depends on its batch, so that it can be attacked, and it is the same for every condition: corrupted
        images, and the source's own, meet the statistics of the clean target.

    All of them see test images without labels, hence the tag and the protocol, and one fit for each pair. The engine
    resets before every set and setting, and shows images in a fixed order in which classes are mixed: sorted by class,
    a batch would have statistics of that class. Its batch size is recorded. ``base`` is any method whose ranked
    predictor holds BatchNorm; where there is none (transformers), this does not apply.
    """

    one_network: ClassVar[bool] = False

    reads: ClassVar[frozenset[Tag]] = frozenset({"id_train", "id_val", "target_unlabeled_test"})
    requires: ClassVar[frozenset[Need]] = frozenset({"batchnorm"})

    base: Method = Finetune()
    forms: tuple[Form, ...] = FORMS
    prior: float = 16.0

    def __post_init__(self) -> None:
        strange = [form for form in self.forms if form not in FORMS]
        if strange or not self.forms or len(set(self.forms)) < len(self.forms):
            came = listed(self.forms) or "none"
            raise ValueError(f"expected forms from {listed(FORMS)}, each once, the first being ranked; got {came}")
        if not (math.isfinite(self.prior) and self.prior >= 0):
            raise ValueError(f"expected prior >= 0, images that the source's statistics are worth, got {self.prior:g}")
        inherit(self, [self.base], needs=type(self).requires)

    def fit(self, context: Context) -> Fitted:
        base = as_fitted(context.fitted(self.base), type(self.base).__name__)
        predictor = base.predictor()
        self._check(predictor)
        state = {_base_key(name): tensor for name, tensor in state_of(base).items()}
        if "target" in self.forms:
            target = context.data("target_unlabeled_test")
            context.budget.images_seen += len(target)
            net = _of_whole(copy.deepcopy(predictor.module), target, self.prior, context.device)
            state |= {f"{_TARGET}{name}": tensor.cpu() for name, tensor in _statistics(net).items()}
        return self._composed(base, state, base.recipe)

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        below = {name.removeprefix(_BASE): tensor for name, tensor in state.items() if not name.startswith(_TARGET)}
        return self._composed(self.base.build(context, below, recipe["base"]), state, recipe["base"])

    def cost(self, recipe: Recipe) -> Cost:
        base = cost_of(self.base, recipe)
        # The target's test part is seen once, forward; the ID-val part is about as large.
        seen = base.predicts if "target" in self.forms else 0.0
        first, *others = self.forms
        return base.already_made(
            validated=seen,
            also_predicts=base.predicts * len(others),
            variants=len(self.forms),
            attacked=first == "target",
            also_attacked=others.count("target"),
        )

    def asks_for(self, recipe: Recipe, seed: int) -> Iterable[tuple[Method, int]]:
        return [(self.base, seed)]

    def null_config(self) -> tuple[Method, Method]:
        return replace(self, forms=("running",), prior=SOURCE_ALONE), self.base

    def _check(self, predictor: Predictor) -> None:
        name = method_name(type(self.base))
        if predictor.adapts or predictor.batch_dependent:
            raise NotApplicableError(f"{name} looks at its test images already; adabn wraps a fixed predictor")
        if not any(True for _ in _norms(predictor.module)):
            raise NotApplicableError(f"the predictor of {name} has no BatchNorm with statistics of training")

    def _composed(self, base: Fitted, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        def variant(form: Form) -> Callable[[], Predictor]:
            return lambda: self._predictor(base.predictor(), form, state)

        first, *others = self.forms
        variants = {"main": variant(first), **{str(form): variant(form) for form in others}}
        return Fitted(variants, "main", state, {"base": dict(recipe)})

    def _predictor(self, fixed: Predictor, form: Form, state: Mapping[str, Tensor]) -> Predictor:
        net = copy.deepcopy(fixed.module).eval()
        if form == "target":
            known = {name.removeprefix(_TARGET): of for name, of in state.items() if name.startswith(_TARGET)}
            net.load_state_dict(known, strict=False)
            return replace(fixed, module=net)
        # Their statistics depend on the images by a way that no gradient follows.
        adapting = replace(fixed, module=(module := Adapting(net, prior=self.prior, cumulative=form == "running")))
        adapting = replace(adapting, differentiable=False, batch_dependent=True, reset=module.reset)
        return replace(adapting, adapts=form == "running", order_dependent=form == "running")


class Adapting(nn.Module):
    """A network whose BatchNorm layers standardise by statistics of the images that it is given.

    Layers stay in eval mode and keep their class, whatever activation that brings along: their running statistics are
    written anew just before they are used.

    Parameters
    ----------
    net : nn.Module
        Changed in place.
    prior : float
        Images that the source's statistics are worth.
    cumulative : bool
        Whether statistics are of all images since ``reset``, or of the batch alone.
    """

    def __init__(self, net: nn.Module, *, prior: float, cumulative: bool) -> None:
        super().__init__()
        self.net = net
        self._layers = {name: _Layer(norm, prior, cumulative) for name, norm in _norms(net)}
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.net(images)
        return outputs

    def train(self, mode: bool = True) -> Adapting:
        """Stay in eval mode: in train mode a layer would use and move statistics of its own."""
        return super().train(False)

    def reset(self) -> None:
        """Forget all images: the statistics are the source's, bit for bit."""
        for layer in self._layers.values():
            layer.reset()

    def freeze(self, prior: float) -> nn.Module:
        """Return the network, which no longer adapts, with the statistics of all images since ``reset``."""
        for layer in self._layers.values():
            layer.freeze(prior)
        return self.net


@dataclass(frozen=True)
class _Moments:
    """Mean and plain variance of a layer's inputs, float64, by channel; and of how many images."""

    images: int
    mean: Tensor
    variance: Tensor

    def with_(self, other: _Moments) -> _Moments:
        """Return the moments of both sets of images together."""
        images = self.images + other.images
        share = other.images / images
        apart = other.mean - self.mean
        variance = torch.lerp(self.variance, other.variance, share) + share * (1 - share) * apart.square()
        return _Moments(images, self.mean + share * apart, variance)


class _Layer:
    """What one BatchNorm layer has seen."""

    def __init__(self, norm: _Norm, prior: float, cumulative: bool) -> None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        self._norm, self._prior, self._cumulative = norm, prior, cumulative
        self._source = norm.running_mean.detach().clone(), norm.running_var.detach().clone()
        self._seen: _Moments | None = None
        self._hook = norm.register_forward_pre_hook(self._adapt)

    @torch.no_grad()
    def _adapt(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        now = _moments(inputs[0])
        self._seen = now if self._seen is None else self._seen.with_(now)
        self._write(self._seen if self._cumulative else now, self._prior)

    @torch.no_grad()
    def _write(self, moments: _Moments, prior: float) -> None:
        share = moments.images / (prior + moments.images)
        here = moments.mean.device
        # lerp is exact at both ends.
        for own, before, seen in zip(self._statistics(), self._source, (moments.mean, moments.variance), strict=True):
            own.copy_(torch.lerp(before.to(here, torch.float64), seen, share))

    @torch.no_grad()
    def reset(self) -> None:
        self._seen = None
        for own, before in zip(self._statistics(), self._source, strict=True):
            own.copy_(before)

    def freeze(self, prior: float) -> None:
        self._hook.remove()
        if self._seen is not None:
            self._write(self._seen, prior)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        assert self._norm.running_mean is not None
        assert self._norm.running_var is not None
        return self._norm.running_mean, self._norm.running_var


def _moments(inputs: Tensor) -> _Moments:
    # In float32 whatever the network computes in; pooled over a set in float64.
    others = [axis for axis in range(inputs.ndim) if axis != 1]
    variance, mean = torch.var_mean(inputs.float(), dim=others, correction=0)
    return _Moments(len(inputs), mean.double(), variance.double())


def _of_whole(net: nn.Module, data: Data, prior: float, device: str) -> nn.Module:
    """Return the network, in eval mode, with the statistics of all images: one pass, every batch by its own."""
    adapting = Adapting(net.to(device), prior=0.0, cumulative=False)
    with torch.no_grad():
        for batch in data.batches(_AT_ONCE):
            adapting(batch.images.to(device))
    return adapting.freeze(prior)


def _norms(net: nn.Module) -> Iterator[tuple[str, _Norm]]:
    """Yield the layers that have statistics of training, by name."""
    for name, layer in net.named_modules():
        if isinstance(layer, _Norm) and layer.running_mean is not None:
            yield name, layer


def _statistics(net: nn.Module) -> dict[str, Tensor]:
    """Return means and variances of all layers, under the names of the network's ``state_dict``."""
    kept: dict[str, Tensor] = {}
    for layer, norm in _norms(net):
        own = norm.state_dict()
        kept |= {f"{layer}.{name}" if layer else name: own[name].clone() for name in ("running_mean", "running_var")}
    return kept


def _base_key(name: str) -> str:
    """Return the name under which a tensor of the base is kept: its own, unless that is a name of ours."""
    # Under its own name a tensor that equals theta0 is recognised by the store, which leaves it out.
    return f"{_BASE}{name}" if name.startswith((_TARGET, _BASE)) else name
