"""One predictor of several networks: the mean of their weights, or of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlbench.errors import NotApplicableError, listed
from tlbench.methods.base import Context, Fitted, Method, Need, Output, Predictor, method_name
from tlbench.methods.posthoc import PostHoc
from tlbench.methods.training import recompute_batchnorm
from tlbench.models.backbone import Network

State = dict[str, Tensor]

_STATISTICS = ("running_mean", "running_var")
_BATCH = 256


def averaged(states: Sequence[Mapping[str, Tensor]]) -> State:
    """Return the mean of several states of one form, tensor by tensor.

    Parameters
    ----------
    states : sequence of mapping of str to tensor
        Equal names and shapes. The mean is taken in float64: that of equal tensors is these, bit for bit. What is no
        float, such as a count of batches, is the first state's.

    Raises
    ------
    ValueError
        If there is no state.
    """
    if not states:
        raise ValueError("expected at least one state to be averaged")
    return {name: _mean([state[name] for state in states]) for name in states[0]}


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0]
    if not first.is_floating_point():
        return first.clone()
    total = first.double()
    for tensor in tensors[1:]:
        total = total + tensor.double()
    return (total / len(tensors)).to(first.dtype)


def soup(context: Context, states: Sequence[Mapping[str, Tensor]]) -> State:
    """Return the mean of several networks' states, BatchNorm's statistics recomputed for the mean weights.

    Statistics of a mean are not the mean of the statistics: they are taken anew over one un-augmented pass through the
    training images, which is counted among the images seen. Statistics that all networks share are kept: they were
    frozen, the weights were trained under them, and there is nothing to be averaged.
    """
    mean = averaged(states)
    net = loaded(context, mean)
    if all(torch.equal(state[name], states[0][name]) for state in states[1:] for name in _statistics(net)):
        return mean
    data = context.data("id_train")
    # Batches of one size, as far as that goes: each has the same say in a cumulative average, also a last one that
    # would otherwise be of a single image.
    batches = -(-len(data) // _BATCH)
    recompute_batchnorm(net, data, batch_size=-(-len(data) // batches), device=context.device)
    context.budget.images_seen += len(data)
    return copied(net)


def _statistics(net: nn.Module) -> list[str]:
    norms = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [f"{name}.{key}" for name, norm in norms for key in _STATISTICS if getattr(norm, key) is not None]


def copied(net: nn.Module) -> State:
    """Return copies of a network's tensors, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in net.state_dict().items()}


def loaded(context: Context, state: Mapping[str, Tensor]) -> Network:
    """Return a new network of the backbone's form with the given tensors, in eval mode, on the context's device."""
    net = context.backbone.fresh(context.classes)
    net.load_state_dict(dict(state))
    return net.to(context.device).eval()


