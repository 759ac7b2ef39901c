"""Ladder Side-Tuning: a small network beside a frozen backbone, so that training keeps little in memory."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlbench.errors import FitError, NotApplicableError
from tlbench.methods.base import Context, Fitted, Hooks, Method, Need, Predictor
from tlbench.methods.cost import Cost, recipe_cost
from tlbench.methods.finetune import check_given, given
from tlbench.methods.training import merged
from tlbench.models.backbone import Backbone, Network, drawing_from
from tlbench.models.ladder import LadderNetwork, Rungs, Side, rungs_of, side_network
from tlbench.models.pruning import MATRICES, block_layout, magnitudes, pruned_block, token_channels
from tlbench.suites.spec import Recipe

Init = Literal["fisher", "magnitude", "random"]

WARM_SHARE = 10
"""The warm-up is at most one step in so many."""
SIDE_SHARE = 0.1
"""What a step takes through the side network, by one through all weights: measured beside EfficientNet-Lite0."""
STORED_SHARE = 0.03
"""Of a backbone's weights that its side network has: 2.8 % of a vision transformer's, 3 % of EfficientNet-Lite0's."""


@final
class Lst(Method):
    """A light network that reads a frozen backbone's layers from the side: Ladder Side-Tuning, or LST.

    Methods that train a few weights inside a backbone still carry the gradient through all of it, and keep its
    activations for that. Here the backbone runs without a gradient, and what is trained stands beside it (Sung, Cho and
    Bansal, NeurIPS 2022). Let h_0 be the embedding and h_1 to h_L the outputs of the backbone's blocks, of width d. A
    side network of width d / r, r = ``reduction``, starts with s_0 = W_0 h_0; then ::

        g_i = sigmoid(a_i / T),    s_i = block_i(g_i s_{i-1} + (1 - g_i) W_i h_i),

    where W_i is a learned linear map with bias, a_i a learned number that starts at 0, and T = ``temperature``. A layer
    norm, an up-projection to the backbone's width and the head make logits of s_L; of the tokens, that is pooled which
    the backbone pools. Predicting takes the backbone and the side network, and its gradient by the image is that of
    both: attacks see all of it.

    **Transformers.** Where taps are tokens, block_i is an ordinary transformer block whose widths (tokens, heads,
    feed-forward layer) are the backbone's by r, with as many heads. With ``keep`` only the named blocks, counted from
    0, get one; the others are left out with their W_i (the paper drops 0, 4 and 8 of T5's twelve in some results).

    **Convolutional networks: lst-conv.** Where taps are maps, h_0 is the stem and h_i are the stages. This form is our
    adaptation, the paper has none. W_i is a 1x1 convolution; s_{i-1} is averaged down to the next stage's resolution
    and brought to its width by another; block_i is two 3x3 convolutions with norms, added to what comes in. A side
    stage has a width of C / r, and at least ``least_width``: of 16 channels two would be left.

    **Start.** ``init`` says where the side blocks' weights come from. ``"fisher"`` and ``"magnitude"`` cut them out of
    the backbone's blocks: of token channels (the same in all blocks), channels of each head and feed-forward units,
    those stay whose weights matter most in sum, by empirical Fisher information or by absolute value. The former is the
    paper's: squared gradients of single images by theta0 under the new head, over up to ``fisher_images`` images. These
    passes go through the backbone; they count as images seen and passed backward, but not as bytes saved in training,
    of which the method is about. Both need blocks as timm's vision transformers have them. ``"random"`` draws the
    weights as any new layer's; all else is drawn in any case. None is the paper's where blocks can be cut, and random
    elsewhere: for other transformers, and for all maps. The paper's own code combines the importances of several
    matrices by a product and chooses token channels by the embedding, which images do not have.

    The rate of 3e-3, Adam (the paper: AdamW without decay) and a warm-up of 500 steps are the paper's. A warm-up takes
    no more than a tenth of a run, or short runs would never reach the rate; after it the rate is constant, as it is for
    the other methods here. The backbone's BatchNorm statistics never move. A setting of training left at None is the
    recipe's.

    Raises
    ------
    ValueError
        If a setting is out of range.
    """

    one_network: ClassVar[bool] = False

    requires: ClassVar[frozenset[Need]] = frozenset({"taps"})

    reduction: int = 8
    keep: tuple[int, ...] | None = None  # blocks that get a side block; None for all
    temperature: float = 0.1
    init: Init | None = None
    fisher_images: int = 1024
    least_width: int = 8  # of a side stage beside maps
    warmup: int = 500  # steps
    lr: float = 3e-3
    optimizer: Literal["adam", "sgd"] = "adam"
    epochs: int | None = None
    batch_size: int | None = None
    weight_decay: float | None = None
    augment: str | None = None
    crop: bool | None = None
    flip: bool | None = None
    precision: Literal["float32", "bfloat16"] | None = None  # while training

    def __post_init__(self) -> None:
        check_given(self)
        for name in ("reduction", "least_width", "fisher_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"expected a temperature that is finite and above 0, got {self.temperature:g}")
        if self.warmup < 0:
            raise ValueError(f"expected a warmup of at least 0 steps, got {self.warmup}")
        if self.init not in (None, "fisher", "magnitude", "random"):
            raise ValueError(f"expected init 'fisher', 'magnitude', 'random' or None, got {self.init!r}")
        kept = self.keep
        if kept is not None and (not kept or min(kept) < 0 or list(kept) != sorted(set(kept))):
            raise ValueError(f"expected keep to name blocks from 0 in ascending order, or None, got {kept}")

    def fit(self, context: Context) -> Fitted:
        net = context.backbone.fresh(context.classes)
        rungs = rungs_of(
            net,
            context.backbone.tap_modules,
            _blank_images(context),
            reduction=self.reduction,
            least_width=self.least_width,
            temperature=self.temperature,
            keep=self.keep,
        )
        blocks = [net.body.get_submodule(context.backbone.tap_modules[name]) for name in rungs.taps[1:]]
        init = self._init_for(rungs, blocks, context.backbone.name)
        with drawing_from(context.rng("side")):
            side = side_network(rungs)
        if init != "random":
            importance = self._fisher(context, net, blocks) if init == "fisher" else [magnitudes(b) for b in blocks]
            _cut_out(side, blocks, importance)
        ladder = _ladder(net, side)
        context.train(ladder, WarmUp(self.warmup), regime="full", **given(self))
        return _fitted(ladder, {**rungs.to_json(), "init": init})

    def build(self, context: Context, state: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Fitted:
        rungs = Rungs.of_json({name: value for name, value in recipe.items() if name != "init"})
        with drawing_from(context.rng("side")):  # only lest the global generator moves: all of it is loaded
            side = side_network(rungs)
        ladder = _ladder(context.backbone.fresh(context.classes), side)
        for name in ("side", "head"):
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            ladder.get_submodule(name).load_state_dict(own)
        return _fitted(ladder.to(context.device).eval(), recipe)

    def cost(self, recipe: Recipe) -> Cost:
        cost = recipe_cost(merged(recipe, {**given(self), "regime": "head-only"}), cached=False)
        cost = replace(cost, trained=SIDE_SHARE * cost.forward, keeps="network", networks=STORED_SHARE)
        return self._with_fisher(cost) if self.init == "fisher" else cost

    def cost_on(self, recipe: Recipe, backbone: Backbone) -> Cost:
        cost = self.cost(recipe)
        return self._with_fisher(cost) if self.init is None and _has_prunable_blocks(backbone) else cost

    def _with_fisher(self, cost: Cost) -> Cost:
        # Images and not passes: as many of a large training set as of one that just has them.
        return replace(cost, sampled=self.fisher_images)

    def _init_for(self, rungs: Rungs, blocks: list[nn.Module], backbone: str) -> Init:
        prunable = rungs.form == "tokens" and _prunable(blocks)
        if self.init is None:
            return "fisher" if prunable else "random"
        if self.init != "random" and not prunable:
            raise NotApplicableError(
                f"init = '{self.init}' cuts side blocks out of transformer blocks of the form that timm gives them, "
                f"{backbone} has none; leave init out, or set it to 'random'"
            )
        return self.init

    def _fisher(self, context: Context, net: Network, blocks: list[nn.Module]) -> list[dict[str, Tensor]]:
        """Return the sum of squared gradients of single images' losses, for the matrices of every block."""
        started = time.perf_counter()
        net.to(context.device)
        weights = [block.get_parameter(name) for block in blocks for name in MATRICES]
        squares = [torch.zeros_like(weight) for weight in weights]
        images = context.data("id_train").batches(1, rng=context.rng("fisher"))
        for batch in islice(images, self.fisher_images):
            loss = F.cross_entropy(net(batch.images.to(context.device)), batch.labels.to(context.device))
            for total, gradient in zip(squares, torch.autograd.grad(loss, weights), strict=True):
                total += gradient.square()
            context.budget.images_seen += 1
            context.budget.backward_passes += 1
        context.budget.seconds += time.perf_counter() - started
        each = len(MATRICES)
        return [dict(zip(MATRICES, squares[i : i + each], strict=True)) for i in range(0, len(squares), each)]


@final
class WarmUp(Hooks):
    """A learning rate that rises linearly to its value and stays there.

    Parameters
    ----------
    steps : int
        Taken by the rise; at most a tenth of the run.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def lr_factor(self, index: int, total: int) -> float:
        steps = min(self.steps, total // WARM_SHARE)
        return min(1.0, (index + 1) / max(1, steps))


@lru_cache(maxsize=16)
def _has_prunable_blocks(backbone: Backbone) -> bool:
    body = backbone.fresh().body
    return _prunable([body.get_submodule(path) for path in list(backbone.tap_modules.values())[1:]])


def _prunable(blocks: Sequence[nn.Module]) -> bool:
    return bool(blocks) and all(block_layout(block) is not None for block in blocks)


def _blank_images(context: Context) -> Tensor:
    """Return black images of the size of the training images, of which no pixel is looked at."""
    first = next(iter(context.data("id_train").batches(2)), None)
    if first is None:
        raise FitError("training needs at least one image, the training split has none")
    return torch.zeros_like(first.images)


def _cut_out(side: Side, blocks: list[nn.Module], importance: list[dict[str, Tensor]]) -> None:
    """Load the side blocks with the most important weights of the backbone's."""
    rungs = side.rungs
    channels = token_channels(importance, rungs.side_widths[0])
    for narrow, wide, matters in zip(side.blocks, blocks, importance, strict=True):
        cut = pruned_block(wide, matters, channels, head_width=rungs.head_width, hidden=rungs.hidden)
        narrow.load_state_dict(cut)


def _ladder(net: Network, side: Side) -> LadderNetwork:
    """Put the head of a network on a side network, and keep the rest as its backbone."""
    head, net.head = net.head, nn.Identity()
    return LadderNetwork(net, side, head)


def _fitted(ladder: LadderNetwork, recipe: Mapping[str, Any]) -> Fitted:
    state = {name: tensor for name, tensor in ladder.state_dict().items() if not name.startswith("backbone.")}
    return Fitted({"main": Predictor(ladder)}, state=state, recipe=dict(recipe))
