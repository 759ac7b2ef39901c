"""Auto-PGD (APGD): projected gradient ascent that halves its own step where an image makes no progress.

The algorithm is that of Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", as their AutoAttack runs it. Nothing in it ties images together. So every image here
carries its own state, epsilon and iteration: it leaves at its first success, and the next one takes its place at once.

What is as large as an image stays in slots on the device and is written where it lies; a freed slot is given to the
next image, or closed by the last one. What is one number an image (losses, steps, counts) lives on the host, so that a
step waits for the device once: for the losses and verdicts that it has just computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlbench.conditions.attacks.attack import Norm, not_numbers
from tlbench.conditions.attacks.balls import length, normalised

if TYPE_CHECKING:
    from tlbench.conditions.base import Loss, Measured

RHO: Final = 0.75
"""Share of rising steps, within a window, below which the step is halved."""
MOMENTUM: Final = 0.75
"""Weight of the new step against the one before it."""
TILE: Final = 131_072
"""Values that a processor core handles at a time: what it has read stays in its cache until it is written."""

_STATE: Final = np.dtype(
    [
        ("key", "i8"),
        ("epsilon", "f8"),
        ("step", "f8"),
        ("best_loss", "f8"),
        ("best_loss_at_check", "f8"),
        ("loss", "f8"),
        ("iteration", "i8"),  # steps taken
        ("window", "i8"),  # iterations between two checks of the step
        ("waited", "i8"),  # iterations since the last check
        ("rises", "i8"),  # how often the loss rose since the last check
        ("halved", "?"),  # whether the last check halved the step
        ("ended", "?"),
    ]
)


@dataclass(frozen=True)
class Finished:
    """Images that need no further step.

    Attributes
    ----------
    key : int64 array, shape (n,)
    broken : bool array, shape (n,)
        Whether the predictor was wrong at some point of the way.
    found : float tensor, shape (n, 3, h, w)
        The first image that broke it or, for a survivor, the one of the largest loss.
    """

    key: NDArray[np.int64]
    broken: NDArray[np.bool_]
    found: Tensor


class _Slots:
    """Places for images, flat: row i of every tensor belongs to one image.

    ``low`` and ``high`` are the least and largest values in the ball and in [0, 1]; for ``l2`` the ball is no box, and
    ``low`` holds its centre, ``high`` nothing.
    """

    names = ("x", "before", "best", "best_gradient", "best_size", "low", "high", "labels", "state")

    def __init__(self, capacity: int, values: int, labels: Tensor, norm: Norm, like: Tensor) -> None:
        def empty(rows: int) -> Tensor:
            return torch.empty(rows, values, dtype=like.dtype, device=like.device)

        self.x, self.before, self.best, self.best_gradient, self.low = (empty(capacity) for _ in range(5))
        self.high = empty(capacity if norm == "linf" else 0)
        self.best_size = torch.empty(capacity, 1, dtype=like.dtype, device=like.device)
        self.labels = labels.new_empty(capacity, *labels.shape[1:])
        self.state = np.zeros(capacity, dtype=_STATE)

    def __len__(self) -> int:
        return len(self.state)

    def grown(self, capacity: int, norm: Norm) -> _Slots:
        """Return as many slots with the same content."""
        larger = _Slots(capacity, self.x.shape[1], self.labels, norm, self.x)
        for name in self.names:
            old = getattr(self, name)
            getattr(larger, name)[: len(old)] = old
        return larger

    def move(self, source: int, target: int) -> None:
        """Put one image into another place."""
        for name in self.names:
            held = getattr(self, name)
            if len(held):
                held[target] = held[source]


class Walk:
    """Images on their way, each at its own iteration.

    Parameters
    ----------
    predictor : Measured
        A fixed predictor with gradients.
    loss : callable
        See `tlbench.conditions.base.Loss`.
    norm : {"linf", "l2"}
    iterations : int
        Steps from the start; the start itself counts as a point where an image can break.
    name : str
        What an error message calls the attack.
    """

    def __init__(self, predictor: Measured, loss: Loss, norm: Norm, iterations: int, name: str = "apgd") -> None:
        self.predictor, self.loss, self.norm, self.iterations, self.name = predictor, loss, norm, iterations, name
        self.first_window = max(int(0.22 * iterations), 1)
        self.least_window = max(int(0.06 * iterations), 1)
        self.window_step = max(int(0.03 * iterations), 1)
        self.shape: torch.Size = torch.Size()
        self._slots: _Slots | None = None
        self._used = 0  # slots from the first on, the freed ones among them counted
        self._free: list[int] = []
        self._scratch: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return self._used - len(self._free)

    def add(
        self, key: Sequence[int], images: Tensor, labels: Tensor, epsilons: Sequence[float], toward: Tensor
    ) -> None:
        """Set images on their way.

        Parameters
        ----------
        key : sequence of int
            What `Finished` will call them.
        images : float tensor, shape (n, 3, h, w)
            In [0, 1].
        labels : int64 tensor, shape (n,) or (n, further)
            What the loss is asked about; the first column holds the true classes.
        epsilons : sequence of float
        toward : float tensor, shape (n, 3, h, w)
            The start lies in this direction, on the sphere of radius epsilon; see `balls.directions`.
        """
        n = len(key)
        slots = self._room_for(n, images, labels)
        epsilon = torch.tensor(epsilons, dtype=images.dtype, device=images.device).view(-1, 1, 1, 1)
        x = (images + epsilon * normalised(toward, self.norm)).clamp_(0, 1).flatten(1)
        centre, radius = images.flatten(1), epsilon.view(-1, 1)
        freed = [self._free.pop() for _ in range(min(n, len(self._free)))]
        rows = [*freed, *range(self._used, self._used + n - len(freed))]
        self._used += n - len(freed)
        place = torch.tensor(rows, device=images.device)
        for held in (slots.x, slots.before):
            held[place] = x
        slots.labels[place] = labels
        if self.norm == "linf":
            slots.low[place], slots.high[place] = (centre - radius).clamp_(min=0), (centre + radius).clamp_(max=1)
        else:
            slots.low[place] = centre
        state = np.zeros(n, dtype=_STATE)
        # The published code counts the first step as a rise if its loss is above zero, not above the start's.
        state["key"], state["epsilon"] = key, np.asarray(epsilons, dtype=np.float32)
        state["step"], state["best_loss"], state["best_loss_at_check"] = 2 * state["epsilon"], -np.inf, -np.inf
        state["window"], state["halved"] = self.first_window, True
        slots.state[rows] = state

    def points(self) -> tuple[NDArray[np.int64], Tensor]:
        """Return the keys of the images on their way, and a copy of where the predictor is asked next."""
        slots = self._closed_up()
        return slots.state["key"][: self._used].copy(), slots.x[: self._used].view(-1, *self.shape).clone()

    def advance(self) -> Finished:
        """Ask the predictor once about every image, let the finished ones go, and move the others by a step."""
        slots = self._closed_up()
        n = self._used
        x, labels, state = slots.x[:n], slots.labels[:n], slots.state[:n]
        outputs, gradient = self.predictor.gradient(x.view(n, *self.shape), labels, self.loss)
        losses, broken = self._read(outputs, labels)
        ended = broken | (state["iteration"] >= self.iterations)
        better = losses > state["best_loss"]
        # L2 alone asks for it, and wants the sum in the order in which the predictor laid the gradient out.
        size = length(gradient, "l2").view(n, 1) if self.norm == "l2" else gradient.new_empty(n, 1)
        gradient = gradient.contiguous().view(n, -1)
        kept = np.flatnonzero(better & ~broken)
        _copy(slots.best, x, kept)
        _copy(slots.best_gradient, gradient, kept)
        _copy(slots.best_size, size, kept)
        back = self._learn(state, losses, better) & ~ended
        gone = np.flatnonzero(ended)
        finished = Finished(state["key"][gone], broken[gone], self._found(slots, gone, broken))
        _copy(x, slots.best, np.flatnonzero(back))
        _copy(gradient, slots.best_gradient, np.flatnonzero(back))
        _copy(size, slots.best_size, np.flatnonzero(back))
        state["ended"] = ended
        self._free.extend(gone.tolist())
        if len(gone) < n:
            self._move(slots, gradient, size, n)
        state["iteration"] += 1
        return finished

    def _room_for(self, n: int, images: Tensor, labels: Tensor) -> _Slots:
        if self._slots is None:
            self.shape = images.shape[1:]
            self._slots = _Slots(n, self.shape.numel(), labels, self.norm, images)
        needed = self._used - len(self._free) + n
        if needed > len(self._slots):
            self._slots = self._slots.grown(max(needed, self._used), self.norm)
        self._free.sort(reverse=True)
        return self._slots

    def _closed_up(self) -> _Slots:
        """Return the slots with no freed one among those in use."""
        if self._slots is None or not len(self):
            raise ValueError("expected images on their way; call add first")
        for freed in sorted(self._free):
            while self._used > freed and self._slots.state["ended"][self._used - 1]:
                self._used -= 1
            if freed >= self._used:
                break
            self._slots.move(self._used - 1, freed)
            self._used -= 1
        self._free.clear()
        return self._slots

    def _read(self, outputs: Tensor, labels: Tensor) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the losses, and where the predictor is wrong: the one moment that waits for the device."""
        true = labels if labels.ndim == 1 else labels[:, 0]
        losses = self.loss(outputs, labels).double()
        wrong, bad = outputs.argmax(dim=1) != true, torch.isnan(outputs).any(dim=1)
        read: NDArray[Any] = torch.stack([losses, wrong.double(), bad.double()]).cpu().numpy()
        if read[2].any():
            raise not_numbers(self.name, int(read[2].sum()), len(outputs))
        return read[0], read[1] != 0

    def _learn(
        self, state: NDArray[np.void], losses: NDArray[np.float64], better: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Take in the losses at x; halve steps where a check is due, and return who goes back to its best x."""
        started = state["iteration"] > 0
        state["best_loss"][better] = losses[better]
        state["best_loss_at_check"][~started] = losses[~started]
        state["rises"] += started & (losses > state["loss"])
        state["loss"][started] = losses[started]
        state["waited"] += started

        due = state["waited"] == state["window"]
        idle = state["rises"] <= state["window"] * RHO
        stuck = ~state["halved"] & (state["best_loss_at_check"] >= state["best_loss"])
        halve: NDArray[np.bool_] = due & (idle | stuck)
        state["halved"][due] = halve[due]
        state["best_loss_at_check"][due] = state["best_loss"][due]
        state["step"][halve] /= 2
        state["waited"][due] = 0
        state["rises"][due] = 0
        state["window"][due] = np.maximum(state["window"][due] - self.window_step, self.least_window)
        return halve

    def _found(self, slots: _Slots, gone: NDArray[np.int64], broken: NDArray[np.bool_]) -> Tensor:
        found = torch.empty(len(gone), *self.shape, dtype=slots.x.dtype, device=slots.x.device)
        for place, row in enumerate(gone.tolist()):
            found[place] = (slots.x if broken[row] else slots.best)[row].view(self.shape)
        return found

    def _move(self, slots: _Slots, gradient: Tensor, size: Tensor, n: int) -> None:
        """Take one step up the loss, with momentum from the second step on; the new points take the place of the old.

        Every line does to each value what the formulas of the paper do, in their order: not one bit differs.
        """
        state, device, linf = slots.state[:n], slots.x.device, self.norm == "linf"
        weights = np.where(state["iteration"] > 0, MOMENTUM, 1.0)
        steps, radii, weight, rest = (
            torch.from_numpy(column).to(device, slots.x.dtype).view(-1, 1)
            for column in (state["step"].copy(), state["epsilon"].copy(), weights, 1 - weights)
        )
        for rows, values in self._tiles(n, slots.x.shape[1], device):
            if state["ended"][rows].all():
                continue
            tile = (rows, values)
            x, before, up = slots.x[tile], slots.before[tile], gradient[tile]
            t, spare = self._spare(x)
            if linf:
                bounds = slots.low[tile], slots.high[tile]
                torch.sign(up, out=t).mul_(steps[rows]).add_(x)
                torch.clamp(t, *bounds, out=t)
            else:
                torch.div(up, size[rows] + 1e-12, out=t).mul_(steps[rows]).add_(x)
                _onto_ball(t, slots.low[rows], radii[rows], spare)
            t.sub_(x).mul_(weight[rows]).add_(x)
            t.add_(torch.sub(x, before, out=before).mul_(rest[rows]))
            if linf:
                torch.clamp(t, *bounds, out=before)
            else:
                before.copy_(_onto_ball(t, slots.low[rows], radii[rows], spare))
        slots.x, slots.before = slots.before, slots.x

    def _tiles(self, n: int, values: int, device: torch.device) -> Iterator[tuple[slice, slice]]:
        """Yield pieces of n images that stay in a core's cache; elsewhere, and for ``l2``, images stay whole."""
        if device.type != "cpu":
            yield slice(0, n), slice(0, values)
            return
        rows = max(1, TILE // values)
        width = values if self.norm == "l2" else min(values, TILE)
        for start in range(0, n, rows):
            for left in range(0, values, width):
                yield slice(start, min(start + rows, n)), slice(left, left + width)

    def _spare(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return room for two tensors of a shape, the same in every step."""
        if self._scratch is None or self._scratch[0].numel() < like.numel():
            self._scratch = torch.empty_like(like).flatten(), torch.empty_like(like).flatten()
        first, second = (room[: like.numel()].view(like.shape) for room in self._scratch)
        return first, second


def _onto_ball(x: Tensor, centre: Tensor, radius: Tensor, spare: Tensor) -> Tensor:
    """Bring points, shape (n, values), into the L2 balls about centres and into [0, 1], where they lie."""
    offset = x.sub_(centre)
    size = torch.square(offset, out=spare).sum(dim=1, keepdim=True).sqrt()
    return offset.div_(size + 1e-12).mul_(torch.min(radius, size)).add_(centre).clamp_(0, 1)


def _copy(target: Tensor, source: Tensor, rows: NDArray[np.int64]) -> None:
    """Copy some rows, neighbours together: no index is sent anywhere, and nothing is gathered first."""
    if not len(rows):
        return
    if target.device.type != "cpu":
        place = torch.from_numpy(rows).to(target.device)
        target.index_copy_(0, place, source.index_select(0, place))
        return
    for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
        part = slice(int(run[0]), int(run[-1]) + 1)
        target[part].copy_(source[part])