def named(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Return a state under ``prefix/name``, as one of several that are stored together."""
    # The store compares what stands behind the last slash with theta0, and leaves out what is equal.
    return {f"{prefix}/{name}": tensor for name, tensor in state.items()}


def part(prefix: str, state: Mapping[str, Tensor]) -> State:
    """Return what was stored under ``prefix/``, by its own names."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}


def check_averageable(member: Method) -> None:
    """Refuse a method whose weights cannot be averaged, as far as that is known before it is fitted.

    Raises
    ------
    ValueError
        If it does not start from the pretrained weights, or changes outputs rather than weights.
    """
    shown = method_name(type(member))
    if not member.one_network and not isinstance(member, PostHoc):
        raise ValueError(f"{shown} is not a single network of the backbone's own form, whose weights could be averaged")
    if not member.pretrained:
        raise ValueError(f"{shown} does not start from the pretrained weights; means of networks that do are taken")
    if isinstance(member, PostHoc):
        raise ValueError(f"{shown} maps outputs, and weights are averaged; wrap the whole instead: {shown}(...)")


def network_state(fitted: Fitted, member: Method, context: Context) -> State:
    """Return the weights of a fit that is a single network of the backbone's own form.

    Raises
    ------
    NotApplicableError
        If it is something else, whose weights cannot be averaged with those of such a network.
    """
    shown = method_name(type(member))
    if len(fitted.variants) != 1:
        names = listed(fitted.variants)
        raise NotApplicableError(f"{shown} gives several predictors ({names}); weights of single networks are averaged")
    predictor = fitted.predictor()
    if predictor.output != "logits" or predictor.sees_test_images:
        told = "adapts to what it predicts" if predictor.output == "logits" else f"returns {predictor.output}"
        raise NotApplicableError(f"{shown} {told}; weights of plain networks with logits are averaged")
    state = copied(predictor.module)
    form = {name: tensor.shape for name, tensor in context.backbone.fresh(context.classes).state_dict().items()}
    other = sorted(form.items() ^ {name: tensor.shape for name, tensor in state.items()}.items())
    if other or not isinstance(predictor.module, Network):
        kind = f"has another '{other[0][0]}'" if other else f"is a {type(predictor.module).__name__}"
        raise NotApplicableError(
            f"{shown} returns no network of the form of {context.backbone.name} with {context.classes} outputs "
            f"(it {kind}); only such weights are averaged"
        )
    return state


def inherit(method: Method, inner: Iterable[Method], *, needs: frozenset[Need] = frozenset()) -> None:
    """Give a method what its members are: it reads and requires what any of them does, and what it needs itself.

    It is deterministic where all are, and a control where one is.

    Raises
    ------
    ValueError
        If one of them is no method.
    """
    members = tuple(inner)
    strange = [one for one in members if not isinstance(one, Method)]
    if strange:
        raise ValueError(f"{type(method).__name__}: expected a method to build on, got {strange[0]!r}")
    inherited = {
        "reads": method.reads.union(*(one.reads for one in members)),
        "requires": needs.union(*(one.requires for one in members)),
        "deterministic": all(one.deterministic for one in members),
        "control": any(one.control for one in members),
        "pretrained": any(one.pretrained for one in members),
    }
    for name, value in inherited.items():
        object.__setattr__(method, name, value)


def ensembled(predictors: Sequence[Predictor]) -> Predictor:
    """Return the predictor of the mean probability; of a single one, itself.

    It adapts, or depends on its batch, where one of them does; it is differentiable where all are. Its forward passes
    are the sum.

    Raises
    ------
    ValueError
        If there is none.
    NotApplicableError
        If one of them returns scores: these are no probabilities.
    """
    if not predictors:
        raise ValueError("expected at least one predictor")
    if any(one.output == "scores" for one in predictors):
        raise NotApplicableError("an ensemble averages probabilities, its members return scores")
    if len(predictors) == 1:
        return predictors[0]
    resets = [one.reset for one in predictors if one.reset is not None]

    def reset() -> None:
        for own in resets:
            own()

    return Predictor(
        Ensemble([one.module for one in predictors], [one.output for one in predictors]),
        output="log_probs",
        differentiable=all(one.differentiable for one in predictors),
        adapts=any(one.adapts for one in predictors),
        batch_dependent=any(one.batch_dependent for one in predictors),
        order_dependent=any(one.order_dependent for one in predictors),
        reset=reset if resets else None,
        forward_passes=sum(one.forward_passes for one in predictors),
    )


@final
class Ensemble(nn.Module):
    """The logarithm of the mean of several networks' probabilities, shape (n, classes).

    Parameters
    ----------
    members : sequence of nn.Module
        Each keeps the mode, training or eval, that it comes in.
    outputs : sequence of {"logits", "log_probs"}
        What each of them returns.
    """

    def __init__(self, members: Sequence[nn.Module], outputs: Sequence[Output]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.outputs = tuple(outputs)
        self.training = any(member.training for member in members)

    def forward(self, images: Tensor) -> Tensor:
        found = [
            member(images) if output == "log_probs" else F.log_softmax(member(images), dim=1)
            for member, output in zip(self.members, self.outputs, strict=True)
        ]
        return torch.logsumexp(torch.stack(found), dim=0) - math.log(len(found))
