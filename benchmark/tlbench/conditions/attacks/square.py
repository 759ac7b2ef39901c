"""Square attack: random squares of extreme colour, kept where they bring the predictor nearer to an error.

The algorithm is that of Andriushchenko et al. (2020), "Square Attack: a query-efficient black-box adversarial attack
via random search", as AutoAttack runs it on the margin between the label's output and the largest other one. It asks
for outputs alone, so it also meets predictors whose gradients are useless. In the published code the images of a batch
share their squares; here each image draws its own, from its identity, so its way is the same in any company.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.conditions.attacks.attack import Attack, Identity, Norm, right
from tlbench.conditions.attacks.balls import length, normalised
from tlbench.conditions.attacks.ladder import Mode

if TYPE_CHECKING:
    from tlbench.conditions.base import Measured, Need

SHARE: Final = 0.8
"""Share of an image's pixels that the first squares cover (p_init)."""
HALVINGS: Final = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After these proposals, of 10,000, the share is halved."""
DRAWN_AHEAD: Final = 64
"""Proposals for which an image draws its numbers at once."""

Uniform = NDArray[np.float32]


def sides(queries: int, height: int, width: int, norm: Norm, rescaled: bool) -> list[int]:
    """Return the side of each proposal's square in pixels.

    Parameters
    ----------
    queries : int
        Number of proposals.
    height, width : int
        Of the images.
    norm : {"linf", "l2"}
        Squares have an odd side of at least 3 in ``l2``.
    rescaled : bool
        Whether the schedule for 10,000 proposals is stretched over as many as there are.
    """
    found = []
    for proposal in range(queries):
        at = int(proposal / queries * 10_000) if rescaled else proposal
        share = SHARE / 2 ** sum(at > halving for halving in HALVINGS)
        side = max(round(math.sqrt(share * height * width)), 1)
        if norm == "l2":
            side = max(side, 3)
            side += side % 2 == 0
        found.append(min(side, height, width))
    return found


def bump(side: int) -> Uniform:
    """Return the pattern of an ``l2`` square: a peak in its upper half, a hole in its lower one, norm one.

    Returns
    -------
    float32 array, shape (side, side)
    """

    def peak(rows: int) -> NDArray[np.float64]:
        ring = np.maximum(abs(np.arange(rows)[:, None] - rows // 2), abs(np.arange(side) - side // 2))
        # A ring at distance d from the peak is as high as the sum of 1 / k^2 over all k > d.
        heights = np.cumsum(1 / np.arange(max(rows, side) // 2 + 1, 0, -1) ** 2.0)[::-1]
        surface = heights[ring]
        return np.asarray(surface / (np.linalg.norm(surface) or 1.0))

    both = np.concatenate([peak(side // 2), -peak(side - side // 2)])
    return np.asarray(both / np.linalg.norm(both), dtype=np.float32)


def sign(uniform: Uniform) -> Uniform:
    """Return 1 for the upper half of [0, 1) and -1 for the lower."""
    return np.where(uniform >= 0.5, np.float32(1), np.float32(-1))


def start(stream: np.random.Generator, shape: Sequence[int], norm: Norm) -> Uniform:
    """Draw the direction in which an image's search begins.

    Returns
    -------
    float32 array, shape (channels, height, width)
        Vertical stripes of 1 and -1 in ``linf``; in ``l2`` a grid of 5 by 5 bumps, of any length.
    """
    channels, height, width = shape
    if norm == "linf":
        stripes = sign(stream.random((channels, 1, width), dtype=np.float32))
        return np.broadcast_to(stripes, (channels, height, width))
    side = max(height // 5, 1)
    margin = max((height - 5 * side) // 2, 0)
    grid, pattern = np.zeros((channels, height, width), dtype=np.float32), bump(side)
    for top in range(margin, height - side + 1, side):
        for left in range(margin, width - side + 1, side):
            turned, *up = stream.random(1 + channels, dtype=np.float32)
            tile = pattern.T if turned > 0.5 else pattern
            grid[:, top : top + side, left : left + side] = sign(np.array(up))[:, None, None] * tile
    return grid


@dataclass
class Rows:
    """The state of the images under attack, one row an image; every field has n rows."""

    key: Tensor  # int64: whose row this is
    image: Tensor  # the clean image in [0, 1], centre of the ball
    label: Tensor
    epsilon: Tensor  # (n, 1, 1, 1)
    x: Tensor  # what the predictor is asked next
    best: Tensor  # the image of the smallest margin so far
    margin: Tensor  # by how much its label leads
    proposed: Tensor  # int64: proposals made
    drawn: Tensor  # (n, DRAWN_AHEAD, numbers) in [0, 1)

    def kept(self, mask: Tensor) -> Rows:
        """Return the rows under a mask."""
        return Rows(*(getattr(self, field.name)[mask] for field in fields(self)))

    def joined(self, other: Rows) -> Rows:
        """Return the rows of both."""
        return Rows(*(torch.cat([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self)))


class Search:
    """Images under attack, each at its own proposal; implements `tlbench.conditions.attacks.attack.Runner`.

    Parameters
    ----------
    predictor : Measured
        A fixed predictor.
    norm, queries, rescaled
        See `Square`.
    width : int
        Most images at once.
    name : str
        What an error message calls the attack.
    """

    def __init__(
        self, predictor: Measured, norm: Norm, queries: int, *, width: int, rescaled: bool = False, name: str = "square"
    ) -> None:
        self.predictor, self.norm, self.queries, self.width, self.name = predictor, norm, queries, width, name
        self.rescaled = rescaled
        self.rows: Rows | None = None
        self.streams: dict[int, np.random.Generator] = {}
        self.side, self.different, self.bumps = (torch.empty(0) for _ in range(3))

    def __len__(self) -> int:
        return 0 if self.rows is None else len(self.rows.key)

    @property
    def room(self) -> int:
        return self.width - len(self)

    def add(
        self, keys: Sequence[int], images: Tensor, labels: Tensor, epsilons: Sequence[float], who: Sequence[Identity]
    ) -> None:
        """Let images in; see `tlbench.conditions.attacks.attack.Runner`."""
        device, n = images.device, len(images)
        if not len(self.side):
            self._measure(images)
        streams = [np.random.default_rng(one.seed("square")) for one in who]
        self.streams.update(zip(keys, streams, strict=True))
        toward = torch.from_numpy(np.stack([start(stream, images.shape[1:], self.norm) for stream in streams]))
        epsilon = torch.tensor(epsilons, dtype=images.dtype, device=device).view(-1, 1, 1, 1)
        x = (images + epsilon * normalised(toward.to(images), self.norm)).clamp_(0, 1)
        rows = Rows(
            key=torch.tensor(list(keys), device=device),
            image=images,
            label=labels,
            epsilon=epsilon,
            x=x,
            best=x,
            margin=torch.full((n,), torch.inf, dtype=images.dtype, device=device),
            proposed=torch.zeros(n, dtype=torch.int64, device=device),
            drawn=torch.empty(n, DRAWN_AHEAD, images.shape[1] + (2 if self.norm == "linf" else 5), device=device),
        )
        self.rows = rows if self.rows is None else self.rows.joined(rows)

    def advance(self) -> list[tuple[int, bool]]:
        """Ask the predictor once about every row, take the finished rows out, and make a proposal for the others."""
        rows = self.rows
        if rows is None:
            raise ValueError("expected images under attack; call add first")
        outputs = self.predictor.outputs(rows.x)
        broken = ~right(outputs, rows.label, self.name)
        margin = lead(outputs, rows.label).to(rows.margin.dtype)
        better = margin < rows.margin
        rows.best = torch.where(better.view(-1, 1, 1, 1), rows.x, rows.best)
        rows.margin = torch.where(better, margin, rows.margin)
        over = broken | (rows.proposed >= self.queries)
        finished = list(zip(rows.key[over].tolist(), broken[over].tolist(), strict=True))
        for key, _ in finished:
            del self.streams[key]
        self.rows = rows.kept(~over) if finished else rows
        self._propose(self.rows)
        return finished

    def _measure(self, images: Tensor) -> None:
        """Set up what depends on the images' size: the side of every proposal and, for ``l2``, the bumps."""
        height, width = images.shape[2:]
        side = sides(self.queries, height, width, self.norm, self.rescaled)
        self.side = torch.tensor(side, device=images.device)
        if self.norm == "l2":
            different = sorted(set(side))
            bumps = np.zeros((len(different), different[-1], different[-1]), dtype=np.float32)
            for nth, one in enumerate(different):
                bumps[nth, :one, :one] = bump(one)
            self.bumps, self.different = torch.from_numpy(bumps).to(images), torch.tensor(different).to(self.side)

    def _propose(self, rows: Rows) -> None:
        """Change every row's best image by a square, and ask about that next."""
        place = rows.proposed % DRAWN_AHEAD
        for row in (place == 0).nonzero()[:, 0].tolist():
            numbers = self.streams[int(rows.key[row])].random(tuple(rows.drawn.shape[1:]), dtype=np.float32)
            rows.drawn[row] = torch.from_numpy(numbers).to(rows.drawn)
        drawn = rows.drawn[torch.arange(len(place), device=place.device), place]
        side = self.side[rows.proposed]
        rows.x = self._linf(rows, drawn, side) if self.norm == "linf" else self._l2(rows, drawn, side)
        rows.proposed = rows.proposed + 1

    def _linf(self, rows: Rows, drawn: Tensor, side: Tensor) -> Tensor:
        """Colour a square: every channel of it goes to one end of the ball."""
        window = Window.at(drawn[:, :2], side, rows.image)
        change = 2 * rows.epsilon * signs(drawn[:, 2:]) * window.mask
        moved = torch.min(torch.max(rows.best + change, rows.image - rows.epsilon), rows.image + rows.epsilon)
        return moved.clamp_(0, 1)

    def _l2(self, rows: Rows, drawn: Tensor, side: Tensor) -> Tensor:
        """Move the perturbation of one window, and what the ball has left, into a bump in another."""
        change = rows.best - rows.image
        to, source = Window.at(drawn[:, :2], side, change), Window.at(drawn[:, 2:4], side, change)
        within = change * to.mask
        bumps = self.bumps[torch.searchsorted(self.different, side)]
        pattern = to.filled(bumps, turned=drawn[:, 4] > 0.5) * signs(drawn[:, 5:])
        new = pattern + within / (1e-12 + channel_length(within))
        spare = (rows.epsilon.square() - length(change, "l2").square()).clamp_min(0) / change.shape[1]
        moved = channel_length(change * (to.mask | source.mask)).square()
        new = new / (1e-12 + channel_length(new)) * (spare + moved).sqrt()
        change = torch.where(to.mask, new, change.masked_fill(source.mask, 0))
        return (rows.image + normalised(change, "l2") * rows.epsilon).clamp_(0, 1)


