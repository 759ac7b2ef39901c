"""Auto-PGD (APGD): projected gradient ascent that halves its own step where an image makes no progress.

The algorithm is that of Croce and Hein (2020), "Reliable evaluation of adversarial robustness with an ensemble of
diverse parameter-free attacks", as their AutoAttack runs it. Nothing in it ties images together. So every image here
carries its own state, epsilon and iteration: it leaves at its first success, the next one takes its place at once, and
the batches stay full whatever the order of epsilons.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, final

import torch
from torch import Tensor

from tlbench.conditions.attacks.attack import Attack, Mode, Norm, right, unit_range
from tlbench.conditions.attacks.balls import directions, normalised, projected
from tlbench.conditions.attacks.losses import LOSSES
from tlbench.conditions.base import image_seed

if TYPE_CHECKING:
    from tlbench.conditions.base import Loss, Measured, Observed
    from tlbench.data.domain import Batch

RHO: Final = 0.75
"""Share of rising steps, within a window, below which the step is halved."""
MOMENTUM: Final = 0.75
"""Weight of the new step against the one before it."""


@dataclass
class Rows:
    """The state of the images under attack, one row an image; every field has n rows."""

    key: Tensor  # int64: whose row this is
    image: Tensor  # the clean image in [0, 1], centre of the ball
    label: Tensor
    epsilon: Tensor  # (n, 1, 1, 1)
    x: Tensor  # where the predictor is asked next
    before: Tensor  # the x before it
    gradient: Tensor
    best: Tensor  # the x of the largest loss so far
    best_gradient: Tensor
    best_loss: Tensor
    best_loss_at_check: Tensor
    loss: Tensor
    step: Tensor  # (n, 1, 1, 1)
    iteration: Tensor  # int64: steps taken
    window: Tensor  # int64: iterations between two checks of the step
    waited: Tensor  # int64: iterations since the last check
    rises: Tensor  # int64: how often the loss rose since the last check
    halved: Tensor  # bool: whether the last check halved the step

    def __len__(self) -> int:
        return len(self.key)

    def kept(self, mask: Tensor) -> Rows:
        """Return the rows under a mask."""
        return Rows(*(getattr(self, field.name)[mask] for field in fields(self)))

    def joined(self, other: Rows) -> Rows:
        """Return the rows of both."""
        return Rows(*(torch.cat([getattr(self, field.name), getattr(other, field.name)]) for field in fields(self)))


@dataclass(frozen=True)
class Finished:
    """Rows that need no further step.

    Attributes
    ----------
    key : int64 tensor, shape (n,)
    broken : bool tensor, shape (n,)
        Whether the predictor was wrong at some point of the way.
    found : float tensor, shape (n, 3, h, w)
        The first image that broke it or, for a survivor, the one of the largest loss.
    """

    key: Tensor
    broken: Tensor
    found: Tensor


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
        self.rows: Rows | None = None

    def __len__(self) -> int:
        return 0 if self.rows is None else len(self.rows)

    def add(self, key: Tensor, images: Tensor, labels: Tensor, epsilons: Tensor, toward: Tensor) -> None:
        """Set images on their way.

        Parameters
        ----------
        key : int64 tensor, shape (n,)
            What `Finished` will call them.
        images : float tensor, shape (n, 3, h, w)
            In [0, 1].
        labels : int64 tensor, shape (n,)
        epsilons : float tensor, shape (n,)
        toward : float tensor, shape (n, 3, h, w)
            The start lies in this direction, on the sphere of radius epsilon; see `balls.directions`.
        """
        n = len(key)
        epsilon = epsilons.to(images.dtype).view(-1, 1, 1, 1)
        x = (images + epsilon * normalised(toward, self.norm)).clamp_(0, 1)
        zero, none = torch.zeros_like(epsilons, dtype=images.dtype), torch.zeros_like(key)
        lowest = zero - torch.inf
        rows = Rows(
            key=key,
            image=images,
            label=labels,
            epsilon=epsilon,
            x=x,
            before=x,
            gradient=torch.zeros_like(x),
            best=x,
            best_gradient=torch.zeros_like(x),
            best_loss=lowest,
            best_loss_at_check=lowest,
            # The published code counts the first step as a rise if its loss is above zero, not above the start's.
            loss=zero,
            step=2 * epsilon,
            iteration=none,
            window=none + self.first_window,
            waited=none,
            rises=none,
            halved=torch.ones(n, dtype=torch.bool, device=key.device),
        )
        self.rows = rows if self.rows is None else self.rows.joined(rows)

    def advance(self) -> Finished:
        """Ask the predictor once about every row, take the finished rows out, and move the others by a step."""
        rows = self.rows
        if rows is None:
            raise ValueError("expected images on their way; call add first")
        outputs, rows.gradient = self.predictor.gradient(rows.x, rows.label, self.loss)
        broken = ~right(outputs, rows.label, self.name)
        over, asked = broken | (rows.iteration >= self.iterations), rows.x
        self._learn(rows, self.loss(outputs, rows.label))
        found = torch.where(broken.view(-1, 1, 1, 1), asked, rows.best)
        finished = Finished(rows.key[over], broken[over], found[over])
        self.rows = rows.kept(~over)
        self._move(self.rows)
        return finished

    def _learn(self, rows: Rows, loss: Tensor) -> None:
        """Take in the losses and gradients at x; halve steps, and go back to the best x, where a check is due."""
        started = rows.iteration > 0
        better = loss > rows.best_loss
        rows.best = torch.where(better.view(-1, 1, 1, 1), rows.x, rows.best)
        rows.best_gradient = torch.where(better.view(-1, 1, 1, 1), rows.gradient, rows.best_gradient)
        rows.best_loss = torch.where(better, loss, rows.best_loss)
        rows.best_loss_at_check = torch.where(started, rows.best_loss_at_check, loss)
        rows.rises = rows.rises + (started & (loss > rows.loss))
        rows.loss = torch.where(started, loss, rows.loss)
        rows.waited = rows.waited + started

        due = rows.waited == rows.window
        idle = rows.rises <= rows.window * RHO
        stuck = ~rows.halved & (rows.best_loss_at_check >= rows.best_loss)
        halve = due & (idle | stuck)
        rows.halved = torch.where(due, halve, rows.halved)
        rows.best_loss_at_check = torch.where(due, rows.best_loss, rows.best_loss_at_check)
        rows.step = torch.where(halve.view(-1, 1, 1, 1), rows.step / 2, rows.step)
        rows.x = torch.where(halve.view(-1, 1, 1, 1), rows.best, rows.x)
        rows.gradient = torch.where(halve.view(-1, 1, 1, 1), rows.best_gradient, rows.gradient)
        rows.waited = rows.waited.masked_fill(due, 0)
        rows.rises = rows.rises.masked_fill(due, 0)
        rows.window = torch.where(due, (rows.window - self.window_step).clamp_min(self.least_window), rows.window)

    def _move(self, rows: Rows) -> None:
        """Take one step up the loss, with momentum from the second step on."""
        up = rows.gradient.sign() if self.norm == "linf" else normalised(rows.gradient, self.norm)
        ahead = projected(rows.x + rows.step * up, rows.image, rows.epsilon, self.norm)
        weight = torch.where(rows.iteration > 0, MOMENTUM, 1.0).to(rows.x.dtype).view(-1, 1, 1, 1)
        moved = rows.x + (ahead - rows.x) * weight + (rows.x - rows.before) * (1 - weight)
        rows.before, rows.x = rows.x, projected(moved, rows.image, rows.epsilon, self.norm)
        rows.iteration = rows.iteration + 1


@dataclass
class _Open:
    """A batch of which some images are still under attack."""

    batch: Batch
    correct: Tensor
    verdicts: Tensor
    left: int


@dataclass(frozen=True)
class _Try:
    """One image at one rung, and which of its restarts."""

    owner: _Open
    row: int
    rung: int
    restart: int = 0


@final
class APGD(Attack):
    """APGD over a list of epsilons, with the cross entropy (``apgd-ce``) or DLR (``apgd-dlr``) as its loss.

    Images that are wrong when clean are not attacked. As many images are attacked at once as the first batch holds;
    verdicts do not depend on it.

    Parameters
    ----------
    name : {"apgd-dlr", "apgd-ce"}
    norm, epsilons, iterations, mode
        See `Attack`.
    restarts : int
        Runs from different random starts; an image survives if it survives all of them.
    """

    def __init__(
        self,
        name: str,
        norm: Norm,
        epsilons: Sequence[float],
        *,
        iterations: int = 100,
        mode: Mode = "fast",
        restarts: int = 1,
    ) -> None:
        super().__init__(name, norm, epsilons, iterations=iterations, mode=mode)
        if restarts < 1:
            raise ValueError(f"expected at least one run for '{name}', got {restarts} restarts")
        self.restarts = restarts
        self.loss = LOSSES[name.removeprefix("apgd-")]

    def observe(self, predictor: Measured, batches: Callable[[], Iterator[Batch]]) -> Iterator[Observed]:
        """Yield, for every image and epsilon, whether it was right when clean and whether it survived."""
        predictor.start(self.settings[0])
        walk = Walk(predictor, self.loss, self.norm, self.iterations, self.name)
        source, waiting = batches(), deque[_Try]()
        trying: dict[int, _Try] = {}
        width, keys, exhausted = 0, 0, False
        while True:
            while not exhausted and len(walk) + len(waiting) < max(width, 1):
                batch = next(source, None)
                if batch is None:
                    exhausted = True
                    break
                width = width or len(batch.ids)
                opened = self._open(predictor, batch)
                if not opened.left:
                    yield from self.rows(batch, opened.correct, opened.verdicts)
                waiting.extend(_Try(opened, row, self.ladder.first) for row in opened.correct.nonzero()[:, 0].tolist())
            entering = [waiting.popleft() for _ in range(min(len(waiting), width - len(walk)))]
            if entering:
                self._enter(walk, entering, keys)
                trying.update(enumerate(entering, start=keys))
                keys += len(entering)
            if not len(walk):
                return
            finished = walk.advance()
            for key, broken in zip(finished.key.tolist(), finished.broken.tolist(), strict=True):
                attempt = trying.pop(key)
                following = self._after(attempt, broken)
                if following is not None:
                    # In front: an image goes through all its epsilons before others begin, so few batches stay open.
                    waiting.appendleft(following)
                elif not attempt.owner.left:
                    yield from self.rows(attempt.owner.batch, attempt.owner.correct, attempt.owner.verdicts)

    def _open(self, predictor: Measured, batch: Batch) -> _Open:
        correct = right(predictor.outputs(batch.images), batch.labels, self.name)
        return _Open(batch, correct, torch.zeros_like(batch.labels), int(correct.sum()))

    def _enter(self, walk: Walk, entering: list[_Try], first_key: int) -> None:
        """Set images on their way, each from the start that its own identity draws."""
        settings = self.settings
        images = unit_range(torch.stack([t.owner.batch.images[t.row] for t in entering]))
        labels = torch.stack([t.owner.batch.labels[t.row] for t in entering])
        seeds = [
            image_seed(t.owner.batch.scope, t.owner.batch.names[t.row], settings[t.rung], t.restart) for t in entering
        ]
        toward = directions(seeds, images.shape[1:], self.norm).to(images.device)
        key = torch.arange(first_key, first_key + len(entering), device=images.device)
        epsilons = torch.tensor([self.epsilons[t.rung] for t in entering], device=images.device)
        walk.add(key, images, labels, epsilons, toward)

    def _after(self, attempt: _Try, broken: bool) -> _Try | None:
        """Return what the image tries next, or write its verdict down."""
        if not broken and attempt.restart + 1 < self.restarts:
            return _Try(attempt.owner, attempt.row, attempt.rung, attempt.restart + 1)
        rung, verdict = self.ladder.after(attempt.rung, broken)
        if rung is not None:
            return _Try(attempt.owner, attempt.row, rung)
        assert verdict is not None
        attempt.owner.verdicts[attempt.row] = verdict
        attempt.owner.left -= 1
        return None
