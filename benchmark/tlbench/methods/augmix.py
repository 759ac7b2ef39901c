"""Fine-tuning under AugMix: mixtures of changed images, and predictions that agree on them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Literal, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from tlbench.methods.base import Context, Hooks, Method, Step
from tlbench.methods.cost import Cost, recipe_cost
from tlbench.methods.finetune import Finetune, check_given, given
from tlbench.methods.training import merged
from tlbench.suites.spec import Recipe

LEAST_LEVEL = 0.1
MOST_SEVERE = 10
LONGEST = 3  # operations in a chain, where their number is drawn
BLACK = 256


@final
class Augmix(Method):
    """Fine-tuning on AugMix's mixtures with its consistency loss (Hendrycks, Mu et al., ICLR 2020).

    A view of an image x is a mixture with ``width`` chains of random operations::

        (1 - m) x + m * sum over chains k of w_k chain_k(x)
        w ~ Dirichlet(alpha, ..., alpha),  m ~ Beta(alpha, alpha)

    A chain is one to three operations (``depth`` fixes their number), drawn with equal probability, each at a level
    from 0.1 to ``severity`` of 10. Two views of every image join the batch, and::

        loss = cross-entropy(clean) + jsd_weight * JS(p_clean, p_view1, p_view2)

    where the Jensen-Shannon divergence is the mean, over the three predictions and the images, of the KL divergence to
    the average prediction. Labels enter by the clean images alone. All three go through the network in one batch, so
    that BatchNorm's statistics in training are of all of them. With ``jsd_weight`` = 0 it is plain augmentation: one
    view in place of each image, under cross-entropy. With ``width`` = 0, too, it is fine-tuning.

    The operations are the paper's nine: automatic contrast, equalising, posterising, rotation, solarising, shear and
    translation in x and y. Its pool leaves out brightness, contrast, colour and sharpness, which are, or resemble,
    corruptions of the tests. Rotations and translations of the tests' other sizes are in it: consistency under them is
    trained for.

    Defaults and scales are those of the paper's code. What differs: images are mixed before the network's
    normalisation, which comes to the same, for the weights add up to one; chains start from pixels and not from 256
    levels, to which only operations on levels round; the average is not kept above 1e-7, for its logarithm is computed
    exactly. A mixture here has the recipe's crop, flip and augmentation before it, as the clean view has. The paper
    trains from scratch for many epochs; here a setting left at None is the suite's, and a step shows three times its
    batch to the network.
    """

    jsd_weight: float = 12.0
    width: int = 3
    depth: int | None = None  # None: 1 to 3, drawn for every chain
    severity: int = 3
    alpha: float = 1.0
    lr: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: Literal["adam", "sgd"] | None = None
    weight_decay: float | None = None
    augment: str | None = None
    crop: bool | None = None
    flip: bool | None = None
    batchnorm: Literal["train", "eval"] | None = None  # mode of BatchNorm's statistics during training
    precision: Literal["float32", "bfloat16"] | None = None  # while training

    def __post_init__(self) -> None:
        check_given(self)
        if not 0 <= self.jsd_weight < math.inf:
            raise ValueError(f"expected a jsd_weight that is finite and not negative, got {self.jsd_weight:g}")
        if self.width < 0:
            raise ValueError(f"expected a width that is not negative, got {self.width}")
        if self.depth is not None and self.depth < 1:
            raise ValueError(f"expected a depth of at least 1 or None, got {self.depth}")
        if not 1 <= self.severity <= MOST_SEVERE:
            raise ValueError(f"expected a severity from 1 to {MOST_SEVERE}, got {self.severity}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"expected an alpha that is finite and above 0, got {self.alpha:g}")

    def fit(self, context: Context) -> nn.Module:
        net = context.backbone.fresh(context.classes)
        return context.train(net, Mixtures(self, context.rng("augmix")), regime="full", **given(self))

    def cost(self, recipe: Recipe) -> Cost:
        changes = {**given(self), "regime": "full"}
        if self.width:
            changes["augment"] = "augmix"  # of which a view takes about as long as a mixture
        plain = recipe_cost(merged(recipe, changes))
        epochs = plain.trained
        # The images themselves, two mixtures of each.
        return replace(plain, trained=3 * epochs, views=2 * epochs, epochs=epochs) if self.jsd_weight else plain

    def null_config(self) -> tuple[Method, Method]:
        return replace(self, jsd_weight=0.0, width=0), Finetune(regime="full", **given(self))


class Mixtures(Hooks):
    """Shows the network views beside or in place of the images.

    Parameters
    ----------
    method : Augmix
        Whose settings these are.
    generator : Generator
    """

    def __init__(self, method: Augmix, generator: Generator) -> None:
        self.method, self.generator = method, generator

    def transform_batch(self, step: Step) -> None:
        if not self.method.jsd_weight:
            step.images = self._views(step.images)
            return
        step.images = torch.cat([step.images, self._views(step.images.repeat(2, 1, 1, 1))])
        step.labels = step.labels.repeat(3)

    def base_loss(self, step: Step) -> Tensor | None:
        if not self.method.jsd_weight:
            return None
        assert step.logits is not None
        clean = step.logits.chunk(3)[0]
        return F.cross_entropy(clean.float(), step.labels.chunk(3)[0])

    def loss(self, step: Step) -> Tensor | None:
        if not self.method.jsd_weight:
            return None
        assert step.logits is not None
        return self.method.jsd_weight * jensen_shannon(step.logits.float().chunk(3))

    def _views(self, images: Tensor) -> Tensor:
        own = self.method
        # Coordinates of a grid are no numbers for half precision.
        with torch.autocast(images.device.type, enabled=False):
            return mixed(
                images, self.generator, width=own.width, depth=own.depth, severity=own.severity, alpha=own.alpha
            )


def jensen_shannon(logits: Sequence[Tensor]) -> Tensor:
    """Return the Jensen-Shannon divergence of several predictions, in nats, the mean over images.

    Parameters
    ----------
    logits : sequence of float tensor, shape (n, classes)

    Returns
    -------
    float tensor, shape ()
        From 0, where all agree, to the logarithm of their number.
    """
    log_p = torch.stack([one.log_softmax(dim=1) for one in logits])
    average = log_p.logsumexp(dim=0) - math.log(len(logits))
    return (log_p.exp() * (log_p - average)).sum(dim=2).mean()


def mixed(
    images: Tensor,
    generator: Generator,
    *,
    width: int = 3,
    depth: int | None = None,
    severity: int = 3,
    alpha: float = 1.0,
) -> Tensor:
    """Return one mixture of every image, each with chains and weights of its own.

    Parameters
    ----------
    images : float tensor in [0, 1], shape (n, 3, h, w), on any device
    generator : Generator
        A CPU generator, the only source of randomness: the draws are the same on every device.
    width, depth, severity, alpha
        As of ``Augmix``.

    Returns
    -------
    float tensor in [0, 1], shape (n, 3, h, w)
    """
    n = len(images)
    if not width or not n:
        return images
    draws = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    shares = _column(draws.beta(alpha, alpha, n), images)
    weights = draws.dirichlet([alpha] * width, n)
    mixture = torch.zeros_like(images)
    for chain in range(width):
        lengths = draws.integers(1, LONGEST + 1, n) if depth is None else np.full(n, depth)
        view = images
        for link in range(int(lengths.max())):
            chosen = draws.integers(len(OPERATIONS), size=n)
            levels = draws.uniform(LEAST_LEVEL, severity, n)
            signs = draws.choice([-1.0, 1.0], n)
            chosen[link >= lengths] = -1  # this chain has ended
            # Every chain has a first operation, which fills a tensor of the chain's own; the others change that.
            made = view if link else torch.empty_like(images)
            _change(view, made, chosen, levels, signs)
            view = made
        mixture += view.mul_(_column(weights[:, chain], images))
    # Weights add up to one, but for rounding.
    return ((1 - shares) * images + shares * mixture).clamp_(0, 1)


def changed(images: Tensor, chosen: np.ndarray, levels: np.ndarray, signs: np.ndarray) -> Tensor:
    """Return every image after an operation of its own, at a level and in a direction of its own.

    Parameters
    ----------
    images : float tensor in [0, 1], shape (n, 3, h, w)
    chosen : int array, shape (n,)
        Places in ``OPERATIONS``; an image with a negative one stays as it is.
    levels : float array, shape (n,)
        From 0 to 10.
    signs : float array, shape (n,)
        Direction, 1 or -1, of operations that have one.
    """
    out = images.clone()
    _change(images, out, chosen, levels, signs)
    return out


def _change(images: Tensor, out: Tensor, chosen: np.ndarray, levels: np.ndarray, signs: np.ndarray) -> None:
    """Write what ``changed`` returns to where an operation is chosen, and nothing elsewhere; both may be one tensor."""
    for place, operation in enumerate(OPERATIONS.values()):
        rows = np.flatnonzero(chosen == place)
        if len(rows):
            # Images that share an operation go through it together: one by one it takes several times as long.
            where = torch.from_numpy(rows).to(images.device)
            out[where] = operation(images[where], _column(levels[rows], images), _column(signs[rows], images))


def _column(values: np.ndarray, like: Tensor) -> Tensor:
    """Return one number an image, to be multiplied with images."""
    return torch.from_numpy(values).to(like).view(-1, 1, 1, 1)


def _autocontrast(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    stretched: Tensor = functional.autocontrast(images)
    return stretched


def _equalize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    from torchvision.transforms.v2 import functional

    flat: Tensor = functional.equalize(images)
    return flat


def _posterize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    bits = 4 - (level * 4 / MOST_SEVERE).trunc()
    step = 2 ** (8 - bits)
    return (images * 255).round_().div_(step).floor_().mul_(step).div_(255)


def _solarize(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    threshold = BLACK - (level * BLACK / MOST_SEVERE).trunc()
    return torch.where((images * 255).round() < threshold, images, 1 - images)


def _rotate(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    angle = (sign * (level * 30 / MOST_SEVERE).trunc()).deg2rad()
    aspect = images.shape[2] / images.shape[3]
    cosine, sine = angle.cos(), angle.sin()
    return _warped(images, cosine, -sine * aspect, 0, sine / aspect, cosine, 0)


def _shear_x(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    # The corner of the image stays, not its centre: in coordinates from -1 to 1 a shift by as much.
    slope = sign * (level * 0.3 / MOST_SEVERE) * images.shape[2] / images.shape[3]
    return _warped(images, 1, slope, slope, 0, 1, 0)


def _shear_y(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    slope = sign * (level * 0.3 / MOST_SEVERE) * images.shape[3] / images.shape[2]
    return _warped(images, 1, 0, 0, slope, 1, slope)


def _translate_x(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    side = images.shape[3]
    return _warped(images, 1, 0, 2 * sign * (level * (side / 3) / MOST_SEVERE).trunc() / side, 0, 1, 0)


def _translate_y(images: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    side = images.shape[2]
    return _warped(images, 1, 0, 0, 0, 1, 2 * sign * (level * (side / 3) / MOST_SEVERE).trunc() / side)


def _warped(images: Tensor, *entries: Tensor | float) -> Tensor:
    """Return images seen through an affine map of coordinates from -1 to 1, bilinear, black where nothing is."""
    theta = torch.stack([torch.zeros_like(images[:, 0, 0, 0]) + _flat(entry) for entry in entries], dim=1)
    n, (height, width) = len(images), images.shape[2:]
    places = _places(height, width, images.device, images.dtype)
    # The product that `affine_grid` ends in, bit for bit; it lays the places out anew for every image of every call.
    grid = torch.bmm(places.expand(n, -1, -1), theta.view(n, 2, 3).transpose(1, 2)).view(n, height, width, 2)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@lru_cache(maxsize=4)
def _places(height: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return x, y and 1 of every pixel's centre in coordinates from -1 to 1, shape (1, height * width, 3)."""
    identity = torch.eye(2, 3, device=device, dtype=dtype)[None]
    grid = F.affine_grid(identity, [1, 1, height, width], align_corners=False).view(1, -1, 2)
    return torch.cat([grid, torch.ones_like(grid[..., :1])], dim=2)


def _flat(entry: Tensor | float) -> Tensor | float:
    return entry.flatten() if isinstance(entry, Tensor) else entry


OPERATIONS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "posterize": _posterize,
    "rotate": _rotate,
    "solarize": _solarize,
    "shear-x": _shear_x,
    "shear-y": _shear_y,
    "translate-x": _translate_x,
    "translate-y": _translate_y,
}
"""Images, levels and signs to images; none of them is a corruption of the tests."""