@dataclass(frozen=True)
class Window:
    """A square of each image.

    Attributes
    ----------
    down, across : int64 tensors, shape (n, height, 1) and (n, 1, width)
        How far a pixel lies below and to the right of the square's first one.
    side : int64 tensor, shape (n, 1, 1)
    """

    down: Tensor
    across: Tensor
    side: Tensor

    @classmethod
    def at(cls, drawn: Tensor, side: Tensor, images: Tensor) -> Window:
        """Place squares by two numbers in [0, 1) each.

        The last possible row and column are never drawn, as published.
        """
        height, width = images.shape[2:]
        size = torch.tensor([height, width], device=side.device)
        top_left = (drawn * (size - side[:, None])).long()
        down = torch.arange(height, device=side.device) - top_left[:, :1]
        across = torch.arange(width, device=side.device) - top_left[:, 1:]
        return cls(down[:, :, None], across[:, None, :], side[:, None, None])

    @property
    def mask(self) -> Tensor:
        """Bool (n, 1, height, width)."""
        rows = (self.down >= 0) & (self.down < self.side)
        columns = (self.across >= 0) & (self.across < self.side)
        return (rows & columns).unsqueeze(1)

    def filled(self, patterns: Tensor, turned: Tensor) -> Tensor:
        """Return images with a pattern in the square and 0 around it, shape (n, 1, height, width).

        Parameters
        ----------
        patterns : float tensor, shape (n, most, most)
            In the upper left corner of each.
        turned : bool tensor, shape (n,)
            Whether rows and columns change places.
        """
        turn, edge = turned[:, None, None], self.side - 1
        # Outside the square any place of the pattern will do; the mask clears it.
        down, across = self.down.clamp_min(0).minimum(edge), self.across.clamp_min(0).minimum(edge)
        row, column = torch.where(turn, across, down), torch.where(turn, down, across)
        nth = torch.arange(len(patterns), device=patterns.device)[:, None, None]
        return patterns[nth, row, column].unsqueeze(1) * self.mask


