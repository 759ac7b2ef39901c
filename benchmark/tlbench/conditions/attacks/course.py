"""The course of an attack: every image at the epsilon whose turn it is, and as many at once as there is room for."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tlbench import seeds
from tlbench.conditions.attacks.attack import Attack, Identity, Runner, right, unit_range

if TYPE_CHECKING:
    from tlbench.conditions.base import Measured, Observed
    from tlbench.data.domain import Batch


@dataclass
class _Open:
    """A batch of which some images are still under attack."""

    batch: Batch
    correct: Tensor
    verdicts: list[int]
    audits: list[tuple[int, int, bool]]
    """Rung, row, and whether the image survived."""
    left: int


@dataclass(frozen=True)
class _Try:
    """One image at one rung."""

    owner: _Open
    row: int
    rung: int
    audit: bool = False


@dataclass
class Course:
    """Attacks all images of all batches, each on its own rung of the attack's ladder.

    Images that are wrong when clean are not attacked. As many are attacked at once as the first batch holds: one that
    ends makes room for the next, whichever batch that is in. Verdicts do not depend on any of this.

    **Audit.** The order of epsilons spares most of the work, because a verdict at one epsilon implies those at others.
    Images whose own draw is below `Attack.audit` are attacked at the implied epsilons, too, each time from the start
    that they would have had there. The draw derives from the image's identity and the attack's name, so neither the
    order of images nor the predictor decides who is drawn. A verdict may imply nothing (an image that survives every
    epsilon of an attack that climbs). Where that is so of everybody who is drawn, or nobody is, the image with the
    smallest draw among those whose verdict does imply another stands in: one image is audited at least, if there is
    any to audit. Verdicts stay what they are.
    """

    attack: Attack
    predictor: Measured
    waiting: deque[_Try] = field(default_factory=deque)
    finished: list[_Open] = field(default_factory=list)
    any_audited: bool = False
    standby: tuple[float, _Try] | None = None
    """The image that is audited if nobody else is, by its draw; its batch alone stays open until that is known."""

    def run(self, source: Iterator[Batch]) -> Iterator[Observed]:
        """Yield every batch's rows when its last image has ended."""
        runner: Runner | None = None
        trying: dict[int, _Try] = {}
        keys = 0
        while True:
            while runner is None or len(self.waiting) < runner.room:
                batch = next(source, None)
                if batch is None:
                    break
                runner = runner or self.attack.runner(self.predictor, max(len(batch.ids), 1))
                self._open(batch)
                yield from self._rows()
            if runner is None:
                return
            entering = [self.waiting.popleft() for _ in range(min(len(self.waiting), runner.room))]
            if entering:
                self._enter(runner, entering, range(keys, keys + len(entering)))
                trying.update(enumerate(entering, start=keys))
                keys += len(entering)
            if not len(runner):
                if self.standby is None:
                    return
                self._audit(self.standby[1])
                self.standby = None
            else:
                for key, broken in runner.advance():
                    self._after(trying.pop(key), broken)
            yield from self._rows()

    def _open(self, batch: Batch) -> None:
        correct = right(self.predictor.outputs(batch.images), batch.labels, self.attack.name)
        rows = correct.nonzero()[:, 0].tolist()
        opened = _Open(batch, correct, [0] * len(batch.ids), [], len(rows))
        if not rows:
            self.finished.append(opened)
        self.waiting.extend(_Try(opened, row, self.attack.ladder.first) for row in rows)

    def _enter(self, runner: Runner, entering: list[_Try], keys: Iterable[int]) -> None:
        settings = self.attack.settings
        images = unit_range(torch.stack([t.owner.batch.images[t.row] for t in entering]))
        labels = torch.stack([t.owner.batch.labels[t.row] for t in entering])
        epsilons = [self.attack.epsilons[t.rung] for t in entering]
        who = [Identity(t.owner.batch.scope, t.owner.batch.names[t.row], settings[t.rung]) for t in entering]
        runner.add(list(keys), images, labels, epsilons, who)

    def _after(self, attempt: _Try, broken: bool) -> None:
        """Line up what the image tries next, or write its verdict down."""
        owner, row = attempt.owner, attempt.row
        if attempt.audit:
            owner.audits.append((attempt.rung, row, not broken))
            self._one_less(owner)
            return
        rung, verdict = self.attack.ladder.after(attempt.rung, broken)
        if rung is not None:
            # In front: an image goes through all its epsilons before others begin, so few batches stay open.
            self.waiting.appendleft(_Try(owner, row, rung))
            return
        assert verdict is not None
        owner.verdicts[row] = verdict
        if not self.attack.audit or not self.attack.ladder.implied(verdict):
            self._one_less(owner)
            return
        draw = self._draw(owner, row)
        if draw < self.attack.audit:
            self.any_audited = True
            self._release()
            self._audit(attempt)
        elif not self.any_audited and (self.standby is None or draw < self.standby[0]):
            self._release()
            self.standby = (draw, attempt)
        else:
            self._one_less(owner)

    def _audit(self, judged: _Try) -> None:
        """Line up an image at every rung that its verdict implies."""
        owner, row = judged.owner, judged.row
        rungs = self.attack.ladder.implied(owner.verdicts[row])
        owner.left += len(rungs)
        self.waiting.extendleft(_Try(owner, row, rung, audit=True) for rung in rungs)
        self._one_less(owner)

    def _draw(self, owner: _Open, row: int) -> float:
        """Return the image's own number, uniform in [0, 1)."""
        batch = owner.batch
        return seeds.derive("audit", batch.scope, batch.names[row], self.attack.name, self.attack.norm) / 2**63

    def _release(self) -> None:
        if self.standby is not None:
            self._one_less(self.standby[1].owner)
            self.standby = None

    def _one_less(self, owner: _Open) -> None:
        owner.left -= 1
        if not owner.left:
            self.finished.append(owner)

    def _rows(self) -> Iterator[Observed]:
        """Yield the rows of the batches that are finished."""
        rungs = len(self.attack.epsilons)
        for done in self.finished:
            verdicts = torch.tensor(done.verdicts, device=done.correct.device)
            if not self.attack.audit:
                yield from self.attack.rows(done.batch, done.correct, verdicts)
                continue
            audited, found = torch.zeros(2, rungs, len(done.verdicts), dtype=torch.bool)
            for rung, row, survived in done.audits:
                audited[rung, row], found[rung, row] = True, survived
            device = done.correct.device
            yield from self.attack.rows(done.batch, done.correct, verdicts, audited.to(device), found.to(device))
        self.finished.clear()