def lead(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the label's output exceeds the largest other one, shape (n,)."""
    own = labels[:, None]
    return outputs.gather(1, own)[:, 0] - outputs.scatter(1, own, -torch.inf).amax(dim=1)


def signs(drawn: Tensor) -> Tensor:
    """Return 1 or -1 for every image and channel, (n, channels, 1, 1), from numbers in [0, 1)."""
    return torch.where(drawn >= 0.5, 1.0, -1.0)[:, :, None, None]


def channel_length(x: Tensor) -> Tensor:
    """Return the Euclidean norm of every channel, (n, channels, 1, 1)."""
    return x.square().sum(dim=(2, 3), keepdim=True).sqrt()


@final
class Square(Attack):
    """Square attack over a list of epsilons; needs no gradients.

    Parameters
    ----------
    name : {"square"}
    norm, epsilons, mode, audit
        See `Attack`.
    queries : int
        Proposals for one image; the start of the search is asked about besides, as published.
    rescaled : bool
        Whether squares shrink over these proposals as they would over 10,000. AutoAttack's standard set does not: there
        and by default they shrink by the count of proposals, and fewer of them are the beginning of the same search.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"labels", "fixed_predictor"})

    def __init__(
        self,
        name: str,
        norm: Norm,
        epsilons: Sequence[float],
        *,
        queries: int = 5000,
        mode: Mode = "fast",
        audit: float = 0.0,
        rescaled: bool = False,
    ) -> None:
        super().__init__(name, norm, epsilons, iterations=queries, mode=mode, audit=audit)
        self.rescaled = rescaled

    def runner(self, predictor: Measured, width: int) -> Search:
        """Return what attacks ``width`` images at a time."""
        return Search(predictor, self.norm, self.iterations, width=width, rescaled=self.rescaled, name=self.name)
